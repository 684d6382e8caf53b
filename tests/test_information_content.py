"""Information content: counted by hand and by loop."""

import numpy as np

from efface.information.balls import nearest
from efface.information.content import information_content, is_low


def test_alpha_is_what_a_loop_counts():
    """Double loop over balls and members."""
    draw = np.random.default_rng(0)
    points, classes = draw.normal(size=(80, 3)), draw.integers(0, 3, 80)
    balls = nearest(points, neighbours=6)
    for row, alpha in enumerate(information_content(balls, classes)):
        members = balls.rows[balls.starts[row] : balls.starts[row + 1]]
        assert alpha == sum(classes[z] == classes[row] for z in members) / len(members)


def test_low_information_begins_at_tau():
    """At least, not above."""
    assert is_low(np.array([0.5, 0.75, 1.0]), 0.75).tolist() == [False, True, True]
