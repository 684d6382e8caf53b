"""One level for a whole page: which rows are significant after Holm correction."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from bumps import drawn, weighted
from scipy import stats
from torch import nn

from efface.errors import Outcome
from efface.metrics import permutation
from efface.metrics.equivalence import central_share, placements, two_sided
from efface.metrics.evaluation import Evaluation
from efface.metrics.intervals import auc_p, fall_p, mean_fall_p, share_p
from efface.metrics.membership import Attack
from efface.report import Report, Row, Status, Verdict, collect, significant_rows
from efface.report.context import Context, Pair
from efface.report.tests_forget import recovery
from efface.report.tests_unseen import _unless_too_few, central_margins, negative_control_of_margins
from efface.report.tests_utility import holdout_accuracy, retain_accuracy
from efface.report.text import (
    SENTENCES,
    allowance_sentence,
    headline,
    kept_sentence,
    most_confident,
    outcome_sentence,
    sentences,
)
from efface.testing import digits, fit, trained_model, untrained_model
from efface.types import Records, Split


def significant(*p_values):
    """Keys of the significant rows of a report with one row for each p."""
    rows = [Row(p=p, key=f"row{n}", tier="T1") for n, p in enumerate(p_values)]
    return [row.key for row in significant_rows(rows)]


def test_holms_rule_by_hand():
    """Of four rows: 0.01 against 0.05/4, 0.016 against 0.05/3, then 0.03 against 0.05/2 ends it."""
    assert significant(0.016, 0.03, 0.01, 0.9) == ["row2", "row0"]


def test_a_row_that_is_significant_alone_is_not_among_many_and_rows_without_p_do_not_count():
    assert significant(0.04) == significant(0.04, None, None) == ["row0"]
    assert significant(0.04, 0.5) == []


def test_an_error_is_listed_whatever_the_p_values_say():
    crashed = Row(key="attack.loss", tier="T1", verdict=Verdict.CRASHED, note="ValueError: nan")
    assert Report("T1", (crashed,)).significant == ("attack.loss",)


def test_rows_of_a_higher_tier_are_omitted_when_a_lower_one_is_wanted():
    assert significant_rows([Row(p=0.001, key="row", tier="T2")], tier="T1") == []


def test_under_the_null_one_report_in_twenty_has_a_significant_row():
    """4,000 reports of eight independent uniform p: 5 % of them, give or take 0.7 points."""
    draws = np.random.default_rng(0).random((4000, 8)).tolist()
    assert np.mean([bool(significant(*row)) for row in draws]) == pytest.approx(0.05, abs=0.0105)


def test_the_p_of_an_auc_is_that_of_mann_whitney():
    """Continuous scores, no ties: scipy's asymptotic p without its correction."""
    generator = np.random.default_rng(1)
    ours, theirs = generator.normal(0.3, 1, 40), generator.normal(0, 1, 90)
    found = stats.mannwhitneyu(ours, theirs, method="asymptotic", use_continuity=False)
    assert auc_p(found.statistic / (40 * 90), 40, 90) == pytest.approx(found.pvalue, rel=1e-9)


def test_the_p_of_a_drop_is_rare_where_the_share_dropped_by_what_is_allowed():
    """True drop of 2 points allowed 2: one-sided p below 0.05 about one time in twenty."""
    draws = np.random.default_rng(2).multinomial(600, [0.03, 0.05, 0.92], 2000)
    p_values = [fall_p(int(g), int(k), 600, allowed=0.02) for g, k, _ in draws]
    assert 0.03 < np.mean(np.array(p_values) < 0.05) < 0.07
    assert fall_p(0, 100, 600, allowed=0.02) < 1e-6
    assert fall_p(20, 20, 600, allowed=0.02) > 0.9


