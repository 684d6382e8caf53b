"""JiT, zero-shot unlearning by smoothing the model around each record: https://arxiv.org/abs/2402.01401.

Equation 1 of the paper, with the perturbed branch computed by the given model f₀, and a second term
that regularises the student where it is not to move:

    l(x) = 1/N Σ_j ‖f(x) − f₀(x+ξ_j)‖₂ / ‖ξ_j‖₂  +  λ ‖f(x+ζ) − f₀(x+ζ)‖₂² / (d ‖ξ‖₂)

ξ_j is drawn once for a record, ζ again at each step and for a quarter of the records (for each of
16 or fewer, at several further away); d is the first term's ‖f(x) − f₀(x+ξ)‖₂, without gradient.
Departures from the paper, each with its measurement in docs/decisions/0005: classes that
must not be predicted are lowered in f₀(x+ξ); the noise has the spectrum of photographs, since white
noise is one class to a network, and that class would swallow the others; the branch is f₀ and not
f, and ξ_j is fixed, which here cost nothing and changed nothing; a mean over records; eval mode,
frozen buffers; x+ξ within the data's bounds.

Nothing is tuned. σ: the noise at which as many neighbours keep the prediction as unseen data are
right. Lowered are forget classes and wrong labels. Step: Polyak's, η = s L / ‖∇L‖², which aims
to remove a share s of the loss. λ: such that at most a tenth of the neighbours change their
prediction. Stop: the records are predicted as their neighbours.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.optim import Optimizer

from efface.errors import InputError
from efface.methods import _unseen as unseen
from efface.methods._base import Count, Memory, NonNegative, Positive, Share, log, register_method
from efface.methods._perturb import add_natural_noise
from efface.task import device_of, frozen_teacher, outputs, task_of, trainable_copy
from efface.training import Loss, Muon, descend, linear_decay, sgd, with_task
from efface.types import Action, Callback, Records, Split, no_callback, record_key

# Share of neighbours that keep the prediction where nothing is known.
GUESS = 0.7

# Draws of the regulariser's neighbours begin here; below are those of the first term.
REGULARISER_DRAWS = 500_000

# Neighbours whose changes are counted; records whose progress is read, each so many steps.
PROBES, PROGRESS_RECORDS, CHECK_EVERY = 48, 128, 8

# So many records are few: what they drag along lies further away than their own noise.
FEW = 16


@register_method(
    reads={"forget labels", "holdout", "forget_classes"},
    memory=Memory(copies=4, graphs=3, neighbours=32),
    purpose="a class or wrong labels, with nothing but the model and the records",
    year=2025,
    passes=56,
)
def jit(  # noqa: PLR0913  # each setting is declared here once
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    expected_accuracy: Share | None = None,
    mislabelled: bool = False,
    sigma: Positive = 0.15,
    perturbations: Count = 1,
    trust_region: NonNegative = 0.1,
    step_size: NonNegative = 0.1,
    steps: Count = 32,
    tolerance: NonNegative = 0.95,
    muon: NonNegative | None = None,
    batch_size: Count = 128,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Smooth the model around the forget records; reads the model and the forget inputs.

    The labels only when ``mislabelled``; of a holdout the model's accuracy on it, which says how
    often a neighbour should keep the prediction; of the request whether a class goes.

    Args:
        model: the given model; it is not changed.
        split: ``forget``, ``forget_classes`` and, if there is one, ``holdout`` are read.
        strength: multiplies ``trust_region`` and the step: 0 is the given model.
        expected_accuracy: the model's accuracy on unseen data (0 to 1); measured on the holdout
            when not given, and 0.7 without one.
        mislabelled: the labels of the forget records are wrong and must not be predicted.
        sigma: where the search for the paper's σ begins, over the range of the data (high − low).
        perturbations: the paper's N.
        trust_region: share of neighbours (0 to 1) that may change their prediction; sets λ.
        step_size: share of the loss that a step aims to remove; kept between what the steps need to
            remove it (3 / steps) and 0.15.
        steps: at most this many.
        tolerance: stop once this share of the distance to the neighbours' confidence is covered.
        muon: learning rate of Muon's first step, in place of Polyak's step and scaled by the
            strength; it falls in a line to 0 at the last of the steps.
        batch_size: records in a step.
        seed: draws the perturbations and the order.
        callback: called after each step.

    Raises:
        InputError: a class goes, or labels are wrong, and the task is not multiclass.
    """
    split = replace(split, forget=with_task(split.forget))
    forget, student, teacher = split.forget, trainable_copy(model), frozen_teacher(model)
    # raises before the search for σ, which costs thousands of passes
    mask = unseen.label_mask(split, mislabelled=mislabelled)
    wanted = unseen.unseen_accuracy(teacher, split, expected_accuracy)
    wanted = GUESS if wanted is None else wanted
    found, kept = unseen.search_sigma(teacher, forget, wanted, start=sigma, seed=seed)
    log("jit: noise found", sigma=found, kept=kept, wanted=wanted)
    regulariser = regulariser_for(len(forget))
    sigmas = [found * scale for scale in regulariser.scales]
    changed = count_changes((teacher, student), forget, mask, sigmas, seed)
    targets = _targets(teacher, split, found, perturbations, seed, mislabelled)
    sample = forget.take(range(min(len(forget), PROGRESS_RECORDS)))

    def target(batch: Records) -> Tensor:
        return torch.stack(targets(batch)[1]).mean(0)

    progress = unseen.progress_towards(target, teacher, student, sample, mislabelled=mislabelled)
    # fewer steps need a larger share each; above 0.15 Polyak's step overshoots
    share, region = strength * min(max(step_size, 3 / steps), 0.15), strength * trust_region
    state = (changed, progress, tolerance, 1 if len(forget) <= FEW else CHECK_EVERY)
    controller = Controller(callback, regulariser, share, region, *state)
    form = {"perturbations": perturbations, "mislabelled": mislabelled, "seed": seed}
    loss = jit_loss(teacher, split, sigma=found, **form, regulariser=regulariser)
    # the controller sets the learning rate of each step
    optimizer: Optimizer = sgd(student, 1.0)
    how: dict[str, Any] = {"callback": controller, "rate": controller.rate}
    if muon is not None:
        optimizer = Muon(student.parameters(), strength * muon)
        how = {"callback": linear_decay(controller, optimizer, steps)}
    how |= {"steps": steps, "seed": seed, "batch_size": batch_size}
    if progress() < tolerance:  # else the records are predicted as their neighbours already
        descend(student, loss, forget, optimizer, **how)
    log("jit: ended", progress=progress(), changed=changed(), weight=regulariser.weight)
    return student


