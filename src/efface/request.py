"""The main job: prepare, examine, unlearn under guard, measure."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from efface.choice import settled
from efface.errors import InputError, NotMet
from efface.guard import Guard
from efface.halves import split_holdout, unseen_in
from efface.hazards import Finding, doctor, refuse_hazards
from efface.io.features import FeatureSpec
from efface.io.preprocessing import Preprocessing
from efface.methods import METHODS
from efface.methods._base import refuse_without
from efface.prepare import memory_needed, prepared, refuse_kinds
from efface.record import SCHEMA, facts_into, state_digest, versions
from efface.report import Evidence, collect, render
from efface.runtime import MemoryEstimate, as_stored, nonfinite_tensors, upcast_to_fp32
from efface.settings import checked, hyperparameters
from efface.targeting import ALL, Targeted, refuse_target, targeted
from efface.trainable import check_trainable, count_trainable, merge_adapter, select_trainable
from efface.types import Action, Callback, Progress, Records, Split, in_silence

KEPT_APART = Finding(
    "adapter",
    "note",
    "Whoever takes an adapter that is kept apart off again has the old model back: the records are "
    "still in the base. The merged model is the one to hand on.",
)
"""Holds of every adapter, and is said beside every one."""


@dataclass(frozen=True, eq=False)
class Result:
    """What ``forget`` gives back.

    ``model``: the new model, in eval mode; ``evidence``: what changed, at the tier that the data
    allow; ``record``: settings, seeds, versions, digests; ``findings``: what doctor saw before;
    ``adapter``: with ``trainable="adapter"`` PEFT's model of what was merged into ``model``, on
    float32 weights; taken off, the old model is back.
    """

    model: nn.Module
    evidence: Evidence
    record: dict[str, Any]
    findings: tuple[Finding, ...] = field(default=())
    adapter: nn.Module | None = None

    def _repr_html_(self) -> str:
        """The outcome and the rows that ran: what a notebook shows."""
        return self.evidence._repr_html_()  # the name is IPython's

    def report(self, path: str | Path) -> Path:
        """Write the report, one self-contained HTML page, and return its path."""
        path = Path(path)
        path.write_text(render(self.evidence, self.record), encoding="utf-8")
        return path


def forget(
    model: nn.Module,
    split: Split,
    *,
    method: str = "neighbourhood",
    trainable: str = "all",
    mislabelled: bool = False,
    target: str = ALL,
    weights: Mapping[str, float] | None = None,
    classes: tuple[str, ...] | None = None,
    preprocessing: Preprocessing | FeatureSpec | None = None,
    utility_budget: float = 0.02,
    seed: int = 0,
    stored: Mapping[str, torch.dtype] | None = None,
    started: Callable[[MemoryEstimate], None] | None = None,
    progress: Progress = in_silence,
    **settings: Any,
) -> Result:
    """Give back a model that behaves as if it had not seen ``split.forget``, with evidence.

    Args:
        model: answers (n, *features) with one row of numbers a record: logits of one class of
            several, of many labels, or values; it is not changed. Weights of half precision change
            in a float32 copy and come back in their own dtype.
        split: what must go and whatever else is at hand; records as ``Records``, tensors (x, y),
            a torch Dataset or DataLoader, or a ``datasets.Dataset``. The holdout, of
            12 records or more, is split once by a seeded hash: method and guard see the first half,
            the evidence the second.
        method: a name in ``efface.methods.METHODS``, or ``auto``: the one for what is at hand
            (``efface.choice``); the first finding says which and why.
        trainable: which weights may move: ``all``, ``last-layers``, ``norm`` or ``adapter``, see
            ``efface.trainable.opened``; the others stay as they are, bit for bit.
        mislabelled: the labels of the forget records are wrong.
        target: ``all``, or ``high-information``: the method sees only the forget records that told
            the model much (``efface.targeting``); the evidence is on all of them, and says so.
        weights: by id, how often the method sees each forget record, 1 being all the same.
        classes: names of the classes, for the report.
        preprocessing: how images or rows of a ``datasets.Dataset`` become inputs.
        utility_budget: accuracy that may be lost on the guard's half of the holdout, 0 to 1.
        seed: of everything drawn at random.
        stored: by the name of a tensor, the dtype that it will be written in, where that is not the
            model's own; the evidence is measured on the weights as written.
        started: called with the memory needed, before the method starts.
        progress: how the steps are shown: ``efface.show_progress``, or one of your own.
        **settings: ``strength``, ``expected_accuracy`` and other settings of the method.

    Raises:
        InputError: the records or the settings are not what the method takes.
        Hazard: the model and the data do not fit.
        MissingExtra: an adapter is asked for and PEFT is not installed.
        NotMet: the guard could not meet the request; ``error.result`` holds the evidence.
    """
    _refuse_form(split, trainable)
    asked = {"mislabelled": mislabelled, "settings": settings, "seed": seed}
    checked(method, **asked, utility_budget=utility_budget)
    split, counts = prepared(split, preprocessing)
    refuse_target(target, weights, split.forget)
    method, why = settled(method, split, mislabelled=mislabelled, trainable=trainable)
    chosen = checked(method, **asked)
    _refuse(method, model, split, mislabelled=mislabelled, trainable=trainable)
    theirs, ours = split_holdout(split, seed=seed)
    names = {"classes": classes, "mislabelled": mislabelled}
    findings = doctor(model, preprocessing, split.forget, holdout=theirs.holdout, **names)
    refuse_hazards(findings)
    whole = {**hyperparameters(method), **chosen}
    aim = _aimed(model, theirs.forget, target, weights, whole, seed)
    theirs = replace(theirs, forget=aim.forget)
    start = select_trainable(model, split.forget.take([0]), trainable, seed=seed)
    need = memory_needed(method, start, split, settings=whole, told=started)
    master, adapted = upcast_to_fp32(start), trainable == "adapter"
    anew = METHODS[method].fresh_start
    how = {"adapted": adapted, "fresh_start": anew, "utility_budget": utility_budget}
    guard = Guard(master, theirs, **how, seed=seed)
    run = _unlearned(method, master, theirs, guard, chosen, seed=seed, progress=progress)
    run = _written(run, model, stored)
    findings = why + findings + aim.findings + (KEPT_APART,) * adapted + _not_reached(run, whole)
    evidence = run.evidence(model, ours, exact=METHODS[method].exact, seed=seed, **names)
    record = {
        "schema": SCHEMA,
        "versions": versions(),
        "method": method,
        "trainable": count_trainable(start, trainable),
        "settings": whole,
        "seed": seed,
        "request": counts | ({"targeted": aim.facts} if aim.facts else {}),
        "halves": {"guard": unseen_in(theirs), "evidence": unseen_in(ours)},
        "findings": [asdict(finding) for finding in findings],
        "memory": need.as_json(),
        "weights": _digests(model, run.student),
        **run.as_json(guard),
    }
    return _or_raised(Result(run.student or model, evidence, record, findings, run.adapter), run)


@dataclass(frozen=True, eq=False)
class _Run:
    """What unlearning came to: the new model or the failure, what the method said, how long."""

    student: nn.Module | None
    failure: NotMet | None
    facts: dict[str, Any]
    seconds: float
    adapter: nn.Module | None = None

    @property
    def outcome(self) -> str:
        """Done, or not met."""
        return "not met" if self.failure else "done"

    def evidence(self, model: nn.Module, ours: Split, *, exact: bool, **names: Any) -> Evidence:
        """What the evidence's half of the data says of it."""
        exact = exact and self.student is not None
        return collect(model, self.student, ours, outcome=self.outcome, exact=exact, **names)

    def as_json(self, guard: Guard) -> dict[str, Any]:
        """The part of the record that the run itself makes."""
        facts = {"guard": guard.as_json(), "calibration": self.facts, "seconds": self.seconds}
        return {"outcome": self.outcome, **facts}


