"""What the evidence says where the truth is known.

The net here knows its stored records by heart, and taking a record's weight to 0 is exactly what
retraining without it gives: so a right answer is known for each test.
"""

import copy

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from efface.report import collect
from efface.types import Records, Split

WIDTH, FAINT = 1.6, 1e-3


class Bumps(nn.Module):
    """Logits: logarithms of sums of bumps around the stored records, one weight for each."""

    def __init__(self, stored):
        super().__init__()
        self.weights = nn.Parameter(torch.ones(len(stored)))
        self.register_buffer("x", stored.x.flatten(1))
        self.register_buffer("classes", nn.functional.one_hot(stored.y, 10).float())

    def forward(self, x):
        far = torch.cdist(x.flatten(1), self.x) / WIDTH
        return torch.log((torch.exp(-(far**2) / 2) * self.weights) @ self.classes + FAINT)


def _weighted(net, rows, weight):
    student = copy.deepcopy(net)
    with torch.no_grad():
        student.weights[rows] = weight
    return student


def _shuffled(seed):
    """All digits in a drawn order: they come sorted by writer, which would tell them apart."""
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(seed))
    pixels = torch.tensor(data.images / 16, dtype=torch.float32).unsqueeze(1)[order]
    labels = torch.tensor(data.target, dtype=torch.int64)[order]
    return Records((pixels - 0.3053) / 0.376, labels, tuple(f"d{row}" for row in order.tolist()))


def _drawn(seed=1, n=50):
    """(net that knows 400 digits, split that asks for ``n`` of them)."""
    digits = _shuffled(seed)
    stored, holdout = digits.take(range(400)), digits.take(range(400, 1000))
    split = Split(stored.take(range(n)), holdout, stored.take(range(n, 400)))
    return Bumps(stored), split


def _looks(evidence):
    """Keys of the rows that stand out; the low rate is void here, since 50 records are few."""
    return {row.key for row in evidence.rows if row.status in ("look", "red")} - {
        "attack.loss_low_rate"
    }


def test_a_retrained_model_is_told_from_nothing():
    """The target itself must pass, while the same tests see the records in the old model."""
    net, split = _drawn()
    evidence = collect(net, _weighted(net, range(50), 0), split)
    assert evidence.row("control.positive").verdict == "seen"
    assert evidence.row("control.negative").verdict == "quiet"
    assert evidence.row("attack.loss").verdict == "not recognised"
    assert evidence.row("attack.loss").before > 0.8
    assert evidence.row("like_unseen.share").before < 0.7
    assert evidence.row("like_unseen.share").verdict == "not told from unseen"
    assert not _looks(evidence)


def test_retrained_models_are_seldom_flagged():
    """Ten draws, sixteen judged rows each: one in twenty may stand out by chance."""
    judged = flagged = 0
    for seed in range(2, 12):
        net, split = _drawn(seed)
        evidence = collect(net, _weighted(net, range(50), 0), split)
        assert not [row for row in evidence.rows if row.status == "red"]
        judged += sum(row.status == "plain" and row.verdict != "described" for row in evidence.rows)
        flagged += len(_looks(evidence))
    assert flagged / (judged + flagged) < 0.08


def test_an_untouched_model_is_still_recognised():
    """Doing nothing must never look like success."""
    net, split = _drawn()
    found = collect(net, copy.deepcopy(net), split)
    assert found.row("attack.loss").verdict == "still recognised"
    assert found.row("like_unseen.share").status == "look"
    assert found.row("moved.weights").verdict == "nothing moved"


def test_records_pushed_below_unseen_are_forgotten_too_far():
    """Answered worse than unseen records, they stand out again: the target has two sides."""
    net, split = _drawn()
    student = copy.deepcopy(net)
    wrong = (split.forget.y + 1) % 10
    student.classes[:50] = nn.functional.one_hot(wrong, 10).float()
    found = collect(net, student, split)
    assert found.row("attack.loss").verdict == "forgotten too far"
    assert found.row("forget.accuracy").verdict == "below unseen"
    assert found.row("moved.buffers").status == "look"


def test_records_that_were_never_learned_make_the_attack_void():
    """If the attack cannot see them in the old model, its silence afterwards is worth nothing."""
    net, split = _drawn()
    never = _weighted(net, range(50), 0)
    found = collect(never, copy.deepcopy(never), split)
    assert found.row("control.positive").verdict == "void"
    assert found.row("attack.loss").verdict == "void"
    assert found.row("attack.loss").status == "look"


def test_a_class_that_left_is_gone_and_the_rest_stays():
    """The target on the class is 0, on its unseen records too."""
    net, split = _drawn()
    whole = Records(
        torch.cat([split.forget.x, split.retain.x]),
        torch.cat([split.forget.y, split.retain.y]),
        split.forget.ids + split.retain.ids,
    )
    going = (whole.y == 3).nonzero()[:, 0]
    split = Split(
        whole.take(going), split.holdout, whole.take((whole.y != 3).nonzero()[:, 0]), (3,)
    )
    found = collect(net, _weighted(net, going, 0), split, classes=[f"digit {c}" for c in range(10)])
    assert found.forget_classes == ("digit 3",)
    assert found.row("leaving.accuracy").after == found.row("forget.accuracy").after == 0
    assert found.row("leaving.accuracy").verdict == "gone"
    assert found.row("holdout.accuracy").name.endswith("without the classes that leave")
    assert found.row("holdout.accuracy").verdict != "fell"
    assert "digit 3" not in found.row("holdout.worst_class").name
    untouched = collect(net, copy.deepcopy(net), split)
    assert untouched.row("leaving.accuracy").status == "look"


def test_swapped_labels_are_followed_by_the_wrong_answer_they_gave():
    """For wrong labels success is no longer to answer with them, and not to stand out otherwise."""
    net, split = _drawn(n=30)
    wrong = (split.forget.y + 1) % 10
    taught = copy.deepcopy(net)
    taught.classes[:30] = nn.functional.one_hot(wrong, 10).float()
    asked = Split(Records(split.forget.x, wrong, split.forget.ids), split.holdout)
    found = collect(taught, _weighted(taught, range(30), 0), asked, mislabelled=True)
    row = found.row("forget.accuracy")
    assert row.name == "Forget records answered with the wrong label they came with"
    assert row.before > 0.7
    assert row.after < 0.1
    assert row.target == pytest.approx(0, abs=0.02)
    assert found.row("attack.loss").verdict in ("not recognised", "void")
    untouched = collect(taught, copy.deepcopy(taught), asked, mislabelled=True)
    assert untouched.row("forget.accuracy").verdict == "above unseen"


def test_one_record_is_too_few_to_tell():
    """The page must not say that one record is like unseen: no test could show the contrary."""
    net, split = _drawn(n=1)
    found = collect(net, _weighted(net, [0], 0), split)
    assert found.row("forget.accuracy").verdict == "too few records to tell"
    assert found.row("power.area").verdict == "too few records to see any leak"
    assert found.row("power.area").after == 1
