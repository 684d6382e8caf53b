"""SCRUB and its rewind: loops by hand, distillation as the limit, and the epoch that is chosen."""

import pytest
import torch
from by_hand import accuracy, linear_problem, same
from torch import nn

from efface.methods.scrub import scrub, scrub_rewind
from efface.types import Records, Split

T, GAMMA, ALPHA, RATE, DECAY = 2.0, 0.7, 0.4, 0.05, 0.01
SETTINGS = {
    "temperature": T,
    "task_weight": GAMMA,
    "distillation_weight": ALPHA,
    "learning_rate": RATE,
    "weight_decay": DECAY,
}


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
    weights, speed = given.clone(), torch.zeros_like(given)
    for epoch in range(epochs):
        slopes = []
        if epoch < max_epochs:
            slopes.append(lambda w: -strength * pulled(w, given, split.forget.x))
        x, y = split.retain.x, nn.functional.one_hot(split.retain.y, 3)
        slopes.append(
            lambda w, x=x, y=y: (
                GAMMA * (torch.softmax(x @ w.T, 1) - y).T @ x / len(x) + ALPHA * pulled(w, given, x)
            )
        )
        for slope in slopes:
            speed = 0.9 * speed + slope(weights) + DECAY * weights
            weights = weights - RATE * speed
    return weights


@pytest.mark.parametrize(("epochs", "max_epochs"), [(1, 1), (4, 2), (3, 0), (2, 5)])
def test_equals_the_loop_by_hand(epochs, max_epochs):
    """Signs, directions of both KL, T², the order of phases; without a max phase: distillation."""
    model, split = problem()
    counts = {"epochs": epochs, "max_epochs": max_epochs}
    result = scrub(model, split, **counts, **SETTINGS, strength=1.5)
    expected = by_hand(split, model.weight.detach(), epochs, max_epochs, strength=1.5)
    torch.testing.assert_close(result.weight.detach(), expected, rtol=0, atol=1e-12)


def test_distilling_the_given_model_into_itself_is_the_identity(tiny_net, digits):
    """No step away, no labels, no decay: the student is its teacher already."""
    split = Split(digits.take(range(8)), retain=digits.take(range(8, 40)))
    off = {"max_epochs": 0, "task_weight": 0.0, "distillation_weight": 1.0, "weight_decay": 0.0}
    result = scrub(tiny_net, split, **off, learning_rate=0.1)
    for one, other in zip(result.parameters(), tiny_net.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("rate", [0.03, 0.04])
def test_the_rewind_is_to_the_epoch_whose_forget_error_is_nearest(rate, tiny_net, digits):
    """A brute-force twin: SCRUB run again for each number of epochs, errors counted by hand."""
    gone, retain, holdout = (digits.take(range(*rows)) for rows in ((0, 20), (20, 120), (300, 400)))
    gone = gone.take((gone.y < 3).nonzero()[:, 0])
    settings = {"max_epochs": 3, "learning_rate": rate, "forget_batch_size": 4}
    each = [scrub(tiny_net, Split(gone, retain=retain), epochs=e, **settings) for e in range(1, 6)]
    answers = each[-1](holdout.x).argmax(1)
    told = torch.where((holdout.y < 3) | (answers < 3), holdout.y, answers)  # others answered well
    holdout = Records(holdout.x, told, holdout.ids, holdout.low, holdout.high)
    unseen = holdout.take((holdout.y < 3).nonzero()[:, 0])
    errors = [abs(accuracy(student, gone) - accuracy(each[-1], unseen)) for student in each]
    whole = [abs(accuracy(student, gone) - accuracy(each[-1], holdout)) for student in each]
    chosen = each[errors.index(min(errors))]
    split = Split(gone, retain=retain, holdout=holdout)
    result = scrub_rewind(tiny_net, split, epochs=5, **settings)
    assert errors.index(min(errors)) != whole.index(min(whole))  # it matters who V is
    assert same(result, chosen)
