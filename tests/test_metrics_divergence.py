"""Divergences of answers: the right ones, and the field's defective one under its own name.

KLoM: histograms of margins over models, record by record.
"""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import euclidean, jensenshannon
from torch.nn import functional

from efface.metrics import divergence
from tests.refusals import refusal


def _answers(n, k, seed):
    return np.random.default_rng(seed).dirichlet(np.ones(k) / 2, n)


OURS, THEIRS = _answers(50, 7, 0), _answers(50, 7, 1)


def test_jensen_shannon_is_scipys_distance_squared():
    """A second library; and it is the same from both sides."""
    expected = jensenshannon(OURS, THEIRS, axis=1) ** 2
    np.testing.assert_allclose(divergence.jensen_shannon_each(OURS, THEIRS), expected)
    both = divergence.jensen_shannon(OURS, THEIRS), divergence.jensen_shannon(THEIRS, OURS)
    assert both == pytest.approx((expected.mean(),) * 2)


def test_jensen_shannon_goes_from_0_to_ln_2_with_zeros_among_the_probabilities():
    """Sure answers have zeros, and these must not become nan."""
    one, other = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    assert divergence.jensen_shannon(one, one) == 0
    assert divergence.jensen_shannon(one, other) == pytest.approx(math.log(2))
    assert divergence.jensen_shannon(OURS, OURS) == 0


@pytest.mark.parametrize(
    ("k", "legacy", "nats", "bits"), [(100, 0.978, 0.339, 0.046), (10, 0.848, 0.478, 0.247)]
)
def test_a_sure_answer_against_an_even_one_shows_what_the_defective_form_hides(
    k, legacy, nats, bits
):
    """0.999 for one class against 1/k for each: numbers found by running the public code."""
    sure, even = np.full((1, k), 0.001 / (k - 1)), np.full((1, k), 1 / k)
    sure[0, 0] = 0.999
    assert divergence.zrf_legacy(sure, even) == pytest.approx(legacy, abs=6e-4)
    assert divergence.zrf(sure, even) == pytest.approx(bits, abs=6e-4)
    assert 1 - divergence.jensen_shannon(sure, even) == pytest.approx(nats, abs=6e-4)


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
def test_the_defective_form_is_torchs_divergence_with_its_arguments_as_published():
    """KL(middle || answer), mean over elements: as the authors call it."""
    p, q = torch.tensor(OURS), torch.tensor(THEIRS)
    m = (p + q) / 2
    theirs = 0.5 * functional.kl_div(p.log(), m) + 0.5 * functional.kl_div(q.log(), m)
    assert divergence.zrf_legacy(OURS, THEIRS) == pytest.approx(1 - float(theirs))


def test_zrf_of_the_untrained_net_itself_is_1_and_of_another_answer_0():
    """It has the range that the paper states."""
    assert divergence.zrf(OURS, OURS) == 1
    assert divergence.zrf(np.eye(3), np.roll(np.eye(3), 1, axis=1)) == pytest.approx(0)
    each = jensenshannon(OURS, THEIRS, axis=1, base=2) ** 2
    assert divergence.zrf(OURS, THEIRS) == pytest.approx(1 - each.mean())


def test_activation_distance_is_the_mean_of_scipys_distances():
    """Not the root of the mean square, which is greater."""
    each = [euclidean(a, b) for a, b in zip(OURS, THEIRS, strict=True)]
    assert divergence.activation_distance(OURS, THEIRS) == pytest.approx(np.mean(each))
    assert divergence.activation_distance(OURS, THEIRS) < math.sqrt(np.mean(np.square(each))) - 1e-3
    assert divergence.activation_distance(np.eye(2), np.eye(2)[::-1]) == pytest.approx(math.sqrt(2))


def test_the_retrain_free_divergence_compares_mean_answers_class_by_class():
    """Written out; a class without unseen records does not count, classes weigh alike."""
    groups = {"forget_classes": np.repeat([0, 1, 6], [40, 5, 5])}
    groups["unseen_classes"] = np.repeat([0, 1], [10, 40])
    found = divergence.retrain_free_divergence(OURS, THEIRS, **groups)
    first = jensenshannon(OURS[:40].mean(0), THEIRS[:10].mean(0)) ** 2
    second = jensenshannon(OURS[40:45].mean(0), THEIRS[10:].mean(0)) ** 2
    assert found == pytest.approx((first + second) / 2)


