"""SSD, LFSSD and ASSD: weights that the authors' code made, loops by hand, and the identity."""

import math

import numpy as np
import pytest
import torch
from by_hand import Answers, assert_golden, assert_state, golden, mean_slope, near, same
from refusals import refusal
from small_nets import moved, net, trainable_names
from torch import nn

from efface.methods.ssd import (
    Batching,
    Importance,
    assd,
    forget_and_data_importance,
    importance,
    lfssd,
    ssd,
)
from efface.task import trainable_copy
from efface.trainable import merge_adapter, select_trainable
from efface.types import Action, Records, Split

X = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]).double()


@pytest.mark.parametrize("trace", ["alpha1", "alpha2_lambda_half"])
def test_ssd_equals_the_weights_that_the_authors_code_made(trace):
    """Parity: their D came without the forget records, in batches of 4 with a smaller last one."""
    net, inputs, settings, expected = golden(f"ssd.{trace}")
    whole = Records(inputs["full_x"], inputs["full_y"])
    split = Split(Records(inputs["forget_x"], inputs["forget_y"]), retain=whole)
    assert_golden(ssd(net, split, **settings, with_forget=False, sequential=True), net, expected)


def linear():
    """f(x) = W x with two outputs, in float64."""
    model = nn.Linear(2, 2, bias=False).double().eval()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -1.0], [0.5, 2.0]]))
    return model


def records(rows, labels):
    """Some of the three records above."""
    return Records(X[rows], torch.tensor(labels), ids=tuple(f"record {row}" for row in rows))


def test_ssd_is_the_worked_example_by_hand():
    """One record goes, two stay: W[·, 0] is scaled by the ratio, W[·, 1] is nobody's business."""
    model, weights = linear(), linear().weight.detach()
    split = Split(records([0], [0]), retain=records([1, 2], [1, 1]))
    result = ssd(model, split, selection_weighting=1.5, dampening=1.0)
    pairs = zip(X, torch.tensor([0, 1, 1]), strict=True)
    each = [mean_slope(weights, x[None], y[None]) ** 2 for x, y in pairs]
    ours, theirs = each[0], sum(each) / 3
    expected = weights.clone()
    for i, j in (ours > 1.5 * theirs).nonzero().tolist():
        expected[i, j] *= min(float(theirs[i, j] / ours[i, j]), 1.0)
    assert not torch.equal(expected, weights)
    near(result.weight, expected)


def test_lfssd_is_the_worked_example_by_hand_and_reads_no_label():
    """∂ ‖Wx‖² / ∂W = 2 W x xᵀ, its size and not its square; other labels change nothing."""
    model, weights = linear(), linear().weight.detach()
    split = Split(records([0], [0]), retain=records([1, 2], [1, 0]))
    settings = {"selection_weighting": 0.3, "dampening": 0.3}
    result = lfssd(model, split, **settings)
    each = [(2 * torch.outer(weights @ x, x)).abs() for x in X]
    ours, theirs = each[0], sum(each) / 3
    factor = torch.where(ours > 0, 0.3 * theirs / ours, 1.0).clamp(max=1)
    expected = torch.where(ours > 0.3 * theirs, weights * factor, weights)
    assert not torch.equal(expected, weights)
    near(result.weight, expected)
    other = Split(records([0], [1]), retain=records([1, 2], [0, 1]))
    assert same(lfssd(model, other, **settings), result)


def test_assd_takes_the_percentile_that_the_counts_ask_for(tiny_net, digits):
    """α by numpy from all ratios; the weights are those of ssd against D_r with that α."""
    split = Split(digits.take(range(20)), retain=digits.take(range(20, 100)))
    how = (split, cross_entropy, Batching(1024))
    found = forget_and_data_importance(trainable_copy(tiny_net), *how, with_forget=False)
    both = [torch.cat([one.flatten() for one in part.weights]).double() for part in found]
    with np.errstate(all="ignore"):
        ratios = (both[0] / both[1]).float().numpy()
    ratios = ratios[np.isfinite(ratios)].astype(float)
    alpha = float(np.percentile(ratios, 100 - math.log(1 + 100 * 20 / 100)))
    result = assd(tiny_net, split)
    twin = ssd(tiny_net, split, selection_weighting=alpha, batch_size=1024, with_forget=False)
    assert_state(result, twin.state_dict(), rtol=1e-5, atol=1e-7)
    old, new = (nn.utils.parameters_to_vector(one.parameters()) for one in (tiny_net, result))
    # ln 21 = 3.04 %
    assert 0.02 < float((old != new).double().mean()) < 0.04