def jit_loss(
    teacher: nn.Module,
    split: Split,
    *,
    sigma: float = 0.15,
    perturbations: int = 1,
    mislabelled: bool = False,
    regulariser: "Regulariser | None" = None,
    seed: int = 0,
) -> Loss:
    """``loss(student, batch, step)``, one number a record: for a training loop of one's own.

    ``teacher`` is the given model, frozen (``task.frozen_teacher`` of a copy, where the loop
    changes the model in place); ``sigma`` is used as it is, over the range of the data; of
    ``split`` only ``forget_classes`` and the form of ``forget`` are read. Raises InputError when
    ``sigma`` or ``perturbations`` is not above 0, or when a class goes, or labels are wrong, and
    the task is not multiclass.
    """
    refuse_no_noise(sigma, perturbations)
    regulariser = regulariser or Regulariser()
    mask = unseen.label_mask(split, mislabelled=mislabelled)
    targets = _targets(teacher, split, sigma, perturbations, seed, mislabelled)

    def loss(student: nn.Module, batch: Records, step: int) -> Tensor:
        rows = regulariser.rows(batch, step)
        chosen = batch.take(rows)
        other = regulariser.neighbours(chosen, sigma, seed=seed, step=step)
        # one forward pass for records and neighbours
        both = batch.take(torch.cat([torch.arange(len(batch)), rows]))
        both = replace(both, x=torch.cat([batch.x, other.x]))
        output, far = outputs(student, both).split([len(batch), len(chosen)])
        neighbours, wanted = targets(batch)
        squares = torch.stack([(output - target).square().sum(1) for target in wanted])
        # differentiable where student and target agree
        changes = (squares + torch.finfo(squares.dtype).eps ** 2).sqrt()
        lengths = torch.stack([(one.x - batch.x).flatten(1).norm(dim=1) for one in neighbours])
        # detached: the scale of the second term must not be what it minimises
        scale = (changes.detach() * lengths).mean(0)[rows].clamp_min(1e-6)
        # some models refuse an empty batch
        given = unseen.teacher_outputs(teacher, other) if len(rows) else far.detach()
        moved = is_regularised(given, mask(given, chosen)) * (far - given).square().sum(1) / scale
        # index_add needs its index on the device of the values
        rows = rows.to(moved.device)
        # at the bounds clamping may leave no noise: 0 / 0
        floor = torch.finfo(changes.dtype).eps
        ratios = torch.where(lengths > floor, changes / lengths.clamp_min(floor), 0 * changes)
        return ratios.mean(0).index_add(0, rows, regulariser.share * regulariser.weight * moved)

    return loss


