"""LiRA and RMIA beside twins in loops, on drawn shadow models: with a leak, and without one."""

import math

import numpy as np
import pytest
from scipy import stats

from efface.errors import InputError
from efface.metrics.lira import lira_offline, lira_online, rmia_offline, rmia_online, tuned_a
from efface.metrics.membership import signal_attack
from efface.metrics.refusals import same_shape


def _drawn(models, n, seed, leak=1.0, half=True):
    """Log-odds of records that differ in difficulty; ``leak`` is what training on one adds."""
    draw = np.random.default_rng(seed)
    member = draw.permuted(np.arange(models)[:, None] % 2 == np.zeros(n), axis=0)
    member = member if half else member & (np.arange(n) % 5 > 0)
    known, centre = draw.random(n) < 0.5, draw.normal(2, 2, n)
    shadow = centre + leak * member + draw.normal(0, 0.7, (models, n))
    return centre + leak * known + draw.normal(0, 0.7, n), shadow, member, known


def _log_p(log_odds):
    return -np.logaddexp(0, -log_odds)


@pytest.mark.parametrize("models", [8, 64])
def test_lira_agrees_with_gaussians_fitted_one_record_at_a_time(models):
    """Below 64 models the deviations of all records together give one variance a side."""
    x, shadow, member, _ = _drawn(models, 30, 0)
    sides = [[shadow[chosen[:, i], i] for i in range(30)] for chosen in (member, ~member)]
    pooled = [
        math.sqrt(sum(((v - v.mean()) ** 2).sum() for v in side) / sum(len(v) - 1 for v in side))
        for side in sides
    ]
    online, offline = lira_online(x, shadow, member), lira_offline(x, shadow, member)
    for i in range(30):
        own = [
            side[i].std(ddof=1) if models >= 64 else sd
            for side, sd in zip(sides, pooled, strict=True)
        ]
        inside, out = (stats.norm(side[i].mean(), sd) for side, sd in zip(sides, own, strict=True))
        assert online[i] == pytest.approx(inside.logpdf(x[i]) - out.logpdf(x[i]))
        assert offline[i] == pytest.approx(-math.log(1 - out.cdf(x[i])))


def test_lira_knows_how_hard_each_record_is_and_the_loss_does_not():
    """Records differ more than training changes them: where population attacks are weak."""
    x, shadow, member, known = _drawn(32, 800, 1)
    by_loss = signal_attack(x[known], x[~known]).auc
    online, offline = (
        signal_attack(score[known], score[~known]).auc
        for score in (lira_online(x, shadow, member), lira_offline(x, shadow, member))
    )
    best = stats.norm.cdf(1 / 0.7 / math.sqrt(2))
    assert by_loss < 0.67
    assert best - 0.06 < online < best + 0.02
    assert best - 0.06 < offline < best + 0.02


def test_offline_scores_of_records_never_seen_are_exponential():
    """Their tail probability is uniform; forgotten beyond unseen is no membership."""
    x, shadow, member, _ = _drawn(200, 600, 2, leak=0.0)
    assert stats.kstest(lira_offline(x, shadow, member), "expon").pvalue > 0.01
    assert lira_offline(x - 30, shadow, member).max() < 1e-6


def test_scores_of_sure_answers_stay_finite_and_in_order():
    """A likelihood of 0 on both sides is no 0 / 0."""
    x, shadow, member, _ = _drawn(16, 4, 3)
    far = [score(x + 500, shadow, member) for score in (lira_online, lira_offline)]
    farther = [score(x + 600, shadow, member) for score in (lira_online, lira_offline)]
    assert all(np.isfinite(s).all() for s in (*far, *farther))
    assert (farther[1] > far[1]).all()


def _population(models, size, seed):
    draw = np.random.default_rng(seed)
    centre = draw.normal(2, 2, size)
    return centre + draw.normal(0, 0.7, size), centre + draw.normal(0, 0.7, (models, size))


def test_rmia_agrees_with_a_double_loop():
    """Each record against each population record, in plain probabilities."""
    x, shadow, member, _ = _drawn(6, 20, 4)
    z, z_shadow = _population(6, 50, 5)
    p, refs, pz, refs_z = (1 / (1 + np.exp(-v)) for v in (x, shadow, z, z_shadow))
    both = {"population": _log_p(z), "population_reference": _log_p(z_shadow), "gamma": 1.3}
    online = rmia_online(_log_p(x), _log_p(shadow), member, **both)
    offline = rmia_offline(_log_p(x), _log_p(shadow), member, a=0.3, **both)
    for i in range(20):
        inside, out = refs[member[:, i], i].mean(), refs[~member[:, i], i].mean()
        ratios = [(p[i] / ((inside + out) / 2)) / (pz[j] / refs_z[:, j].mean()) for j in range(50)]
        assert online[i] == np.mean(np.array(ratios) > 1.3)
        ratios = [
            (p[i] / (0.65 * out + 0.35)) / (pz[j] / (0.65 * refs_z[:, j].mean() + 0.35))
            for j in range(50)
        ]
        assert offline[i] == np.mean(np.array(ratios) > 1.3)