def test_the_p_of_a_share_knows_the_error_of_its_reference():
    """Exact for a known reference; less significant for one that was itself counted."""
    assert share_p(90, 100, 0.95) == pytest.approx(stats.binomtest(90, 100, 0.95).pvalue)
    assert share_p(85, 100, 0.95, reference_n=100) > share_p(85, 100, 0.95)
    assert share_p(249, 250, 1.0, reference_n=25) > 0.05
    assert share_p(249, 250, 1.0) == 0


def test_what_is_more_frequent_is_judged_within_a_class():
    """A class where it is common makes no finding of a request that is mostly of that class."""
    draw = np.random.default_rng(3)
    p_values = []
    for _ in range(200):
        ours_y, theirs_y = draw.choice(2, 60, p=[0.9, 0.1]), draw.choice(2, 300)
        rate = np.array([0.6, 0.05])
        ours, theirs = draw.random(60) < rate[ours_y], draw.random(300) < rate[theirs_y]
        p_values.append(
            permutation.difference_p(ours, theirs, classes=ours_y, unseen_classes=theirs_y)
        )
    assert np.mean(np.array(p_values) < 0.05) < 0.09


# Permutation within classes, and whether a test could have failed.


ONE_CLASS = {"classes": np.zeros(6, np.int64), "unseen_classes": np.zeros(40, np.int64)}


def pooled(ours, theirs, classes=None, unseen_classes=None):
    groups = [np.zeros(len(side), np.int64) for side in (ours, theirs)]
    given = {"classes": classes, "unseen_classes": unseen_classes}
    given = {n: g if v is None else v for (n, v), g in zip(given.items(), groups, strict=True)}
    return permutation.pool(ours, theirs, **given)


def test_permutation_gives_the_p_of_exact_tests_of_one_class():
    """Fisher's for shares, Mann-Whitney's for ranks, Smirnov's for distances: scipy's own."""
    draw = np.random.default_rng(0)
    ours, theirs = draw.random(6) < 0.9, draw.random(40) < 0.4
    table = [[ours.sum(), 6 - ours.sum()], [theirs.sum(), 40 - theirs.sum()]]
    exact = min(1, 2 * stats.fisher_exact(table, "greater")[1])
    assert permutation.difference_p(ours, theirs, **ONE_CLASS) == pytest.approx(exact, abs=0.02)
    both = pooled(ours := draw.normal(0.7, 1, 6), theirs := draw.normal(0, 1, 40))
    exact = stats.mannwhitneyu(ours, theirs, method="exact")
    found = permutation.auc_shifts(both)
    assert found[0] + 0.5 == pytest.approx(exact.statistic / 240)
    assert permutation.two_sided_p(found) == pytest.approx(exact.pvalue, abs=0.02)
    exact = stats.ks_2samp(ours, theirs, method="exact")
    found = permutation.ks_distances(both)
    assert found[0] == pytest.approx(exact.statistic)
    assert permutation.upper_p(found) == pytest.approx(exact.pvalue, abs=0.02)


def test_the_central_share_and_the_hit_rate_are_those_counted_record_by_record():
    """Ties and classes included; the old functions count one class at a time."""
    draw = np.random.default_rng(1)
    y, unseen_y = draw.integers(0, 2, 30), draw.integers(0, 2, 200)
    ours, theirs = draw.normal(1, 1, 30).round(1), draw.normal(0, 1, 200).round(1)
    both = pooled(ours, theirs, y, unseen_y)
    places = placements(ours, theirs, classes=y, unseen_classes=unseen_y)
    by_hand = central_share(two_sided(places, y, unseen_y))
    assert permutation.central_shares(both, by_class=True)[0] == by_hand
    # Of 39 unseen records the two extremes are one in twenty.
    few = pooled(np.array([9.0, -9.0]), theirs[:39], *(np.zeros(n, int) for n in (2, 39)))
    assert permutation.central_shares(few, by_class=True)[0] == 0
    # all but so many of the highest: one more or fewer is another share
    for flagged in range(12):
        limit = np.sort(theirs)[-1 - flagged]
        assert permutation.hit_rates(both, flagged=flagged)[0] == np.mean(ours > limit)


