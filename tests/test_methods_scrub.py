"""SCRUB and its rewind: loops by hand, distillation as the limit, and the epoch that is chosen."""

from dataclasses import replace

import pytest
import torch
from by_hand import accuracy, assert_state, linear_problem, mean_slope, near, same, sgd_steps

from efface.methods.scrub import scrub, scrub_rewind
from efface.types import Split

T, GAMMA, ALPHA, RATE, DECAY = 2.0, 0.7, 0.4, 0.05, 0.01
SETTINGS = {"temperature": T, "task_weight": GAMMA, "distillation_weight": ALPHA}
SETTINGS |= {"learning_rate": RATE, "weight_decay": DECAY}


def problem():
    """Five records that go and seven that stay."""
    model, records = linear_problem(3, 4, 12)
    return model, Split(records.take(range(5)), retain=records.take(range(5, 12)))


def pulled(weights, given, x):
    """T² ∂ KL_T / ∂W by hand, a mean over records: T (q_T − p_T) xᵀ."""
    q, p = (torch.softmax(x @ w.T / T, 1) for w in (weights, given))
    return T * (q - p).T @ x / len(x)


def by_hand(split, given, epochs, max_epochs, strength=1.0):
    """Full batches: a step away in the first epochs, a step back in each; momentum is kept."""
    x, y = split.retain.x, split.retain.y

    def away(w):
        return -strength * pulled(w, given, split.forget.x)

    def back(w):
        return GAMMA * mean_slope(w, x, y) + ALPHA * pulled(w, given, x)

    slopes = [one for epoch in range(epochs) for one in [away] * (epoch < max_epochs) + [back]]
    return sgd_steps(given, slopes, RATE, decay=DECAY)


@pytest.mark.parametrize(("epochs", "max_epochs"), [(1, 1), (4, 2), (3, 0), (2, 5)])
def test_equals_the_loop_by_hand(epochs, max_epochs):
    """Signs, directions of both KL, T², the order of phases; without a max phase: distillation."""
    model, split = problem()
    counts = {"epochs": epochs, "max_epochs": max_epochs}
    result = scrub(model, split, **counts, **SETTINGS, strength=1.5)
    expected = by_hand(split, model.weight.detach(), epochs, max_epochs, strength=1.5)
    near(result.weight, expected)


def test_distilling_the_given_model_into_itself_is_the_identity(tiny_net, digits):
    """No step away, no labels, no decay: the student is its teacher already."""
    split = Split(digits.take(range(8)), retain=digits.take(range(8, 40)))
    off = {"max_epochs": 0, "task_weight": 0.0, "distillation_weight": 1.0, "weight_decay": 0.0}
    result = scrub(tiny_net, split, **off, learning_rate=0.1)
    assert_state(result, tiny_net.state_dict())


@pytest.mark.parametrize("rate", [0.03, 0.04])
def test_the_rewind_is_to_the_epoch_whose_forget_error_is_nearest(rate, tiny_net, digits):
    """A brute-force twin: SCRUB run again for each number of epochs, errors counted by hand."""
    gone, retain, holdout = (digits.take(range(*rows)) for rows in ((0, 20), (20, 120), (300, 400)))
    gone = gone.take((gone.y < 3).nonzero()[:, 0])
    settings = {"max_epochs": 3, "learning_rate": rate, "forget_batch_size": 4}
    each = [scrub(tiny_net, Split(gone, retain=retain), epochs=e, **settings) for e in range(1, 6)]
    predicted = each[-1](holdout.x).argmax(1)
    # the other classes are predicted well, so that it matters who V is
    y = torch.where((holdout.y < 3) | (predicted < 3), holdout.y, predicted)
    holdout = replace(holdout, y=y)
    unseen = holdout.take((holdout.y < 3).nonzero()[:, 0])
    errors = [abs(accuracy(student, gone) - accuracy(each[-1], unseen)) for student in each]
    whole = [abs(accuracy(student, gone) - accuracy(each[-1], holdout)) for student in each]
    chosen = each[errors.index(min(errors))]
    split = Split(gone, retain=retain, holdout=holdout)
    result = scrub_rewind(tiny_net, split, epochs=5, **settings)
    assert errors.index(min(errors)) != whole.index(min(whole))
    assert same(result, chosen)
