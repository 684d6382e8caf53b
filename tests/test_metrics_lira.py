"""LiRA and RMIA against loops, on simulated shadow models: with a leak, and without one.

U-LiRA and RULI against twins that fit each value from scratch, and what they detect or miss.
One number of many targets in many shadow runs: how wide its interval has to be.
"""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.neighbors import KernelDensity

from efface.metrics import lira
from efface.metrics.lira import pooled
from efface.metrics.membership import signal_attack
from efface.metrics.refusals import same_shape
from tests.refusals import refusal


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
    online, offline = lira.lira_online(x, shadow, member), lira.lira_offline(x, shadow, member)
    for i in range(30):
        own = [side[i].std(ddof=1) for side in sides] if models >= 64 else pooled
        inside, out = (stats.norm(side[i].mean(), sd) for side, sd in zip(sides, own, strict=True))
        assert online[i] == pytest.approx(inside.logpdf(x[i]) - out.logpdf(x[i]))
        assert offline[i] == pytest.approx(-math.log(1 - out.cdf(x[i])))


def _auc(score, known):
    return signal_attack(score[known], score[~known]).auc


def test_lira_knows_how_hard_each_record_is_and_the_loss_does_not():
    """Records differ more than training changes them: where population attacks are weak."""
    x, shadow, member, known = _drawn(32, 800, 1)
    best = stats.norm.cdf(1 / 0.7 / math.sqrt(2))
    assert _auc(x, known) < 0.67
    for score in (lira.lira_online, lira.lira_offline):
        assert best - 0.06 < _auc(score(x, shadow, member), known) < best + 0.02


def test_offline_scores_of_records_never_seen_are_exponential():
    """Their tail probability is uniform; forgotten beyond unseen is no membership."""
    x, shadow, member, _ = _drawn(200, 600, 2, leak=0.0)
    assert stats.kstest(lira.lira_offline(x, shadow, member), "expon").pvalue > 0.01
    assert lira.lira_offline(x - 30, shadow, member).max() < 1e-6


def test_scores_of_sure_answers_stay_finite_and_in_order():
    """A likelihood of 0 on both sides is no 0 / 0."""
    x, shadow, member, _ = _drawn(16, 4, 3)
    far, farther = (lira.lira_offline(x + shift, shadow, member) for shift in (500, 600))
    assert np.isfinite([far, farther, lira.lira_online(x + 500, shadow, member)]).all()
    assert (farther > far).all()


def _population(models, size, seed):
    draw = np.random.default_rng(seed)
    centre = draw.normal(2, 2, size)
    judged, shadow = (centre + draw.normal(0, 0.7, shape) for shape in (size, (models, size)))
    return {"population": (_log_p(judged), _log_p(shadow))}


def test_rmia_agrees_with_a_double_loop():
    """Each record against each population record, in plain probabilities."""
    x, shadow, member, _ = _drawn(6, 20, 4)
    both = {**_population(6, 50, 5), "gamma": 1.3}
    p, refs = (1 / (1 + np.exp(-v)) for v in (x, shadow))
    pz, refs_z = map(np.exp, both["population"])
    online = lira.rmia_online(_log_p(x), _log_p(shadow), member, **both)
    offline = lira.rmia_offline(_log_p(x), _log_p(shadow), member, 0.3, **both)
    for i in range(20):
        inside, out = refs[member[:, i], i].mean(), refs[~member[:, i], i].mean()
        ratios = [(p[i] / ((inside + out) / 2)) / (pz[j] / refs_z[:, j].mean()) for j in range(50)]
        assert online[i] == np.mean(np.array(ratios) > 1.3)
        lifted = 0.65 * refs_z.mean(0) + 0.35
        assert offline[i] == np.mean((p[i] / (0.65 * out + 0.35)) / (pz / lifted) > 1.3)