def refuse_no_noise(sigma: float, perturbations: int) -> None:
    """Raise InputError when there is no noise, and so no neighbourhood."""
    if sigma <= 0 or perturbations < 1:
        wanted = "sigma above 0 and at least 1 perturbation"
        remedy = "Without perturbations there is no neighbourhood to smooth; keep the defaults."
        raise InputError(wanted, f"sigma {sigma} and {perturbations} perturbations", remedy)


Targets = Callable[[Records], tuple[list[Records], list[Tensor]]]


def _targets(
    teacher: nn.Module, split: Split, sigma: float, perturbations: int, seed: int, wrong: bool
) -> Targets:
    """A function of a batch: its neighbours x+ξ_j, and f₀(x+ξ_j) with masked classes lowered."""
    mask = unseen.label_mask(split, mislabelled=wrong)

    def targets(batch: Records) -> tuple[list[Records], list[Tensor]]:
        draws = range(perturbations)
        neighbours = [add_natural_noise(batch, sigma, seed=seed, step=draw) for draw in draws]
        given = [unseen.teacher_outputs(teacher, one) for one in neighbours]
        return neighbours, [unseen.lower_logits(z, mask(z, batch), to_mean=wrong) for z in given]

    return targets


@dataclass
class Regulariser:
    """The second term: neighbours at which the student is to keep the given model's outputs.

    ``weight``: λ, adapted to what the student does, from ``minimum`` up; one record in ``every``
    has neighbours at a step, ``copies`` of them, with σ times the numbers of ``scales`` in turn.
    """

    weight: float = 2.0
    every: int = 4
    copies: int = 1
    scales: tuple[float, ...] = (1.0,)
    minimum: float = 0.01

    def reweigh(self, by: float) -> None:
        """More (``by`` > 0) or less weight, by at most a factor of 1.6 at once."""
        # a factor, so that λ stays positive; 20 is where it freezes the student
        self.weight = min(max(self.weight * math.exp(0.5 * by), self.minimum), 20.0)

    @property
    def share(self) -> float:
        """What one neighbour stands for: with it the sum is a mean over all records."""
        return self.every / self.copies

    def rows(self, batch: Records, step: int) -> Tensor:
        """Rows with neighbours at this step, once for each; by id, so the same in any batch."""
        chosen = [(record_key(identity) + step) % self.every == 0 for identity in batch.ids]
        return torch.nonzero(torch.tensor(chosen)).flatten().repeat_interleave(self.copies)

    def neighbours(self, records: Records, sigma: float, *, seed: int, step: int) -> Records:
        """A neighbour of each row; the ``copies`` rows of one record follow one another."""
        x = records.x.clone()
        for copy in range(self.copies):
            rows, draw = slice(copy, None, self.copies), step * self.copies + copy
            own = records.take(torch.arange(len(records))[rows])
            scaled, step_ = sigma * self.scales[draw % len(self.scales)], REGULARISER_DRAWS + draw
            x[rows] = add_natural_noise(own, scaled, seed=seed, step=step_).x
        return replace(records, x=x)


