"""One level for a whole page: which rows are off for more than chance."""

import copy

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from efface.metrics.indistinguishability import more_often_p
from efface.metrics.intervals import auc_p, fall_p, share_p
from efface.report import collect
from efface.report.alarms import alarms
from efface.report.rows import RED, Evidence, Row
from efface.testing import digits, fit, trained_model, untrained_model
from efface.types import Records, Split


def page(*p_values, tier="T1"):
    """Evidence with one row for each p."""
    rows = [Row(f"row{place}", "", "unseen", tier, p=p) for place, p in enumerate(p_values)]
    return Evidence(tier=tier, rows=tuple(rows), records=[])


def keys(found):
    """Names of the rows."""
    return [row.key for row in found]


def test_holms_rule_by_hand():
    """Of four rows: 0.01 against 0.05/4, 0.016 against 0.05/3, then 0.03 against 0.05/2 ends it."""
    assert keys(alarms(page(0.016, 0.03, 0.01, 0.9))) == ["row2", "row0"]


def test_a_row_off_by_itself_is_no_alarm_among_many():
    """0.04 is below 0.05 and above 0.05/2."""
    assert keys(alarms(page(0.04))) == ["row0"]
    assert keys(alarms(page(0.04, 0.5))) == []


def test_a_row_without_p_is_not_counted():
    """Else every described row would cost power."""
    assert keys(alarms(page(0.04, None, None))) == ["row0"]


def test_a_crashed_row_is_an_alarm_of_its_own():
    """A test that crashed may hide anything."""
    crashed = Row("attack.loss", "", "unseen", "T1", status=RED, note="ValueError: nan")
    assert keys(alarms(Evidence("T1", (crashed,), []))) == ["attack.loss"]


def test_rows_of_a_higher_tier_are_left_out_when_a_lower_one_is_asked_for():
    """What a lower tier would have seen."""
    assert alarms(page(0.001, tier="T2"), tier="T1") == []


def test_under_nothing_one_page_in_twenty_has_an_alarm():
    """4,000 pages of eight independent uniform p: 5 % of them, give or take 0.7 points."""
    drawn = np.random.default_rng(0).random((4000, 8))
    assert np.mean([bool(alarms(page(*row))) for row in drawn.tolist()]) == pytest.approx(
        0.05, abs=0.0105
    )


def test_the_p_of_an_area_is_that_of_mann_whitney():
    """Continuous scores, no ties: scipy's asymptotic p without its correction."""
    generator = np.random.default_rng(1)
    ours, theirs = generator.normal(0.3, 1, 40), generator.normal(0, 1, 90)
    found = stats.mannwhitneyu(ours, theirs, method="asymptotic", use_continuity=False)
    assert auc_p(found.statistic / (40 * 90), 40, 90) == pytest.approx(found.pvalue, rel=1e-9)


def test_the_p_of_a_fall_is_rare_where_the_share_fell_by_what_is_allowed():
    """True fall of 2 points allowed 2: one-sided p below 0.05 about one time in twenty."""
    generator = np.random.default_rng(2)
    drawn = generator.multinomial(600, [0.03, 0.05, 0.92], 2000)
    p_values = [fall_p(int(g), int(k), 600, allowed=0.02) for g, k, _ in drawn]
    assert 0.03 < np.mean(np.array(p_values) < 0.05) < 0.07
    assert fall_p(0, 100, 600, allowed=0.02) < 1e-6
    assert fall_p(20, 20, 600, allowed=0.02) > 0.9


def test_the_p_of_a_share_knows_the_error_of_its_target():
    """Exact for a known target; rarer off for one that was itself counted."""
    assert share_p(90, 100, 0.95) == pytest.approx(stats.binomtest(90, 100, 0.95).pvalue)
    assert share_p(85, 100, 0.95, targets_n=100) > share_p(85, 100, 0.95)


def test_a_target_that_was_counted_on_ten_is_not_never():
    """249 of 250 against 25 of 25: nothing; known to be 1, one miss is impossible."""
    assert share_p(249, 250, 1.0, targets_n=25) > 0.05
    assert share_p(249, 250, 1.0) == 0


