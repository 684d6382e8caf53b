"""One number of many targets in many pipelines: how wide its interval has to be."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from efface.metrics.lira import pooled, u_lira


def _crossed(seed, p=24, t=40, *, target=0.0, pipeline=0.0):
    """Scores without a leak that targets and pipelines share, and who is a member there."""
    draw = np.random.default_rng(seed)
    scores = draw.normal(size=(p, t)) + target * draw.normal(size=t)
    scores += pipeline * draw.normal(size=(p, 1))
    return scores, draw.random((p, t)) < draw.uniform(0.2, 0.8, (p, 1))


def test_independent_values_count_once_each():
    """The effective numbers are near the numbers, and never above them."""
    found = [pooled(*_crossed(seed)) for seed in range(10)]
    shares = [one.independent[0] / one.attack.forget_n for one in found]
    assert max(shares) <= 1
    assert np.mean(shares) > 0.75


def test_the_interval_is_as_wide_as_that_of_a_bootstrap_over_both():
    """Pipelines and targets drawn again together, 300 times; both are shared here."""
    scores, member = _crossed(20, target=0.7, pipeline=1.0)
    low, high = pooled(scores, member).attack.auc_interval
    draw, areas = np.random.default_rng(0), []
    for _ in range(300):
        rows, columns = draw.integers(0, 24, 24), draw.integers(0, 40, 40)
        again = np.ix_(rows, columns)
        areas.append(roc_auc_score(member[again].ravel(), scores[again].ravel()))
    assert high - low == pytest.approx(2 * 1.96 * np.std(areas), rel=0.3)


def test_without_a_leak_the_interval_leaves_out_chance_one_time_in_twenty():
    """100 draws; pipelines of unlike shift that forget unlike shares of the targets."""
    found = [pooled(*_crossed(seed, pipeline=1.0)) for seed in range(100)]
    assert np.mean([one.attack.sees for one in found]) <= 0.11
    alone = [_by_targets_alone(one.scores, one.member) for one in found]
    assert np.mean([not low <= 0.5 <= high for low, high in alone]) > 0.2


def _by_targets_alone(scores, member):
    """The interval of a bootstrap over targets, which takes one unlucky model for a finding."""
    draw, areas = np.random.default_rng(0), [_area(scores, member)]
    for _ in range(40):
        columns = draw.integers(0, scores.shape[1], scores.shape[1])
        areas.append(_area(scores[:, columns], member[:, columns]))
    spread = 1.96 * np.std(areas[1:])
    return areas[0] - spread, areas[0] + spread


def _area(scores, member):
    n = member.sum()
    ranks = stats.rankdata(scores)[member.ravel()].sum() - n * (n + 1) / 2
    return ranks / n / (~member).sum()


def test_u_lira_without_a_leak_is_quiet_in_area_rate_and_accuracy():
    """60 draws of 16 pipelines and 40 targets."""
    seen = []
    for seed in range(60):
        draw = np.random.default_rng(seed)
        member = draw.permuted(np.tile(np.arange(16)[:, None] < 8, (1, 40)), axis=0)
        x = draw.normal(0, 2, 40) + draw.normal(size=(16, 40)) + draw.normal(size=(16, 1))
        found = u_lira(x, member)
        low, high = found.accuracy_interval
        above = any(one.above for one in found.attack.rates)
        seen.append((found.attack.sees, not low <= 0.5 <= high, above))
    assert (np.mean(seen, axis=0) <= [0.1, 0.1, 0.05]).all()


def test_a_rate_counts_what_is_independent():
    """The same 10 targets found in all pipelines are not 120 findings."""
    scores, member = _crossed(30, p=24, t=200)
    member = np.arange(24)[:, None] % 2 == np.zeros(200)
    spread, vulnerable = scores.copy(), scores.copy()
    vulnerable[:, :10] += 20 * member[:, :10]
    rows, columns = np.nonzero(member)
    some = np.random.default_rng(1).choice(len(rows), 120, replace=False)
    spread[rows[some], columns[some]] += 20
    one, other = (pooled(s, member).attack.at(0.01) for s in (vulnerable, spread))
    assert one.tpr == pytest.approx(other.tpr, abs=0.01)
    assert one.interval[1] - one.interval[0] > 1.7 * (other.interval[1] - other.interval[0])


def test_a_perfect_separation_is_no_certainty():
    """All values on their side: as sure as so few pipelines can be."""
    _, member = _crossed(40, p=12, t=30)
    found = pooled(np.where(member, 1.0, -1.0), member)
    assert found.attack.auc == found.accuracy == 1
    assert 0.7 < found.attack.auc_interval[0] < 0.95
    assert 0.6 < found.accuracy_interval[0] < 0.95


def test_what_was_not_judged_is_not_counted():
    """A score of nan stands for no judgement."""
    scores, member = _crossed(50)
    scores[:, 3] = np.nan
    found = pooled(scores, member)
    assert found.attack.forget_n + found.attack.unseen_n == 24 * 39
    keep = np.arange(40) != 3
    assert found.attack.auc == pytest.approx(pooled(scores[:, keep], member[:, keep]).attack.auc)
