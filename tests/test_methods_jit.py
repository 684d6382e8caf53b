"""JiT: its loss by hand, the search for σ, few records, wrong labels, and nothing left to do."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from by_hand import Answers, linear_problem, near, same
from refusals import refusal
from torch import nn

from efface.methods._perturb import add_natural_noise, natural_spectrum, normals
from efface.methods._unseen import lower_logits, progress_towards, search_sigma
from efface.methods.jit import REGULARISER_DRAWS, Regulariser, jit, jit_loss, regulariser_for
from efface.methods.neighbourhood import neighbourhood
from efface.task import frozen_teacher
from efface.types import Records, Split, record_key
from efface.unlearn import capture_facts

FREE = Regulariser(0.0)


def some(n=8, dtype=torch.float64):
    """Standard normal records of class 0."""
    x = linear_problem(2, 4, n)[1].x.to(dtype)
    return Records(x, torch.zeros(n, dtype=torch.int64))


def linear(outputs=2):
    """A random linear model in float64."""
    return nn.Linear(4, outputs).double()


def facts_of(model, split, **settings):
    """What a run logs that it found out."""
    facts = {}
    with capture_facts(facts):
        jit(model, split, **settings)
    return facts


def test_the_loss_is_the_formula_by_hand():
    """Equation 1 with the given model as the branch, and λ times the neighbours' distance."""
    records, sigma, step, weight = some(), 0.1, 3, 1.7
    teacher, student = linear().requires_grad_(requires_grad=False), linear()
    settings = {"sigma": sigma, "perturbations": 2, "regulariser": Regulariser(weight), "seed": 5}
    found = jit_loss(teacher, Split(records), **settings)(student, records, step)
    low, high = records.x.min(), records.x.max()

    def neighbours(draw):
        noise = normals(records.ids, (4,), seed=5, step=draw).double()
        return (records.x + sigma * (high - low) * noise).clamp(low, high)

    for row, identity in enumerate(records.ids):
        x, terms, scales = records.x[row], [], []
        for other in (neighbours(draw)[row] for draw in range(2)):
            distance, length = (student(x) - teacher(other)).norm(), (x - other).norm()
            terms.append(distance / length)
            scales.append(distance * length)
        expected = sum(terms) / 2
        if (record_key(identity) + step) % 4 == 0:
            far = neighbours(REGULARISER_DRAWS + step)[row]
            moved = (student(far) - teacher(far)).square().sum()
            expected = expected + 4 * weight * moved / (sum(scales) / 2)
        assert float(found[row].detach()) == pytest.approx(float(expected.detach()), rel=1e-9)
    assert {(record_key(i) + step) % 4 == 0 for i in records.ids} == {True, False}


def test_gradients_are_those_of_the_formula_with_its_scale_detached():
    """Central differences of the loss, where d ‖ξ‖ in the second term is a constant."""
    records, teacher, student = some(), linear(), linear()
    loss = jit_loss(frozen_teacher(teacher), Split(records), sigma=0.1, regulariser=FREE)
    loss(student, records, 0).sum().backward()
    values = []
    for shift in (1e-6, -1e-6):
        moved = copy.deepcopy(student)
        with torch.no_grad():
            moved.weight[1, 2] += shift
            values.append(float(loss(moved, records, 0).sum()))
    slope = (values[0] - values[1]) / 2e-6
    assert float(student.weight.grad[1, 2]) == pytest.approx(slope, rel=1e-6)


def test_copies_of_a_regularised_record_are_a_mean_over_its_neighbours():
    """The tenth to twelfth neighbour: at σ times 4, 2 and 4, each with noise of its own."""
    record, step = some(1), 3
    regulariser = Regulariser(1.7, every=1, copies=3, scales=(2.0, 4.0))
    teacher, student = linear(), linear()
    free, regularised = (
        jit_loss(teacher, Split(record), sigma=0.02, regulariser=one, seed=5)(student, record, step)
        for one in (FREE, regulariser)
    )
    moved = []
    for number, scale in enumerate((4.0, 2.0, 4.0), REGULARISER_DRAWS + 3 * step):
        far = add_natural_noise(record, 0.02 * scale, seed=5, step=number).x
        moved.append((student(far) - teacher(far)).square().sum())
    other = add_natural_noise(record, 0.02, seed=5, step=0).x
    scale = (student(record.x) - teacher(other)).norm() * (record.x - other).norm()
    expected = free + 1.7 * sum(moved) / 3 / scale
    assert float(regularised.detach()) == pytest.approx(float(expected.detach()), rel=1e-9)