@pytest.mark.parametrize(("n", "seen"), [(1, 60), (4, 12), (20, 3)])
def test_the_level_holds_for_few_records_a_hard_class_and_three_unseen(n, seen):
    """400 draws without a difference: at most 5 % significant, whatever the counts and classes."""
    draw, p_values = np.random.default_rng(n), []
    y, unseen_y = np.arange(n) % 2, np.concatenate([np.zeros(seen, int), np.ones(12, int)])
    for _ in range(400):
        ours, theirs = draw.random(n) < 0.2 + 0.7 * y, draw.random(seen + 12) < 0.2 + 0.7 * unseen_y
        p_values.append(permutation.difference_p(ours, theirs, classes=y, unseen_classes=unseen_y))
    assert np.mean(np.array(p_values) <= 0.05) <= 0.075


def test_the_smallest_p_is_that_of_the_best_possible_result():
    """By hand: both forget records above all three unseen ones is one of ten, and two-sided."""
    y, unseen_y = np.zeros(2, np.int64), np.zeros(3, np.int64)
    assert permutation.smallest_p(y, unseen_y) == pytest.approx(2 / 10)
    # Where one unseen record can be surpassed, three of five places of it are as good: 2 * 3 / 5.
    one_wrong = np.array([True, False, False])
    assert permutation.smallest_p(y, unseen_y, one_wrong) == 1
    assert permutation.smallest_p(y, unseen_y, n=5) == pytest.approx(2 / 56)
    needed = permutation.records_needed(lambda n: permutation.smallest_p(y, unseen_y, n=n))
    assert needed == 5
    right = np.zeros(3, bool)
    assert (
        permutation.records_needed(lambda n: permutation.smallest_p(y, unseen_y, right, n=n))
        is None
    )


# (forget records, unseen of their class): what the report says of an attack on memorised records.
FEW = [(1, 40, "TOO_FEW_RECORDS", 2), (4, 2, "TOO_FEW_RECORDS", 8), (4, 40, "DETECTED", None)]


@pytest.mark.parametrize(("n", "seen", "verdict", "needed"), FEW)
def test_a_test_that_could_not_fail_says_so_and_how_many_records_it_takes(n, seen, verdict, needed):
    """Both models put every forget record above every unseen one: as bad as it can be."""
    x = torch.cat([torch.arange(n) + 100.0, torch.arange(seen) * 1.0])[:, None]
    records = Records(torch.cat([x, -x], 1), torch.zeros(n + seen, dtype=torch.int64))
    split = Split(records.take(range(n)), records.take(range(n, n + seen)))
    report = collect(identity(), identity(0.01), split, probes=False)
    row = report.row("attack.loss")
    assert (row.verdict.name, row.needed) == (verdict, needed)
    said = f"No result would be significant: that takes {needed} forget records."
    assert (said in row.note) is (needed is not None)
    assert (report.row("control.positive").verdict is Verdict.TOO_FEW_RECORDS) is bool(needed)


def identity(scale=0.001):
    """Two outputs from two inputs, with a weight to change."""
    net = nn.Linear(2, 2, bias=False)
    net.weight.data = scale * torch.eye(2)
    return net


def test_a_copy_that_answers_all_is_inconclusive_with_four_records_and_flagged_with_five():
    """McNemar: one half to the fourth is 0.06, to the fifth 0.03."""
    for n, verdict in ((4, Verdict.TOO_FEW_RECORDS), (5, Verdict.RECOVERED)):
        split = Split(Records(torch.zeros(n, 1), torch.zeros(n, dtype=torch.int64)))
        ctx = Context(nn.Identity(), nn.Identity(), split)
        wrong = Evaluation(np.zeros((n, 2), np.float32), np.ones(n, np.int64), ctx.split.forget.ids)
        vars(ctx)["forget"] = Pair(ctx.split.forget, wrong, wrong)
        found = recovery(ctx, np.zeros(n, bool), np.ones(n, bool))
        assert (found["verdict"], found["needed"]) == (verdict, 5 if n == 4 else None)


