"""Beside retrained models: how near is the new model, and how near can be expected of one?"""

import copy
from itertools import combinations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from efface.report import collect, tier_of
from efface.report.facts import Facts
from efface.report.retrained import column_rows, distance_rows
from efface.types import Records, Split

GONE = 50


class Bumps(nn.Module):
    """Logits: sums of bumps around stored records, one weight each: retraining is exact here."""

    def __init__(self, stored):
        super().__init__()
        self.weights = nn.Parameter(torch.ones(len(stored)))
        self.register_buffer("x", stored.x.flatten(1))
        self.register_buffer("classes", nn.functional.one_hot(stored.y, 10).float())

    def forward(self, x):
        far = torch.cdist(x.flatten(1), self.x) / 1.6
        return torch.log((torch.exp(-(far**2) / 2) * self.weights) @ self.classes + 1e-3)


@pytest.fixture(scope="module")
def drawn():
    """(net that knows 400 digits, split that asks for 50 of them)."""
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(1))
    pixels = torch.tensor(data.images / 16, dtype=torch.float32).unsqueeze(1)[order]
    digits = Records((pixels - 0.3) / 0.376, torch.tensor(data.target)[order].long())
    parts = (range(GONE), range(400, 1000), range(GONE, 400))
    return Bumps(digits.take(range(400))), Split(*(digits.take(rows) for rows in parts))