@pytest.mark.parametrize("records", range(1, 17))
def test_of_few_records_each_has_about_32_neighbours_together(records):
    """With weights that sum to that of all records, over steps at each of the distances."""
    few = regulariser_for(records)
    assert few.every == 1
    assert 17 <= records * few.copies <= 32
    assert records * few.copies * few.share == records
    record = replace(some(1), low=torch.tensor(-999.0), high=torch.tensor(999.0))
    rows, sizes = record.take([0] * few.copies), set()
    for step in range(8):
        around = few.neighbours(rows, 1e-3, seed=0, step=step)
        for number, x in enumerate(around.x, REGULARISER_DRAWS + step * few.copies):
            noise = normals(record.ids, (4,), seed=0, step=number).norm()
            sizes.add(round(float((x - record.x[0]).norm() / noise) / 1.998, 3))
    assert sizes == {2.0, 4.0, 8.0, 16.0}


def test_a_request_of_many_in_small_steps_is_one_of_many(tiny_net, digits):
    """How many go at once is a matter of memory: the form follows from the request."""
    split = Split(digits.take(range(20)))
    assert all(facts_of(tiny_net, split, steps=1, batch_size=n)["weight"] < 3 for n in (4, 20))


@pytest.mark.parametrize(
    ("forget_classes", "mislabelled", "masked"),
    [((), False, []), ((1,), False, [1]), ((), True, [2])],
)
def test_a_class_to_forget_is_as_low_as_the_lowest_and_a_wrong_label_as_the_mean(
    forget_classes, mislabelled, masked
):
    """By hand, on one record of label 2 and a model of three outputs."""
    teacher, student = linear(3), linear(3)
    x = torch.tensor([[1.0, -1.0, 0.5, 2.0]], dtype=torch.float64)
    record = Records(x, torch.tensor([2]), low=torch.tensor(-9.0), high=torch.tensor(9.0))
    split = Split(record, forget_classes=forget_classes)
    loss = jit_loss(teacher, split, sigma=0.01, mislabelled=mislabelled, regulariser=FREE)
    noise = 0.18 * normals(record.ids, (4,), seed=0, step=0).double()
    target = teacher(x + noise)[0].detach()
    others = [float(target[k]) for k in range(3) if k not in masked]
    level = sum(others) / len(others) if mislabelled else min(others)
    target = torch.tensor([level if k in masked else float(target[k]) for k in range(3)])
    expected = float((student(x)[0].detach() - target).norm() / noise.norm())
    assert float(loss(student, record, 0).detach()) == pytest.approx(expected, rel=1e-6)


def test_of_two_classes_the_masked_one_is_as_far_below_the_other_as_it_was_above():
    """At the level of the one other it would be a tie; with none left there is nothing to say."""
    answer = torch.tensor([[1.0, 4.0], [1.0, -2.0], [1.0, 4.0]])
    masked = torch.tensor([[False, True], [False, True], [True, True]])
    for to_mean in (False, True):
        found = lower_logits(answer, masked, to_mean=to_mean)
        assert found.tolist() == [[1.0, -2.0], [1.0, -2.0], [1.0, 4.0]]


def test_a_neighbour_predicted_as_the_class_to_forget_is_not_regularised():
    """It would keep what is to go: with every neighbour in that class λ has nothing to act on."""
    teacher, student, records = linear(3), linear(3), some()
    teacher.bias.data = torch.tensor([0.0, 100.0, 0.0]).double()
    teacher, split = frozen_teacher(teacher), Split(records, forget_classes=(1,))
    losses = [jit_loss(teacher, split, regulariser=one) for one in (FREE, Regulariser(50.0))]
    assert torch.equal(*(loss(student, records, 3) for loss in losses))


def test_a_model_that_refuses_an_empty_batch_gets_none():
    """A transformer cannot take zero records; in some steps no record is regularised."""

    class Refusing(nn.Linear):
        def forward(self, x):
            assert len(x)
            return super().forward(x)

    records, student = some(2), Refusing(4, 2).double()
    loss = jit_loss(Refusing(4, 2).double(), Split(records))
    for row in range(2):
        assert all(loss(student, records.take([row]), s).isfinite().all() for s in range(4))


