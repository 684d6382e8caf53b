"""JiT on few records and wrong labels, and the one knob."""

from dataclasses import replace

import pytest
import torch
from by_hand import same
from torch import nn

from efface.methods._perturb import add_noise, normals
from efface.methods._unseen import progress_towards
from efface.methods.jit import REGULARISER_DRAWS, Regulariser, jit, jit_loss, regulariser_for
from efface.types import Records, Split, no_callback
from efface.unlearn import capture_facts


def _records(n: int = 8, dtype: torch.dtype = torch.float64) -> Records:
    generator = torch.Generator().manual_seed(0)
    return Records(
        torch.randn(n, 4, generator=generator, dtype=dtype), torch.zeros(n, dtype=torch.int64)
    )


def test_copies_of_a_held_record_are_a_mean_over_its_neighbours():
    """The tenth to twelfth neighbour: at σ times 4, 2 and 4, each with noise of its own."""
    record, step, hold = _records(1), 3, Regulariser(1.7, every=1, copies=3, scales=(2.0, 4.0))
    teacher, student = nn.Linear(4, 2).double(), nn.Linear(4, 2).double()
    free, held = (
        jit_loss(teacher, Split(record), sigma=0.02, regulariser=h, seed=5)(student, record, step)
        for h in (Regulariser(0.0), hold)
    )
    moved = []
    for copy_, scale in enumerate((4.0, 2.0, 4.0)):
        far = add_noise(
            record, 0.02 * scale, seed=5, step=REGULARISER_DRAWS + 3 * step + copy_, natural=True
        ).x
        moved.append((student(far) - teacher(far)).square().sum())
    near = add_noise(record, 0.02, seed=5, step=0, natural=True).x
    scale = (student(record.x) - teacher(near)).norm() * (record.x - near).norm()
    expected = free + 1.7 * sum(moved) / 3 / scale
    assert float(held.detach()) == pytest.approx(float(expected.detach()), rel=1e-9)


@pytest.mark.parametrize("records", range(1, 17))
def test_of_few_records_each_is_held_at_about_32_neighbours_together(records):
    """With weights that sum to that of all records, over steps at each of the distances."""
    hold = regulariser_for(records)
    assert hold.every == 1
    assert 17 <= records * hold.copies <= 32
    assert records * hold.copies * hold.share == records
    record = replace(_records(1), low=torch.tensor(-999.0), high=torch.tensor(999.0))
    rows, sizes = record.take([0] * hold.copies), []
    for step in range(8):
        around = hold.neighbours(rows, 1e-3, seed=0, step=step)
        sizes += [
            float(
                (x - record.x[0]).norm()
                / normals(record.ids, (4,), seed=0, step=REGULARISER_DRAWS + n).norm()
            )
            for n, x in enumerate(around.x, step * hold.copies)
        ]
    assert {round(size / 1.998, 3) for size in sizes} == {2.0, 4.0, 8.0, 16.0}


def test_a_request_of_many_in_small_steps_is_one_of_many(tiny_net, digits):
    """How many go at once is a matter of memory: the form follows from the request."""
    facts = [{}, {}]
    for found, per_step in zip(facts, (4, 20), strict=True):
        with capture_facts(found):
            jit(tiny_net, Split(digits.take(range(20))), steps=1, batch_size=per_step)
    assert all(found["weight"] < 3 for found in facts)


def test_one_wrong_label_is_no_longer_answered(tiny_net, digits):
    """One record to its end; without strength the given model, bit for bit."""
    record = digits.take([0])
    with torch.no_grad():
        wrong = replace(record, y=tiny_net(record.x).argmax(1))
    student = jit(tiny_net, Split(wrong), mislabelled=True)
    with torch.no_grad():
        assert student(record.x).argmax(1) != wrong.y
    nothing = jit(tiny_net, Split(wrong), mislabelled=True, strength=0.0)
    assert same(nothing, tiny_net)


def test_more_strength_moves_further(tiny_net, digits):
    """The one knob turns something."""
    split, moved = Split(digits.take(range(20))), []
    for strength in (0.0, 0.3, 1.0):
        student = jit(tiny_net, split, strength=strength, steps=4)
        pairs = zip(student.parameters(), tiny_net.parameters(), strict=True)
        moved.append(sum(float((a - b).detach().square().sum()) for a, b in pairs))
    assert moved[0] == 0 < moved[1] < moved[2]


def test_records_that_are_answered_as_their_neighbours_stay_as_they_are():
    """Where there is no way, no step is taken: a deaf model has nothing to forget."""
    model = nn.Linear(4, 3)
    nn.init.zeros_(model.weight)
    steps = []
    jit(
        model,
        Split(_records(20, torch.float32)),
        callback=lambda *_: steps.append(1) or no_callback(*_),
    )
    assert not steps


def test_a_net_that_refuses_no_records_at_all_is_asked_for_none():
    """A transformer cannot answer zero records; in some steps no record is held."""

    class Refusing(nn.Linear):
        def forward(self, x):
            assert len(x)
            return super().forward(x)

    records = _records(2)
    loss = jit_loss(Refusing(4, 2).double(), Split(records))
    student = Refusing(4, 2).double()
    assert all(loss(student, records.take([row]), step).isfinite().all()
               for row in range(2) for step in range(4))  # fmt: skip


def test_of_wrong_labels_the_way_is_measured_in_log_odds():
    """Confidence says that all is done where the label is only just not the answer."""
    record = replace(_records(1), y=torch.tensor([1]))
    nets = [nn.Linear(4, 2).double() for _ in range(2)]
    for net, logit in zip(nets, (6.0, -4.0), strict=True):
        nn.init.zeros_(net.weight)
        net.bias.data = torch.tensor([0.0, logit], dtype=torch.float64)
    goal = torch.tensor([[0.0, -14.0]], dtype=torch.float64)
    ways = [
        progress_towards(lambda batch: goal, *nets, record, mislabelled=wrong)()  # noqa: ARG005
        for wrong in (True, False)
    ]
    assert ways[0] == pytest.approx(0.5)
    assert ways[1] > 0.98