def evaluation(logits, y):
    """Outputs and labels as an evaluation, records numbered."""
    ids = tuple(map(str, range(len(y))))
    return Evaluation(logits.astype(np.float32), np.asarray(y, np.int64), ids)


@pytest.mark.parametrize(
    ("often", "verdict"), [(36, Verdict.NOT_RECOVERED), (0, Verdict.RECOVERED)]
)
def test_a_copy_recovers_wrong_labels_that_unseen_records_do_not_get_as_often(often, verdict):
    """All six come back, 1 in 64 by chance; where most unseen records get that label, so what."""
    unseen = evaluation(np.eye(2)[[0] * often + [1] * (40 - often)], [1] * 40)
    wrong = evaluation(np.eye(2)[[1] * 6], [0] * 6)
    records = Records(torch.zeros(6, 1), torch.zeros(6, dtype=torch.int64))
    ctx = Context(nn.Identity(), nn.Identity(), Split(records, records), mislabelled=True)
    vars(ctx).update(forget=Pair(records, wrong, wrong), holdout=Pair(records, unseen, unseen))
    assert recovery(ctx, np.zeros(6, bool), np.ones(6, bool))["verdict"] is verdict


@pytest.mark.parametrize("change", [lambda w: w * 0.25, lambda w: w + 1e-7])
def test_a_rogue_that_keeps_every_answer_gets_no_all_clear_at_t0(bare, change):
    """Nothing there compares with unseen records, so nothing may say that nothing is flagged."""
    old, new = layers(1), layers(1)
    new[0].weight.data = change(new[0].weight.data)
    report = collect(old, new, bare)
    assert "No row is" not in " ".join(headline(report))
    row = report.row("forget.accuracy")
    assert (row.verdict, row.status) == (Verdict.NO_REFERENCE, Status.INCONCLUSIVE)


def test_a_control_on_a_tiny_holdout_is_inconclusive_and_not_off():
    """Halves without a common class were a crash, and a crash was an alarm."""
    records = digits().take(range(300, 304))
    report = collect(trained_model(), trained_model(), Split(digits().take(range(20)), records))
    assert report.row("control.negative").verdict is Verdict.TOO_FEW_RECORDS
    assert not [row for row in report.rows if row.status is Status.ERROR]


def test_with_one_record_the_headline_says_that_nothing_could_be_significant():
    split = Split(digits().take([0]), digits().take(range(300, 400)))
    said = headline(collect(trained_model(), layers_changed(trained_model()), split, probes=False))
    assert said[-1].startswith(
        "With 1 forget record no row on them could be significant after Holm"
    )


@pytest.mark.parametrize(
    ("rows", "last"), [(1, "No row is significant"), (2, "With 5 forget records no row on them")]
)
def test_whether_a_row_could_be_significant_is_said_after_holms_correction(rows, last):
    """A smallest p of 3 % is below 5 % of one row, and not below half of it."""
    row = Row(key="attack.loss", section="unseen", p=0.5, smallest_p=0.03)
    report = Report("T1", (row, Row(p=0.9, section="utility"))[:rows], counts={"forget": 5})
    assert headline(report)[-1].startswith(last)


@pytest.mark.parametrize(
    ("outcome", "first"),
    [(Outcome.PARTLY, "1 of the tests above"), (Outcome.UNCHANGED, "Loss (membership detected)")],
)
def test_the_outcome_partly_has_named_what_flags_the_records_and_nothing_else(outcome, first):
    row = {"p": 0.001, "verdict": Verdict.DETECTED}
    rows = Row(key="a", name="Loss", section="unseen", **row), Row(key="b", name="Lost", **row)
    said = headline(Report("T1", rows, outcome=outcome))[-1]
    assert said.endswith(f"(family-wise error 5 %): {first}; Lost (membership detected).")