def test_no_noise_is_refused_in_the_loss():
    """0/0 must be an error with words, not a weight."""
    assert refusal(jit_loss, linear(), Split(some()), sigma=0.0) == (
        "Wanted sigma above 0 and at least 1 perturbation. Got sigma 0.0 and 1 perturbations. "
        "Without perturbations there is no neighbourhood to smooth; keep the defaults."
    )


@pytest.mark.parametrize("method", [jit, neighbourhood])
@pytest.mark.parametrize(("forget_classes", "mislabelled"), [((0,), False), ((), True)])
@pytest.mark.parametrize("y", [torch.ones(20, 3).long(), torch.rand(20, 3)])
def test_a_class_to_mask_where_there_are_none_is_refused(method, forget_classes, mislabelled, y):
    split = Split(Records(torch.ones(20, 4), y), forget_classes=forget_classes)
    kind = "regression" if y.is_floating_point() else "multilabel"
    assert refusal(method, nn.Linear(4, 3), split, mislabelled=mislabelled) == (
        f"Wanted a multiclass task, for forget classes and wrong labels. Got {kind}. "
        "Name the records alone, by ids or an expression."
    )


def test_where_the_search_for_sigma_begins_hardly_matters(tiny_net, digits):
    """Three orders of magnitude apart, within the 9 % that the search is precise to."""
    teacher = frozen_teacher(tiny_net)
    found = [search_sigma(teacher, digits, 0.3, start=at, seed=0) for at in (0.003, 0.1, 3.0)]
    sigmas, shares = zip(*found, strict=True)
    assert max(sigmas) / min(sigmas) < 1.15
    assert all(abs(share - 0.3) < 0.06 for share in shares)


def line(slopes, at, count, bound):
    """A model of one number with these slopes, and records at ``at`` within ± ``bound``."""
    model = nn.Linear(1, 2, bias=False)
    model.weight.data = torch.tensor(slopes)[:, None]
    y, low = torch.zeros(count, dtype=torch.int64), torch.tensor(-bound)
    return frozen_teacher(model), Records(torch.full((count, 1), at), y, low=low, high=-low)


def test_sigma_is_where_neighbours_cross_a_known_boundary():
    """Boundary at 0, records at 1: P(1 + σ z > 0) = Φ(1/σ), range 200, white noise."""
    teacher, records = line([0.0, 1.0], 1.0, 512, 100.0)
    sigma, _ = search_sigma(teacher, records, 0.7, start=0.15, seed=0)
    assert 0.5 * (1 + math.erf(1 / (200 * sigma * math.sqrt(2)))) == pytest.approx(0.7, abs=0.04)


def test_a_share_of_all_neighbours_is_where_the_first_one_changes():
    """A model that is right on all of its holdout: the search may not end where it began."""
    teacher, records = line([1.0, -1.0], 0.2, 100, 1.0)
    found = [search_sigma(teacher, records, 1.0, start=start, seed=0) for start in (0.01, 1.0)]
    assert all(sigma < 0.1 and kept > 0.9 for sigma, kept in found)


def test_a_neighbourhood_without_an_end_leaves_the_search_where_it_began():
    """A constant model has no σ at which predictions change."""
    teacher, records = line([0.0, 0.0], 0.2, 100, 1.0)
    assert search_sigma(teacher, records, 0.5, start=0.2, seed=0) == (0.2, 1.0)


def test_natural_noise_has_the_spectrum_of_photographs_and_deviation_1():
    """Power falls as one over the square of the frequency; each pixel's variance is 1."""
    noise = natural_spectrum(normals([str(i) for i in range(400)], (3, 16, 16), seed=0, step=0))
    assert float(noise.std()) == pytest.approx(1.0, abs=0.02)
    power = torch.fft.fft2(noise).abs().square().mean((0, 1))
    assert float(power[0, 1] / power[0, 4]) == pytest.approx(16, rel=0.1)
    assert float(power[2, 0] / power[4, 0]) == pytest.approx(4, rel=0.1)