def test_rmia_sees_a_leak_with_few_models_and_none_where_there_is_none():
    """Four reference models; three judged models without any leak."""
    both = _population(4, 2000, 6)
    x, shadow, member, known = _drawn(4, 800, 7, leak=1.5)
    given = _log_p(x), _log_p(shadow), member
    for score in (lira.rmia_online(*given, **both), lira.rmia_offline(*given, 0.3, **both)):
        assert _auc(score, known) > _auc(x, known) + 0.1
    for seed in (8, 9, 10):
        x, shadow, member, known = _drawn(4, 800, seed, leak=0)
        score = lira.rmia_offline(_log_p(x), _log_p(shadow), member, 0.3, **both)
        assert abs(_auc(score, known) - 0.5) < 0.06


def test_gamma_and_the_population_do_not_change_the_order_of_records():
    """A ten times larger gamma lowers the shares; the records keep their order, ties apart."""
    both = _population(4, 5000, 11)
    x, shadow, member, _ = _drawn(4, 60, 12)
    given = _log_p(x), _log_p(shadow), member
    low, high = (lira.rmia_online(*given, gamma=gamma, **both) for gamma in (0.9, 1.1))
    assert (low >= high).all()
    assert (np.diff(high[np.argsort(low, kind="stable")]) >= -1e-12).mean() > 0.95


def test_a_is_tuned_by_the_area_on_a_known_model():
    """The grid's best by a loop, ties to the least."""
    x, shadow, member, known = _drawn(4, 300, 13, half=False)
    both = _population(4, 300, 14)
    given, grid = (_log_p(x), _log_p(shadow), member), (0.0, 0.5, 1.0)
    scores = [lira.rmia_offline(*given, a, **both) for a in grid]
    pairs = [(score[known][:, None], score[~known]) for score in scores]
    areas = [np.mean(ours > theirs) + np.mean(ours == theirs) / 2 for ours, theirs in pairs]
    assert lira.tuned_a(*given, known, grid=grid, **both) == grid[np.argmax(areas)]
    assert len(set(areas)) == 3


def test_broken_models_and_missing_ones_are_named():
    """Nothing passes in silence: nan, too few models, arrays of unlike shape, wrong settings."""
    x, shadow, member, _ = _drawn(6, 5, 15)
    broken, z, log_p = shadow.copy(), (x, shadow), (_log_p(x), _log_p(shadow), member)
    broken[[1, 4], 2] = np.nan, np.inf
    omit = "Omit these models, and say how many there were."
    text = f"Wanted finite log-odds. Got nan or inf in 2 of 6 rows: 1, 4. {omit}"
    assert refusal(lira.lira_online, x, broken, member) == text
    text = "Wanted at least 2 shadow models in for each record. Got 2 of 5 records with fewer. Make"
    few = member & (np.arange(5) > 1)
    assert (
        refusal(lira.lira_online, x, shadow, few) == f"{text} more of them, or omit these records."
    )
    text = (
        "Wanted arrays of one shape. Got judged (4,), record (5,). Give the same models and records"
    )
    assert refusal(same_shape, judged=x[:4], record=x) == f"{text} in each."
    text = "Wanted a from 0 to 1. Got 1.5. Find it with tuned_a on a reference model."
    assert refusal(lira.rmia_offline, *log_p, 1.5, population=z) == text
    text = "Wanted gamma above 0. Got 0.0. The paper takes 2."
    assert refusal(lira.rmia_online, *log_p, gamma=0.0, population=z) == text
    text = "Wanted population records. Got none. Give records that no model was trained on."
    assert refusal(lira.rmia_online, *log_p, population=(x[:0], shadow[:, :0])) == text


def _drawn_per_record(p, t, seed, *, leak=0.0, share=0.5):
    """Log-odds of targets unlike in difficulty and spread; shadow runs share a shift."""
    draw = np.random.default_rng(seed)
    member = draw.permuted(np.tile(np.arange(p)[:, None] < round(share * p), (1, t)), axis=0)
    spread = np.exp(draw.normal(0, 0.5, t))
    noise = spread * draw.normal(size=(p, t)) + 0.5 * draw.normal(size=(p, 1))
    return draw.normal(0, 3, t) + noise + leak * spread * member, member


def _others(x, mask, j, i):
    """The values of target i on a side, without j's own, or without its partner's."""
    rows = np.flatnonzero(mask[:, i])
    own = np.flatnonzero(mask[:, i] == mask[j, i])
    lost = rows[list(own).index(j) % len(rows)]
    assert lost == j or not mask[j, i]
    return x[rows[rows != lost], i]


