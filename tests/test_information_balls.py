"""Balls: a loop in plain Python and scikit-learn's tree find the same neighbours."""

import math
import sys
import tracemalloc

import numpy as np
import pytest
from sklearn.neighbors import KDTree

from efface.errors import InputError, MissingExtra
from efface.ranking import balls as rooms
from efface.ranking import distances
from efface.ranking.balls import Balls, nearest, nearest_roughly, recalls, within


def drawn(n=120, d=3, seed=0):
    """Points without equal distances."""
    return np.random.default_rng(seed).normal(size=(n, d))


def grid(n=90, side=3, seed=1):
    """Whole numbers, many of them equal: ties everywhere, and exact in any order of summing."""
    return np.random.default_rng(seed).integers(0, side, (n, 2)).astype(float)


def heaps(n=4000, d=16, seed=0):
    """Points around 20 means, in single precision, as features come."""
    draw = np.random.default_rng(seed)
    means = 4 * draw.normal(size=(20, d))
    return (means[draw.integers(0, 20, n)] + draw.normal(size=(n, d))).astype(np.float32)


POINTS = {"drawn": drawn(), "ties": grid(), "far from 0": grid() + 2.0**24}


def ranked(points, row):
    """All rows, the record itself first, then by distance and row: a loop in plain Python."""
    apart = [sum((a - b) ** 2 for a, b in zip(p, points[row], strict=True)) for p in points]
    order = sorted(range(len(points)), key=lambda r: (r != row, apart[r], r))
    return [(r, math.sqrt(apart[r])) for r in order]


def ball(balls, place):
    """The rows in one ball."""
    return balls.rows[balls.starts[place] : balls.starts[place + 1]].tolist()


@pytest.mark.parametrize("points", POINTS.values(), ids=POINTS)
@pytest.mark.parametrize("block", [1, 4_000_000])
def test_the_nearest_are_those_that_a_loop_finds(points, block, monkeypatch):
    """Ties by row, the record first among its equals, in any block size, however far from 0."""
    monkeypatch.setattr(distances, "BLOCK", block)
    found = nearest(points, neighbours=7)
    for row in range(len(points)):
        expected = ranked(points.tolist(), row)[:8]
        assert ball(found, row) == [r for r, _ in expected]
        assert found.radius[row] == pytest.approx(expected[-1][1])
    assert (found.sizes == 8).all()
    assert found.among == len(points)


@pytest.mark.parametrize("points", POINTS.values(), ids=POINTS)
@pytest.mark.parametrize("block", [1, 4_000_000])
def test_a_ball_holds_what_a_loop_finds_within_its_radius(points, block, monkeypatch):
    """The border belongs to the ball."""
    monkeypatch.setattr(distances, "BLOCK", block)
    found = within(points, radius=1.0)
    for row in range(len(points)):
        assert ball(found, row) == [r for r, d in ranked(points.tolist(), row) if d <= 1]
    assert (found.radius == 1).all()


def test_a_tree_finds_the_same():
    """scikit-learn's, which prunes instead of comparing all."""
    points = drawn(400, 5)
    found, tree = nearest(points, neighbours=10), KDTree(points)
    assert (found.rows.reshape(-1, 11) == tree.query(points, 11)[1]).all()
    balls = within(points, radius=1.5)
    for row, expected in enumerate(tree.query_radius(points, 1.5)):
        assert set(ball(balls, row)) == set(expected)


@pytest.mark.parametrize("find", [nearest, nearest_roughly])
def test_a_record_is_in_its_own_ball_among_any_number_of_copies_of_it(find):
    """A hundred records at one place: no row order may crowd one out of its own ball."""
    points = np.concatenate([np.zeros((100, 3)), drawn(100)]).astype(np.float32)
    balls = find(points, neighbours=4)
    assert (balls.rows[balls.starts[:-1]] == np.arange(200)).all()
    assert all(len(set(ball(balls, place))) == 5 for place in range(200))
    assert (balls.radius[:100] == 0).all()


@pytest.mark.parametrize(
    "find",
    [
        lambda points, **of: nearest(points, neighbours=5, **of),
        lambda points, **of: within(points, radius=1.0, **of),
        lambda points, **of: nearest_roughly(points, neighbours=5, recall=1.0, **of),
    ],
    ids=["nearest", "within", "roughly"],
)
def test_neither_the_order_of_the_points_nor_of_the_questions_matters(find):
    """The balls of some rows are those of all, and follow the points wherever they move."""
    points = drawn(200)
    everyone, some = find(points), np.array([7, 150, 3])
    asked = find(points, of=some)
    assert [ball(asked, place) for place in range(3)] == [ball(everyone, row) for row in some]
    assert (asked.of, asked.radius) == (pytest.approx(some), pytest.approx(everyone.radius[some]))
    order = np.random.default_rng(1).permutation(200)
    moved = find(points[order])
    for place in range(200):
        assert order[ball(moved, place)].tolist() == ball(everyone, order[place])


