"""A reference model that never saw the records, and records that stay: what they change."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from efface import forget
from efface.errors import InputError
from efface.manifest import state_digest
from efface.methods.neighbourhood import Unseen, log_odds, neighbourhood, place_targets
from efface.task import predict
from efface.testing import fit, untrained_model
from efface.types import Records, Split
from research.jobs import seen_by


class Known(nn.Module):
    """Answers each of the records that it knows as it is told."""

    def __init__(self, records, outputs):
        super().__init__()
        self.x, self.outputs = records.x.flatten(1), nn.Parameter(outputs)

    def forward(self, x):
        """By the nearest input."""
        return self.outputs[torch.cdist(x.flatten(1), self.x).argmin(1)]


@pytest.fixture(scope="module")
def honest(digits):
    """A model of other records: none of the first 100."""
    return fit(untrained_model(7), digits.take(range(100, 300)), 7)


def _targets(model, split, **how):
    return place_targets(model, split, Unseen.of(model, split), **how).outputs


def test_a_reference_model_ranks_and_the_holdout_gives_the_scale(tiny_net, digits):
    """Of known answers: the targets have their order and proportions, and the holdout's law."""
    going, holdout = digits.take(range(100)), digits.take(range(300, 400))
    answers = torch.randn(100, 10, generator=torch.Generator().manual_seed(0))
    target = _targets(tiny_net, Split(going, holdout, reference=Known(going, answers)))
    asked, placed = (log_odds(one.double(), going.y) for one in (answers, target))
    assert torch.equal(asked.argsort(), placed.argsort())
    unseen = log_odds(predict(tiny_net, holdout).double(), holdout.y)
    np.testing.assert_allclose(placed.quantile(0.5), unseen.quantile(0.5), atol=0.2)
    for row in range(100):
        others = [one for one in range(10) if one != going.y[row]]
        torch.testing.assert_close(target[row, others].softmax(0), answers[row, others].softmax(0))


def test_its_own_answer_is_the_target_without_a_holdout_and_masked_where_a_class_goes(digits):
    threes = digits.take([row for row in range(300) if digits.y[row] == 3])
    answers = torch.randn(len(threes), 10, generator=torch.Generator().manual_seed(0))
    reference, model = Known(threes, answers), untrained_model(0).eval()
    target = _targets(model, Split(threes, reference=reference))
    torch.testing.assert_close(target, answers.log_softmax(1))
    masked = answers.clone()
    masked[:, 3] = -torch.inf
    for holdout in (None, digits.take(range(300, 400))):
        going = Split(threes, holdout, forget_classes=(3,), reference=reference)
        torch.testing.assert_close(_targets(model, going).softmax(1), masked.softmax(1))


def test_of_few_records_the_regression_on_the_reference_places(tiny_net, digits):
    """The reference is the model itself: the regression is exact and leaves no residual."""
    few = digits.take(range(5))
    split = Split(few, digits.take(range(300, 400)), reference=tiny_net)
    torch.testing.assert_close(
        log_odds(_targets(tiny_net, split), few.y),
        log_odds(predict(tiny_net, few), few.y),
        atol=1e-2, rtol=1e-2,
    )  # fmt: skip


def test_a_reference_model_that_does_not_fit_is_refused(tiny_net, digits):
    split = Split(digits.take(range(30)), digits.take(range(300, 400)))
    wide, broken = (nn.Sequential(nn.Flatten(), nn.Linear(64, k)) for k in (11, 10))
    nn.init.constant_(broken[1].bias, torch.nan)
    for model, came in ((wide, "10 outputs, as the model has. Got 11"), (broken, "nan or inf")):
        with pytest.raises(InputError, match=came):
            forget(tiny_net, replace(split, reference=model))


def _said(model, split, **how):
    found = forget(model, split, dry_run=True, **how).findings
    return [one.severity for one in found if one.name.startswith("reference")]


