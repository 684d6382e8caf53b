"""The guard: keeps a model inside the region where it still works, and refuses what leaves it.

After each step (``Guard.callback``, which is a method's callback): are loss and weights finite, and
is ‖θ - θ₀‖ / ‖θ₀‖ inside the trust region? After the first step and after each that the passes
allow: do the outputs on synthetic inputs stay near the given model's or, with enough holdout
records, is the accuracy within the budget? On a violation the student goes back to its last good
state. ``Guard.settle`` decides on the result of the method. Where the limits come from:
docs/decisions/0001-guard-thresholds.md.

``synthetic_inputs`` stand for records that were never seen. Half are forget records under a strong
perspective, which leaves little of the record itself; half are class impressions: smooth noise that
climbed a little in the given model's log-probability of a staying class. Of a dozen kinds tried
these two together detected lost accuracy best; the first alone misses damage by methods that
distil on those very neighbours.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from efface.errors import NotMet
from efface.methods._perturb import perspective, shift_and_flip
from efface.runtime import fork_rng, map_chunks, state_of, to_eval
from efface.task import device_of, frozen_teacher, predict, task_of
from efface.trainable import adapter_changes
from efface.types import Action, Records, Split, Task

State = dict[str, Tensor]

# The outputs are checked after the first step, at the end and, in between, as often as a tenth of
# the method's own passes allows.
SHARE = 0.1
# accuracy that may be lost on the holdout, where a request names no other
UTILITY_BUDGET = 0.02

# Drift in a run may be so many times its limit for the result: rates fall, and with them drift.
LENIENCE = 2.0

# Where nobody counts them: after steps 1, 6, 11, …. A look after each step halves the learning rate
# too often: of six requests in the plane one was met, and all six with this.
EVERY = 5

# Holdout records that are evaluated during a run; the result is evaluated on all of them.
SAMPLE = 512

# Holdout records that measure what drift only estimates: it is no limit then, nor measured.
ENOUGH = 500

# Divergence of one input at most: a single confident error must not outweigh all others.
CAP_NATS = 10.0

# Synthetic inputs of each kind.
COUNT = 32

# Synthetic inputs at once: at 224 px the graph of all impressions takes a gigabyte.
MICRO_BATCH = 8

# Steps uphill of a class impression, and their length in ranges of the data.
CLIMB, STEP = 5, 0.04

# How far a corner may move, in half sides; anchors of the method neighbourhood move up to 0.5.
FAR = 0.8

# Dimensions of a batch of images (n, c, h, w).
IMAGE = 4


@dataclass(frozen=True)
class Violation:
    """``value`` above ``limit`` at a step; both None for what is not finite."""

    step: int
    kind: str
    value: float | None = None
    limit: float | None = None

    def __str__(self) -> str:
        if self.value is None or self.limit is None:
            return f"{self.kind} not finite"
        number = f"({self.kind} {self.value:.3g} above {self.limit:.3g})"
        if self.kind == "utility":
            lost, allowed = (f"{100 * share:.3g}" for share in (self.value, self.limit))
            points = f"{lost} points of accuracy on unseen records, {allowed} are allowed"
            return f"the model lost {points} {number}"
        # a limit of 0 has no multiple, and what is hardly above it is no multiple
        times = self.value / self.limit if self.limit else 0.0
        many = f"{times:,.0f}" if times >= 10 else f"{times:.2g}"  # noqa: PLR2004
        times = f"{many} times as much as" if times >= WORTH_SAYING else "more than"
        what = {"drift": "changed its answers to unrelated inputs", "movement": "moved its weights"}
        return f"the model {what[self.kind]} {times} allowed {number}"


# Times a limit from which they are said.
WORTH_SAYING = 1.1


class Guard:
    """Supervises a run's student, and settles whether what a method returned may be written.

    Args:
        model: the given model; only read. It must not change while the guard lives.
        split: ``forget`` inputs and bounds shape the synthetic inputs; ``holdout`` (the auxiliary
            part, or None) measures utility; ``forget_classes`` count for neither.
        utility_budget: accuracy that may be lost, 0 to 1. It is exceeded only when the paired drop
            is two standard errors beyond it.
        movement: limit of ‖θ - θ₀‖ / ‖θ₀‖ over all parameters.
        drift: limit of the mean divergence from the given outputs on synthetic inputs, in nats; no
            limit where the holdout has 500 records of classes that stay.
        halvings: halvings of the step after which the run has failed.
        fresh_start: the method starts from an untrained model: no trust region around the given
            one, and utility counts for the result alone.
        adapted: ``model`` carries an adapter (``select_trainable``), and all else is frozen:
            movement is that of the weights with the adapter merged.
        labels_go: the forget records' own labels may not be predicted (they are wrong, or of a
            whole group): on inputs made of these records they do not count as drift.
        seed: draws the synthetic inputs and the sample of the holdout.
        spent: passes of the run so far, forward and backward, the guard's own included; None: the
            outputs are checked after steps 1, 6, 11, …, whatever that costs.
    """

    def __init__(
        self,
        model: nn.Module,
        split: Split,
        *,
        utility_budget: float = UTILITY_BUDGET,
        movement: float = 0.5,
        drift: float = 0.2,
        halvings: int = 8,
        fresh_start: bool = False,
        adapted: bool = False,
        labels_go: bool = False,
        seed: int = 0,
        spent: Callable[[], int] | None = None,
    ) -> None:
        self.budgets = {"utility": utility_budget, "movement": movement, "drift": drift}
        self.violations: list[Violation] = []
        self.steps, self.halvings, self._allowed = 0, 0, halvings
        self.passes, self._spent = 0, spent
        self.interpolation: float | None = None
        self.failed: str | None = None
        self._fresh_start, self._adapted = fresh_start, adapted
        self._measured: dict[str, float] = {}
        # references and no copies: the given model must not change while the guard lives
        self._given: State = {name: t.detach() for name, t in state_of(model).items()}
        self._good: State | None = None
        self._weights = [name for name, _ in model.named_parameters()]
        # what an adapter adds is no part of the given weights
        self._size = _norm(w for w in model.parameters() if not (adapted and w.requires_grad))
        self._task = task_of(split.forget)
        self._forget_classes, self._labels_go = split.forget_classes, labels_go
        self._teacher = frozen_teacher(model)
        self._holdout = _Utility.of(self._teacher, _staying(split))
        self._sample = self._holdout.sample(seed)
        self._split, self._seed = split, seed
        self._drift_is_limit = not fresh_start and len(self._holdout) < ENOUGH
        if self._drift_is_limit:
            # now: what the given model costs is no part of the run
            self._given_outputs  # noqa: B018
        self.passes = 0

    def callback(self, student: nn.Module, loss: float) -> Action:
        """Judge one step; on HALVE_LR and STOP the student has been restored, in place."""
        self.steps += 1
        # the first step is where a wrong learning rate shows
        thorough = self.steps == 1 or _in_any_process(self._can_afford())
        violation = self._check_weights(student, loss)
        # a fresh start is at chance for a long time: its outputs count in settle alone
        if violation is None and thorough and not self._fresh_start:
            violation = self._check_outputs(student, self._sample, LENIENCE)
        # only a state that passed all checks is one to go back to
        if not _in_any_process(violation is not None):
            if thorough:
                self._good = None  # freed first: two copies at once would raise the peak
                self._good = {n: t.detach().clone() for n, t in state_of(student).items()}
            return Action.CONTINUE
        self.violations += [violation] if violation else []  # None: another process has it
        if self.halvings < self._allowed:
            self.halvings += 1
            # the loop halves the learning rate and takes the same records again
            _load(student, self._good or self._given)
            return Action.HALVE_LR
        self.failed = f"{self.halvings} halvings of the step did not help: {violation}"
        _load(student, self._given)
        return Action.STOP

    def settle(
        self, result: nn.Module, written: Callable[[nn.Module], nn.Module] = lambda model: model
    ) -> nn.Module:
        """The method's model in eval mode, moved back towards the given one if it has to be.

        θ₀ + t(θ₁ - θ₀) for the largest t of 7/8, 6/8, … 1/8 that is inside, with the given buffers.
        ``written`` makes of it the model that goes to disk, rounded and merged, whose outputs are
        the ones that count. Raises NotMet when the run has failed, or no such point is inside.
        """
        if self.failed:
            raise self._not_met(self.failed)
        self._good = None  # freed: the model that is written takes its place
        violation = self._check(result, written)
        if not _in_any_process(violation is not None):
            return to_eval(result)
        self.violations += [violation] if violation else []
        if (violation and violation.value is None) or self._fresh_start:
            # what overflowed says nothing about the points on the way there
            raise self._not_met(f"one that exceeds the limits: {violation}")
        state = state_of(result)
        far = {name: state[name].detach().clone() for name in self._weights}
        # from far to near: the largest part of the change that is still inside
        for t in (eighths / 8 for eighths in range(7, 0, -1)):
            between = {name: self._given[name].to(weight) for name, weight in far.items()}
            between = {name: old + t * (far[name] - old) for name, old in between.items()}
            _load(result, {**self._given, **between})
            if not _in_any_process(self._check(result, written) is not None):
                self.interpolation = t
                return to_eval(result)
        raise self._not_met(
            f"too much even with an eighth of the change; with all of it {violation}"
        )

    def as_json(self) -> dict[str, Any]:
        """Budgets, last measurements, violations, halvings, and how the run ended."""
        facts: dict[str, Any] = {"budgets": self.budgets, "measured": self._measured}
        synthetic = 2 * COUNT * self._drift_is_limit
        facts |= {"holdout_records": len(self._holdout), "synthetic_inputs": synthetic}
        facts |= {"steps": self.steps, "passes": self.passes}
        facts |= {"violations": [asdict(one) | {"text": str(one)} for one in self.violations]}
        ended = {"interpolation": self.interpolation, "failed": self.failed}
        return facts | {"halvings": self.halvings} | ended

    def movement(self, student: nn.Module) -> float:
        """‖θ - θ₀‖ / ‖θ₀‖ over the parameters; not finite when a weight is not."""
        state = state_of(student)
        # a generator: one tensor of differences at a time, not a second model
        changes = (state[name] - self._given[name].to(state[name]) for name in self._weights)
        moved = _norm(adapter_changes(student) if self._adapted else changes)
        return moved / max(self._size, 1e-12)

    def drift(self, student: nn.Module) -> float:
        """Mean KL(given ‖ student) over the synthetic inputs, in nats, each at most 10."""
        divergence = self._task.divergence(self._given_outputs, self._outputs_of(student))
        return float(divergence.clamp_max(CAP_NATS).mean())

    def _can_afford(self) -> bool:
        """Whether a look at the outputs, and that of ``settle``, stay within a tenth of the run."""
        if self._spent is None:
            return self.steps % EVERY == 1
        looks = 4 * COUNT * self._drift_is_limit + len(self._sample) + len(self._holdout)
        return self.passes + looks <= SHARE * (self._spent() - self.passes)

    def _check(
        self, result: nn.Module, written: Callable[[nn.Module], nn.Module]
    ) -> Violation | None:
        violation = self._check_weights(result, 0.0)
        return violation or self._check_outputs(written(result), self._holdout)

    def _check_weights(self, student: nn.Module, loss: float) -> Violation | None:
        """What is cheap enough for every step."""
        if not math.isfinite(loss):
            return Violation(self.steps, "loss")
        # a sum over all weights is finite only if each of them is
        movement = self.movement(student)
        buffers = (buffer for buffer in student.buffers() if buffer.is_floating_point())
        if not (math.isfinite(movement) and all(bool(b.isfinite().all()) for b in buffers)):
            return Violation(self.steps, "weights")
        return self._check_region("movement", movement)

    def _check_outputs(
        self, student: nn.Module, utility: "_Utility", lenience: float = 1.0
    ) -> Violation | None:
        """What costs forward passes: drift, and the drop in utility where there is a holdout."""
        if self._drift_is_limit:
            drift = self._check_region("drift", self.drift(student), lenience)
            if drift:
                return drift
        if len(utility) < 2:  # noqa: PLR2004  # a single pair has no standard error
            return None
        self.passes += len(utility)
        before, drop, error = utility.drop(student)
        if not math.isfinite(drop):
            return Violation(self.steps, "outputs")
        # a drop that may be chance is not held against the method
        limit = self.budgets["utility"] + 2 * error
        self._measured |= {"utility_before": before, "utility_after": before - drop}
        self._measured["utility_limit"] = limit
        return Violation(self.steps, "utility", drop, limit) if drop > limit else None

    def _check_region(self, kind: str, value: float, lenience: float = 1.0) -> Violation | None:
        """A violation of the trust region, which a fresh start does not have."""
        if not math.isfinite(value):
            return Violation(self.steps, kind)
        self._measured[kind], limit = value, lenience * self.budgets[kind]
        inside = value <= limit or self._fresh_start
        return None if inside else Violation(self.steps, kind, value, limit)

    def _not_met(self, reason: str) -> NotMet:
        self.failed = reason
        budgets = ", ".join(f"{name} {limit:g}" for name, limit in self.budgets.items())
        remedy = "Choose another method, or retrain without the records."
        wanted = f"a model within the guard's budgets ({budgets})"
        return NotMet(wanted, reason, f"The old model stands. {remedy}")

    @cached_property
    def _inputs(self) -> Records:
        return synthetic_inputs(self._teacher, self._split, seed=self._seed)

    @cached_property
    def _given_outputs(self) -> Float[Tensor, " m k"]:
        return self._outputs_of(self._teacher)

    def _outputs_of(self, model: nn.Module) -> Float[Tensor, " m k"]:
        """Outputs on the synthetic inputs, without the forget classes."""
        self.passes += len(self._inputs)
        # float64: confident outputs differ in the last digits of float32
        outputs = _predict(model, self._inputs, batch_size=MICRO_BATCH).double()
        if self._labels_go:
            outputs[:COUNT].scatter_(1, self._inputs.y[:COUNT, None].cpu(), -1e4)
        return outputs[:, [k for k in range(outputs.shape[1]) if k not in self._forget_classes]]


@dataclass(frozen=True, eq=False)
class _Utility:
    """Records that were never trained on, and the given model's accuracy on each of them."""

    records: Records | None
    before: Float[Tensor, " n"]

    @classmethod
    def of(cls, teacher: nn.Module, records: Records | None) -> "_Utility":
        """The given model is evaluated once, here."""
        return cls(records, _accuracy(teacher, records))

    def __len__(self) -> int:
        return len(self.records or ())

    def sample(self, seed: int) -> "_Utility":
        """At most ``SAMPLE`` of them."""
        if self.records is None or len(self) <= SAMPLE:
            return self
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randperm(len(self), generator=generator)[:SAMPLE]
        return _Utility(self.records.take(rows), self.before[rows])

    def drop(self, student: nn.Module) -> tuple[float, float, float]:
        """Accuracy before, its drop, and the standard error of the drop over the pairs."""
        lost = self.before - _accuracy(student, self.records)
        error = float(lost.std()) / math.sqrt(len(lost))
        return float(self.before.mean()), float(lost.mean()), error


