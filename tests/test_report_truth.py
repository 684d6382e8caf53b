"""What the report says where the truth is known, see ``bumps.py``; retrained and shadow models."""

import copy
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn

from efface.io.shadows import Shadows
from efface.metrics.evaluation import evaluate
from efface.report import Status, Verdict, collect
from efface.report.context import Context
from efface.report.tests_retrained import retrained_columns, retrained_distances
from efface.testing import digits, fit, trained_model, untrained_model
from efface.types import Records, Split
from tests.bumps import drawn, weighted

ALL = digits()
SPLIT = Split(ALL.take(range(60)), ALL.take(range(300, 400)), ALL.take(range(60, 300)))
FLAGGED = (Status.FLAGGED, Status.ERROR)


def verdicts(report):
    return {row.key: row.verdict for row in report.rows}


def flagged(report):
    return {row.key for row in report.rows if row.status in FLAGGED}


def test_a_retrained_model_passes_while_the_same_tests_detect_the_records_in_the_old_one():
    net, split = drawn()
    report = collect(net, weighted(net, range(50), 0), split)
    found = verdicts(report)
    assert found["control.positive"] is found["control.negative"] is Verdict.CONTROL_PASSED
    assert found["attack.loss"] is Verdict.NOT_DETECTED
    assert report.row("attack.loss").before > 0.8
    assert report.row("unseen.central_95").before < 0.7
    assert found["unseen.central_95"] is Verdict.NOT_SIGNIFICANT
    assert not flagged(report)


def test_retrained_models_are_seldom_flagged():
    """Ten draws, sixteen judged rows each: one in twenty may be flagged by chance."""
    judged = rejected = 0
    for seed in range(2, 12):
        net, split = drawn(seed)
        report = collect(net, weighted(net, range(50), 0), split)
        assert not [row for row in report.rows if row.status is Status.ERROR]
        quiet = [row.verdict for row in report.rows if row.status is Status.NOT_FLAGGED]
        judged += len(quiet) - quiet.count(Verdict.DESCRIPTIVE)
        rejected += len(flagged(report))
    assert rejected / (judged + rejected) < 0.08


def test_doing_nothing_never_looks_like_success():
    net, split = drawn()
    report = collect(net, copy.deepcopy(net), split)
    assert verdicts(report)["attack.loss"] is Verdict.DETECTED
    assert report.row("unseen.central_95").status is Status.FLAGGED
    assert verdicts(report)["weights.change"] is Verdict.WEIGHTS_UNCHANGED


def test_records_pushed_below_unseen_ones_are_over_forgotten():
    net, split = drawn()
    student = copy.deepcopy(net)
    student.classes[:50] = nn.functional.one_hot((split.forget.y + 1) % 10, 10).float()
    report = collect(net, student, split)
    assert verdicts(report)["attack.loss"] is Verdict.OVER_FORGOTTEN
    assert verdicts(report)["forget.accuracy"] is Verdict.BELOW_REFERENCE
    assert report.row("buffers.change").status is Status.FLAGGED


def test_an_attack_that_does_not_detect_the_records_in_the_old_model_is_inconclusive():
    net, split = drawn()
    never = weighted(net, range(50), 0)
    report = collect(never, copy.deepcopy(never), split)
    assert report.row("control.positive").verdict is Verdict.CONTROL_FAILED
    row = report.row("attack.loss")
    assert (row.verdict, row.status) == (Verdict.INCONCLUSIVE, Status.INCONCLUSIVE)


def test_a_control_that_failed_below_chance_says_why():
    """Its interval excludes 0.5, as that of one that passed does."""
    net, split = drawn()
    wrong = replace(split, forget=replace(split.forget, y=(split.forget.y + 1) % 10))
    row = collect(net, weighted(net, range(50), 0), wrong, probes=False).row("control.positive")
    assert (row.verdict, row.interval[1] < 0.5) == (Verdict.CONTROL_FAILED, True)
    assert "The old model is worse on the records than on unseen ones" in row.note


