"""Tier T4: each record among shadow models that never saw it."""

import numpy as np
import pytest

from efface.io.shadows import Shadows
from efface.metrics.measure import evaluate
from efface.report import collect
from efface.report.alarms import alarms
from efface.testing import digits, fit, trained_model, untrained_model
from efface.types import Split

ALL = digits()
SPLIT = Split(ALL.take(range(60)), ALL.take(range(300, 400)), ALL.take(range(60, 300)))


@pytest.fixture(scope="module")
def shadows():
    """Twenty-four nets, each trained on a drawn half of what the model was trained on."""
    members, odds = [], []
    for seed in range(24):
        member = np.random.default_rng(seed).random(300) < 0.5
        net = fit(untrained_model(50 + seed), ALL.take(np.flatnonzero(member).tolist()), seed)
        members.append(np.concatenate([member, np.zeros(100, bool)]))
        odds.append(evaluate(net, ALL).margin)
    names = tuple(f"shadow-{seed}" for seed in range(24))
    return Shadows(names, ALL.ids, np.array(members), np.array(odds), "by hand")


@pytest.fixture(scope="module")
def retrained():
    """The net without the records, from other weights."""
    return fit(untrained_model(9), ALL.take(range(60, 300)), 9)


def row(new, shadows, key="attack.lira"):
    """The row of the attack per record."""
    return collect(trained_model(), new, SPLIT, shadows=shadows).row(key)


def test_the_untouched_model_is_recognised_and_the_retrained_one_is_not(shadows, retrained):
    """The first is the positive control of the second."""
    untouched = row(trained_model(), shadows)
    assert untouched.verdict == "still recognised"
    assert untouched.p < 1e-3
    without = row(retrained, shadows)
    assert without.before == untouched.after > without.after
    assert without.verdict == "not recognised"
    assert "attack.lira" not in {r.key for r in alarms(collect(trained_model(), retrained, SPLIT))}


def test_the_attack_is_that_of_the_scores_written_out(shadows, retrained):
    """Mean over forget records of the share of unseen ones of their class that are less rare."""
    from scipy import stats

    out = np.where(shadows.member, np.nan, shadows.log_odds)
    means = np.nanmean(out, axis=0)
    spread = np.sqrt(np.nansum((out - means) ** 2) / ((~shadows.member).sum() - 400))
    scores = -stats.norm.logsf(evaluate(retrained, ALL).margin, means, spread)
    y, area = ALL.y.numpy(), []
    for record in range(60):
        rivals = scores[300:][y[300:] == y[record]]
        if len(rivals):
            area.append(((scores[record] > rivals) + (scores[record] == rivals) / 2).mean())
    assert row(retrained, shadows).after == pytest.approx(np.mean(area), abs=1e-9)


def test_a_rate_that_the_sample_does_not_resolve_is_not_run(shadows, retrained):
    """A hundred unseen records say nothing of one false alarm in a thousand."""
    found = row(retrained, shadows, "attack.lira_0.1")
    assert found.status == "not run"
    assert found.note == "not resolvable with 100 unseen records; 3000 are needed"


def test_shadow_models_that_were_not_asked_about_the_holdout_are_said_to_be(shadows, retrained):
    """Their arrays end with what the model was trained on."""
    fewer = shadows.of(ALL.ids[:300])
    found = collect(trained_model(), retrained, SPLIT, shadows=fewer).row("shadow")
    assert found.status == "not run"
    assert found.note == "the shadow models were not asked about 100 of 160 records"
