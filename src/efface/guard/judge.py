"""The guard itself: what it asks of a model after a step, and of the result.

After each step: are loss and weights finite, is ‖θ - θ₀‖ / ‖θ₀‖ inside the trust region, do the
answers on synthetic inputs stay near the given model's, or, where enough records that were never
trained on are at hand, is their accuracy within the budget? On violation the student goes back to
its last good state. Where the limits come from: docs/decisions/0001-guard-thresholds.md.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.errors import NotMet
from efface.guard.inputs import synthetic_inputs
from efface.guard.states import State, between, copied, finite_buffers, looked_at, norm, put
from efface.task import frozen_teacher, predict, task_of
from efface.trainable import added
from efface.types import Action, Records, Split

EVERY = 5
"""Forward passes are made after steps 1, 6, 11, …: at most a tenth of the cost of the steps."""

SAMPLE = 512
"""Records of the holdout that are asked while the student moves; the result is asked all."""


ENOUGH = 500
"""Holdout records that measure what drift can only estimate: it is then noted, and no limit."""

CAP_NATS = 10.0
"""One input on which the student is sure of something else must not outweigh all others."""


@dataclass(frozen=True)
class Violation:
    """What was outside at which step: ``value`` against ``limit``; None for what is not finite."""

    step: int
    kind: str
    value: float | None
    limit: float | None

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.kind} not finite"
        return f"{self.kind} {self.value:.3g} above {self.limit:.3g}"


class Guard:
    """Watches a request's student, and settles whether what a method returned may go out.

    Args:
        model: the given model; only read. It must stay as it is while the guard lives.
        split: ``forget`` inputs and bounds shape the synthetic inputs; ``holdout`` (the
            guard's half, or None) measures utility; ``forget_classes`` classes count for neither.
        utility_budget: accuracy that may be lost, 0 to 1. It trips only when the paired drop is
            two standard errors beyond it.
        movement: limit of ‖θ - θ₀‖ / ‖θ₀‖ over all parameters.
        drift: limit of the mean divergence from the given answers on synthetic inputs, in nats;
            noted and no limit where the holdout has 500 records of classes that stay.
        halvings: so many times a step is halved; then the request has failed.
        fresh_start: the method starts from an untrained model: no trust region around the given
            one, and utility is asked of the result alone.
        adapted: ``model`` carries an adapter (``trainable.opened``), and all else is frozen:
            movement is that of the weights with the adapter merged.
        seed: draws the synthetic inputs and the sample of the holdout.
    """

    def __init__(
        self,
        model: nn.Module,
        split: Split,
        *,
        utility_budget: float = 0.02,
        movement: float = 0.5,
        drift: float = 0.2,
        halvings: int = 8,
        fresh_start: bool = False,
        adapted: bool = False,
        seed: int = 0,
    ) -> None:
        self.budgets = {"utility": utility_budget, "movement": movement, "drift": drift}
        self.violations: list[Violation] = []
        self.steps, self.halvings, self._allowed = 0, 0, halvings
        self.drawn_back: float | None = None
        self.failed: str | None = None
        self._fresh_start, self._adapted = fresh_start, adapted
        self._measured: dict[str, float] = {}
        self._given: State = {name: t.detach() for name, t in model.state_dict().items()}
        self._good: State | None = None
        self._weights = [name for name, _ in model.named_parameters()]
        self._size = norm(w for w in model.parameters() if not (adapted and w.requires_grad))
        self._adapter = task_of(split.forget)
        self._leaving = list(split.forget_classes)
        teacher = frozen_teacher(model)
        self._inputs = synthetic_inputs(teacher, split, seed=seed)
        self._answers = self._answer(teacher)
        self._all = _Utility(teacher, _staying(split))
        self._sample = _Utility(teacher, _sampled(self._all.records, seed))

    def callback(self, student: nn.Module, loss: float) -> Action:
        """Judge one step; on HALVE and END the student has been put back, in place."""
        self.steps += 1
        thorough = self.steps % EVERY == 1
        found = self._cheap(student, loss)
        if found is None and thorough and not self._fresh_start:
            found = self._costly(student, self._sample)
        if not _found_anywhere(found):
            if thorough:
                self._good = copied(student.state_dict(), self._good)
            return Action.CONTINUE
        return self._refuse(student, found)

    def settle(self, result: nn.Module) -> nn.Module:
        """The method's model, drawn back towards the given one where it must be; in eval mode.

        Raises NotMet when the request has failed or no point of the way back is inside.
        """
        if self.failed:
            raise self._not_met(self.failed)
        self._check_shapes(result)
        found = self._cheap(result, 0.0) or self._costly(result, self._all)
        if not _found_anywhere(found):
            return result.eval()
        self._note(found)
        if (found and found.value is None) or self._fresh_start:
            raise self._not_met(f"the method's model is outside: {found}")
        return self._draw_back(result, found)

    def as_json(self) -> dict[str, Any]:
        """Budgets, what was measured last, violations, halvings, and how it ended."""
        return {
            "budgets": self.budgets,
            "measured": self._measured,
            "holdout_records": len(self._all),
            "synthetic_inputs": len(self._inputs),
            "steps": self.steps,
            "violations": [asdict(violation) for violation in self.violations],
            "halvings": self.halvings,
            "drawn_back": self.drawn_back,
            "failed": self.failed,
        }

    def movement_of(self, student: nn.Module) -> float:
        """‖θ - θ₀‖ / ‖θ₀‖ over the parameters; not finite when a weight is not."""
        state = student.state_dict()
        changes = (state[name] - self._given[name].to(state[name]) for name in self._weights)
        moved = norm(added(student) if self._adapted else changes)
        return moved / max(self._size, 1e-12)

    def drift_of(self, student: nn.Module) -> float:
        """Mean KL(given ‖ student) over the synthetic inputs, in nats, each at most 10."""
        each = self._adapter.divergence(self._answers, self._answer(student))
        return float(each.clamp_max(CAP_NATS).mean())

    def _cheap(self, student: nn.Module, loss: float) -> Violation | None:
        """What is asked after every step."""
        if not math.isfinite(loss):
            return Violation(self.steps, "loss", None, None)
        movement = self.movement_of(student)
        if not math.isfinite(movement) or not finite_buffers(student):
            return Violation(self.steps, "weights", None, None)
        return self._above("movement", movement)

    def _costly(self, student: nn.Module, utility: "_Utility") -> Violation | None:
        """What costs forward passes: drift, and the drop in utility where a holdout is at hand."""
        found = self._above("drift", self.drift_of(student))
        if found and (found.value is None or len(self._all) < ENOUGH):
            return found
        if len(utility) < 2:  # noqa: PLR2004
            return None
        before, drop, error = utility.drop(student)
        self._measured.update(utility_before=before, utility_after=before - drop)
        limit = self.budgets["utility"] + 2 * error
        return Violation(self.steps, "utility", drop, limit) if drop > limit else None

    def _above(self, kind: str, value: float) -> Violation | None:
        """A violation of the trust region, which a fresh start does not have."""
        if not math.isfinite(value):
            return Violation(self.steps, kind, None, None)
        self._measured[kind] = value
        inside = value <= self.budgets[kind] or self._fresh_start
        return None if inside else Violation(self.steps, kind, value, self.budgets[kind])

    def _refuse(self, student: nn.Module, found: Violation | None) -> Action:
        self._note(found)
        if self.halvings < self._allowed:
            self.halvings += 1
            put(student, self._good or self._given)
            return Action.HALVE_LR
        self.failed = f"{self.halvings} halvings of the step did not help, {found}"
        put(student, self._given)
        return Action.STOP

    def _draw_back(self, result: nn.Module, found: Violation | None) -> nn.Module:
        """θ₀ + t(θ₁ - θ₀) for the largest t that is inside; the buffers are the given ones."""
        far = {name: result.state_dict()[name].clone() for name in self._weights}
        for t in (0.5, 0.25, 0.125):
            put(result, {**self._given, **between(self._given, far, t)})
            again = self._cheap(result, 0.0) or self._costly(result, self._all)
            if not _found_anywhere(again):
                self.drawn_back = t
                return result.eval()
        raise self._not_met(f"even an eighth of the change is outside; all of it: {found}")

    def _check_shapes(self, result: nn.Module) -> None:
        shapes = {name: tensor.shape for name, tensor in result.state_dict().items()}
        given = {name: tensor.shape for name, tensor in self._given.items()}
        wrong = sorted(name for name, _ in shapes.items() ^ given.items())
        if wrong:
            raise self._not_met(f"the method's model differs in the name or shape of {wrong[0]}")

    def _note(self, found: Violation | None) -> None:
        if found is not None:
            self.violations.append(found)

    def _not_met(self, reason: str) -> NotMet:
        self.failed = reason
        budgets = ", ".join(f"{name} {limit:g}" for name, limit in self.budgets.items())
        return NotMet(
            f"a model within the guard's budgets ({budgets})",
            reason,
            "The old model stands. Lower --strength, choose another method or give a --holdout.",
        )

    def _answer(self, model: nn.Module) -> Float[Tensor, " m k"]:
        """Outputs on the synthetic inputs, without the leaving classes."""
        with looked_at(model):
            answer = predict(model, self._inputs).double()
        staying = [place for place in range(answer.shape[1]) if place not in self._leaving]
        return answer[:, staying]


class _Utility:
    """Accuracy on records that were never trained on, in pairs with the given model's."""

    def __init__(self, teacher: nn.Module, records: Records | None) -> None:
        self.records = records
        self._before = self._right(teacher)

    def __len__(self) -> int:
        return 0 if self.records is None else len(self.records)

    def drop(self, student: nn.Module) -> tuple[float, float, float]:
        """Accuracy before, its drop, and the standard error of the drop over the pairs."""
        lost = self._before - self._right(student)
        error = float(lost.std()) / math.sqrt(len(lost))
        return float(self._before.mean()), float(lost.mean()), error

    def _right(self, model: nn.Module) -> Float[Tensor, " n"]:
        """1 where the model answers rightly, else 0; a share where an answer can be half right."""
        if self.records is None:
            return torch.zeros(0)
        with looked_at(model):
            answers = predict(model, self.records)
        return task_of(self.records).accuracy(answers, self.records.y.cpu()).double()


def _staying(split: Split) -> Records | None:
    """The records of the holdout whose class stays; None when there are none."""
    if split.holdout is None or not split.forget_classes:
        return split.holdout
    leaves = torch.isin(
        split.holdout.y.cpu(), torch.tensor(split.forget_classes, dtype=torch.int64)
    )
    rows = (~leaves).nonzero().flatten()
    return split.holdout.take(rows) if len(rows) else None


def _sampled(records: Records | None, seed: int) -> Records | None:
    if records is None or len(records) <= SAMPLE:
        return records
    generator = torch.Generator().manual_seed(seed)
    return records.take(torch.randperm(len(records), generator=generator)[:SAMPLE])


def _found_anywhere(found: Violation | None) -> bool:
    """Whether any process found a violation: near a limit, rounding must not part the processes."""
    from accelerate import PartialState
    from accelerate.utils import reduce

    state = PartialState()
    if state.num_processes == 1:
        return found is not None
    flag = torch.tensor(float(found is not None), device=state.device)
    return bool(reduce(flag, reduction="sum"))
