"""Divergences of answers: the right ones, and the field's defective one under its own name."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import euclidean, jensenshannon
from torch.nn import functional

from efface.errors import InputError
from efface.metrics.divergence import (
    activation_distance,
    jensen_shannon,
    jensen_shannon_each,
    retrain_free_divergence,
    zrf,
    zrf_legacy,
)


def _answers(n, k, seed):
    return np.random.default_rng(seed).dirichlet(np.ones(k) / 2, n)


OURS, THEIRS = _answers(50, 7, 0), _answers(50, 7, 1)


def test_jensen_shannon_is_scipys_distance_squared():
    """A second library; and it is the same from both sides."""
    expected = jensenshannon(OURS, THEIRS, axis=1) ** 2
    np.testing.assert_allclose(jensen_shannon_each(OURS, THEIRS), expected)
    assert jensen_shannon(OURS, THEIRS) == pytest.approx(expected.mean())
    assert jensen_shannon(THEIRS, OURS) == pytest.approx(expected.mean())


def test_jensen_shannon_goes_from_0_to_ln_2_with_zeros_among_the_probabilities():
    """Sure answers have zeros, and these must not become nan."""
    one, other = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    assert jensen_shannon(one, one) == 0
    assert jensen_shannon(one, other) == pytest.approx(math.log(2))
    assert jensen_shannon(OURS, OURS) == 0


@pytest.mark.parametrize(
    ("k", "legacy", "nats", "bits"), [(100, 0.978, 0.339, 0.046), (10, 0.848, 0.478, 0.247)]
)
def test_a_sure_answer_against_an_even_one_shows_what_the_defective_form_hides(
    k, legacy, nats, bits
):
    """0.999 for one class against 1/k for each: numbers found by running the public code."""
    sure, even = np.full((1, k), 0.001 / (k - 1)), np.full((1, k), 1 / k)
    sure[0, 0] = 0.999
    assert zrf_legacy(sure, even) == pytest.approx(legacy, abs=6e-4)
    assert zrf(sure, even) == pytest.approx(bits, abs=6e-4)
    assert 1 - jensen_shannon(sure, even) == pytest.approx(nats, abs=6e-4)


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
def test_the_defective_form_is_torchs_divergence_with_its_arguments_as_published():
    """KL(middle || answer), mean over elements: as the authors call it."""
    p, q = torch.tensor(OURS), torch.tensor(THEIRS)
    m = (p + q) / 2
    theirs = 0.5 * functional.kl_div(p.log(), m) + 0.5 * functional.kl_div(q.log(), m)
    assert zrf_legacy(OURS, THEIRS) == pytest.approx(1 - float(theirs))


def test_zrf_of_the_untrained_net_itself_is_1_and_of_another_answer_0():
    """It has the range that the paper states."""
    assert zrf(OURS, OURS) == 1
    assert zrf(np.eye(3), np.roll(np.eye(3), 1, axis=1)) == pytest.approx(0)
    assert zrf(OURS, THEIRS) == pytest.approx(
        1 - np.mean(jensenshannon(OURS, THEIRS, axis=1, base=2) ** 2)
    )


def test_activation_distance_is_the_mean_of_scipys_distances():
    """Not the root of the mean square, which is greater."""
    each = [euclidean(a, b) for a, b in zip(OURS, THEIRS, strict=True)]
    assert activation_distance(OURS, THEIRS) == pytest.approx(np.mean(each))
    assert activation_distance(OURS, THEIRS) < math.sqrt(np.mean(np.square(each))) - 1e-3
    assert activation_distance(np.eye(2), np.eye(2)[::-1]) == pytest.approx(math.sqrt(2))


def test_the_retrain_free_divergence_compares_mean_answers_class_by_class():
    """Written out; a class without unseen records does not count, classes weigh alike."""
    forget_classes = np.array([0] * 40 + [1] * 5 + [6] * 5)
    unseen_classes = np.array([0] * 10 + [1] * 40)
    found = retrain_free_divergence(
        OURS, THEIRS, forget_classes=forget_classes, unseen_classes=unseen_classes
    )
    first = jensenshannon(OURS[:40].mean(0), THEIRS[:10].mean(0)) ** 2
    second = jensenshannon(OURS[40:45].mean(0), THEIRS[10:].mean(0)) ** 2
    assert found == pytest.approx((first + second) / 2)


def test_answers_that_cannot_be_compared_are_refused_by_name():
    """Another order or number of records, other classes, no class in common."""
    with pytest.raises(InputError) as error:
        jensen_shannon(OURS, THEIRS[:3])
    assert str(error.value) == (
        "Wanted the same records on all sides. Got ours 50, theirs 3. "
        "Measure all models on the same records, in the same order."
    )
    with pytest.raises(InputError) as error:
        activation_distance(OURS, _answers(50, 6, 0))
    assert "Wanted the same classes on all sides. Got ours 7, theirs 6." in str(error.value)
    with pytest.raises(InputError) as error:
        zrf_legacy(np.eye(2), np.eye(2))
    assert str(error.value) == (
        "Wanted probabilities above 0. Got 4 of 0. This form of ZRF has no value then; use zrf."
    )
    with pytest.raises(InputError) as error:
        retrain_free_divergence(
            OURS,
            THEIRS,
            forget_classes=np.zeros(50, np.int64),
            unseen_classes=np.ones(50, np.int64),
        )
    assert str(error.value) == (
        "Wanted unseen records of the same classes as the forget records. Got none. "
        "Give a holdout that has the classes of the forget records."
    )
    with pytest.raises(InputError):
        zrf(np.zeros((0, 2)), np.zeros((0, 2)))
