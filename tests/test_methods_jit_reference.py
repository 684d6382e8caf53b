"""The authors' JiT against weights that their code made, and against loops written by hand."""

from dataclasses import replace

import pytest
import torch
from by_hand import Answers, assert_golden, golden, linear_problem, near, same
from small_nets import Given
from torch import nn

from efface import forget
from efface.errors import NotMet
from efface.methods.jit_forms import jit_reference
from efface.types import Action, Records, Split


def flat(model):
    """All weights in one vector."""
    return nn.utils.parameters_to_vector(model.parameters()).detach()


@pytest.mark.parametrize("trace", ["one_batch", "three_batches", "batch_of_one"])
def test_equals_the_weights_that_the_authors_code_made(trace):
    """Parity: any other mode, order, clamp, sum or clearing of gradients shows here."""
    net, inputs, settings, expected = golden(f"jit_reference.{trace}")
    split = Split(Records(inputs["forget_x"], inputs["forget_y"]))
    assert_golden(jit_reference(net, split, **settings), net, expected)


SETTINGS = {"sigma": 0.4, "perturbations": 3, "learning_rate": 0.05, "seed": 7}


def by_hand(weights, x, batch, rates):
    """Every batch, draw and record in turn: the gradient of a ratio is known in closed form."""
    generator = torch.Generator().manual_seed(SETTINGS["seed"])
    torch.empty((), dtype=torch.int64).random_(generator=generator)
    weights, gradient = weights.clone(), torch.zeros_like(weights)
    for part, rate in zip(x.split(batch), rates, strict=True):
        for _ in range(SETTINGS["perturbations"]):
            z = torch.randn(part.shape, generator=generator, dtype=torch.float64)
            noisy = (part + SETTINGS["sigma"] * z).clamp(part.min(), part.max())
            for row, other in zip(part, noisy, strict=True):
                change = weights @ (row - other)  # held still: the slope in W sees the record alone
                slope = torch.outer(change / change.norm(), row) / (row - other).norm()
                gradient = gradient + slope / SETTINGS["perturbations"]
        weights = weights - rate * gradient  # of every batch so far
    return weights


@pytest.mark.parametrize("batch", [6, 2], ids=["one batch", "three batches"])
def test_equals_the_loop_by_hand(batch):
    """The sum over a batch, the growing gradient and the noise, each written out."""
    model, records = linear_problem(2, 4, 6)
    result = jit_reference(model, Split(records), batch_size=batch, **SETTINGS)
    near(result.weight, by_hand(model.weight.detach(), records.x, batch, [0.05] * (6 // batch)))


def test_a_first_step_refused_once_is_the_run_at_half_the_rate(tiny_net, digits):
    """HALVE_LR takes back the noise and the gradients of the batch, and halves what follows."""
    once = Answers(Action.HALVE_LR, Action.CONTINUE, restore=tiny_net.state_dict())
    split = Split(digits.take(range(12)))
    halved = jit_reference(tiny_net, split, batch_size=4, callback=once)
    plain = jit_reference(tiny_net, split, batch_size=4, learning_rate=1.5e-4)
    assert len(once.losses) == 4
    assert same(halved, plain)


def test_a_later_step_refused_goes_on_from_the_gradients_before_it():
    """What a refused batch added must not stay in the sum; the twin halves from batch 2 on."""
    (model, records), seen = linear_problem(2, 4, 6), []

    def second(student, loss):  # noqa: ARG001
        seen.append(student.weight.detach().clone())
        if len(seen) != 2:
            return Action.CONTINUE
        with torch.no_grad():
            student.weight.copy_(seen[0])
        return Action.HALVE_LR

    result = jit_reference(model, Split(records), batch_size=2, callback=second, **SETTINGS)
    assert len(seen) == 4
    near(result.weight, by_hand(model.weight.detach(), records.x, 2, [0.05, 0.025, 0.025]))


def dropping():
    """A net with BatchNorm and dropout."""
    layers = (nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.5))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(*layers, nn.Linear(32, 10))


def test_the_mode_is_the_one_given_unless_it_is_said(digits, random_state_kept):
    """The authors never left train mode with VGG11; their ViT came in eval mode."""
    split, net = Split(digits.take(range(12))), dropping()
    with random_state_kept():  # dropout draws from the global generator
        chosen = {m: flat(jit_reference(net.eval(), split, training_mode=m)) for m in (True, False)}
        given = {m: flat(jit_reference(net.train(m), split)) for m in (True, False)}
    assert all(torch.equal(chosen[mode], given[mode]) for mode in (True, False))
    assert not torch.equal(chosen[True], chosen[False])


def test_train_mode_moves_the_buffers_and_eval_mode_does_not(digits):
    """Their pass at a rate of zero: 1 clean and 25 noisy forward passes enter the statistics."""
    split, net = Split(digits.take(range(12))), dropping().eval()
    moved = jit_reference(net, split, training_mode=True, learning_rate=0.0)
    still = jit_reference(net, split, training_mode=False)
    assert int(moved[2].num_batches_tracked) == 26
    assert not torch.equal(moved[2].running_mean, net[2].running_mean)
    assert torch.equal(still[2].running_mean, net[2].running_mean)
    assert not moved.training
    assert not still.training


def test_dropout_alone_makes_the_ratio_explode_at_a_small_sigma(digits):
    """The branches have masks of their own: without noise they differ all the same."""
    split, net = Split(digits.take(range(12))), dropping().eval()

    def loss(sigma, *, training_mode):
        seen = Answers()
        jit_reference(net, split, sigma=sigma, training_mode=training_mode, callback=seen)
        return seen.losses[0]

    assert loss(1e-4, training_mode=True) > 50 * loss(1e-2, training_mode=True)
    assert loss(1e-4, training_mode=False) < 2 * loss(1e-2, training_mode=False)


def test_a_blank_image_alone_in_a_batch_turns_every_weight_that_it_reaches_into_nan():
    """The authors' collapse: clamped to its own range the noise is gone, and 0/0 remains."""
    blank = Records(torch.zeros(1, 4), torch.tensor([0]))
    student = jit_reference(nn.Linear(4, 2).eval(), Split(blank))
    assert torch.isnan(flat(student)).all()


def test_a_user_loses_nothing_to_a_blank_image(tiny_net, digits):
    """The guard sees the NaN, the request says that it was not met, the old model stands."""
    going = digits.take(range(3))
    blank = torch.zeros_like(going.x[:1]) + going.low
    split = Split(replace(going, x=torch.cat([going.x[:1], blank, going.x[2:]])))
    given = Given(tiny_net)
    with pytest.raises(NotMet) as error:
        forget(tiny_net, split, method="jit_reference", settings={"batch_size": 1})
    assert "halvings of the step did not help: loss not finite" in str(error.value)
    assert "The old model stands" in str(error.value)
    given.is_untouched()
    assert error.value.result.model is tiny_net