def _retrained(net, seed, gone=0.0):
    """Without the records; each seed weighs the others a little differently."""
    student = copy.deepcopy(net)
    drawn = torch.rand(len(net.weights), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        student.weights *= 0.4 + 1.2 * drawn
        student.weights[:GONE] *= gone
    return student


def _verdicts(evidence):
    rows = [row for row in evidence.rows if row.section == "retrained" and row.status != "not run"]
    return {row.key: row.verdict for row in rows}


def test_the_untouched_model_is_farther_than_retrained_models_are_from_each_other(drawn):
    """Doing nothing must never look like retraining; a ninth retrained model must."""
    net, split = drawn
    them = [_retrained(net, seed) for seed in range(8)]
    found = collect(net, copy.deepcopy(net), split, retrained=them)
    assert found.tier == "T3"
    assert found.counts["retrained"] == 8
    far = "farther than any two retrained are"
    said = _verdicts(found)
    assert said["retrained.gap"] == said["retrained.margin.forget"] == far
    assert found.row("retrained.gap").status == "look"
    ninth = _verdicts(collect(net, _retrained(net, 99), split, retrained=them))
    assert far not in ninth.values()
    assert ninth["retrained.gap"] == "no farther than two retrained are"


def test_of_nine_retrained_models_hardly_a_row_calls_one_far(drawn):
    """Each in its turn against the other eight: one row of ninety; a rule on the mean calls 33."""
    net, split = drawn
    them = [_retrained(net, seed) for seed in range(9)]
    asked = {"forget_classes": (), "mislabelled": False, "classes": (), "seed": 0, "method_saw": ()}
    rows = []
    for turn, new in enumerate(them):
        others = (*them[:turn], *them[turn + 1 :])
        facts = Facts(old=net, new=new, split=split, retrained=others, **asked)
        rows += [column_rows(facts)[-1], *distance_rows(facts)]
    assert len(rows) == 90
    assert sum(row.after > row.target for row in rows) > 20
    assert sum(row.status == "look" for row in rows) <= 2


def test_a_model_that_forgot_too_far_is_as_far_off_as_one_that_forgot_nothing(drawn):
    """The target has two sides: the lowest number on the forget records is not it."""
    net, split = drawn
    them = [_retrained(net, seed) for seed in range(8)]
    student = _retrained(net, 99)
    student.classes[:GONE] = nn.functional.one_hot((split.forget.y + 1) % 10, 10).float()
    with torch.no_grad():
        student.weights[:GONE] = 3
    found = collect(net, student, split, retrained=them)
    assert found.row("retrained.forget").after < min(found.row("retrained.forget").target, 0.2)
    assert found.row("retrained.gap").verdict == "farther than any two retrained are"


def test_gap_and_floor_are_those_written_out(drawn):
    """By hand, from the rows of the columns; the floor is the mean over pairs of retrained."""
    net, split = drawn
    them = [_retrained(net, seed) for seed in range(3)]
    found = collect(net, _retrained(net, 9, gone=0.5), split, retrained=them)
    rows = [found.row(f"retrained.{name}") for name in ("retain", "forget", "attack")]
    for side in ("before", "after"):
        by_hand = np.mean([abs(getattr(row, side) - row.target) for row in rows])
        assert getattr(found.row("retrained.gap"), side) == pytest.approx(by_hand)
    single = [collect(net, one, split, retrained=them) for one in them]
    columns = [[e.row(row.key).after for row in rows] for e in single]
    apart = [np.mean(np.abs(np.subtract(a, b))) for a, b in combinations(columns, 2)]
    assert found.row("retrained.gap").target == pytest.approx(np.mean(apart))
    assert [row.target for row in rows] == pytest.approx(np.mean(columns, axis=0))


def test_distances_of_margins_are_those_counted_by_hand(drawn):
    """The greatest gap between two step functions, and the share of other answers."""
    net, split = drawn
    them, new = [_retrained(net, seed) for seed in range(2)], _retrained(net, 9, gone=0.5)
    found = collect(net, new, split, retrained=them)

    def margins(model):
        with torch.no_grad():
            p = model(split.forget.x).double().softmax(1)[range(GONE), split.forget.y]
        return (p / (1 - p)).log().numpy()

    def apart(one, other):
        grid = np.concatenate([one, other])
        return max(abs((one <= x).mean() - (other <= x).mean()) for x in grid)

    mine, theirs = margins(new), [margins(model) for model in them]
    row = found.row("retrained.margin.forget")
    assert row.after == pytest.approx(np.mean([apart(mine, other) for other in theirs]))
    assert row.target == pytest.approx(apart(*theirs))
    with torch.no_grad():
        answers = [model(split.holdout.x).argmax(1) for model in (new, *them)]
    others = [(answers[0] != other).double().mean().item() for other in answers[1:]]
    assert found.row("retrained.disagreement.holdout").after == pytest.approx(np.mean(others))


def test_too_few_retrained_models_convict_nobody(drawn):
    """With seven a retrained model of another seed would too often be called far."""
    net, split = drawn
    for many, verdict in ((7, "too few retrained models to tell"), (1, "floor not known")):
        them = [_retrained(net, seed) for seed in range(many)]
        row = collect(net, copy.deepcopy(net), split, retrained=them).row("retrained.gap")
        assert (row.verdict, row.status) == (verdict, "plain")
        assert (row.target is None) is (many == 1)


def test_without_records_that_stay_the_distances_stand_and_the_columns_do_not(drawn):
    """The tier is then the lower one, and the rows say what they lack."""
    net, split = drawn
    them = [_retrained(net, seed) for seed in range(2)]
    found = collect(net, net, Split(split.forget, split.holdout), retrained=them)
    assert found.tier == "T1"
    assert found.row("retrained.columns").note == "needs a holdout and records that stay"
    assert found.row("retrained.margin.forget").after is not None


def test_a_retrained_model_of_nan_is_a_red_row(drawn):
    """It would pass through means and ranks as if it were an answer."""
    net, split = drawn
    broken = _retrained(net, 0)
    with torch.no_grad():
        broken.weights[:] = torch.nan
    found = collect(net, net, split, retrained=[broken])
    assert found.row("retrained").status == found.row("retrained.columns").status == "red"
    assert "of the retrained model" in found.row("retrained").note


def test_the_tier_names_the_highest_that_all_below_is_at_hand_for(drawn):
    """Retrained models without a holdout lift nothing; a model trained anew is its own tier."""
    net, split = drawn
    assert tier_of(split, retrained=[net]) == "T3"
    assert tier_of(Split(split.forget), retrained=[net]) == "T0"
    assert tier_of(split, exact=True) == "TE"


def test_a_model_trained_anew_states_the_exclusion(drawn):
    """None of the records among those trained on; one that is left there stands out."""
    net, split = drawn
    row = collect(net, _retrained(net, 3), split, exact=True).row("exclusion")
    assert (row.after, row.status) == (0, "plain")
    stays = Records(*(torch.cat([getattr(p, n) for p in (split.retain, split.forget.take([4]))])
                      for n in ("x", "y")))  # fmt: skip
    left = Split(split.forget, split.holdout, stays)
    row = collect(net, _retrained(net, 3), left, exact=True).row("exclusion")
    assert (row.after, row.status, row.verdict) == (1, "red", "found among them")
    assert "exclusion" not in {row.key for row in collect(net, net, split).rows}