def test_answers_that_cannot_be_compared_are_refused_by_name():
    """Another order or number of records, other classes, no class in common."""
    text = "Wanted the same records on all sides. Got ours 50, theirs 3."
    assert text in refusal(divergence.jensen_shannon, OURS, THEIRS[:3])
    text = (
        "Wanted the same classes on all sides. Got ours 7, theirs 6. Measure all models on the sam"
    )
    assert text in refusal(divergence.activation_distance, OURS, _answers(50, 6, 0))
    text = "Wanted probabilities above 0. Got 4 of 0. This form of ZRF has no value then; use zrf."
    assert refusal(divergence.zrf_legacy, np.eye(2), np.eye(2)) == text
    text = "Wanted unseen records of the same classes as the forget records. Got none."
    groups = {"forget_classes": np.zeros(50, int), "unseen_classes": np.ones(50, int)}
    assert text in refusal(divergence.retrain_free_divergence, OURS, THEIRS, **groups)
    assert "Wanted values for ours. Got none." in refusal(divergence.zrf, OURS[:0], OURS[:0])


def _margins(models, n, seed, *, shift=0.0):
    return np.random.default_rng(seed).normal(shift, 1, (models, n)) + np.arange(n)


def _by_counting(ours, theirs, bins):
    """The definition for one record: every value put into its bin by hand."""
    low, high = min(*ours, *theirs), max(*ours, *theirs)
    p, q = np.zeros(bins), np.zeros(bins)
    for side, counts in ((ours, p), (theirs, q)):
        for value in side:
            place = int((value - low) / (high - low) * bins)
            counts[min(place, bins - 1)] += 1 / len(side)
    q = np.where(p > 0, np.maximum(q, 1e-5), q)
    return sum(a * math.log(a / (b / q.sum())) for a, b in zip(p, q, strict=True) if a)


def test_each_record_has_the_divergence_counted_by_hand():
    """The greatest margin counts too: the public code loses it beyond its last bin."""
    ours, theirs = _margins(30, 12, 0, shift=0.5), _margins(25, 12, 1)
    expected = [_by_counting(a, b, 20) for a, b in zip(ours.T, theirs.T, strict=True)]
    np.testing.assert_allclose(divergence.klom_each(ours, theirs), expected)
    assert divergence.klom(ours, theirs) == pytest.approx(np.quantile(expected, 0.95))


def test_with_many_models_it_is_the_divergence_of_the_normals_that_they_were_drawn_from():
    """Closed form: (shift)^2 / 2 for equal variances."""
    ours, theirs = _margins(200_000, 1, 0, shift=0.7), _margins(200_000, 1, 1)
    assert divergence.klom_each(ours, theirs)[0] == pytest.approx(0.7**2 / 2, rel=0.05)


def test_equal_margins_are_0_apart_and_disjoint_ones_at_the_bound():
    """No bin in common: ln of 1e5, but for the floors' own share."""
    ours = _margins(20, 3, 0)
    np.testing.assert_allclose(divergence.klom_each(ours, ours), 0, atol=1e-12)
    assert (divergence.klom_each(np.zeros((5, 2)), np.zeros((4, 2))) == 0).all()
    apart = divergence.klom_each(np.zeros((5, 1)), np.full((5, 1), 9.0))[0]
    assert apart == pytest.approx(math.log(1e5), abs=1e-3)


def test_margins_are_clipped_so_that_one_wild_model_does_not_make_the_bins():
    """At 100, as published."""
    ours, theirs = _margins(20, 1, 0), _margins(20, 1, 1)
    ours[0], theirs[0] = 1e6, 100
    assert divergence.klom(ours, theirs) == divergence.klom(ours.clip(max=100), theirs)


def test_the_floor_is_far_above_0_with_few_models():
    """Two halves of models of one kind: what a number has to be compared with."""
    retrained = _margins(16, 40, 2)
    assert divergence.klom_floor(retrained) == divergence.klom(retrained[:8], retrained[8:])
    assert divergence.klom_floor(retrained) > 2
    assert divergence.klom_floor(_margins(4000, 40, 2)) < 0.05


def test_one_model_or_other_records_are_refused():
    """A distribution over models needs models."""
    margins = _margins(5, 4, 0)
    text = "Wanted at least two unlearned and two retrained models, and two bins."
    assert text in refusal(divergence.klom_each, margins[:1], margins)
    text = (
        "Wanted at least four retrained models. Got 3. Retrain with other seeds, or say that the f"
    )
    assert text in refusal(divergence.klom_floor, margins[:3])
    assert "Got unlearned 4, retrained 3." in refusal(divergence.klom, margins, margins[:, :3])
    assert "Got 20 of 20 that are nan" in refusal(divergence.klom, margins * np.nan, margins)
