"""Balls: a loop in plain Python and scikit-learn's tree find the same neighbours."""

import math

import numpy as np
import pytest
from sklearn.neighbors import KDTree

from efface.errors import InputError
from efface.information import balls as rooms
from efface.information.balls import nearest, within


def drawn(n=120, d=3, seed=0):
    """Points without equal distances."""
    return np.random.default_rng(seed).normal(size=(n, d))


def grid(n=90, side=3, seed=1):
    """Whole numbers, many of them equal: ties everywhere, and exact in any order of summing."""
    return np.random.default_rng(seed).integers(0, side, (n, 2)).astype(float)


def ranked(points, row):
    """All rows, the record itself first, then by distance and row: a loop in plain Python."""
    apart = [sum((a - b) ** 2 for a, b in zip(p, points[row], strict=True)) for p in points]
    order = sorted(range(len(points)), key=lambda r: (r != row, apart[r], r))
    return [(r, math.sqrt(apart[r])) for r in order]


def ball(balls, place):
    """The rows in one ball."""
    return balls.rows[balls.starts[place] : balls.starts[place + 1]].tolist()


@pytest.mark.parametrize("points", [drawn(), grid()], ids=["drawn", "ties"])
@pytest.mark.parametrize("block", [1, 4_000_000])
def test_the_nearest_are_those_that_a_loop_finds(points, block, monkeypatch):
    """Ties by row, the record first among its equals, in any block size."""
    monkeypatch.setattr(rooms, "BLOCK", block)
    found = nearest(points, neighbours=7)
    for row in range(len(points)):
        expected = ranked(points.tolist(), row)[:8]
        assert ball(found, row) == [r for r, _ in expected]
        assert found.radius[row] == pytest.approx(expected[-1][1])
    assert (found.sizes == 8).all()


@pytest.mark.parametrize("points", [drawn(), grid()], ids=["drawn", "ties"])
def test_a_ball_holds_what_a_loop_finds_within_its_radius(points):
    """The border belongs to the ball."""
    found = within(points, radius=1.0)
    for row in range(len(points)):
        assert ball(found, row) == [r for r, d in ranked(points.tolist(), row) if d <= 1]


def test_too_many_neighbours_are_refused():
    """There are no more others than that."""
    with pytest.raises(InputError) as error:
        nearest(drawn(5), neighbours=5)
    assert str(error.value) == (
        "Wanted 1 to 4 neighbours, for 5 points. Got 5. "
        "Ask for fewer neighbours, or give more points."
    )


def test_a_tree_finds_the_same():
    """scikit-learn's, which prunes instead of comparing all."""
    points = drawn(400, 5)
    found, tree = nearest(points, neighbours=10), KDTree(points)
    assert (found.rows.reshape(-1, 11) == tree.query(points, 11)[1]).all()
    balls = within(points, radius=1.5)
    for row, expected in enumerate(tree.query_radius(points, 1.5)):
        assert set(ball(balls, row)) == set(expected)