def _accuracy(model: nn.Module, records: Records | None) -> Float[Tensor, " n"]:
    """Accuracy on each record; nan where an output is not finite."""
    if records is None:
        return torch.zeros(0)
    outputs = _predict(model, records)
    accuracy = task_of(records).accuracy(outputs, records.y.cpu()).double()
    return accuracy.where(outputs.isfinite().all(1), math.nan)


def synthetic_inputs(teacher: nn.Module, split: Split, *, seed: int = 0) -> Records:
    """32 warped forget records, then 32 class impressions, within the data's bounds.

    ``teacher`` is the given model, frozen. Each staying class has the same number of impressions,
    give or take one; without classes each output is driven up and down. Records that are not
    images are mixed with noise instead.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(len(split.forget), (COUNT,), generator=generator)
    chosen = split.forget.take(rows).to(device_of(teacher))
    if chosen.x.ndim == IMAGE:
        draws = torch.rand((COUNT, 8), generator=generator, dtype=torch.float64)
        warped = perspective(chosen.x, draws, FAR)
    else:
        warped = (chosen.x + _noise(chosen, generator)) / 2
    x = torch.cat([warped, _impressions(teacher, chosen, split.forget_classes, generator)])
    y = torch.cat([chosen.y, torch.zeros_like(chosen.y)])
    return Records(x, y, task=task_of(split.forget))


def _impressions(
    teacher: nn.Module, like: Records, forget_classes: tuple[int, ...], generator: torch.Generator
) -> Tensor:
    """Noise after some steps uphill, each newly shifted and mirrored."""
    noise = _noise(like, generator)
    # a new view each step, or the noise would fit one alignment of pixels
    draws = torch.rand((CLIMB, len(noise), 3), generator=generator, dtype=torch.float64)
    # of all records: a few might not show what their labels mean
    task = task_of(like)
    k = task.outputs(teacher, noise[:2]).shape[1]
    staying = [label for label in range(k) if label not in forget_classes]
    wanted = torch.tensor([staying[i % len(staying)] for i in range(len(noise))])
    # without classes the outputs are driven up and down in turns
    signs = 1 - 2 * (torch.arange(len(noise)) // k % 2 * (task.name != "multiclass"))
    low, high = _bounds(like)

    def climbed(rows: Tensor) -> Tensor:
        x, y, sign = (tensor[rows].to(like.x.device) for tensor in (noise, wanted, signs))
        for step in draws:
            slope = _slope(teacher, task, x, y, sign, step[rows])
            x = torch.clamp(x + STEP * (high - low) * slope, low, high)
        return x

    # a graph at a time: each input climbs by itself
    return torch.cat(list(map_chunks(climbed, torch.arange(len(noise)), MICRO_BATCH)))


def _slope(
    teacher: nn.Module, task: Task, x: Tensor, wanted: Tensor, signs: Tensor, draws: Tensor
) -> Tensor:
    """Gradient of each input's objective, scaled to unit standard deviation.

    The objective is the log-probability of the wanted class or, without classes, the wanted output;
    times its sign.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        shifted = shift_and_flip(x, draws, max(1, x.shape[-1] // 8)) if x.ndim == IMAGE else x
        outputs = task.outputs(teacher, shifted)
        outputs = outputs.log_softmax(1) if task.name == "multiclass" else outputs
        (slope,) = torch.autograd.grad((signs * outputs.gather(1, wanted[:, None])[:, 0]).sum(), x)
    # steps of the same size on every input, however flat the model is there
    deviation = slope.flatten(1).std(1).clamp_min(1e-12)
    return slope / deviation.reshape(-1, *[1] * (x.ndim - 1))


def _noise(like: Records, generator: torch.Generator) -> Tensor:
    """Uniform within the bounds; for images drawn at a quarter of the size and upsampled."""
    shape = tuple(like.x.shape)
    # smooth noise: white noise is averaged away by the first convolution
    coarse = (*shape[:2], *(max(2, side // 4) for side in shape[2:]))
    drawn = torch.rand(coarse if len(shape) == IMAGE else shape, generator=generator)
    if len(shape) == IMAGE:
        drawn = functional.interpolate(drawn, size=shape[2:], mode="bilinear", align_corners=False)
    low, high = _bounds(like)
    return low + (high - low) * drawn.to(like.x)


def _bounds(like: Records) -> tuple[Tensor, Tensor]:
    return torch.as_tensor(like.low).to(like.x), torch.as_tensor(like.high).to(like.x)


def _staying(split: Split) -> Records | None:
    """The holdout records whose class stays; None when there are none."""
    if split.holdout is None or not split.forget_classes:
        return split.holdout
    going = torch.isin(split.holdout.y.cpu(), torch.tensor(split.forget_classes))
    return split.holdout.take((~going).nonzero().flatten()) if not going.all() else None


def _predict(model: nn.Module, records: Records, **how: int) -> Tensor:
    """Outputs; a model that draws random numbers draws the same for every student."""
    with fork_rng():
        torch.manual_seed(0)
        return predict(model, records, **how)


def _in_any_process(holds: bool) -> bool:
    """Whether it holds in any process: at a limit, rounding must not make them disagree."""
    from accelerate import PartialState
    from accelerate.utils import reduce

    # all processes call this, or those that did would wait for ever
    state = PartialState()
    if state.num_processes == 1:
        return holds
    flag = torch.tensor(float(holds), device=state.device)
    return bool(reduce(flag, reduction="sum"))


def _norm(tensors: Iterable[Tensor]) -> float:
    """Euclidean norm over all tensors together, summed in float64."""
    sizes = [torch.linalg.vector_norm(tensor.detach()).cpu().double() for tensor in tensors]
    return float(torch.stack(sizes).norm()) if sizes else 0.0


@torch.no_grad()
def _load(student: nn.Module, state: Mapping[str, Tensor]) -> None:
    """In place: optimizers and methods hold references to these very tensors."""
    for name, tensor in state_of(student).items():
        tensor.copy_(state[name])