def regulariser_for(records: int) -> Regulariser:
    """A quarter of many records at one neighbour each; each of few at as many as make 32."""
    # for many records a quarter of them suffices, and costs a quarter
    if records > FEW:
        return Regulariser()
    scales, copies = (2.0, 4.0, 8.0, 16.0), 2 * FEW // max(records, 1)
    return Regulariser(weight=3.0, every=1, copies=copies, scales=scales, minimum=3.0)


def is_regularised(
    given: Float[Tensor, " m k"], masked: Bool[Tensor, " m k"]
) -> Float[Tensor, " m"]:
    """1 for each neighbour that is to keep its prediction, 0 where that must not be predicted."""
    return (~masked.gather(1, given.argmax(1, keepdim=True)).squeeze(1)).to(given.dtype)


def count_changes(
    models: Sequence[nn.Module], forget: Records, mask: unseen.Mask, sigmas: list[float], seed: int
) -> Callable[[], float]:
    """A function of no argument: share of neighbours that the two models predict otherwise.

    ``models``: teacher and student; ``sigmas``: noise of the neighbours, in turn, none of which is
    trained on.
    """
    teacher, student = models
    sample = forget.take(range(min(len(forget), PROBES))).to(device_of(teacher))
    task, copies = task_of(sample), -(-PROBES // len(sample))
    # draws of no training step
    draws = [(sigmas[copy % len(sigmas)], 2 * REGULARISER_DRAWS + copy) for copy in range(copies)]
    x = [add_natural_noise(sample, sigma, seed=seed, step=draw).x for sigma, draw in draws]
    probes = replace(sample.take(torch.arange(len(sample)).repeat(copies)), x=torch.cat(x))
    given = unseen.teacher_outputs(teacher, probes)
    predicted, staying = task.predict(given), is_regularised(given, mask(given, probes))

    def kept(model: nn.Module) -> float:
        right = task.accuracy(unseen.teacher_outputs(model, probes), predicted)
        return float((staying * right).sum() / staying.sum().clamp_min(1))

    # where a model's predictions depend on the batch this is not 1
    before = kept(teacher)
    return lambda: before - kept(student)


@dataclass
class Controller:
    """After each step: λ and the step follow what has changed and the guard's action."""

    callback: Callback
    regulariser: Regulariser
    share: float
    trust_region: float
    changed: Callable[[], float]
    progress: Callable[[], float]
    tolerance: float
    check_every: int = CHECK_EVERY
    taken: int = 0
    refused: float = 1.0
    regained: float = 1.0

    def rate(self, loss: float, gradient_norm: float) -> float:
        """Polyak's step; what a refusal halved is regained step by step."""
        step = self.share * self.regained * loss
        return step / gradient_norm**2 if gradient_norm > 0 else 0.0

    def __call__(self, student: nn.Module, loss: float) -> Action:
        """The guard's action first; STOP once the progress is within the tolerance."""
        action = self.callback(student, loss)
        if action is Action.HALVE_LR:
            # a refusal means damage elsewhere: regularise more, and allow less
            self.regulariser.reweigh(1.0)
            self.trust_region *= 0.7
            self.refused *= 2
        if action is not Action.CONTINUE:
            return action
        region = self.trust_region
        excess = (self.changed() - region) / region if region > 0 else 1.0
        # proportional control: λ grows while more than the region has changed
        self.regulariser.reweigh(min(max(excess, -1.0), 1.0))
        self.regained = min(self.regained * 1.25, self.refused)
        self.taken += 1
        done = self.taken % self.check_every == 0 and self.progress() >= self.tolerance
        return Action.STOP if done else Action.CONTINUE
