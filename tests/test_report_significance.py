"""One level for a whole page: which rows are significant after Holm correction."""

import copy

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from efface.metrics.intervals import auc_p, fall_p, share_p
from efface.metrics.permutation import difference_p
from efface.report import Report, Row, Status, Verdict, collect, significant_rows
from efface.testing import digits, fit, trained_model, untrained_model
from efface.types import Records, Split


def significant(*p_values, tier="T1", **options):
    """Keys of the significant rows of a report with one row for each p."""
    rows = [Row(p=p, key=f"row{n}", tier=tier) for n, p in enumerate(p_values)]
    return [row.key for row in significant_rows(Report(tier, tuple(rows)), **options)]


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
    report = Report("T2", (Row(p=0.001, key="row", tier="T2"),))
    assert significant_rows(report, tier="T1") == []


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
        p_values.append(difference_p(ours, theirs, classes=ours_y, unseen_classes=theirs_y))
    assert np.mean(np.array(p_values) < 0.05) < 0.09


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