def _aimed(
    model: nn.Module,
    forget: Records,
    target: str,
    weights: Mapping[str, float] | None,
    settings: dict[str, Any],
    seed: int,
) -> Targeted:
    """What the method sees of the forget records."""
    accuracy = settings.get("expected_accuracy")
    how = {"target": target, "weights": weights, "expected_accuracy": accuracy}
    return targeted(model, forget, **how, seed=seed)


def _or_raised(result: Result, run: _Run) -> Result:
    """The result, or the failure that holds it."""
    if run.failure:
        run.failure.result = result
        raise run.failure
    return result


def _not_reached(run: _Run, settings: dict[str, Any]) -> tuple[Finding, ...]:
    """How far a method came that says so, where that is not all the way."""
    way, settled = run.facts.get("way"), settings.get("settled")
    if run.student is None or way is None or settled is None or way >= settled:
        return ()
    text = (
        f"The method ended at {max(way, 0):.0%} of the way to what it aims at: the records may "
        "still be known. More steps, where there were too few, go further."
    )
    return (Finding("not reached", "warn", text),)


def _unlearned(
    method: str,
    model: nn.Module,
    split: Split,
    guard: Guard,
    chosen: dict[str, Any],
    *,
    seed: int,
    progress: Progress,
) -> _Run:
    """Run the method under the guard; time it alone, without the evidence."""
    began, facts = time.perf_counter(), {}
    student, failure = None, None
    steps = {**hyperparameters(method), **chosen}.get("steps")
    with progress(f"forget {len(split.forget)} records", steps) as shown, facts_into(facts):
        callback = _told(guard.callback, shown)
        try:
            raw = METHODS[method].function(model, split, seed=seed, callback=callback, **chosen)
            student = guard.settle(raw).eval()
        except NotMet as error:
            failure = error
    return _Run(student, failure, facts, time.perf_counter() - began)


