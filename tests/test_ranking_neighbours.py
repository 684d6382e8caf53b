"""Balls: a loop in plain Python and scikit-learn's tree find the same neighbours."""

import math
import re
import sys
import tracemalloc

import numpy as np
import pytest
from sklearn.neighbors import KDTree

from efface.errors import MissingExtra
from efface.ranking import neighbours as module
from efface.ranking.neighbours import Balls, ball_recall, nearest, nearest_approximate, within
from tests.refusals import refusal

FIND = [nearest, nearest_approximate, lambda points, **to: within(points, radius=1.0, **to)]


def draw(n=120, d=3, seed=0):
    """Points without equal distances."""
    return np.random.default_rng(seed).normal(size=(n, d))


def grid(n=90, side=3, seed=1):
    """Integers, many of them equal: ties everywhere, and exact in any order of summing."""
    return np.random.default_rng(seed).integers(0, side, (n, 2)).astype(float)


def clusters(n=4000, d=16, seed=0):
    """Points around 20 means, in single precision, as embeddings come."""
    rng = np.random.default_rng(seed)
    means = 4 * rng.normal(size=(20, d))
    return (means[rng.integers(0, 20, n)] + rng.normal(size=(n, d))).astype(np.float32)


POINTS = {"drawn": draw(), "ties": grid(), "far from 0": grid() + 2.0**24}


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
def test_exact_balls_are_those_of_a_loop_in_any_block_size(points, block, monkeypatch):
    """Ties by row, the centre first among its equals; the border belongs to a ball of a radius."""
    monkeypatch.setattr(module, "BLOCK", block)
    found, disc = nearest(points, neighbours=7), within(points, radius=1.0)
    for row in range(len(points)):
        expected = ranked(points.tolist(), row)
        assert ball(found, row) == [r for r, _ in expected[:8]]
        assert found.radius[row] == pytest.approx(expected[7][1])
        assert ball(disc, row) == [r for r, d in expected if d <= 1]
    assert (set(found.sizes), found.among, set(disc.radius)) == ({8}, len(points), {1})


def test_the_tree_of_scikit_learn_finds_the_same():
    points = draw(400, 5)
    tree, balls = KDTree(points), within(points, radius=1.5)
    found = nearest(points, neighbours=10).rows.reshape(-1, 11)
    assert (found == tree.query(points, 11)[1]).all()
    for row, expected in enumerate(tree.query_radius(points, 1.5)):
        assert set(ball(balls, row)) == set(expected)


@pytest.mark.parametrize("find", FIND[:2])
def test_a_record_is_in_its_own_ball_among_any_number_of_copies_of_it(find):
    """A hundred records at one place: no row order may crowd one out of its own ball."""
    points = np.concatenate([np.zeros((100, 3)), draw(100)]).astype(np.float32)
    balls = find(points, neighbours=4)
    assert (balls.rows[balls.starts[:-1]] == np.arange(200)).all()
    assert all(len(set(ball(balls, place))) == 5 for place in range(200))
    assert (balls.radius[:100] == 0).all()


@pytest.mark.parametrize("find", FIND)
def test_neither_the_order_of_the_points_nor_of_the_queries_matters(find):
    """The balls of some rows are those of all, and follow the points wherever they move."""
    points, to = draw(200), {"recall": 1.0} if find is nearest_approximate else {}
    everyone, some = find(points, **to), np.array([7, 150, 3])
    queried = find(points, of=some, **to)
    assert [ball(queried, place) for place in range(3)] == [ball(everyone, row) for row in some]
    assert queried.of.tolist() == some.tolist()
    assert queried.radius == pytest.approx(everyone.radius[some])
    order = np.random.default_rng(1).permutation(200)
    moved = find(points[order], **to)
    for place in range(200):
        assert order[ball(moved, place)].tolist() == ball(everyone, order[place])


def test_memory_does_not_grow_with_the_square(monkeypatch):
    """All distances of 3,000 points are 72 MB; a block of 64 rows and the result far less."""
    monkeypatch.setattr(module, "BLOCK", 64 * 3000)
    points = draw(3000, 4)
    tracemalloc.start()
    nearest(points, neighbours=5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12_000_000


def test_the_approximate_search_reaches_its_recall_and_states_it(monkeypatch):
    """Against the exact one; the same in every run, in blocks of any size."""
    points = clusters()
    found, true = nearest_approximate(points, recall=0.9), nearest(points)
    share = ball_recall(points, found, true).mean()
    assert share >= 0.9
    assert found.recall == pytest.approx(share, abs=0.02)
    assert (found.sizes == 21).all()
    monkeypatch.setattr(module, "QUERIES", 100)
    assert (found.rows == nearest_approximate(points, recall=0.9).rows).all()


def test_recall_is_counted_over_the_others_and_equals_are_as_good():
    """By hand on a line: of the two nearest of 0 one is found; -2 is as near as 2."""
    points = np.array([[0.0], [1.0], [2.0], [-2.0], [5.0]])
    true = nearest(points, neighbours=2, of=np.array([0]))
    centre, radius, starts = np.array([0]), np.array([5.0]), np.array([0, 3])
    for rows, share in (([0, 1, 2], 1.0), ([0, 1, 3], 1.0), ([0, 1, 4], 0.5), ([0, 4, 3], 0.5)):
        found = Balls(np.array(rows), starts, centre, radius, 5)
        assert ball_recall(points, found, true).tolist() == [share]
    text = "Wanted balls of the same records, of no more points than the true ones."
    assert text in refusal(ball_recall, points, found, nearest(points, neighbours=1, of=centre))


def test_a_recall_out_of_reach_is_refused():
    """Points without structure in many dimensions."""
    points = draw(3000, 32).astype(np.float32)
    text = refusal(nearest_approximate, points, recall=0.99, max_probes=2)
    said = r"recall of 0\.99 by two standard errors\. Got (.+) from 2 of 46 lists\. Lower recall,"
    assert 0 < float(re.search(said, text)[1]) < 0.5


def test_without_faiss_the_exact_search_is_left(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtra, match=r"pip install 'efface\[faiss\]'"):
        nearest_approximate(draw())
    assert len(nearest(draw())) == 120


@pytest.mark.parametrize("find", FIND)
def test_points_without_balls_are_refused_by_name(find):
    hole = draw()
    hole[3, 1] = np.nan
    for points, of, text in (
        (np.zeros((0, 3)), None, "Wanted values for points. Got none."),
        (hole, None, "Wanted finite numbers for points. Got 1 of 360 that are nan or infinite."),
        (draw(), np.array([0, 120]), "Wanted rows from 0 to 119. Got 0 to 120."),
        (draw(), np.array([-1]), "Wanted rows from 0 to 119. Got -1 to -1."),
        (draw(), np.array([], int), "Wanted rows from 0 to 119. Got none."),
    ):
        assert text in refusal(find, points, of=of)


def test_neighbours_and_radii_out_of_range_are_refused():
    for find in FIND[:2]:
        for n, k in ((5, 0), (5, 5), (5, 6), (1, 1)):
            text = f"Wanted 1 to {n - 1} neighbours, for {n} points. Got {k}. Ask for fewer neighb"
            assert text in refusal(find, draw(n), neighbours=k)
    for radius in (0.0, -1.0, math.nan, math.inf):
        text = f"Wanted a radius above 0. Got {radius}. Give it in the unit of the points."
        assert refusal(within, draw(), radius=radius) == text
