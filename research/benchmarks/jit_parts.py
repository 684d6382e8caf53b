"""What each part of the corrected jit does, alone, and what N buys for each estimator.

    EFFACE_DATA=… python -m research.benchmarks.jit_parts STORE      # research/results/jit_parts.json, .md and .svg

STORE holds the models that jit_requests.py trained; four more are trained into it: 20 minutes of one
core. Three base models. Scored on the two requests that settings are
chosen on (the class cat, 500 random records), which no other table scores. One loop with switches; as
it stands it is ``jit``, to 1e-6. Cost is counted in forwards a record (a backward is two).
"""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp

from efface.grid import run
from efface.methods._perturb import add_noise
from efface.methods._unseen import Mask, label_mask, lower_logits, search_sigma, unseen_accuracy
from efface.methods.jit import (
    REGULARISER_DRAWS,
    Controller,
    Regulariser,
    count_changes,
    is_regularised,
    jit,
)
from efface.metrics.retrain_gap import gap
from efface.task import frozen_teacher, outputs, task_of, trainable_copy
from efface.training import descend
from efface.types import Records, Split, no_callback, record_key, split_holdout
from research.benchmarks.jit_parts_show import TASKS
from research.benchmarks.jit_requests import SEEDS, Request, requests
from research.reduce import arrays_of, columns_of, rows_by, statistics_of
from research.tables import write_record
from research.trained import model_of, parts_of

# jit's own: steps, share of the loss that a step aims to remove, trust region
STEPS, SHARE, TRUST = 32, 0.1, 0.1


@dataclass(frozen=True)
class Form:
    """The switches; as they stand here they are jit."""

    given_branch: bool = True
    natural_noise: bool = True
    one_draw: bool = True
    held: bool = True
    hides: bool = True
    perturbations: int = 1
    estimator: str = "draws"


FORMS: dict[str, Form] = {
    "jit": Form(),
    "the student, held still, as perturbed branch": Form(given_branch=False),
    "white noise": Form(natural_noise=False),
    "a fresh draw at each step": Form(one_draw=False),
    "nothing held": Form(held=False),
    "nothing hidden, so σ where a tenth keep the answer": Form(hides=False),
    "white noise, nothing hidden, that σ": Form(hides=False, natural_noise=False),
    "the student as perturbed branch, nothing hidden, that σ": Form(
        given_branch=False, hides=False
    ),
    **{f"N = {n}": Form(perturbations=n) for n in (2, 4, 8)},
    **{f"antithetic, N = {n}": Form(perturbations=n, estimator="antithetic") for n in (2, 4)},
    **{f"directional derivative, N = {n}": Form(perturbations=n, estimator="jvp") for n in (1, 4)},
}


@dataclass(frozen=True, eq=False)
class Bench:
    """A request with its model, and what scores it."""

    request: Request
    model: nn.Module
    split: Split
    data: tuple[Records, Records]
    member: np.ndarray
    target: dict[str, float]

    def scored(self, model: nn.Module) -> dict[str, Any]:
        """Columns and gap."""
        arrays = arrays_of(model, *self.data, member=self.member)
        rows = rows_by(self.request.forget, arrays["train.y"])
        forget_classes = self.request.forget_classes
        found = statistics_of(arrays, forget=rows, forget_classes=forget_classes)
        columns = columns_of(found, forget_classes=bool(forget_classes))
        return {"columns": columns, "gap": gap(columns, self.target)}


def bench(request: Request, store: str) -> Bench:
    """Load it."""
    settings, forget_classes = request.base.settings, request.forget_classes
    train, test = parts_of(settings, Path(store, "shared"))
    rows = rows_by(request.forget, train.y.numpy())
    split = Split(train.take(rows), holdout=test, forget_classes=forget_classes)
    model, member = model_of(settings, Path(store, request.base.id)), np.ones(len(train), bool)
    auxiliary = split_holdout(split, seed=0)[0]
    return Bench(request, model, auxiliary, (train, test), member, request.reference(store))


def unlearned(model: nn.Module, split: Split, form: Form, *, seed: int) -> nn.Module:
    """The loop of jit, with its switches."""
    split = replace(split, forget=replace(split.forget, task=task_of(split.forget)))
    teacher, student, forget = frozen_teacher(model), trainable_copy(model), split.forget
    mask = label_mask(split if form.hides else replace(split, forget_classes=()), mislabelled=False)
    # without hidden labels σ must still flip a class that is forgotten: a tenth may keep it
    unhidden = 0.1 if split.forget_classes else None
    wanted: Any = unseen_accuracy(teacher, split, None if form.hides else unhidden)
    sigma, _ = search_sigma(teacher, forget, wanted, start=0.15, seed=seed)
    hold = Regulariser() if form.held else Regulariser(0.0)
    changed = count_changes((teacher, student), forget, mask, [sigma], seed)
    after = Controller(no_callback, hold, SHARE, TRUST, changed, lambda: 0.0, 2.0)
    held = hold if form.held else None
    loss = _loss(teacher, mask, form, sigma=sigma, hold=held, seed=seed)
    return descend(
        student, loss, forget, optimizer=torch.optim.SGD(student.parameters(), lr=1.0),
        steps=STEPS, seed=seed, callback=after, rate=after.rate,
    )  # fmt: skip