def test_a_forgotten_class_is_never_predicted_and_the_rest_stays():
    """The reference on the class is 0, on its unseen records too."""
    net, split = drawn()
    both = split.forget, split.retain
    whole = Records(*(torch.cat([getattr(part, n) for part in both]) for n in ("x", "y")))
    going = (whole.y == 3).nonzero()[:, 0]
    staying = whole.take((whole.y != 3).nonzero()[:, 0])
    split = Split(whole.take(going), split.holdout, staying, (3,))
    names = [f"digit {c}" for c in range(10)]
    report = collect(net, weighted(net, going, 0), split, classes=names)
    assert report.forget_classes == ("digit 3",)
    assert report.row("forget_classes.accuracy").after == report.row("forget.accuracy").after == 0
    assert verdicts(report)["forget_classes.accuracy"] is Verdict.NEVER_PREDICTED
    assert report.row("holdout.accuracy").name.endswith("without the forget classes")
    assert verdicts(report)["holdout.accuracy"] is not Verdict.DROPPED
    assert "digit 3" not in report.row("holdout.worst_class").name
    untouched = collect(net, copy.deepcopy(net), split)
    assert untouched.row("forget_classes.accuracy").status is Status.FLAGGED


def test_wrong_labels_are_forgotten_when_they_are_no_longer_predicted():
    net, split = drawn(n=30)
    wrong = (split.forget.y + 1) % 10
    taught = copy.deepcopy(net)
    taught.classes[:30] = nn.functional.one_hot(wrong, 10).float()
    request = Split(Records(split.forget.x, wrong, split.forget.ids), split.holdout)
    report = collect(taught, weighted(taught, range(30), 0), request, mislabelled=True)
    row = report.row("forget.accuracy")
    assert row.name == "Forget records predicted as the wrong label they came with"
    assert row.before > 0.7
    assert row.after < 0.1
    assert row.reference == pytest.approx(0, abs=0.02)
    assert verdicts(report)["attack.loss"] in (Verdict.NOT_DETECTED, Verdict.INCONCLUSIVE)
    untouched = collect(taught, copy.deepcopy(taught), request, mislabelled=True)
    assert verdicts(untouched)["forget.accuracy"] is Verdict.ABOVE_REFERENCE


def test_one_record_is_too_few():
    net, split = drawn(n=1)
    report = collect(net, weighted(net, [0], 0), split)
    for key in ("forget.accuracy", "power.auc"):
        assert verdicts(report)[key] is Verdict.TOO_FEW_RECORDS
    assert report.row("power.auc").after == 1


# Retrained models (T3): each seed weighs the other records a little differently.


def retrained(net, seed, gone=0.0):
    draws = torch.rand(len(net.weights), generator=torch.Generator().manual_seed(seed))
    student = weighted(net, slice(None), 0.4 + 1.2 * draws)
    return weighted(student, range(50), student.weights[:50].detach() * gone)


@pytest.fixture(scope="module")
def case():
    """(net, split, nine retrained models)."""
    net, split = drawn()
    return net, split, [retrained(net, seed) for seed in range(9)]


def test_the_untouched_model_is_beyond_the_floor_and_a_ninth_retrained_one_is_not(case):
    net, split, them = case
    report = collect(net, copy.deepcopy(net), split, retrained=them[:8])
    assert (report.tier, report.counts["retrained"]) == ("T3", 8)
    for key in ("retrained.gap", "retrained.logit_margin.forget"):
        assert verdicts(report)[key] is Verdict.BEYOND_FLOOR
    assert report.row("retrained.gap").status is Status.FLAGGED
    ninth = verdicts(collect(net, retrained(net, 99), split, retrained=them[:8]))
    assert Verdict.BEYOND_FLOOR not in ninth.values()
    assert ninth["retrained.gap"] is Verdict.WITHIN_FLOOR


