"""What an attacker per record sees of a perfect use of a score: limits known beforehand."""

import numpy as np
import pytest

from efface.metrics.lira import u_lira
from research.benchmarks.ceilings import imagined, normal_scores, placed, reference_models

RUNS, TARGETS = 32, 200


@pytest.fixture(scope="module")
def world():
    """Never-seen log-odds of a record: its own level and noise; trained on: 3 higher."""
    draw = np.random.default_rng(1)
    level = draw.standard_normal(TARGETS)
    member = draw.random((RUNS, TARGETS)) < 0.5
    unseen = level + 0.5 * draw.standard_normal((RUNS, TARGETS))
    return level, unseen + 3 * member, member


def auc(odds, member):
    return u_lira(odds, member).attack.auc


def test_the_levels_drawn_with_their_noise_leave_an_attacker_at_chance(world):
    level, odds, member = world
    score = imagined(level, 1.0, odds.shape, own=True)
    share = 1 / np.sqrt(1.25)  # of the level in the deviation of a value
    assert auc(odds, member) > 0.95
    assert abs(auc(placed(odds, member, score, share, np.sqrt(1 - share**2)), member) - 0.5) < 0.05


def test_ranks_without_noise_and_one_answer_for_all_give_records_away(world):
    level, odds, member = world
    score = imagined(level, 1.0, odds.shape, own=True)
    assert auc(placed(odds, member, score, 1, 0), member) > 0.65
    assert auc(placed(odds, member, score, 0, 0), member) > 0.9


def test_one_error_in_all_models_gives_away_more_than_an_error_of_each(world):
    level, odds, member = world
    found = [
        auc(placed(odds, member, imagined(level, 0.7, odds.shape, own=own), 0.9, 0.4), member)
        for own in (True, False)
    ]
    assert found[1] > found[0] + 0.1


def test_places_are_those_of_records_that_the_model_never_saw(world):
    _, odds, member = world
    new = placed(odds, member, odds, 1, 0)
    assert np.array_equal(new[~member], odds[~member])
    for run, going in enumerate(member):
        order = np.argsort(odds[run, going])
        places = np.quantile(odds[run, ~going], (np.arange(going.sum()) + 0.5) / going.sum())
        assert np.allclose(new[run, going][order], places)


def test_a_reference_model_is_one_that_never_saw_the_record(world):
    _, odds, member = world
    found = reference_models(np.where(member, np.nan, odds), member, 2)
    assert np.isfinite(found).all()
    assert not np.allclose(found[~member], odds[~member])  # nor the judged model itself


def test_normal_scores_are_symmetric():
    assert np.allclose(normal_scores(np.array([3.0, 9.0, 5.0])), [-0.9674, 0.9674, 0], atol=1e-4)
