"""What method and guard have seen, evidence does not use: shown with a method built to cheat.

It never forgets. It learns the guard's half of the holdout by heart, until these unseen records
look like the forget records: whoever compares the two then finds them alike.
"""

import copy

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from efface import Split, forget, score
from efface.methods import METHODS, Method
from efface.report import collect
from efface.types import Action, Records, split_holdout

SEED = 4


class Memory(nn.Module):
    """Knows records by heart: logits from bumps around those with a weight."""

    def __init__(self, stored, known):
        super().__init__()
        self.weights = nn.Parameter((torch.arange(len(stored)) < known).float())
        self.register_buffer("x", stored.x.flatten(1))
        self.register_buffer("classes", nn.functional.one_hot(stored.y, 10).float())

    def forward(self, x):
        far = torch.cdist(x.flatten(1), self.x) / 1.6
        return torch.log((torch.exp(-(far**2) / 2) * self.weights) @ self.classes + 1e-3)


@pytest.fixture(scope="module")
def case():
    """(net that knows the first 400 of 1,000 digits, split that asks for 50 of these)."""
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(1))[:1000]
    pixels = torch.tensor(data.images / 16, dtype=torch.float32).unsqueeze(1)[order]
    ids = tuple(f"d{row}" for row in order.tolist())
    digits = Records((pixels - 0.3) / 0.376, torch.tensor(data.target)[order].long(), ids)
    net = Memory(digits, 400).eval()
    return net, Split(digits.take(range(50)), digits.take(range(400, 1000)))


def cheat(model, split, *, seed=0, callback):  # noqa: ARG001
    """Learn the given holdout by heart; stop when its losses are as low as the forget records'."""
    student = copy.deepcopy(model)
    near = torch.cdist(split.holdout.x.flatten(1), student.x) < 1e-6
    for _ in range(20):
        losses = [
            nn.functional.cross_entropy(student(part.x), part.y).item()
            for part in (split.holdout, split.forget)
        ]
        if losses[0] <= losses[1] or callback(student, losses[0]) is Action.STOP:
            break
        with torch.no_grad():
            student.weights += 0.2 * near.any(0)
    return student


def _attack(evidence):
    return evidence.row("attack.loss").verdict


def test_a_cheat_passes_on_the_half_that_it_saw_and_fails_on_the_other(case):
    """The same student, the same test, the same forget records: only the half differs."""
    net, split = case
    theirs, ours = split_holdout(split, seed=SEED)
    student = cheat(net, theirs, callback=lambda *_: Action.CONTINUE)
    assert _attack(collect(net, net, theirs)) == "still recognised"
    on_theirs, on_ours = (collect(net, student, half) for half in (theirs, ours))
    assert _attack(on_theirs) != "still recognised"
    assert on_theirs.row("like_unseen.ks").verdict == "not told from unseen"
    assert _attack(on_ours) == "still recognised"
    assert on_ours.row("like_unseen.ks").verdict == "not like unseen"
    assert on_ours.row("control.positive").verdict == "seen"


def test_neither_forget_nor_score_is_fooled(case, monkeypatch):
    """Through the whole request, and later on by whoever scores the model with its seed."""
    net, split = case
    sees = frozenset({"model", "forget", "forget labels", "holdout", "holdout labels"})
    entry = Method(cheat, sees, fresh_start=True)
    monkeypatch.setitem(METHODS, "cheat", entry)
    result = forget(net, split, method="cheat", seed=SEED)
    assert _attack(result.report) == "still recognised"
    assert _attack(score(net, result.model, split, seed=SEED).report) == "still recognised"