def _loss(
    teacher: nn.Module, mask: Mask, form: Form, *, sigma: float, hold: Regulariser | None, seed: int
) -> Callable[..., Tensor]:
    draw = partial(add_noise, natural=form.natural_noise)

    def loss(student: nn.Module, batch: Records, step: int) -> Tensor:
        first = 0 if form.one_draw else step * form.perturbations
        numbers = range(first, first + form.perturbations)
        near = [_near(draw, batch, sigma, form, seed=seed, number=number) for number in numbers]
        # as in jit, a quarter of the records is regularised in each step, another one each time
        rows = torch.nonzero(torch.tensor([(record_key(i) + step) % 4 == 0 for i in batch.ids]))
        rows = rows.flatten() if hold else rows.flatten()[:0]
        regularised = batch.take(rows)
        other = draw(regularised, sigma, seed=seed, step=REGULARISER_DRAWS + step)
        both = batch.take(torch.cat([torch.arange(len(batch)), rows]))
        both = replace(both, x=torch.cat([batch.x, other.x]))
        logits, still = outputs(student, both).split([len(batch), len(rows)])
        lengths = torch.stack([(n.x - batch.x).flatten(1).norm(dim=1) for n in near])
        branches = teacher if form.given_branch else student, student
        how = {"directional": form.estimator == "jvp", "mask": mask}
        changes = torch.stack([_change(branches, batch, logits, n, **how) for n in near])
        # noise that was clipped away altogether has length 0
        total = (changes / lengths.clamp_min(1e-7)).mean(0)
        if not hold:
            return total
        scale = (changes.detach() * lengths).mean(0)[rows].clamp_min(1e-6)
        with torch.no_grad():
            given = outputs(teacher, other)
        away = is_regularised(given, mask(given, regularised)) * (still - given).square().sum(1)
        # times 4 for the quarter
        return total.index_add(0, rows, 4 * hold.weight * away / scale)

    return loss


def _near(
    draw: Any, batch: Records, sigma: float, form: Form, *, seed: int, number: int
) -> Records:
    if form.estimator != "antithetic":
        return draw(batch, sigma, seed=seed, step=number)
    one = draw(batch, sigma, seed=seed, step=number // 2)
    # odd numbers mirror the draw of the even one before them: x - ξ, clipped to the data's range
    if number % 2 == 0:
        return one
    return replace(batch, x=torch.clamp(2 * batch.x - one.x, batch.low, batch.high))


def _change(
    branches: tuple[nn.Module, nn.Module], batch: Records, logits: Tensor, near: Records,
    *, directional: bool, mask: Mask,
) -> Tensor:  # fmt: skip
    """The distance of two outputs; directional: ‖J ξ‖, the slope in the direction of ξ."""
    branch, student = branches
    if directional:
        weights: dict[str, Tensor] = dict(student.named_parameters())
        call = partial(functional_call, student, weights)
        slope = jvp(lambda x: call((x,)), (batch.x,), (near.x - batch.x,))[1]
        return (slope.square().sum(1) + 1e-14).sqrt()
    with torch.no_grad():
        target = outputs(branch, near)
        target = lower_logits(target, mask(target, batch))
    # 1e-14 keeps the gradient of the root finite where both outputs are equal
    return ((logits - target).square().sum(1) + 1e-14).sqrt()


def cost(form: Form) -> float:
    """Forwards' worth a record and step: a backward counts two, a jvp as another forward."""
    if form.estimator == "jvp":
        return form.perturbations * (2 + 4) + 3 * 0.25 + 0.25 + 1
    return 3 + form.perturbations + (4 * 0.25 if form.held else 0)


def rows_of(store: str) -> Iterator[dict[str, Any]]:
    """Every form on both requests, nothing done first; jit checked against the method itself."""
    every = [request for task in TASKS for request in requests(task, tuning=True, seeds=SEEDS)]
    run([request.retrained for request in every], store)
    for request in every:
        one = bench(request, store)
        where = {"task": request.task, "request": request.name, "seed": request.seed,
                 "target": one.target}  # fmt: skip
        yield {**where, "form": "nothing done", "cost": 0, **one.scored(one.model)}
        for name, form in FORMS.items():
            began = time.process_time()
            student = unlearned(one.model, one.split, form, seed=request.seed)
            seconds = time.process_time() - began
            if name == "jit":
                method = jit(one.model, one.split, tolerance=2.0, seed=request.seed)
                pairs = zip(student.parameters(), method.parameters(), strict=True)
                # the switches say something about jit only if the loop with all of them on is jit
                assert all(torch.allclose(a, b, atol=1e-6) for a, b in pairs), "not jit"
            yield {**where, "form": name, "switches": asdict(form), "cost": cost(form),
                   "cpu_seconds": round(seconds, 1), **one.scored(student)}  # fmt: skip


def main(store: str) -> None:
    """Run, record, tabulate."""
    torch.set_num_threads(1)
    write_record("jit_parts", "jit_parts STORE", {"rows": list(rows_of(store))})


if __name__ == "__main__":
    main(*sys.argv[1:])