def test_noise_on_what_is_no_image_is_white():
    """Numbers in a table have no neighbours in space."""
    records = replace(some(), low=torch.tensor(-99.0), high=torch.tensor(99.0))
    noise = (add_natural_noise(records, 0.01, seed=0, step=0).x - records.x) / 1.98
    near(noise, normals(records.ids, (4,), seed=0, step=0).double())


def test_a_run_logs_its_progress_and_the_share_of_neighbours_that_it_wants(tiny_net, digits):
    """The expected accuracy, else the accuracy on the holdout, else a guess."""
    going, unseen = digits.take(range(60)), digits.take(range(300, 350))
    right = float((tiny_net(unseen.x).argmax(1) == unseen.y).double().mean())
    for parts, expected, wanted in (
        ({"forget_classes": (3,)}, None, 0.7),
        ({}, None, 0.7),
        ({"holdout": unseen}, 0.8, 0.8),
        ({"holdout": unseen}, None, right),
    ):
        facts = facts_of(tiny_net, Split(going, **parts), steps=1, expected_accuracy=expected)
        assert facts["wanted"] == pytest.approx(wanted)
        assert {"sigma", "kept", "progress", "changed", "weight"} <= facts.keys()
        assert facts["progress"] < 0.95


def test_a_blank_image_alone_leaves_every_weight_as_it_was():
    """In the authors' code one blank image in a batch of one turns every weight into NaN."""
    model = nn.Linear(4, 2)
    assert same(jit(model, Split(Records(torch.zeros(1, 4), torch.tensor([0]))), steps=3), model)


def test_one_wrong_label_is_no_longer_predicted(tiny_net, digits):
    """One record to its end; without strength the given model, bit for bit."""
    record = digits.take([0])
    wrong = replace(record, y=tiny_net(record.x).argmax(1))
    assert jit(tiny_net, Split(wrong), mislabelled=True)(record.x).argmax(1) != wrong.y
    assert same(jit(tiny_net, Split(wrong), mislabelled=True, strength=0.0), tiny_net)


def test_more_strength_moves_further(tiny_net, digits):
    split, vector = Split(digits.take(range(20))), nn.utils.parameters_to_vector
    models = [jit(tiny_net, split, strength=strength, steps=4) for strength in (0.0, 0.3, 1.0)]
    given, *moved = (vector(model.parameters()).detach() for model in (tiny_net, *models))
    nothing, less, more = (float((one - given).norm()) for one in moved)
    assert nothing == 0 < less < more


def test_records_that_are_predicted_as_their_neighbours_stay_as_they_are():
    """Where there is no distance to cover, no step is taken: a constant model."""
    model, steps = nn.Linear(4, 3), Answers()
    nn.init.zeros_(model.weight)
    jit(model, Split(some(20, torch.float32)), callback=steps)
    assert not steps.losses


def test_of_wrong_labels_the_progress_is_measured_in_log_odds():
    """Confidence says that all is done where the label is only just not the prediction."""
    record, models = replace(some(1), y=torch.tensor([1])), [linear(), linear()]
    for model, logit in zip(models, (6.0, -4.0), strict=True):
        nn.init.zeros_(model.weight)
        model.bias.data = torch.tensor([0.0, logit], dtype=torch.float64)
    goal = torch.tensor([[0.0, -14.0]], dtype=torch.float64)
    odds, confidence = (
        progress_towards(lambda batch: goal, *models, record, mislabelled=wrong)()  # noqa: ARG005
        for wrong in (True, False)
    )
    assert odds == pytest.approx(0.5)
    assert confidence > 0.98


def test_with_muon_the_rate_is_given_and_falls(tiny_net, digits):
    """In place of Polyak's; scaled by the strength, and 0 is the given model."""
    split = Split(digits.take(range(20)))
    for still in ({"muon": 0.0}, {"muon": 0.01, "strength": 0.0}):
        assert same(jit(tiny_net, split, **still), tiny_net)
    large, small = (jit(tiny_net, split, muon=0.01, steps=4, strength=s) for s in (1.0, 0.1))
    given = nn.utils.parameters_to_vector(tiny_net.parameters())
    weights = (nn.utils.parameters_to_vector(one.parameters()) for one in (large, small))
    moved = [float((one - given).norm().detach()) for one in weights]
    assert moved[0] > 3 * moved[1] > 0