def test_rmia_sees_a_leak_with_few_models_and_none_where_there_is_none():
    """Four reference models; three judged models without any leak."""
    z, z_shadow = _population(4, 2000, 6)
    both = {"population": _log_p(z), "population_reference": _log_p(z_shadow)}
    x, shadow, member, known = _drawn(4, 800, 7, leak=1.5)
    by_loss = signal_attack(x[known], x[~known]).auc
    for score in (
        rmia_online(_log_p(x), _log_p(shadow), member, **both),
        rmia_offline(_log_p(x), _log_p(shadow), member, a=0.3, **both),
    ):
        assert signal_attack(score[known], score[~known]).auc > by_loss + 0.1
    for seed in (8, 9, 10):
        x, shadow, member, known = _drawn(4, 800, seed, leak=0)
        score = rmia_offline(_log_p(x), _log_p(shadow), member, a=0.3, **both)
        assert abs(signal_attack(score[known], score[~known]).auc - 0.5) < 0.06


def test_gamma_and_the_population_do_not_change_the_order_of_records():
    """A ten times larger gamma lowers the shares; the records keep their order, ties apart."""
    z, z_shadow = _population(4, 5000, 11)
    both = {"population": _log_p(z), "population_reference": _log_p(z_shadow)}
    x, shadow, member, _ = _drawn(4, 60, 12)
    low, high = (
        rmia_online(_log_p(x), _log_p(shadow), member, gamma=gamma, **both) for gamma in (0.9, 1.1)
    )
    assert (low >= high).all()
    assert (np.diff(high[np.argsort(low, kind="stable")]) >= -1e-12).mean() > 0.95


def test_a_is_tuned_by_the_area_on_a_known_model():
    """The grid's best by a loop, ties to the least."""
    x, shadow, member, known = _drawn(4, 300, 13, half=False)
    z, z_shadow = _population(4, 300, 14)
    both = {"population": _log_p(z), "population_reference": _log_p(z_shadow)}
    areas = {}
    for a in (0.0, 0.5, 1.0):
        score = rmia_offline(_log_p(x), _log_p(shadow), member, a=a, **both)
        areas[a] = np.mean(score[known][:, None] > score[~known]) + 0.5 * np.mean(
            score[known][:, None] == score[~known]
        )
    best = tuned_a(_log_p(x), _log_p(shadow), member, known=known, grid=(0.0, 0.5, 1.0), **both)
    assert best == max(areas, key=areas.get)
    assert len(set(areas.values())) == 3


def _said(call):
    with pytest.raises(InputError) as error:
        call()
    return str(error.value)


def test_broken_models_and_missing_ones_are_named():
    """Nothing passes in silence: nan, too few models, arrays of unlike shape, wrong settings."""
    x, shadow, member, _ = _drawn(6, 5, 15)
    broken = shadow.copy()
    broken[[1, 4], 2] = np.nan, np.inf
    assert _said(lambda: lira_online(x, broken, member)) == (
        "Wanted finite log-odds. Got nan or inf in 2 of 6 rows: 1, 4. "
        "Omit these models, and say how many there were."
    )
    none = member & (np.arange(5) > 1)
    assert _said(lambda: lira_online(x, shadow, none)) == (
        "Wanted at least 2 shadow models in for each record. Got 2 of 5 records with fewer. "
        "Make more of them, or omit these records."
    )
    assert _said(lambda: same_shape(judged=x[:4], record=x)) == (
        "Wanted arrays of one shape. Got judged (4,), record (5,). "
        "Give the same models and records in each."
    )
    z = {"population": x, "population_reference": shadow}
    log_p = _log_p(x), _log_p(shadow), member
    assert _said(lambda: rmia_offline(*log_p, a=1.5, **z)) == (
        "Wanted a from 0 to 1. Got 1.5. Find it with tuned_a on a reference model."
    )
    assert _said(lambda: rmia_online(*log_p, gamma=0.0, **z)) == (
        "Wanted gamma above 0. Got 0.0. The paper takes 2."
    )
    empty = {"population": x[:0], "population_reference": shadow[:, :0]}
    assert _said(lambda: rmia_online(*log_p, **empty)) == (
        "Wanted population records. Got none. Give records that no model was trained on."
    )
