"""SSD, LFSSD and ASSD: weights that the authors' code made, loops by hand, and the identity."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from efface.errors import InputError
from efface.methods._fisher import Batching, Importance, forget_and_data_importance, importance
from efface.methods.assd import assd
from efface.methods.lfssd import lfssd
from efface.methods.ssd import ssd
from efface.task import trainable_copy
from efface.trainable import merge_adapter, select_trainable
from efface.types import Action, Records, Split

sys.path.insert(0, str(Path(__file__).parent))
from small_nets import moved, net, trainable_names

GOLDEN = Path(__file__).parent / "golden"
X = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]).double()


def state(tensors, name):
    """The tensors of the golden file under a name, as a state dict."""
    return {key.removeprefix(name): t for key, t in tensors.items() if key.startswith(name)}


@pytest.mark.parametrize("trace", ["alpha1", "alpha2_lambda_half"])
def test_ssd_equals_the_weights_that_the_authors_code_made(trace):
    """Parity: their D came without the forget records, in batches of 4 with a smaller last one."""
    tensors = load_file(GOLDEN / "reference_traces.safetensors")
    settings = json.loads((GOLDEN / "reference_traces.json").read_text())[f"ssd.{trace}"]
    net = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 5)),
    ).eval()
    net.load_state_dict(state(tensors, "model."))
    forget = Records(tensors["inputs.forget_x"], tensors["inputs.forget_y"])
    whole = Records(tensors["inputs.full_x"], tensors["inputs.full_y"])
    split = Split(forget, retain=whole)
    result = ssd(net, split, **settings, with_forget=False, sequential=True).state_dict()
    for name, expected in state(tensors, f"ssd.{trace}.").items():
        torch.testing.assert_close(result[name], expected, rtol=0, atol=1e-6)
        assert (result[name] - net.state_dict()[name]).abs().max() > 1e-5  # the trace moved


def linear():
    """f(x) = W x with two outputs, in float64."""
    model = nn.Linear(2, 2, bias=False).double().eval()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -1.0], [0.5, 2.0]]))
    return model


def records(rows, labels):
    """Some of the three records above."""
    return Records(X[rows], torch.tensor(labels), ids=tuple(f"record {row}" for row in rows))


def slope(weights, x, y):
    """∂ CE / ∂W of one record, by hand: (softmax(Wx) − onehot(y)) xᵀ."""
    gone = torch.softmax(weights @ x, 0) - nn.functional.one_hot(torch.tensor(y), 2)
    return torch.outer(gone, x)


def test_ssd_is_the_worked_example_by_hand():
    """One record goes, two stay: W[·, 0] is scaled by the ratio, W[·, 1] is nobody's business."""
    model, weights = linear(), linear().weight.detach()
    split = Split(records([0], [0]), retain=records([1, 2], [1, 1]))
    result = ssd(model, split, selection_weighting=1.5, dampening=1.0)
    ours = slope(weights, X[0], 0) ** 2
    theirs = (ours + slope(weights, X[1], 1) ** 2 + slope(weights, X[2], 1) ** 2) / 3
    expected = weights.clone()
    for i in range(2):
        for j in range(2):
            if ours[i, j] > 1.5 * theirs[i, j]:
                expected[i, j] *= min(float(theirs[i, j] / ours[i, j]), 1.0)
    assert not torch.equal(expected, weights)
    torch.testing.assert_close(result.weight.detach(), expected, rtol=0, atol=1e-12)


def test_lfssd_is_the_worked_example_by_hand_and_reads_no_label():
    """∂ ‖Wx‖² / ∂W = 2 W x xᵀ, its size and not its square; other labels change nothing."""
    model, weights = linear(), linear().weight.detach()
    split = Split(records([0], [0]), retain=records([1, 2], [1, 0]))
    result = lfssd(model, split, selection_weighting=0.3, dampening=0.3)
    each = [(2 * torch.outer(weights @ x, x)).abs() for x in X]
    ours, theirs = each[0], sum(each) / 3
    factor = torch.where(ours > 0, 0.3 * theirs / ours, 1.0).clamp(max=1)
    expected = torch.where(ours > 0.3 * theirs, weights * factor, weights)
    assert not torch.equal(expected, weights)
    torch.testing.assert_close(result.weight.detach(), expected, rtol=0, atol=1e-12)
    other = Split(records([0], [1]), retain=records([1, 2], [0, 1]))
    assert torch.equal(
        lfssd(model, other, selection_weighting=0.3, dampening=0.3).weight, result.weight
    )