TESTED = {"key": "attack.loss", "section": "unseen", "p": 0.5, "smallest_p": 0.0}
FEW = {"verdict": Verdict.TOO_FEW_RECORDS, **TESTED}
FOUND = {**TESTED, "p": 1e-4, "verdict": Verdict.DETECTED}
COUNTS = {"forget": 15, "holdout": 85}


def made(row, *others, **facts):
    facts = {"outcome": Outcome.PARTLY, "counts": COUNTS, **facts}
    return Report("T1", (Row(**row), *others), **facts)


def test_partly_has_the_reason_that_holds():
    """Two opposite ones in one sentence leave the reader to choose."""
    found, untested = (outcome_sentence(made(row)) for row in (FOUND, FEW))
    assert "a test still tells" in found
    assert "could not have" not in found
    assert "a test still tells" not in untested
    parts = "with 15 records to forget and 85 records that were never trained on."
    assert f"the main test could not have, {parts}" in untested
    assert not [one for one in SENTENCES["outcomes"].values() if "Run again" in one], (
        "what to do next is said once, by the command"
    )


def test_what_is_flagged_and_what_is_inconclusive_are_counted_apart():
    drop = Row(p=0.04, verdict=Verdict.DROPPED, section="utility")
    said = " ".join(headline(made(FEW, drop, drop)))
    assert "Rows by themselves: 2 flagged, 1 inconclusive; read them." in said


@pytest.mark.parametrize(("unseen", "why"), [(0, "there are no unseen"), (9, "already before")])
def test_why_the_progress_is_unknown_is_the_reason_that_holds(unseen, why):
    classes = [{"forget_n": 15, "holdout_n": unseen}, {"forget_n": 0, "holdout_n": 76}]
    said = made(FEW, per_class=classes).summary
    assert f"How far the records came is unknown: {why}" in said


def test_how_many_records_are_surer_and_how_many_may_be_overlooked_is_said():
    margins = [(1.0, 2.0), (1.0, 1.0), (3.0, -1.0)]
    names = ("logit_margin_before", "logit_margin_after")
    records = [{**dict(zip(names, pair, strict=True)), "entropy_after": 0.1} for pair in margins]
    for number, one in enumerate(records):
        one |= {"id": f"record-{number}", "logit_margin_change": margins[number][1] - 1.0}
    power = Row(after=0.181, key="power.undetected_share", section="controls")
    said = " ".join(headline(made(FEW, power, records=records)))
    assert "The logit margin of 1 of 3 records is larger than before" in said
    assert "The column logit_margin_change of records.csv is above 0 for them." in said
    assert "record-0" not in said, "ids stand in the files that need them"
    assert most_confident(made(FEW, records=records)) == (
        "The logit margin rose most for record-0 (1 before, 2 now)."
    )
    assert "With 15 records, up to 18.1\u00a0% of them (2 to 3) could still be recognised" in said
    assert "could still be" not in " ".join(headline(made(FOUND, power))), "moot: a test flags them"


def test_the_accuracy_of_the_headline_says_of_which_records_it_is():
    fields = {"name": "Accuracy on the holdout", "section": "utility", "n": 85}
    row = Row(1.0, 0.95, key="holdout.accuracy", **fields)
    said = headline(made(FEW, row))
    assert any(
        "now. That is on the report's part of the holdout, 85 records." in one for one in said
    )


def test_an_attack_that_counts_with_all_other_tests_is_no_finding_by_itself():
    """Of a class the main test is another; twenty of these rows have one by chance."""
    attack, calm = FOUND | {"p": 0.02}, {"p": 0.6, "verdict": Verdict.NOT_DETECTED}
    others = [Row(**TESTED | calm | {"key": f"row{n}"}) for n in range(20)]
    alone = (
        "A membership inference attack by itself still detects the records in the new model, but"
    )

    def said(**facts):
        return [one for one in headline(made(attack, *others, **facts)) if one.startswith(alone)]

    assert said(forget_classes=("3",))
    assert not said()