def cross_entropy(model, batch, step=0):  # noqa: ARG001
    """The loss of training, one number a record."""
    return nn.functional.cross_entropy(model(batch.x), batch.y, reduction="none")


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("size", [1, 4])
def test_the_importance_is_that_of_a_loop_over_batches(power, size, tiny_net, digits):
    """A brute-force twin: backward, batch by batch, into fresh gradients."""
    some, student = digits.take(range(10)), trainable_copy(tiny_net)
    batches = torch.arange(10).split(size)
    found = importance(student, some, cross_entropy, batches=batches, power=power)
    twin = [torch.zeros_like(weight) for weight in student.parameters()]
    for rows in batches:
        student.zero_grad()
        cross_entropy(student, some.take(rows)).mean().backward()
        for one, weight in zip(twin, student.parameters(), strict=True):
            one.add_(weight.grad.abs() ** power / len(batches))
    for one, other in zip(found.weights, twin, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-10)
    loss = float(cross_entropy(student, some).mean().detach())
    assert found.loss == pytest.approx(loss, rel=1e-5)


def test_both_passes_have_batches_of_one_size(digits, tiny_net, monkeypatch):
    """A mean over fewer records has a greater square: 5 forget records make batches of 5."""
    seen = []

    def noting(*_, batches, **__):
        seen.append([len(rows) for rows in batches])
        return Importance([], 0.0)

    monkeypatch.setattr("efface.methods.ssd.importance", noting)
    split = Split(digits.take(range(5)), retain=digits.take(range(5, 42)))
    forget_and_data_importance(tiny_net, split, cross_entropy, Batching(128))
    assert [sorted(set(sizes)) for sizes in seen] == [[5], [4, 5]]
    assert sum(seen[1]) == 42


@pytest.mark.parametrize(
    ("method", "neutral"),
    [
        *((one, {"selection_weighting": 1e300}) for one in (ssd, lfssd)),
        *((one, {"dampening": 1e30}) for one in (ssd, lfssd, assd)),
        *((one, {"strength": 0.0}) for one in (ssd, lfssd, assd)),
    ],
)
def test_selecting_nothing_or_dampening_nothing_is_the_identity(method, neutral, tiny_net, digits):
    """α → ∞ and λ → ∞, bit for bit."""
    split = Split(digits.take(range(9)), retain=digits.take(range(9, 40)))
    loud = {} if method is assd else {"selection_weighting": 1.0}
    assert same(method(tiny_net, split, **{**loud, **neutral}), tiny_net)


@pytest.mark.parametrize("method", [ssd, lfssd, assd])
def test_the_guard_is_called_once_and_a_halving_doubles_alpha(method, tiny_net, digits):
    """A method without steps still lets the guard refuse it: half the strength is α doubled."""
    split = Split(digits.take(range(9)), retain=digits.take(range(9, 60)))
    guard = Answers(Action.HALVE_LR, Action.CONTINUE, restore=tiny_net.state_dict())
    halved = method(tiny_net, split, callback=guard, strength=4.0)
    assert len(guard.losses) == 2
    assert same(halved, method(tiny_net, split, strength=2.0))


@pytest.mark.parametrize("method", [ssd, lfssd, assd])
@pytest.mark.parametrize("trainable", ["last-layers", "norm"])
def test_weights_that_may_not_move_keep_their_bits(method, trainable, digits):
    """The importance is of the open weights alone; the others are nobody's business."""
    model, records = net(), digits.take(range(40))
    start = select_trainable(model, records.take([0]), trainable)
    split = Split(records.take(range(8)), retain=records.take(range(8, 40)))
    loud = {} if method is assd else {"selection_weighting": 1.0}
    result = merge_adapter(method(start, split, **loud), model)
    assert set() < moved(model, result) <= set(trainable_names(start))


@pytest.mark.parametrize("method", [ssd, lfssd, assd])
def test_an_adapter_that_has_learned_nothing_is_refused(method, digits):
    """All that matters there is 0: to scale it would change nothing, and look like a result."""
    records = digits.take(range(40))
    start = select_trainable(net(), records.take([0]), "adapter")
    split = Split(records.take(range(8)), retain=records.take(range(8, 40)))
    assert refusal(method, start, split) == (
        "Wanted weights that are important to the forget records and not 0. Got only zeros among "
        "them, as in a new adapter. Choose trainable weights of the model itself."
    )