@pytest.mark.parametrize(("one_sd", "floor"), [(False, 0.0), (True, 0.0), (False, 0.7)])
def test_u_lira_agrees_with_gaussians_fitted_from_scratch_for_each_value(one_sd, floor):
    """A loop over shadow runs and targets, and another over the sides."""
    x, member = _drawn_per_record(9, 12, 0, leak=0.5)
    found = lira.u_lira(x, member, one_sd=one_sd, floor=floor)
    for j in range(9):
        fits = [[_others(x, side, j, i) for i in range(12)] for side in (member, ~member)]
        squares = [np.array([((v - v.mean()) ** 2).sum() for v in side]) for side in fits]
        free = [np.array([len(v) - 1 for v in side]) for side in fits]
        if one_sd:
            squares, free = [sum(squares)] * 2, [sum(free)] * 2
        pairs = zip(squares, free, strict=True)
        sds = [np.maximum((q / f) ** 0.5, floor * (q.sum() / f.sum()) ** 0.5) for q, f in pairs]
        for i in range(12):
            pairs = zip(fits, sds, strict=True)
            here, there = (stats.norm.pdf(x[j, i], s[i].mean(), sd[i]) for s, sd in pairs)
            assert found.probabilities[j, i] == pytest.approx(here / (here + there), abs=1e-9)


@pytest.mark.parametrize("bandwidth", [None, 1.0])
def test_ruli_agrees_with_kernel_densities_of_scipy_and_of_scikit_learn(bandwidth):
    """Scott's rule as in scipy; the width 1 of RULI's code as in scikit-learn."""
    x, member = _drawn_per_record(10, 8, 1, leak=1)
    found = lira.ruli_privacy(x, member, bandwidth=bandwidth, floor=0.0)

    def density(values, at):
        if bandwidth is None:
            return stats.gaussian_kde(values)(at)[0]
        fitted = KernelDensity(bandwidth=bandwidth).fit(values[:, None])
        return np.exp(fitted.score([[at]]))

    for j in range(10):
        for i in range(8):
            here, there = (density(_others(x, side, j, i), x[j, i]) for side in (member, ~member))
            assert found.probabilities[j, i] == pytest.approx(here / (here + there), abs=1e-9)


def test_the_result_of_all_values_is_that_of_scikit_learn():
    """Area and accuracy of the pooled scores; the rate by hand; by target, one at a time."""
    x, member = _drawn_per_record(16, 400, 2, leak=1.5, share=0.25)
    found = lira.u_lira(x, member)
    scores, truth = found.scores.ravel(), member.ravel()
    limit = np.sort(scores[~truth])[-1 - int(0.01 * (~truth).sum())]
    expected = [roc_auc_score(truth, scores), (scores[truth] > limit).mean()]
    assert [found.attack.auc, found.attack.tpr] == pytest.approx(expected)
    assert found.accuracy == pytest.approx(balanced_accuracy_score(truth, scores > 0))
    one = balanced_accuracy_score(member[:, 7], found.scores[:, 7] > 0)
    assert found.by_target()[7] == pytest.approx(one)
    assert (found.attack.forget_n, found.attack.unseen_n) == (truth.sum(), (~truth).sum())


def test_without_a_leak_few_shadow_runs_on_a_side_do_not_look_like_too_much_forgetting():
    """3 of 16: leaving out the judged value alone would give 0.44 here, on the wrong side."""
    draws = (_drawn_per_record(16, 200, 10 + seed, share=3 / 16) for seed in range(12))
    found = np.mean([lira.u_lira(*drawn).attack.auc for drawn in draws])
    assert found == pytest.approx(0.5, abs=0.015)


def test_a_leak_that_no_population_attack_sees_is_found_and_told_at_its_size():
    """One deviation of each target, small next to differences between targets; at best 0.76."""
    x, member = _drawn_per_record(32, 200, 3, leak=1.0)
    found = lira.u_lira(x, member, one_sd=True)
    assert roc_auc_score(member.ravel(), x.ravel()) < 0.6
    assert 0.72 < found.attack.auc < stats.norm.cdf(1 / np.sqrt(2)) + 0.01
    assert (found.attack.detected, found.attack.at(0.01).above) == (True, True)
    assert found.accuracy_interval[0] > 0.6
    assert lira.ruli_privacy(x, member).attack.detected


