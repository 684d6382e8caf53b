"""U-LiRA and RULI beside twins that fit each value anew, and what they find and do not find."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.neighbors import KernelDensity

from efface.errors import InputError
from efface.metrics.lira import ruli_efficacy, ruli_privacy, ruli_states, u_lira


def _drawn(p, t, seed, *, leak=0.0, share=0.5):
    """Log-odds of targets unlike in difficulty and spread; pipelines share a shift."""
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
def test_u_lira_agrees_with_gaussians_fitted_anew_for_each_value(one_sd, floor):
    """A loop over pipelines and targets, and another over the sides."""
    x, member = _drawn(9, 12, 0, leak=0.5)
    found = u_lira(x, member, one_sd=one_sd, floor=floor)
    for j in range(9):
        fits = [[_others(x, side, j, i) for i in range(12)] for side in (member, ~member)]
        squares = [np.array([((v - v.mean()) ** 2).sum() for v in side]) for side in fits]
        free = [np.array([len(v) - 1 for v in side]) for side in fits]
        if one_sd:
            squares, free = [sum(squares)] * 2, [sum(free)] * 2
        sds = [
            np.maximum(np.sqrt(q / f), floor * np.sqrt(q.sum() / f.sum()))
            for q, f in zip(squares, free, strict=True)
        ]
        for i in range(12):
            here, there = (
                stats.norm.pdf(x[j, i], side[i].mean(), sd[i])
                for side, sd in zip(fits, sds, strict=True)
            )
            assert found.probabilities[j, i] == pytest.approx(here / (here + there), abs=1e-9)


@pytest.mark.parametrize("bandwidth", [None, 1.0])
def test_ruli_agrees_with_kernel_densities_of_scipy_and_of_scikit_learn(bandwidth):
    """Scott's rule as in scipy; the width 1 of RULI's code as in scikit-learn."""
    x, member = _drawn(10, 8, 1, leak=1)
    found = ruli_privacy(x, member, bandwidth=bandwidth, floor=0.0)

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
    x, member = _drawn(16, 400, 2, leak=1.5, share=0.25)
    found = u_lira(x, member)
    scores, truth = found.scores.ravel(), member.ravel()
    assert found.attack.auc == pytest.approx(roc_auc_score(truth, scores))
    assert found.accuracy == pytest.approx(balanced_accuracy_score(truth, scores > 0))
    limit = np.sort(scores[~truth])[-1 - int(0.01 * (~truth).sum())]
    assert found.attack.tpr == pytest.approx((scores[truth] > limit).mean())
    one = balanced_accuracy_score(member[:, 7], found.scores[:, 7] > 0)
    assert found.by_target()[7] == pytest.approx(one)
    assert (found.attack.forget_n, found.attack.unseen_n) == (truth.sum(), (~truth).sum())


def test_without_a_leak_few_pipelines_on_a_side_do_not_look_like_too_much_forgetting():
    """3 of 16: leaving out the judged value alone would give 0.44 here, on the wrong side."""
    areas = [u_lira(*_drawn(16, 200, 10 + seed, share=3 / 16)).attack.auc for seed in range(12)]
    assert np.mean(areas) == pytest.approx(0.5, abs=0.015)


def test_a_leak_that_no_population_attack_sees_is_found_and_told_at_its_size():
    """One deviation of each target, which is small beside how targets differ; at best 0.76."""
    x, member = _drawn(32, 200, 3, leak=1.0)
    found = u_lira(x, member, one_sd=True)
    assert roc_auc_score(member.ravel(), x.ravel()) < 0.6
    assert 0.72 < found.attack.auc < stats.norm.cdf(1 / np.sqrt(2)) + 0.01
    assert found.attack.recognised
    assert found.attack.at(0.01).above
    assert found.accuracy_interval[0] > 0.6
    assert ruli_privacy(x, member).attack.recognised


def test_it_reads_how_sure_an_answer_is_and_not_whether_it_is_right():
    """All answers right, far above 0; the ones that were unlearned a little surer."""
    x, member = _drawn(24, 60, 4, leak=2.0)
    assert u_lira(x + 100, member).attack.auc == pytest.approx(u_lira(x, member).attack.auc)
    assert u_lira(x + 100, member).attack.recognised


def test_neither_scale_nor_label_order_matters():
    """Twice the log-odds: the same scores; the sides exchanged: the opposite ones."""
    x, member = _drawn(12, 30, 5, leak=1.0)
    for attack in (u_lira, ruli_privacy):
        scores = attack(x, member).scores
        np.testing.assert_allclose(attack(2 * x + 3, member).scores, scores, atol=1e-8)
        np.testing.assert_allclose(attack(x, ~member).scores, -scores, atol=1e-8)


def test_models_that_all_say_the_same_are_at_chance():
    """A collapsed net gives each pipeline one answer; no spread is no sure knowledge."""
    _, member = _drawn(10, 20, 6)
    for attack in (u_lira, ruli_privacy):
        found = attack(np.full((10, 20), -2.2), member)
        assert found.attack.auc == found.accuracy == 0.5
        assert not found.attack.sees


def test_far_out_values_give_no_0_over_0():
    """Log-odds of 1,000 beside 0: the densities of both sides are 0 in double precision."""
    x, member = _drawn(12, 10, 7)
    x[0] = 1000
    for attack in (u_lira, ruli_privacy):
        assert np.isfinite(attack(x, member).scores).all()


def test_the_three_states_part_where_they_differ():
    """Kept targets stand apart, unlearned and out alike: the state that unlearning aims at."""
    draw = np.random.default_rng(8)
    states = draw.permuted(np.tile(np.arange(24)[:, None] % 3, (1, 100)), axis=0)
    x = draw.normal(0, 3, 100) + draw.normal(size=(24, 100)) + 4 * (states == 2)
    unlearned, inside = states == 0, states == 2
    chances = ruli_states(x, unlearned, inside)
    np.testing.assert_allclose(chances.sum(axis=2), 1)
    assert chances[inside].mean(axis=0)[2] > 0.85
    assert chances[unlearned].mean(axis=0) == pytest.approx([0.47, 0.47, 0.06], abs=0.04)
    privacy = ruli_privacy(x, unlearned, inside=inside)
    assert np.isnan(privacy.scores[inside]).all()
    assert not privacy.attack.sees
    assert privacy.attack.unseen_n == (states == 1).sum()


def test_efficacy_sees_what_privacy_cannot():
    """A method that lowers all targets, unlearned or not: no leak, but not retraining either."""
    drawn, members = _drawn(32, 80, 9)
    x, retrained, member = drawn[::2], drawn[1::2], members[::2]
    assert not ruli_efficacy(x, member, retrained).attack.sees
    lowered = ruli_efficacy(x - 6, member, retrained)
    assert lowered.attack.recognised
    assert not ruli_privacy(x - 6, member).attack.sees
    assert lowered.scores.shape == (32, 80)
    assert np.isnan(lowered.scores[:16][~member]).all()


def test_broken_and_missing_pipelines_are_named():
    """A model of nan must not vanish among the others."""
    x, member = _drawn(8, 5, 11)
    x[[2, 5], 0] = np.nan, np.inf
    with pytest.raises(InputError) as error:
        u_lira(x.astype(np.float16), member)
    assert str(error.value) == (
        "Wanted finite log-odds. Got nan or inf in 2 of 8 rows: 2, 5. "
        "Omit these models, and say how many there were."
    )
    member[2:, 0] = False
    with pytest.raises(InputError) as error:
        u_lira(np.zeros((8, 5)), member)
    assert str(error.value) == (
        "Wanted at least 3 pipelines with the target unlearned for each record. "
        "Got 1 of 5 records with fewer. Make more of them, or omit these records."
    )