def _written(run: _Run, model: nn.Module, stored: Mapping[str, torch.dtype] | None) -> _Run:
    """The run with the weights that will be written, merged and rounded to their dtypes."""
    if run.student is None:
        return run
    merged = merge_adapter(run.student, model)
    adapter = None if merged is run.student else run.student
    student = as_stored(merged, model, stored)
    if broken := nonfinite_tensors(student.state_dict()):
        failure = NotMet(
            "weights that their own dtype can hold",
            f"nan or inf after rounding {broken[0]}",
            "The old model stands. Convert it to bfloat16 or float32 first, or lower --strength.",
        )
        return replace(run, student=None, failure=failure)
    return replace(run, student=student, adapter=adapter)


def _refuse_form(split: Any, trainable: str) -> None:
    if not isinstance(split, Split):
        raise InputError("a Split", type(split).__name__, "Give Split(forget=records).")
    check_trainable(trainable)


def _refuse(
    method: str, model: nn.Module, split: Split, *, mislabelled: bool, trainable: str
) -> None:
    """Refuse kinds that do not fit, a split without what the method needs, half a fresh start."""
    refuse_kinds(model, split, mislabelled=mislabelled)
    entry = METHODS[method]
    refuse_without(split, method, *entry.in_order(entry.needs))
    if entry.fresh_start and trainable != "all":
        raise InputError(
            f"trainable all for {method}, which starts from an untrained model",
            repr(trainable),
            "Leave trainable out.",
        )


def _digests(model: nn.Module, student: nn.Module | None) -> dict[str, str | None]:
    new = None if student is None else state_digest(student.state_dict())
    return {"old": state_digest(model.state_dict()), "new": new}


def _told(callback: Callback, shown: Callable[[int, float, str], None]) -> Callback:
    """The guard's watch, with each step shown."""
    step = 0

    def told(student: nn.Module, loss: float) -> Action:
        nonlocal step
        verdict = callback(student, loss)
        step += verdict is Action.CONTINUE
        shown(step, loss, verdict.value)
        return verdict

    return told
