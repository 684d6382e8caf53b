"""Two population attacks, each against a second implementation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize
from sklearn.metrics import roc_auc_score

from efface.metrics.membership import (
    classified_as_members,
    entropy_attack,
    loss_attack,
    signal_attack,
)
from tests.refusals import refusal


def _logistic_by_hand(retain, holdout, values):
    """Balanced, L2-penalised logistic regression by a general minimiser."""
    x = np.concatenate([retain, holdout])
    sign = np.concatenate([np.ones(len(retain)), -np.ones(len(holdout))])
    weight = len(x) / 2 / np.where(sign > 0, len(retain), len(holdout))

    def cost(theta):
        losses = weight * np.logaddexp(0, -sign * (theta[0] + theta[1] * x))
        return losses.sum() + theta[1] ** 2 / 2

    found = optimize.minimize(cost, [0.0, 0.0], tol=1e-10).x
    return found[0] + found[1] * values > 0


def test_the_entropy_attack_is_a_balanced_logistic_regression():
    """The paper's attack, written out; the classes are far from balanced here."""
    draw = np.random.default_rng(0)
    retain, holdout = draw.exponential(0.1, 400), draw.exponential(0.5, 90)
    forget = draw.exponential(0.3, 200)
    flags = classified_as_members(retain, holdout, forget)
    np.testing.assert_array_equal(flags, _logistic_by_hand(retain, holdout, forget))
    assert entropy_attack(retain, holdout, forget) == flags.mean()
    assert 0.2 < flags.mean() < 0.9
    # why it is weak: the uniform predictions of a collapsed model score 0, as if all were well
    assert entropy_attack(retain, holdout, np.full(50, np.log(10))) == 0


def test_without_classes_the_area_is_that_of_scikit_learn():
    """Ties included."""
    draw = np.random.default_rng(1)
    ours, theirs = draw.exponential(1, 40).round(1), draw.exponential(1.5, 70).round(1)
    expected = roc_auc_score([1] * 40 + [0] * 70, -np.concatenate([ours, theirs]))
    assert loss_attack(ours, theirs).auc == pytest.approx(expected)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), min_size=1, max_size=25),
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 9)), min_size=1, max_size=25),
)
def test_with_classes_each_record_meets_unseen_ones_of_its_class_only(forget, unseen):
    """A double loop over the pairs of equal class."""
    (ours, losses), (theirs, others) = np.array(forget).T, np.array(unseen).T
    pairs = [[(o > v) + (o == v) / 2 for c, o in unseen if c == k] for k, v in forget]
    places = [np.mean(wins) for wins in pairs if wins]
    both, groups = (losses * 1.0, others * 1.0), {"classes": (ours, theirs)}
    if not places:
        assert "Got none." in refusal(loss_attack, *both, **groups)
        return
    found = loss_attack(*both, **groups)
    assert found.auc == pytest.approx(np.mean(places))
    assert (found.forget_n, found.unmatched) == (len(places), len(forget) - len(places))


def test_hard_classes_alone_do_not_look_like_members():
    """Forget records of an easy class against a holdout of hard ones: unmatched, a false leak."""
    draw = np.random.default_rng(2)
    forget, classes = draw.exponential(0.1, 100), (np.zeros(100, np.int64), np.repeat([0, 1], 200))
    unseen = np.concatenate([draw.exponential(0.1, 200), draw.exponential(2, 200)])
    assert loss_attack(forget, unseen).detected
    assert not loss_attack(forget, unseen, classes=classes).significant


def test_both_sides_of_chance_are_told_apart():
    """Recognised by being too good, or by being too bad: the second betrays the records too."""
    draw = np.random.default_rng(3)
    equal = loss_attack(np.ones(10), np.ones(20))  # chance exactly, and no error
    assert (equal.auc, equal.significant) == (0.5, False)
    unseen = draw.exponential(1, 300)
    assert loss_attack(draw.exponential(0.3, 60), unseen).detected
    assert loss_attack(draw.exponential(4, 60), unseen).over_forgotten
    assert not loss_attack(draw.exponential(1, 60), unseen).significant


def test_an_interval_without_chance_in_it_is_significant():
    """Of five records the approximate one is from 0.506, where the exact p is 5.1 %."""
    draw = np.random.default_rng(53)
    classes = np.array([0, 0, 1, 2, 3]), np.repeat([0, 1, 2, 3], [16, 8, 5, 4])
    found = loss_attack(draw.exponential(0.3, 5), draw.exponential(1, 33), classes=classes)
    assert found.p > 0.05
    assert found.auc_interval[0] == 0.5
    assert not found.significant


def test_the_rate_at_a_low_fpr_is_counted_by_hand():
    """500 unseen records allow 5 false positives: the threshold is the sixth lowest loss."""
    draw = np.random.default_rng(4)
    forget, unseen = draw.exponential(0.1, 50), draw.exponential(1, 500)
    found, threshold = loss_attack(forget, unseen), np.sort(unseen)[5]
    assert found.tpr == np.mean(forget < threshold)
    assert np.mean(unseen < threshold) <= found.fpr


def test_an_attack_without_data_says_what_it_lacks():
    """Nothing to compare with is an error, not a chance result."""
    text = "Wanted unseen records of the same classes as the forget records. Got none."
    assert text in refusal(loss_attack, np.ones(3), np.ones(0))
    assert refusal(entropy_attack, np.ones(0), np.ones(2), np.ones(1)) == (
        "Wanted entropies of retain and of holdout records. Got 0 and 2. Give at least one of each."
    )


def test_unseen_records_of_other_classes_set_no_threshold():
    """Their losses lie elsewhere: with them the rate would be that of the class."""
    ours, theirs = np.linspace(2.0, 3.0, 40), np.linspace(0.0, 1.0, 1000)
    alone = signal_attack(ours, theirs)
    classes = np.zeros(40, np.int64), np.repeat(np.arange(2), 1000)
    among = signal_attack(ours, np.concatenate([theirs, theirs + 9.0]), classes=classes)
    assert (among.unseen_n, among.tpr) == (alone.unseen_n, alone.tpr) == (1000, 1.0)