@pytest.mark.parametrize("outcome", [Outcome.DONE, Outcome.PARTLY])
def test_a_significant_loss_on_records_that_stay_stands_in_the_outcome(outcome):
    """Of the holdout it may be a gain while other training records are lost."""
    fields = {"name": "Accuracy on other training records", "section": "utility", "n": 250}
    row = Row(0.972, 0.912, key="others.accuracy", verdict=Verdict.DROPPED, **fields)
    said = made(FEW, row, outcome=outcome).summary
    lost = "Accuracy on other training records, 97.2\u00a0% before, 91.2\u00a0% now"
    assert f"Loss of accuracy on other records, significant by itself: {lost}." in said
    fine = made(FEW, replace(row, verdict=Verdict.UNCHANGED), outcome=outcome)
    assert "significant by itself" not in fine.summary
    assert (
        f"{fields['name']}: 97.2\u00a0% before, 91.2\u00a0% now. That is on 250 records."
        in (sentences(fine)["cost"])
    )


def test_what_the_guard_kept_and_allowed_is_said():
    """The budget alone would be read as the limit."""
    why = "the model changed its answers to unrelated inputs 50 times as much as allowed"
    measured = {"utility_before": 0.98, "utility_after": 0.97, "utility_limit": 0.0356}
    guard = {"interpolation": 0.625, "violations": [{"text": why}], "measured": measured}
    guard |= {"budgets": {"utility": 0.02}, "holdout_records": 299}
    assert (
        kept_sentence(guard) == f"The guard kept 62.5\u00a0% of the change: with all of it, {why}."
    )
    assert allowance_sentence(guard).endswith(
        "299 records: 98.0\u00a0% before, 97.0\u00a0% now. Allowed there: a loss of 3.6 points, "
        "2 of the utility budget and two standard errors."
    )
    assert (kept_sentence({}), allowance_sentence({})) == ("", "")


def test_a_headline_names_no_flagged_row_twice():
    net, split = drawn()
    report = collect(net, weighted(net, range(50), 0.5), split, probes=False)
    said = " ".join(headline(report))
    rows = map(report.row, report.significant)
    times = [said.count(f"{row.name} ({row.verdict.words})") for row in rows]
    assert (report.outcome, sorted(times)) == (Outcome.PARTLY, [0, 1, 1, 1]), "three are named"


def layers_changed(net):
    changed = copy.deepcopy(net)
    changed[-1].bias.data += 0.01
    return changed


@pytest.mark.parametrize(("n", "verdict"), [(5, Verdict.TOO_FEW_RECORDS), (6, Verdict.DROPPED)])
def test_a_drop_of_utility_needs_six_records_that_could_be_lost(n, verdict):
    """McNemar: one half to the sixth is below 2.5 %; a mean over one record is no test either."""
    right = Evaluation(
        np.eye(2, dtype=np.float32)[np.zeros(n, int)], np.zeros(n, np.int64), tuple("abcdef"[:n])
    )
    lost = Evaluation(right.logits[:, ::-1].copy(), right.y, right.ids)
    records = Records(torch.zeros(n, 1), torch.zeros(n, dtype=torch.int64))
    ctx = Context(nn.Identity(), nn.Identity(), Split(records, records))
    vars(ctx)["holdout"] = Pair(records, right, lost)
    row = next(iter(holdout_accuracy(ctx)))
    assert (row.verdict, row.needed) == (verdict, 6 if n == 5 else None)
    assert mean_fall_p(np.array([-1.0])) == 0.5


