"""Information content: counted by hand, by loop, and by scikit-learn's classifier."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier, RadiusNeighborsClassifier

from efface.errors import InputError
from efface.ranking.balls import nearest, within
from efface.ranking.content import information_content, is_low


def drawn(n=80, classes=3):
    """Points and classes that have nothing to do with each other."""
    draw = np.random.default_rng(0)
    return draw.normal(size=(n, 3)), draw.integers(0, classes, n)


@pytest.mark.parametrize(
    "balls",
    [nearest(drawn()[0], neighbours=6), within(drawn()[0], radius=0.8),
     nearest(drawn()[0], neighbours=6, of=np.array([5, 2, 70]))],
    ids=["nearest", "within", "of some"],
)  # fmt: skip
def test_alpha_is_what_a_loop_counts(balls):
    """Double loop over balls and members."""
    classes = drawn()[1]
    found = information_content(balls, classes)
    assert len(found) == len(balls)
    for place, row in enumerate(balls.of):
        members = balls.rows[balls.starts[place] : balls.starts[place + 1]]
        assert found[place] == sum(classes[z] == classes[row] for z in members) / len(members)


def test_alpha_is_the_vote_of_a_classifier_for_the_records_own_class():
    """scikit-learn's shares of votes among as many neighbours, the record itself among them."""
    points, classes = drawn(200)
    votes = KNeighborsClassifier(8).fit(points, classes).predict_proba(points)
    found = information_content(nearest(points, neighbours=7), classes)
    assert found == pytest.approx(votes[np.arange(200), classes])
    votes = RadiusNeighborsClassifier(0.7).fit(points, classes).predict_proba(points)
    found = information_content(within(points, radius=0.7), classes)
    assert found == pytest.approx(votes[np.arange(200), classes])


def test_on_a_line_it_is_low_at_the_border_alone():
    """0 to 4 of one class, 5 to 9 of another, two neighbours each, the lower first."""
    points, classes = np.arange(10.0)[:, None], np.repeat([0, 1], 5)
    found = information_content(nearest(points, neighbours=2), classes)
    assert found == pytest.approx([1, 1, 1, 1, 2 / 3, 2 / 3, 1, 1, 1, 1])


def test_a_record_counts_itself_and_alone_it_says_nothing():
    """Never 0: one of all in its ball. Alone: 1, which no threshold may read."""
    points, classes = np.array([[0.0], [1.0], [2.0], [90.0]]), np.array([0, 1, 0, 1])
    assert information_content(nearest(points, neighbours=2), classes)[1] == 1 / 3
    balls = within(points, radius=5.0)
    assert balls.sizes.tolist() == [3, 3, 3, 1]
    assert information_content(balls, classes)[3] == 1


def test_a_wrong_label_has_most_information_unless_a_model_that_missed_it_is_asked():
    """The trap of labels and answers: one record of class 0 in the midst of class 0, labelled 1."""
    points = np.concatenate([drawn(50)[0], 20 + drawn(50)[0]])
    true = np.repeat([0, 1], 50)
    labels = true.copy()
    labels[7] = 1
    balls = nearest(points, neighbours=9)
    by_label, learned, missed = (information_content(balls, c) for c in (labels, labels, true))
    assert by_label[7] == learned[7] == 1 / 10
    assert by_label[7] < np.delete(by_label, 7).min()
    assert missed[7] == missed.max() == 1


def test_the_order_of_the_records_and_the_names_of_the_classes_do_not_matter():
    """Moved and named anew, each record keeps its alpha."""
    points, classes = drawn()
    order = np.random.default_rng(1).permutation(len(points))
    found = information_content(nearest(points, neighbours=9), classes)
    moved = information_content(nearest(points[order], neighbours=9), 7 - classes[order])
    assert (moved == found[order]).all()


def test_low_information_begins_at_tau():
    """At least, not above; a share of a ball that is said as a decimal is met to the bit."""
    assert is_low(np.array([0.5, 0.75, 1.0]), 0.75).tolist() == [False, True, True]
    assert is_low(np.arange(1, 11) / 10, 0.7).sum() == 4


def test_what_cannot_be_counted_is_refused():
    """Other records, no share."""
    balls = nearest(drawn()[0], neighbours=3, of=np.array([1, 2]))
    with pytest.raises(InputError) as error:
        information_content(balls, np.array([0, 1]))
    assert str(error.value) == (
        "Wanted classes of all 80 points that the balls were made among. Got 2. "
        "Give one label, or one answer of the model, for each point."
    )
    for tau in (0.0, 1.1, float("nan")):
        with pytest.raises(InputError) as error:
            is_low(np.ones(2), tau)
        assert str(error.value) == (
            f"Wanted a tau above 0 and at most 1. Got {tau}. It is a share of a ball."
        )
    with pytest.raises(InputError, match="1 of 2 that are nan"):
        is_low(np.array([1.0, np.nan]), 0.5)