def test_of_nine_retrained_models_hardly_a_row_calls_one_far(case):
    """Each in turn against the other eight: one row of ninety; a rule on the mean calls 33."""
    net, split, them = case
    rows = []
    for turn, new in enumerate(them):
        ctx = Context(net, new, split, retrained=(*them[:turn], *them[turn + 1 :]))
        rows += [[*retrained_columns(ctx)][-1], *retrained_distances(ctx)]
    assert len(rows) == 90
    assert sum(row.after > row.reference for row in rows) > 20
    assert sum(row.status is Status.FLAGGED for row in rows) <= 2


def test_over_forgetting_is_as_far_from_retraining_as_forgetting_nothing(case):
    net, split, them = case
    student = weighted(retrained(net, 99), range(50), 3)
    student.classes[:50] = nn.functional.one_hot((split.forget.y + 1) % 10, 10).float()
    report = collect(net, student, split, retrained=them[:8])
    row = report.row("retrained.forget")
    assert row.after < min(row.reference, 0.2)
    assert verdicts(report)["retrained.gap"] is Verdict.BEYOND_FLOOR


def test_gap_and_floor_are_those_written_out(case):
    """By hand, from the rows of the columns; the floor is the mean over pairs of retrained."""
    net, split, them = case
    them = them[:3]
    report = collect(net, retrained(net, 9, gone=0.5), split, retrained=them)
    rows = [report.row(f"retrained.{name}") for name in ("retain", "forget", "attack")]
    for side in ("before", "after"):
        by_hand = np.mean([abs(getattr(row, side) - row.reference) for row in rows])
        assert getattr(report.row("retrained.gap"), side) == pytest.approx(by_hand)
    single = [collect(net, one, split, retrained=them) for one in them]
    columns = [[e.row(row.key).after for row in rows] for e in single]
    apart = [np.mean(np.abs(np.subtract(a, b))) for a, b in combinations(columns, 2)]
    assert report.row("retrained.gap").reference == pytest.approx(np.mean(apart))
    assert [row.reference for row in rows] == pytest.approx(np.mean(columns, axis=0))


def test_distances_of_logit_margins_are_those_counted_by_hand(case):
    """The greatest gap between two step functions, and the share of other predictions."""
    net, split, them = case
    them, new = them[:2], retrained(net, 9, gone=0.5)
    report = collect(net, new, split, retrained=them)

    def margins(model):
        with torch.no_grad():
            p = model(split.forget.x).double().softmax(1)[range(50), split.forget.y]
        return (p / (1 - p)).log().numpy()

    def apart(one, other):
        grid = np.concatenate([one, other])
        return max(abs((one <= x).mean() - (other <= x).mean()) for x in grid)

    mine, theirs = margins(new), [margins(model) for model in them]
    row = report.row("retrained.logit_margin.forget")
    assert row.after == pytest.approx(np.mean([apart(mine, other) for other in theirs]))
    assert row.reference == pytest.approx(apart(*theirs))
    with torch.no_grad():
        first, *others = (model(split.holdout.x).argmax(1) for model in (new, *them))
    others = [(first != other).double().mean().item() for other in others]
    assert report.row("retrained.disagreement.holdout").after == pytest.approx(np.mean(others))


@pytest.mark.parametrize(
    ("many", "verdict"), [(7, Verdict.TOO_FEW_RETRAINED), (1, Verdict.FLOOR_UNKNOWN)]
)
def test_too_few_retrained_models_convict_nobody(case, many, verdict):
    net, split, them = case
    row = collect(net, copy.deepcopy(net), split, retrained=them[:many]).row("retrained.gap")
    assert (row.verdict, row.status) == (verdict, Status.INCONCLUSIVE)
    assert (row.reference is None) is (many == 1)