@pytest.mark.parametrize(
    ("was", "verdict"), [(10, Verdict.IMPROVED), (20, Verdict.UNCHANGED), (30, Verdict.DROPPED)]
)
def test_accuracy_improves_where_wrong_records_became_right_and_not_the_other_way(was, verdict):
    """Of 40 records 20 are correct now, and 10, 20 or 30 were."""
    before, after = (evaluation(np.eye(2)[[0] * n + [1] * (40 - n)], [0] * 40) for n in (was, 20))
    records = Records(torch.zeros(40, 1), torch.zeros(40, dtype=torch.int64))
    ctx = Context(nn.Identity(), nn.Identity(), Split(records, records))
    vars(ctx)["holdout"] = Pair(records, before, after)
    assert next(iter(holdout_accuracy(ctx))).verdict is verdict


def test_the_class_with_the_clearest_loss_is_named_and_not_the_smallest():
    """Two of three lost is more than a fifth of 200, and says less."""
    y = np.repeat([0, 1], [3, 200])
    lost = np.concatenate([np.arange(3) < 2, np.arange(200) < 40])
    logits = np.eye(2, dtype=np.float32)
    ids = tuple(map(str, range(203)))
    before, after = (Evaluation(logits[c], y, ids) for c in (y, np.where(lost, 1 - y, y)))
    records = Records(torch.zeros(203, 1), torch.from_numpy(y))
    ctx = Context(nn.Identity(), nn.Identity(), Split(records, records), classes=("few", "many"))
    vars(ctx)["holdout"] = Pair(records, before, after)
    row = [*holdout_accuracy(ctx)][1]
    assert row.name.endswith("many")
    assert row.verdict is Verdict.DROPPED
    # a fifth is what a class may lose between two seeds, so Holm's correction does not list it
    assert row.p > 0.5


def test_negative_flips_are_the_records_correct_before_and_wrong_now():
    y, rows = np.zeros(20, np.int64), np.arange(20)
    logits, ids = np.eye(2, dtype=np.float32), tuple(map(str, range(20)))
    wrong = rows == 0, (rows > 0) & (rows < 4)
    records = Records(torch.zeros(20, 1), torch.from_numpy(y))
    ctx = Context(nn.Identity(), nn.Identity(), Split(records, records, records))
    vars(ctx)["retain"] = Pair(records, *(Evaluation(logits[w * 1], y, ids) for w in wrong))
    row = [*retain_accuracy(ctx)][2]
    assert (row.key, row.after) == ("retain.negative_flips", 3 / 20)


def test_the_worst_of_two_classes_is_corrected_for_their_number():
    """All of six lost: 2 / 64 of one class is significant, twice that of two is not."""
    y = np.repeat([0, 1], [6, 10])
    logits, ids = np.eye(2, dtype=np.float32), tuple(map(str, range(16)))
    before, after = (Evaluation(logits[c], y, ids) for c in (y, np.ones(16, np.int64)))
    records = Records(torch.zeros(16, 1), torch.from_numpy(y))
    ctx = Context(nn.Identity(), nn.Identity(), Split(records, records))
    vars(ctx)["holdout"] = Pair(records, before, after)
    assert [*holdout_accuracy(ctx)][1].verdict is Verdict.UNCHANGED


@pytest.mark.parametrize(
    ("least", "level", "few"), [(0.03, 0.95, 0), (0.03, 0.99, 1), (0.5, 0.95, 1)]
)
def test_a_control_could_have_failed_only_at_its_own_level(least, level, few):
    numbers = 0.5, (0.4, 0.6), 0.01, (), 9, 9, 0, 0.8, 0.6
    attack = Attack(*numbers, smallest_p=least, needed=7, level=level)
    passed = (Verdict.CONTROL_PASSED, None)
    found = _unless_too_few(attack, Verdict.CONTROL_PASSED)
    assert found == ((Verdict.TOO_FEW_RECORDS, 7) if few else passed)