@pytest.mark.parametrize("attack", [lira.u_lira, lira.ruli_privacy])
def test_neither_scale_nor_shift_nor_label_order_matters(attack):
    """Log-odds far above 0, where all predictions are right, tell as much; sides may swap."""
    x, member = _drawn_per_record(12, 30, 5, leak=1.0)
    scores = attack(x, member).scores
    np.testing.assert_allclose(attack(2 * x + 100, member).scores, scores, atol=1e-8)
    np.testing.assert_allclose(attack(x, ~member).scores, -scores, atol=1e-8)


@pytest.mark.parametrize("attack", [lira.u_lira, lira.ruli_privacy])
def test_equal_values_are_at_chance_and_far_ones_give_no_0_over_0(attack):
    """A collapsed net has no variance; of log-odds of 1,000 next to 0 both densities round to 0."""
    x, member = _drawn_per_record(12, 10, 7)
    x[0] = 1000
    assert np.isfinite(attack(x, member).scores).all()
    found = attack(np.full((12, 10), -2.2), member)
    assert found.attack.auc == found.accuracy == 0.5
    assert not found.attack.significant


def test_the_three_states_part_where_they_differ():
    """Kept targets stand apart, unlearned and out alike: the state that unlearning aims at."""
    draw = np.random.default_rng(8)
    states = draw.permuted(np.tile(np.arange(24)[:, None] % 3, (1, 100)), axis=0)
    x = draw.normal(0, 3, 100) + draw.normal(size=(24, 100)) + 4 * (states == 2)
    unlearned, inside = states == 0, states == 2
    chances = lira.ruli_states(x, unlearned, inside)
    np.testing.assert_allclose(chances.sum(axis=2), 1)
    assert chances[inside].mean(axis=0)[2] > 0.85
    assert chances[unlearned].mean(axis=0) == pytest.approx([0.47, 0.47, 0.06], abs=0.04)
    privacy = lira.ruli_privacy(x, unlearned, inside=inside)
    assert np.isnan(privacy.scores[inside]).all()
    assert (privacy.attack.significant, privacy.attack.unseen_n) == (False, (states == 1).sum())


def test_efficacy_sees_what_privacy_cannot():
    """A method that lowers all targets, unlearned or not: no leak, but not retraining either."""
    drawn, members = _drawn_per_record(32, 80, 9)
    x, retrained, member = drawn[::2], drawn[1::2], members[::2]
    assert not lira.ruli_efficacy(x, member, retrained).attack.significant
    lowered = lira.ruli_efficacy(x - 6, member, retrained)
    assert lowered.attack.detected
    assert not lira.ruli_privacy(x - 6, member).attack.significant
    assert lowered.scores.shape == (32, 80)
    assert np.isnan(lowered.scores[:16][~member]).all()


def test_broken_and_missing_shadow_runs_are_named():
    """A model of nan must not vanish among the others."""
    x, member = _drawn_per_record(8, 5, 11)
    x[[2, 5], 0] = np.nan, np.inf
    text = "Wanted finite log-odds. Got nan or inf in 2 of 8 rows: 2, 5. Omit these models, and"
    assert text in refusal(lira.u_lira, x.astype(np.float16), member)
    member[2:, 0] = False
    text = "Wanted at least 3 shadow runs with the target unlearned for each record."
    assert text in refusal(lira.u_lira, np.zeros((8, 5)), member)


def _crossed(seed, p=24, t=40, *, target=0.0, run=0.0):
    """Scores without a leak that targets and shadow runs share, and who is a member there."""
    draw = np.random.default_rng(seed)
    scores = draw.normal(size=(p, t)) + target * draw.normal(size=t)
    scores += run * draw.normal(size=(p, 1))
    return scores, draw.random((p, t)) < draw.uniform(0.2, 0.8, (p, 1))