def test_without_retain_records_the_distances_stand_and_the_columns_do_not(case):
    net, split, them = case
    report = collect(net, net, Split(split.forget, split.holdout), retrained=them[:2])
    assert report.tier == "T1"
    assert report.row("retrained.columns").note == "needs a holdout and retain records"
    assert report.row("retrained.logit_margin.forget").after is not None


def test_a_retrained_model_of_nan_is_an_error_row(case):
    net, split, _ = case
    report = collect(net, net, split, retrained=[weighted(net, slice(None), torch.nan)])
    for key in ("retrained.distance", "retrained.columns"):
        assert report.row(key).status is Status.ERROR
        assert "of the retrained model" in report.row(key).note


def test_a_model_retrained_from_scratch_states_the_exclusion(case):
    net, split, _ = case
    row = collect(net, retrained(net, 3), split, exact=True).row("exclusion")
    assert (row.after, row.verdict) == (0, Verdict.EXCLUDED)
    both = split.retain, split.forget.take([4])
    retain = Records(*(torch.cat([getattr(part, n) for part in both]) for n in ("x", "y")))
    left = Split(split.forget, split.holdout, retain)
    row = collect(net, retrained(net, 3), left, exact=True).row("exclusion")
    assert (row.after, row.verdict, row.status) == (1, Verdict.NOT_EXCLUDED, Status.ERROR)
    assert "exclusion" not in verdicts(collect(net, net, split))


# Shadow models (T4), each trained on a drawn half of what the model was trained on.


@pytest.fixture(scope="module")
def shadows():
    members, odds = [], []
    for seed in range(24):
        member = np.random.default_rng(seed).random(300) < 0.5
        net = fit(untrained_model(50 + seed), ALL.take(np.flatnonzero(member).tolist()), seed)
        members.append(np.concatenate([member, np.zeros(100, bool)]))
        odds.append(evaluate(net, ALL).logit_margin)
    names = tuple(f"shadow-{seed}" for seed in range(24))
    return Shadows(names, ALL.ids, np.array(members), np.array(odds), "by hand")


@pytest.fixture(scope="module")
def without():
    return fit(untrained_model(9), ALL.take(range(60, 300)), 9)


def lira(new, shadows, key="attack.lira"):
    return collect(trained_model(), new, SPLIT, shadows=shadows).row(key)


def test_lira_detects_the_records_in_the_untouched_model_and_not_in_the_other(shadows, without):
    report = collect(trained_model(), without, SPLIT, shadows=shadows)
    untouched, row = lira(trained_model(), shadows), report.row("attack.lira")
    assert untouched.p < 1e-3
    assert row.before == untouched.after > row.after
    assert (untouched.verdict, row.verdict) == (Verdict.DETECTED, Verdict.NOT_DETECTED)
    assert "attack.lira" not in report.significant


def test_lira_is_the_attack_written_out(shadows, without):
    """Mean over forget records of the share of unseen ones of their class that are less rare."""
    from scipy import stats

    out = np.where(shadows.member, np.nan, shadows.log_odds)
    means = np.nanmean(out, axis=0)
    std = np.sqrt(np.nansum((out - means) ** 2) / ((~shadows.member).sum() - 400))
    scores = -stats.norm.logsf(evaluate(without, ALL).logit_margin, means, std)
    y, auc = ALL.y.numpy(), []
    for record in range(60):
        rivals = scores[300:][y[300:] == y[record]]
        if len(rivals):
            auc.append(((scores[record] > rivals) + (scores[record] == rivals) / 2).mean())
    assert lira(without, shadows).after == pytest.approx(np.mean(auc), abs=1e-9)


def test_what_the_shadow_models_do_not_resolve_is_not_run(shadows, without):
    for key, of, note in (
        ("attack.lira_tpr_0.1", 400, "not resolvable with 100 unseen records; 3000 are needed"),
        ("attack.lira", 300, "the shadow models lack outputs for 100 of 160 records"),
    ):
        row = lira(without, shadows.of(ALL.ids[:of]), key)
        assert (row.status, row.note) == (Status.NOT_RUN, note)