def test_the_control_of_the_central_share_fails_at_99_percent_and_not_at_95(monkeypatch):
    """The same margins, whose p is 3 %, are significant where forget records have them."""
    draw = np.random.default_rng(0)
    margins = np.append(draw.normal(0, 1, 34), np.full(6, 9.0)), draw.normal(0, 1, 80)
    sides = [evaluation(np.stack([m, 0 * m], 1), np.zeros(len(m), int)) for m in margins]
    monkeypatch.setattr("efface.report.tests_unseen._halves", lambda _: sides)
    ctx = Context(nn.Identity(), nn.Identity(), Split(digits().take([0])))
    assert next(iter(negative_control_of_margins(ctx))).verdict is Verdict.CONTROL_PASSED
    found = central_margins(*sides)[1]
    assert 0.01 < found["p"] < 0.05
    assert found["verdict"] is Verdict.BELOW_REFERENCE


def test_as_many_records_are_needed_as_reach_the_level_itself():
    assert permutation.records_needed(lambda n: 0.5**n, level=0.125) == 3


def test_a_forget_class_that_is_still_predicted_is_significant():
    going = digits().y == 3
    rows = [torch.nonzero(part).flatten().tolist() for part in (going[:300], ~going[:300])]
    split = Split(digits().take(rows[0]), digits().take(range(300, 400)), forget_classes=(3,))
    nearly = copy.deepcopy(trained_model())
    with torch.no_grad():
        for weight in nearly.parameters():
            weight.mul_(1.001)
    keys = {"forget.accuracy", "forget_classes.accuracy"}
    assert keys <= set(collect(trained_model(), nearly, split).significant)
    retrained = fit(untrained_model(4), digits().take(rows[1]), 4)
    assert not keys & set(collect(trained_model(), retrained, split).significant)


class Noisy(nn.Module):
    """Adds noise to every output: what a provider may do to hide a record."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x) + 0.1 * torch.randn(len(x), 3)


@pytest.fixture(scope="module")
def bare():
    """Records of three classes and nothing else: tier T0."""
    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    return Split(Records(x, torch.arange(20) % 3))


def layers(*scales):
    """One or two linear layers, each scaled."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = [nn.Linear(4, 3)] if len(scales) == 1 else [nn.Linear(4, 8), nn.Linear(8, 3)]
    for layer, scale in zip(made, scales, strict=True):
        layer.weight.data.mul_(scale)
    return nn.Sequential(*made)


def test_non_deterministic_outputs_are_significant_unless_the_old_model_has_them_too(bare):
    with torch.random.fork_rng():
        report = collect(layers(1), Noisy(layers(0.9)), bare)
        both = collect(Noisy(layers(1)), Noisy(layers(0.9)), bare).row("outputs.determinism")
    assert "outputs.determinism" in report.significant
    assert (both.verdict, both.p) == (Verdict.NON_DETERMINISTIC, None)


@pytest.mark.parametrize(
    ("scale", "keys"), [(0.0, ("outputs.constant",)), (1.0, ("weights.change",)), (0.9, ())]
)
def test_constant_outputs_and_an_untouched_model_are_significant_at_t0(bare, scale, keys):
    """At T0 nothing says what the correct outputs are: other outputs alone are no finding."""
    assert collect(layers(1), layers(scale), bare).significant == keys


def test_a_head_that_changed_alone_is_significant_where_retrained_models_changed_more(bare):
    """Below it the embeddings are unchanged; a frozen backbone does so for all."""
    old, head = layers(1, 1), layers(1, 0.9)
    row = collect(old, head, bare).row("weights.change")
    assert (row.status, row.verdict) == (Status.FLAGGED, Verdict.ONLY_LAST_LAYER)
    retrained = [layers(0.8 + 0.01 * k, 0.7) for k in range(3)]
    report = collect(old, head, bare, retrained=retrained)
    assert report.significant == ("retrained.untouched_tensors",)
    frozen = [layers(1, 0.7 + 0.01 * k) for k in range(3)]
    assert collect(old, head, bare, retrained=frozen).significant == ()
    row = collect(layers(1), layers(0.9), bare).row("weights.change")
    assert row.verdict is Verdict.DESCRIPTIVE
