"""What leaving a record out changes: gains, memorisation, and their errors."""

import numpy as np
import pytest

from efface.errors import InputError
from efface.ranking.gain import answer_floor, answer_gain, information_gain
from efface.ranking.memorisation import correct_from, memorisation


def _member(models, n, seed):
    """Random halves, as the models of an ensemble are trained on."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(models) < models // 2 for _ in range(n)], axis=1)


def test_a_gain_is_the_mean_with_the_record_less_the_mean_without_it_counted_by_hand():
    """Record by record, in Python."""
    rng = np.random.default_rng(0)
    log_p, member = -rng.exponential(1, (12, 7)), _member(12, 7, 1)
    found = information_gain(log_p, member)
    for record in range(7):
        inside = [log_p[m, record] for m in range(12) if member[m, record]]
        outside = [log_p[m, record] for m in range(12) if not member[m, record]]
        assert found.value[record] == pytest.approx(sum(inside) / 6 - sum(outside) / 6)
        error = np.sqrt(np.var(inside, ddof=1) / 6 + np.var(outside, ddof=1) / 6)
        assert found.standard_error[record] == pytest.approx(error)


def test_a_gain_is_the_mean_over_all_pairs_of_models_with_and_without():
    """The definition speaks of retrained pairs."""
    log_p, member = np.random.default_rng(2).normal(-1, 1, (8, 3)), _member(8, 3, 3)
    value = information_gain(log_p, member).value
    for record in range(3):
        inside = member[:, record]
        pairs = log_p[inside, record][:, None] - log_p[~inside, record][None]
        assert value[record] == pytest.approx(pairs.mean())


def test_the_stated_error_is_the_spread_of_the_estimate_over_ensembles():
    """Models drawn 400 times: their gains lie around the truth as far as the error says."""
    rng, member = np.random.default_rng(4), _member(16, 50, 5)
    errors = []
    for _ in range(400):
        values = rng.normal(0, 1, (16, 50)) + 2 * member
        found = information_gain(values, member)
        errors.append((found.value - 2) / found.standard_error)
    assert np.std(errors) == pytest.approx(np.sqrt(14 / 12), rel=0.03)  # Student's t of 14


def test_memorisation_is_right_answers_with_less_right_answers_without():
    """1 where only those who saw the record know it, 0 where all do, below 0 is possible."""
    member = _member(10, 4, 6)
    correct = np.stack([member[:, 0], np.ones(10, bool), np.zeros(10, bool), ~member[:, 3]], axis=1)
    np.testing.assert_allclose(memorisation(correct, member).value, [1, 0, 0, -1])


def test_answers_are_right_where_the_margin_is_above_0():
    """A tie is no answer."""
    assert correct_from(np.array([[-0.1, 0.0, 0.1]])).tolist() == [[False, False, True]]


def test_an_answer_gain_is_the_divergence_of_the_two_mean_answers():
    """By scipy, record by record."""
    from scipy.stats import entropy

    rng, member = np.random.default_rng(7), _member(6, 5, 8)
    p = rng.dirichlet(np.ones(4), (6, 5))
    found = answer_gain(p, member)
    for record in range(5):
        inside = p[member[:, record], record].mean(0)
        outside = p[~member[:, record], record].mean(0)
        assert found[record] == pytest.approx(entropy(inside, outside))


def test_an_impossible_class_adds_nothing_to_an_answer_gain():
    """0 ln 0 is 0."""
    p = np.array([[[1.0, 0.0]], [[1.0, 0.0]], [[0.5, 0.5]], [[0.5, 0.5]]])
    member = np.array([[True], [True], [False], [False]])
    assert answer_gain(p, member)[0] == pytest.approx(np.log(2))


def test_without_any_effect_the_answer_gain_is_below_its_floor_and_both_shrink_with_models():
    """Noise alone: half as many models on a side leave more of it."""
    found = {}
    for models in (16, 64):
        rng, member = np.random.default_rng(9), _member(models, 300, 10)
        p = rng.dirichlet(np.ones(5), (models, 300))
        found[models] = answer_gain(p, member).mean(), answer_floor(p, member).mean()
    for gain, floor in found.values():
        assert 1.7 * gain < floor < 2.4 * gain
    assert found[64][0] < 0.35 * found[16][0]


def test_the_floor_reads_no_model_that_was_trained_on_the_record():
    """Whatever these say."""
    rng, member = np.random.default_rng(11), _member(12, 9, 12)
    p = rng.dirichlet(np.ones(3), (12, 9))
    other = np.where(member[..., None], rng.dirichlet(np.ones(3), (12, 9)), p)
    np.testing.assert_array_equal(answer_floor(p, member), answer_floor(other, member))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: information_gain(np.zeros((3, 2)), np.array([[1, 0], [1, 0], [0, 1]], bool)),
            (
                "Wanted at least 2 models trained on it for each record. "
                "Got 1 of 2 records with fewer. "
                "Make more of them, or leave these records out."
            ),
        ),
        (
            lambda: information_gain(np.full((4, 1), np.nan), _member(4, 1, 0)),
            (
                "Wanted finite ln p(y|x). "
                "Got nan or inf in 4 of 4 rows: 0, 1, 2, 3. "
                "Leave these models out, and say how many there were."
            ),
        ),
        (
            lambda: memorisation(np.full((4, 1), 0.5), _member(4, 1, 0)),
            (
                "Wanted 0 or 1 for each answer. "
                "Got other values. "
                "Give whether the model answers with the label."
            ),
        ),
        (
            lambda: answer_gain(np.full((4, 1, 2), 0.4), _member(4, 1, 0)),
            (
                "Wanted probabilities that sum to 1. "
                "Got a sum of 0.8. "
                "Give the softmax of the outputs."
            ),
        ),
        (
            lambda: answer_gain(np.full((4, 1, 2), -0.5), _member(4, 1, 0)),
            (
                "Wanted probabilities of 0 to 1. "
                "Got nan, inf or less than 0. "
                "Give the softmax of the outputs."
            ),
        ),
    ],
)
def test_arrays_that_cannot_be_read_are_refused_by_name(call, text):
    """What was wanted, what came, what to do."""
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value) == text