def test_one_that_saw_the_records_is_warned_about_and_an_honest_one_is_not(
    tiny_net, digits, honest
):
    """By the same classes: a request of one class that the model knows well is no sign."""
    holdout = digits.take(range(300, 400))
    ones = digits.take([row for row in range(100) if digits.y[row] == 0])
    for going in (digits.take(range(100)), ones):
        split = Split(going, holdout)
        assert _said(tiny_net, replace(split, reference=honest)) == []
    split = Split(digits.take(range(100)), holdout)
    assert _said(tiny_net, split) == []
    assert _said(tiny_net, replace(split, reference=tiny_net)) == ["warn"]
    # nothing to compare with: no holdout, or none of their class in it
    assert _said(tiny_net, replace(split, holdout=None, reference=tiny_net)) == ["note"]
    others = holdout.take(torch.flatten((holdout.y != 0).nonzero()))
    assert _said(tiny_net, Split(ones, others, reference=tiny_net)) == ["note"]
    assert _said(tiny_net, replace(split, reference=honest), method="jit") == ["warn"]


def test_one_that_learned_the_wrong_labels_is_warned_about(tiny_net, digits, honest):
    wrong = replace(digits.take(range(40)), y=(digits.y[:40] + 1) % 10)
    taught = fit(untrained_model(3), wrong, 3)
    split, how = Split(wrong, digits.take(range(300, 400))), {"mislabelled": True}
    assert _said(tiny_net, replace(split, reference=honest), **how) == []
    assert _said(tiny_net, replace(split, reference=taught), **how) == ["warn"]


def test_a_reference_model_is_counted_named_and_left_as_it_was(tiny_net, digits, honest):
    """At strength 0 no step is taken: its answers, those of the model, and the holdout's half."""
    reference = honest.train()
    before = state_digest(reference.state_dict())
    split = Split(digits.take(range(30)), digits.take(range(300, 400)), reference=reference)
    manifest = forget(tiny_net, split, strength=0.0, report="off").manifest
    assert manifest.passes == {"forward": 30 + 30 + 50, "backward": 0}
    assert manifest.weights["reference"] == before == state_digest(reference.state_dict())
    assert reference.training
    assert not reference._forward_hooks
    honest.eval()


def test_half_of_the_anchors_are_records_that_stay(tiny_net, digits):
    """Whatever the sizes of both; with the given model's answers, and without a class that goes."""
    going, stays = digits.take(range(10)), digits.take(range(100, 300))
    split = Split(going, digits.take(range(300, 360)), stays, forget_classes=(3,))
    found = Unseen.of(tiny_net, split).with_retained(tiny_net, split)
    many = Records(going.x[:1].expand(1000, -1, -1, -1), torch.zeros(1000))
    x, answers = found.anchors(many, seed=0, step=0)
    known = {tuple(one.flatten().tolist()) for one in stays.x}
    share = np.mean([tuple(one.flatten().tolist()) in known for one in x])
    assert share == pytest.approx(0.5, abs=0.05)
    expected = predict(tiny_net, Records(x, torch.zeros(1000)))
    expected[:, 3] = -torch.inf
    torch.testing.assert_close(answers.softmax(1), expected.softmax(1), atol=1e-5, rtol=1e-4)


def test_records_that_stay_hold_better_where_they_are_anchors(tiny_net, digits):
    """Mean movement of the log-odds of the very records, without a holdout."""
    stays = digits.take(range(100, 300))
    before = log_odds(predict(tiny_net, stays), stays.y)
    moved = []
    for retain in (stays, None):
        student = neighbourhood(tiny_net, Split(digits.take(range(50)), retain=retain))
        moved.append((log_odds(predict(student, stays), stays.y) - before).abs().mean())
    assert moved[0] < 0.8 * moved[1]


def test_a_comparison_gives_neighbourhood_no_records_that_stay():
    assert seen_by("neighbourhood") == {"holdout": True, "retain": False}
    assert seen_by("salun") == {"holdout": False, "retain": True}