def test_memory_does_not_grow_with_the_square(monkeypatch):
    """All distances of 3,000 points are 72 MB; a block of 64 rows and what is found, far less."""
    monkeypatch.setattr(distances, "BLOCK", 64 * 3000)
    points = drawn(3000, 4)
    tracemalloc.start()
    nearest(points, neighbours=5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12_000_000


def test_the_rough_search_finds_its_share_and_says_which(monkeypatch):
    """Beside the exact one; the same whenever it is asked, in blocks of any size."""
    points = heaps()
    found, true = nearest_roughly(points, recall=0.9), nearest(points)
    share = recalls(points, found, true).mean()
    assert share >= 0.9
    assert found.recall == pytest.approx(share, abs=0.02)
    assert (found.sizes == 21).all()
    monkeypatch.setattr(rooms, "QUERIES", 100)
    again = nearest_roughly(points, recall=0.9)
    assert (found.rows == again.rows).all()


def test_recall_is_counted_over_the_others_and_equals_are_as_good():
    """By hand on a line: of the two nearest of 0 one is found; -2 is as near as 2."""
    points = np.array([[0.0], [1.0], [2.0], [-2.0], [5.0]])
    true = nearest(points, neighbours=2, of=np.array([0]))
    middle, radius, starts = np.array([0]), np.array([5.0]), np.array([0, 3])
    for rows, share in (([0, 1, 2], 1.0), ([0, 1, 3], 1.0), ([0, 1, 4], 0.5), ([0, 4, 3], 0.5)):
        found = Balls(np.array(rows), starts, middle, radius, 5)
        assert recalls(points, found, true).tolist() == [share]
    with pytest.raises(InputError) as error:
        recalls(points, found, nearest(points, neighbours=1, of=middle))
    assert str(error.value) == (
        "Wanted balls of the same records, of no more points than the true ones. "
        "Got 1 and 1 balls of up to 3 and 2 points. "
        "Ask both searches for as many neighbours of the same rows."
    )


def test_a_recall_out_of_reach_is_refused():
    """Points without structure in many dimensions."""
    with pytest.raises(InputError) as error:
        nearest_roughly(drawn(3000, 32).astype(np.float32), recall=0.99, most_probed=2)
    said = str(error.value).replace(error.value.came, "…")
    assert said == (
        "Wanted a recall of 0.99 by two standard errors. Got …. "
        "Ask for less, allow more lists (most_probed), or take nearest, which is exact."
    )
    share, lists = error.value.came.split(" from ")
    assert lists == "2 of 46 lists"
    assert 0 < float(share) < 0.5


def test_without_faiss_the_exact_search_is_left(monkeypatch):
    """An extra that is not installed."""
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtra) as error:
        nearest_roughly(drawn())
    assert str(error.value) == (
        "Wanted the package faiss. Got none installed. Install it: pip install 'efface[faiss]'."
    )
    assert len(nearest(drawn())) == 120


@pytest.mark.parametrize(
    "find", [nearest, nearest_roughly, lambda points, of: within(points, radius=1.0, of=of)]
)
def test_points_that_are_none_are_refused_by_name(find):
    """Empty, nan, rows of other points."""
    hole = drawn()
    hole[3, 1] = np.nan
    for points, of, wanted, came in (
        (np.zeros((0, 3)), None, "values for points", "none"),
        (hole, None, "finite numbers for points", "1 of 360 that are nan or infinite"),
        (drawn(), np.array([0, 120]), "rows from 0 to 119", "0 to 120"),
        (drawn(), np.array([-1]), "rows from 0 to 119", "-1 to -1"),
        (drawn(), np.array([], int), "rows from 0 to 119", "none"),
    ):
        with pytest.raises(InputError) as error:
            find(points, of=of)
        assert (error.value.wanted, error.value.came) == (wanted, came)


@pytest.mark.parametrize("find", [nearest, nearest_roughly])
@pytest.mark.parametrize("neighbours", [0, 5, 6])
def test_too_many_neighbours_or_none_are_refused(find, neighbours):
    """There are no more others than that."""
    with pytest.raises(InputError) as error:
        find(drawn(5), neighbours=neighbours)
    assert str(error.value) == (
        f"Wanted 1 to 4 neighbours, for 5 points. Got {neighbours}. "
        "Ask for fewer neighbours, or give more points."
    )


@pytest.mark.parametrize("radius", [0.0, -1.0, math.nan, math.inf])
def test_a_radius_that_is_none_is_refused(radius):
    """The record alone is no neighbourhood; everybody is none either."""
    with pytest.raises(InputError) as error:
        within(drawn(), radius=radius)
    assert str(error.value) == (
        f"Wanted a radius above 0. Got {radius}. Give it in the unit of the points."
    )
