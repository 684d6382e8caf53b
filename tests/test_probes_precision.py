"""Rounded and pruned copies: the grid by hand, torch's own pruning, the given model untouched."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from efface.metrics.evaluation import Evaluation, evaluate
from efface.probes.precision import precision, precision_cost, pruned, quantised, recovered
from efface.testing import KINDS, model_of_kind, records_of_kind
from tests.probe_promises import passes_of, untouched
from tests.refusals import refusal


def test_the_given_model_is_untouched_and_nothing_is_drawn(tiny_net, digits, random_state_kept):
    """Weights, buffers, gradients, flags, hooks and the host's random numbers."""
    some = digits.take(range(30))
    found = untouched(lambda model: precision(model, some), tiny_net, random_state_kept)
    names = ["unchanged", "int8", "int4", "pruned 30 %", "pruned 50 %", "pruned 70 %"]
    assert [one.name for one in found] == names
    np.testing.assert_array_equal(found[0].evaluation.logits, evaluate(tiny_net, some).logits)


def test_the_price_is_known_beforehand(tiny_net, digits):
    """Counted on the model and on every copy of it."""
    some, settings = digits.take(range(30)), {"bits": (8,), "shares": (0.1, 0.2)}
    assert passes_of(lambda m: precision(m, some, **settings), tiny_net) == precision_cost(
        some, **settings
    )
    assert precision_cost(some).forward == 6 * 30


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_weights_are_rounded_to_a_symmetric_grid_of_each_output(tiny_net, bits):
    """Written out in numpy, one output at a time."""
    top = 2 ** (bits - 1) - 1
    given, found = tiny_net.state_dict(), quantised(tiny_net, bits=bits).state_dict()
    for name, weight in given.items():
        if weight.ndim < 2:
            torch.testing.assert_close(found[name], weight, rtol=0, atol=0)
            continue
        for row, new in zip(weight.numpy(), found[name].numpy(), strict=True):
            scale = np.abs(row).max() / top
            expected = np.clip(np.round(row / scale), -top, top) * scale
            np.testing.assert_allclose(new, expected, atol=1e-6)
            assert len(np.unique(new)) <= 2 * top + 1


def test_fewer_bits_move_the_answers_more(tiny_net, digits):
    """Eight bits hardly show, four do."""
    some = digits.take(range(60))
    plain = evaluate(tiny_net, some).logits
    eight, four = (
        np.abs(evaluate(quantised(tiny_net, bits=bits), some).logits - plain).mean()
        for bits in (8, 4)
    )
    assert 0 < 5 * eight < four


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_the_weights_nearest_to_zero_go_as_in_torchs_own_pruning(tiny_net, share):
    """Over all layers at once."""
    twin = copy.deepcopy(tiny_net)
    layers = [(part, "weight") for part in twin if isinstance(part, nn.Conv2d | nn.Linear)]
    prune.global_unstructured(layers, pruning_method=prune.L1Unstructured, amount=share)
    for layer, name in layers:
        prune.remove(layer, name)
    found = pruned(tiny_net, share=share).state_dict()
    for name, weight in twin.state_dict().items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=0)


def test_a_change_that_rounding_swallows_is_undone(tiny_net, digits):
    """A nudge of every weight, far below a step of the grid: the rounded copy is the old one's."""
    old = quantised(tiny_net, bits=8)
    nudged = copy.deepcopy(old)
    with torch.no_grad():
        for layer in (part for part in nudged if isinstance(part, nn.Conv2d | nn.Linear)):
            flat = layer.weight.flatten(1)
            small = flat.abs() < flat.abs().amax(1, keepdim=True)
            layer.weight.add_((1e-4 * small).reshape(layer.weight.shape))
    again = quantised(nudged, bits=8)
    for name, weight in old.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], weight, rtol=1e-4, atol=1e-6)
    assert not torch.equal(nudged[0].weight, old[0].weight)
    some = digits.take(range(20))
    back = recovered(evaluate(nudged, some), evaluate(again, some))
    assert back.missed == int((~evaluate(nudged, some).correct).sum())


def told(*answers, ids=None):
    """Records of class 1, each answered with a class."""
    y = np.ones(len(answers), np.int64)
    logits = np.eye(3, dtype=np.float32)[list(answers)]
    return Evaluation(logits=logits, y=y, ids=ids or tuple(map(str, range(len(answers)))))


def test_recovered_records_are_counted_among_the_missed():
    """Four missed, one of them back; the one that was right all along does not count."""
    found = recovered(told(0, 0, 2, 2, 1), told(0, 1, 2, 0, 1))
    assert (found.missed, found.share) == (4, 0.25)
    assert found.recovered.tolist() == [False, True, False, False, False]


@pytest.mark.parametrize("kind", KINDS)
def test_nets_of_other_kinds_are_served(kind):
    """Tied weights stay tied, a row of zeros stays one."""
    net = model_of_kind(kind)
    with torch.no_grad():
        net[1].weight[0] = 0
    found = precision(net, records_of_kind(kind))
    assert all(np.isfinite(one.evaluation.logits).all() for one in found)
    assert not quantised(net, bits=4)[1].weight[0].any()
    if kind == "tied":
        tied = [part for part in quantised(net, bits=4) if isinstance(part, nn.Linear)]
        assert tied[1] is tied[2]


def test_half_precision_keeps_its_dtype(tiny_net):
    """The copy can stand in the place of the model."""
    half = copy.deepcopy(tiny_net).bfloat16()
    for copied in (quantised(half, bits=4), pruned(half, share=0.5)):
        assert {t.dtype for t in copied.parameters()} == {torch.bfloat16}


def test_what_cannot_be_changed_is_refused_in_words(tiny_net):
    """Bits, shares, and models without weights."""
    said = {
        "Wanted 2 to 8 bits. Got 16. Take 8 or 4.": lambda: quantised(tiny_net, bits=16),
        "Wanted a share from 0 to 1. Got 1.5. Take 0.3, 0.5 or 0.7.": lambda: pruned(
            tiny_net, share=1.5
        ),
        "Wanted a model with weights of two or more dimensions. Got none. "
        "Omit this probe, and say that it was not run.": lambda: pruned(nn.Flatten(), share=0.5),
        "Wanted two evaluations of the same records, multiclass. "
        "Got 1 and 2 records. Take them from one call of precision.": lambda: recovered(
            told(1), told(1, 1)
        ),
        "Wanted two evaluations of the same records, multiclass. "
        "Got 60 and 60 records, of another task. Take them from one call of precision.": values,
    }
    for words, call in said.items():
        assert refusal(call) == words


def values():
    """Records that have no class to be recognised by."""
    found = evaluate(model_of_kind("regression"), records_of_kind("regression"))
    recovered(found, found)