def test_what_is_more_often_so_is_judged_within_a_class():
    """A class where it is common makes no finding of a request that is mostly of that class."""
    draw = np.random.default_rng(3)
    p_values = []
    for seed in range(200):
        ours_y, theirs_y = draw.choice(2, 60, p=[0.9, 0.1]), draw.choice(2, 300)
        rate = np.array([0.6, 0.05])
        ours, theirs = draw.random(60) < rate[ours_y], draw.random(300) < rate[theirs_y]
        how = {"classes": ours_y, "unseen_classes": theirs_y, "seed": seed, "permutations": 200}
        p_values.append(more_often_p(ours, theirs, **how))
    assert np.mean(np.array(p_values) < 0.05) < 0.09
    every = {"classes": np.zeros(60, int), "unseen_classes": np.zeros(300, int), "seed": 0}
    assert more_often_p(np.ones(60, bool), draw.random(300) < 0.2, **every) == 1 / 2001
    apart = {**every, "classes": np.ones(60, int)}
    assert more_often_p(np.ones(60, bool), draw.random(300) < 0.2, **apart) == 1


def test_a_class_that_is_still_answered_is_an_alarm():
    """The target is 0: a model that never learned the class does not answer with it."""
    going = digits().y == 3
    rows = [torch.nonzero(part).flatten().tolist() for part in (going[:300], ~going[:300])]
    whole = Split(digits().take(rows[0]), digits().take(range(300, 400)), forget_classes=(3,))
    nearly = copy.deepcopy(trained_model())
    with torch.no_grad():
        for weight in nearly.parameters():
            weight.mul_(1.001)
    found = keys(alarms(collect(trained_model(), nearly, whole)))
    assert {"forget.accuracy", "leaving.accuracy"} <= set(found)
    anew = fit(untrained_model(4), digits().take(rows[1]), 4)
    found = keys(alarms(collect(trained_model(), anew, whole)))
    assert not {"forget.accuracy", "leaving.accuracy"} & set(found)


class Dice(nn.Module):
    """Adds noise to every answer: what a provider may do to hide a record."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x) + 0.1 * torch.randn(len(x), 3)


def split_of(n=20):
    """Records of three classes and nothing else: tier T0."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 4, generator=generator)
    y = torch.arange(n) % 3
    return Split(Records(x, y, tuple(f"r{row}" for row in range(n))))


def net(scale=1.0):
    """Three logits of four inputs."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = nn.Linear(4, 3)
    with torch.no_grad():
        made.weight.mul_(scale)
    return made


def test_answers_by_chance_are_an_alarm_without_any_other_data():
    """Where the old model has dice too it is marked, and no finding of the new one's."""
    with torch.random.fork_rng():
        found = alarms(collect(net(), Dice(net(0.9)), split_of()))
        both = collect(Dice(net()), Dice(net(0.9)), split_of()).row("sanity.repeated")
    assert "sanity.repeated" in keys(found)
    assert (both.verdict, both.p) == ("answers by chance", None)


def test_one_answer_for_all_is_an_alarm_without_any_other_data():
    """Only the bias is left."""
    assert keys(alarms(collect(net(), net(0.0), split_of()))) == ["sanity.constant"]


def test_the_untouched_model_is_an_alarm_without_any_other_data():
    """Nothing was done."""
    assert keys(alarms(collect(net(), net(), split_of()))) == ["moved.weights"]


def test_a_model_that_answers_otherwise_is_none():
    """At T0 nothing says what the right answers are."""
    assert alarms(collect(net(), net(0.9), split_of())) == []


def two_layers(first=1.0, last=1.0):
    """Eight features, three logits."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        made[0].weight.mul_(first)
        made[2].weight.mul_(last)
    return made


def test_a_head_that_moved_alone_is_an_alarm_where_retrained_models_moved_more():
    """Under it the features hold what they held; a frozen backbone does so for all."""
    head = two_layers(last=0.9)
    row = collect(two_layers(), head, split_of()).row("moved.weights")
    assert (row.status, row.verdict) == ("look", "only the last layer moved")
    anew = [two_layers(first=0.8 + 0.01 * k, last=0.7) for k in range(3)]
    found = collect(two_layers(), head, split_of(), retrained=anew)
    assert keys(alarms(found)) == ["retrained.shared"]
    frozen = [two_layers(last=0.7 + 0.01 * k) for k in range(3)]
    assert alarms(collect(two_layers(), head, split_of(), retrained=frozen)) == []
    row = collect(net(), net(0.9), split_of()).row("moved.weights")
    assert row.verdict == "described"