def test_assd_takes_the_percentile_that_the_counts_ask_for(tiny_net, digits):
    """α by numpy from all ratios; the weights are those of ssd against D_r with that α."""
    split = Split(digits.take(range(20)), retain=digits.take(range(20, 100)))
    student = trainable_copy(tiny_net)
    found = forget_and_data_importance(
        student, split, cross_entropy, Batching(1024), with_forget=False
    )
    both = [torch.cat([one.flatten() for one in part.weights]).double() for part in found]
    with np.errstate(all="ignore"):
        ratios = (both[0] / both[1]).float().numpy()
    ratios = ratios[np.isfinite(ratios)].astype(float)
    alpha = float(np.percentile(ratios, 100 - math.log(1 + 100 * 20 / 100)))
    result = assd(tiny_net, split)
    twin = ssd(tiny_net, split, selection_weighting=alpha, batch_size=1024, with_forget=False)
    for one, other in zip(result.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
    moved = sum(
        int((a != b).sum()) for a, b in zip(result.parameters(), tiny_net.parameters(), strict=True)
    )
    assert 0.02 < moved / len(both[0]) < 0.04  # ln 21 = 3.04 %


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
    assert found.loss == pytest.approx(
        float(cross_entropy(student, some).mean().detach()), rel=1e-5
    )


def test_both_passes_have_batches_of_one_size(digits, tiny_net, monkeypatch):
    """A mean over fewer records has a greater square: 5 forget records make batches of 5."""
    seen = []

    def noting(*_, batches, **__):
        seen.append([len(rows) for rows in batches])
        return Importance([], 0.0)

    monkeypatch.setattr("efface.methods._fisher.importance", noting)
    split = Split(digits.take(range(5)), retain=digits.take(range(5, 42)))
    forget_and_data_importance(tiny_net, split, cross_entropy, Batching(128))
    assert seen[0] == [5]
    assert sum(seen[1]) == 42
    assert max(seen[1]) <= 5
    assert min(seen[1]) >= 4


NEUTRAL = [{"selection_weighting": 1e300}, {"dampening": 1e30}, {"strength": 0.0}]


@pytest.mark.parametrize("method", [ssd, lfssd])
@pytest.mark.parametrize("neutral", NEUTRAL, ids=lambda one: next(iter(one)))
def test_selecting_nothing_or_dampening_nothing_is_the_identity(method, neutral, tiny_net, digits):
    """α → ∞ and λ → ∞, bit for bit."""
    split = Split(digits.take(range(9)), retain=digits.take(range(9, 40)))
    result = method(tiny_net, split, **{"selection_weighting": 1.0, **neutral})
    given = tiny_net.state_dict()
    assert all(torch.equal(given[name], tensor) for name, tensor in result.state_dict().items())


def test_assd_without_strength_is_the_identity(tiny_net, digits):
    """No weight has a ratio above an infinite α."""
    split = Split(digits.take(range(9)), retain=digits.take(range(9, 40)))
    result = assd(tiny_net, split, strength=0.0)
    given = tiny_net.state_dict()
    assert all(torch.equal(given[name], tensor) for name, tensor in result.state_dict().items())


@pytest.mark.parametrize("method", [ssd, lfssd, assd])
def test_the_guard_is_asked_once_and_a_halving_doubles_alpha(method, tiny_net, digits):
    """A method without steps still lets the guard refuse it: half the strength is α doubled."""
    split = Split(digits.take(range(9)), retain=digits.take(range(9, 60)))
    given, answers, seen = tiny_net.state_dict(), [Action.HALVE_LR, Action.CONTINUE], []

    def callback(student, loss):
        seen.append(loss)
        verdict = answers[len(seen) - 1]
        if verdict is Action.HALVE_LR:
            student.load_state_dict(given)
        return verdict

    halved = method(tiny_net, split, callback=callback, strength=4.0)
    plain = method(tiny_net, split, strength=2.0)
    assert len(seen) == 2
    assert all(
        torch.equal(a, b) for a, b in zip(halved.parameters(), plain.parameters(), strict=True)
    )


def test_a_class_goes_and_the_others_stay(tiny_net, digits):
    """At the published settings, on a net that knows the digits by heart."""
    known = digits.take(range(300))
    gone = known.y == 3
    split = Split(known.take(gone.nonzero()[:, 0]), retain=known.take((~gone).nonzero()[:, 0]))
    result = ssd(tiny_net, split)
    right = (result(known.x).argmax(1) == known.y).float()
    assert right[gone].mean() < 0.5
    assert right[~gone].mean() > 0.9


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
    with pytest.raises(InputError) as error:
        method(start, split)
    assert str(error.value) == (
        "Wanted weights that hold what the forget records need. Got weights that are all 0 where "
        "they matter, as in a new adapter. Let weights of the model itself move (trainable)."
    )
