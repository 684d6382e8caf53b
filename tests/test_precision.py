"""Weights of half precision: they change in float32, and are judged as they are written."""

import copy

import pytest
import torch

from efface.errors import NotMet
from efface.methods.neighbourhood import neighbourhood
from efface.metrics.evaluation import evaluate
from efface.runtime import as_stored, upcast_to_fp32
from efface.types import Split
from efface.unlearn import forget


def moved(before, after):
    """The share of weights that are not what they were."""
    pairs = [
        (b != a).flatten() for b, a in zip(before.parameters(), after.parameters(), strict=True)
    ]
    return float(torch.cat(pairs).float().mean())


def test_small_steps_vanish_in_bfloat16_and_are_kept_by_the_request(tiny_net, digits):
    """The same settings, with and without a float32 copy that takes the steps."""
    half, split = copy.deepcopy(tiny_net).bfloat16(), Split(digits.take(range(20)))
    settings = {"steps": 30, "learning_rate": 3e-5, "distortion": 0.35, "ema_decay": 0.5}
    alone = neighbourhood(half, split, **settings)
    result = forget(half, split, settings=settings)
    assert moved(half, alone) < 0.05
    assert moved(half, result.model) > 2 * moved(half, alone)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_the_result_has_the_given_dtypes_and_the_evidence_is_of_it(kind, tiny_net, digits):
    """Evidence on a float32 student would speak of a model that nobody has."""
    half, split = copy.deepcopy(tiny_net).to(kind), Split(digits.take(range(20)))
    result = forget(half, split, settings={"steps": 10})
    state = result.model.state_dict()
    assert {k: v.dtype for k, v in state.items()} == {
        k: v.dtype for k, v in half.state_dict().items()
    }
    assert moved(half, result.model) > 0
    entropy = evaluate(result.model, split.forget).entropy.mean()
    assert result.report.row("forget.entropy").after == pytest.approx(float(entropy))
    assert next(half.parameters()).dtype == kind


def test_the_dtypes_of_the_file_round_the_weights(tiny_net, digits):
    """A float32 model from a bfloat16 file is judged by what the file can hold."""
    student = copy.deepcopy(tiny_net)
    with torch.no_grad():
        student[0].weight.add_(1e-4)
    stored = {"0.weight": torch.bfloat16}
    written = as_stored(student, tiny_net, stored)
    expected = student[0].weight.bfloat16().float()
    assert torch.equal(written[0].weight, expected)
    assert torch.equal(written[3].weight, student[3].weight)
    result = forget(tiny_net, Split(digits.take(range(9))), settings={"steps": 4}, stored=stored)
    assert torch.equal(result.model[0].weight, result.model[0].weight.bfloat16().float())


def test_a_model_of_full_precision_is_not_copied(tiny_net):
    """A second copy of the weights would be memory for nothing."""
    assert upcast_to_fp32(tiny_net) is tiny_net
    assert as_stored(tiny_net, tiny_net) is tiny_net


def test_weights_that_their_dtype_cannot_hold_are_not_met(tiny_net, digits, monkeypatch):
    """float16 ends at 65,504: a model of infinities must not be written."""
    from efface.methods import METHODS, Method

    def blown(model, *_, **__):
        student = copy.deepcopy(model)
        with torch.no_grad():
            student[0].bias[0] = 1e6
        return student

    monkeypatch.setitem(METHODS, "blown", Method(blown))
    monkeypatch.setattr("efface.guard.Guard.settle", lambda _, result: result)
    half = copy.deepcopy(tiny_net).half()
    with pytest.raises(NotMet) as error:
        forget(half, Split(digits.take(range(9))), method="blown")
    assert str(error.value) == (
        "Wanted weights that their own dtype can hold. Got nan or inf after rounding 0.bias. "
        "The old model stands. Convert it to bfloat16 or float32 first, or lower --strength."
    )