def test_independent_values_count_once_each():
    """The effective numbers are near the numbers, and never above them."""
    found = [pooled(*_crossed(seed)) for seed in range(10)]
    shares = [one.independent[0] / one.attack.forget_n for one in found]
    assert max(shares) <= 1
    assert np.mean(shares) > 0.75


def test_the_interval_is_as_wide_as_that_of_a_bootstrap_over_both():
    """Shadow runs and targets drawn again together, 300 times; both are shared here."""
    scores, member = _crossed(20, target=0.7, run=1.0)
    low, high = pooled(scores, member).attack.auc_interval
    draw = np.random.default_rng(0)
    draws = (np.ix_(draw.integers(0, 24, 24), draw.integers(0, 40, 40)) for _ in range(300))
    areas = [_area(scores[again], member[again]) for again in draws]
    assert high - low == pytest.approx(2 * 1.96 * np.std(areas), rel=0.3)


def test_without_a_leak_the_interval_leaves_out_chance_one_time_in_twenty():
    """100 draws; shadow runs of unlike shift that forget unlike shares of the targets."""
    found = [pooled(*_crossed(seed, run=1.0)) for seed in range(100)]
    assert np.mean([one.attack.significant for one in found]) <= 0.11
    alone = [_by_targets_alone(one.scores, one.member) for one in found]
    assert np.mean([not low <= 0.5 <= high for low, high in alone]) > 0.2


def _by_targets_alone(scores, member):
    """The interval of a bootstrap over targets, which takes one unlucky model for a finding."""
    draw, t = np.random.default_rng(0), scores.shape[1]
    draws = (draw.integers(0, t, t) for _ in range(40))
    error = 1.96 * np.std([_area(scores[:, some], member[:, some]) for some in draws])
    return _area(scores, member) - error, _area(scores, member) + error


def _area(scores, member):
    return roc_auc_score(member.ravel(), scores.ravel())


def test_u_lira_without_a_leak_is_quiet_in_area_rate_and_accuracy():
    """60 draws of 16 shadow runs and 40 targets."""
    seen = []
    for seed in range(60):
        draw = np.random.default_rng(seed)
        member = draw.permuted(np.tile(np.arange(16)[:, None] < 8, (1, 40)), axis=0)
        x = draw.normal(0, 2, 40) + draw.normal(size=(16, 40)) + draw.normal(size=(16, 1))
        found = lira.u_lira(x, member)
        low, high = found.accuracy_interval
        above = found.attack.at(0.01).above or found.attack.at(0.001).above
        seen.append((found.attack.significant, not low <= 0.5 <= high, above))
    assert (np.mean(seen, axis=0) <= [0.1, 0.1, 0.05]).all()


def test_a_rate_counts_what_is_independent():
    """The same 10 targets found in all shadow runs are not 120 findings."""
    scores, member = _crossed(30, p=24, t=200)
    member = np.arange(24)[:, None] % 2 == np.zeros(200)
    scattered, vulnerable = scores.copy(), scores.copy()
    vulnerable[:, :10] += 20 * member[:, :10]
    some = np.random.default_rng(1).choice(np.flatnonzero(member), 120, replace=False)
    scattered.flat[some] += 20
    one, other = (pooled(s, member).attack.at(0.01) for s in (vulnerable, scattered))
    assert one.tpr == pytest.approx(other.tpr, abs=0.01)
    assert one.interval[1] - one.interval[0] > 1.7 * (other.interval[1] - other.interval[0])


def test_a_perfect_separation_is_no_certainty():
    """All values on their side: as sure as so few shadow runs can be."""
    _, member = _crossed(40, p=12, t=30)
    found = pooled(np.where(member, 1.0, -1.0), member)
    assert found.attack.auc == found.accuracy == 1
    for low, _ in (found.attack.auc_interval, found.accuracy_interval):
        assert 0.7 < low < 0.95


def test_what_was_not_judged_is_not_counted():
    """A score of nan stands for no judgement."""
    scores, member = _crossed(50)
    scores[:, 3] = np.nan
    found = pooled(scores, member)
    assert found.attack.forget_n + found.attack.unseen_n == 24 * 39
    rest = np.arange(40) != 3
    assert found.attack.auc == pytest.approx(pooled(scores[:, rest], member[:, rest]).attack.auc)
