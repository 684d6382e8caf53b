"""The path of every request: validate, choose, guard, run, load what is written, measure.

``forget`` makes a new model and measures it; ``score`` measures a model that somebody else made.
The command line, grids and benchmarks call these two: what they measure is what a user gets.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from efface.errors import InputError, NotMet
from efface.guard import Guard
from efface.hazards import Finding, doctor, refuse_hazards
from efface.io.features import FeatureSpec
from efface.io.images import Preprocessing
from efface.io.shadows import Shadows
from efface.manifest import Manifest, state_digest
from efface.methods import METHODS, Natural, Share, check_settings, check_value, default_settings
from efface.methods._base import refuse_without
from efface.prepare import (
    ALL,
    AUTO,
    choose_method,
    output_width,
    refuse_misfit,
    refuse_selection,
    request_memory,
    select_records,
    validate_split,
)
from efface.report import Evidence, collect, render, write
from efface.runtime import (
    MemoryEstimate,
    PassCounter,
    as_stored,
    nonfinite_tensors,
    upcast_to_fp32,
)
from efface.trainable import check_trainable, count_trainable, merge_adapter, select_trainable
from efface.types import Action, Callback, Progress, Split, in_silence, no_callback, split_holdout

KEPT_ADAPTER = Finding(
    "adapter",
    "note",
    "Whoever takes a separate adapter off again has the old model back: the records are still in "
    "the base. The merged model is the one to hand on.",
)
"""True of every adapter, so it is a finding of each."""


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """What ``forget`` and ``score`` return.

    ``model``: the new model, in eval mode, in the dtypes that are written; ``report``: what
    changed, at the tier that the data allow, None where none was wanted; ``manifest``: settings,
    seeds, versions, digests; ``findings``: what doctor saw before; ``adapter``: with
    ``trainable="adapter"`` PEFT's model of what was merged into ``model``, on float32 weights.
    """

    model: nn.Module
    report: Evidence | None
    manifest: Manifest
    findings: tuple[Finding, ...] = field(default=())
    adapter: nn.Module | None = None

    def __repr__(self) -> str:
        tier = f", tier {self.report.tier}" if self.report else ""
        return f"Result({self.manifest.job}: {self.manifest.outcome}{tier})"

    def _repr_html_(self) -> str:
        """The outcome and the tests that ran: what a notebook shows."""
        return self.report._repr_html_() if self.report else repr(self)

    def save_report(self, path: str | Path) -> Path:
        """Write the report as one self-contained HTML page, and return its path."""
        path = Path(path)
        path.write_text(render(self._reported(), self.manifest.to_json()), encoding="utf-8")
        return path

    def save(self, folder: Path) -> None:
        """``evidence.json``, ``manifest.json`` and ``report.html`` in a folder that exists."""
        write(folder, self._reported(), self.manifest.to_json())
        self.manifest.write(folder)

    def _reported(self) -> Evidence:
        if self.report is None:
            raise InputError("a run with a report", "report=False", "Run it with report=True.")
        return self.report


def forget(
    model: nn.Module,
    split: Split,
    *,
    method: str = "neighbourhood",
    settings: Mapping[str, Any] | None = None,
    strength: float | None = None,
    expected_accuracy: float | None = None,
    trainable: str = "all",
    mislabelled: bool = False,
    selection: str = ALL,
    weights: Mapping[str, float] | None = None,
    classes: tuple[str, ...] | None = None,
    preprocessing: Preprocessing | FeatureSpec | None = None,
    utility_budget: float = 0.02,
    seed: int = 0,
    holdout_seed: int = 0,
    stored: Mapping[str, torch.dtype] | None = None,
    guard: bool = True,
    report: bool = True,
    started: Callable[[MemoryEstimate], None] | None = None,
    progress: Progress = in_silence,
) -> Result:
    """Return a model that behaves as if it had not seen ``split.forget``, with a report.

    Args:
        model: maps (n, *features) to one row of numbers a record: logits of one class of several,
            of several labels, or values; it is not changed. Weights of half precision are updated
            in a float32 copy and come back in their own dtype.
        split: what must go and whatever else there is; records as ``Records``, tensors (x, y), a
            torch Dataset or DataLoader, or a ``datasets.Dataset``. The holdout, of 12 records or
            more, is split once by a seeded hash: method and guard see the first half, the report
            the second.
        method: a name in ``efface.METHODS``, or ``auto``: the one that suits what is given; the
            first finding says which and why.
        settings: of the method, by name; ``efface methods NAME`` lists them.
        strength: the setting ``strength`` of methods that have one; 1 is its default.
        expected_accuracy: likewise; accuracy on unseen data, 0 to 1, from the model card.
        trainable: which weights may change: ``all``, ``last-layers``, ``norm`` or ``adapter``, see
            ``efface.trainable``; the others stay as they are, bit for bit.
        mislabelled: the labels of the forget records are flagged as wrong.
        selection: ``all``, or ``high-information``: the method sees only the forget records that
            the model seems to have memorised; the report is on all of them, and says so.
        weights: by id, how often the method sees each forget record, 1 being all the same.
        classes: names of the classes, for the report.
        preprocessing: how images or rows of a ``datasets.Dataset`` become inputs.
        utility_budget: accuracy that may be lost on the guard's half of the holdout, 0 to 1.
        seed: of everything drawn at random but the holdout's split.
        holdout_seed: of the holdout's split; ``score`` needs the same.
        stored: by the name of a tensor, the dtype that it will be written in, where that is not the
            model's own; the report is on the weights as written.
        guard: False runs the method without limits, for experiments, and returns whatever it made,
            nan and inf included; the manifest says so.
        report: False collects no evidence; the manifest says so.
        started: called with the memory needed, before the method starts.
        progress: how the steps are shown: ``efface.show_progress``, or one of your own.

    Raises:
        InputError: the records or the settings are not what the method takes.
        Hazard: the model and the data do not fit.
        MissingExtra: an adapter is wanted and PEFT is not installed.
        NotMet: the guard could not meet the request; ``error.result`` holds the report.
    """
    named = {"strength": strength, "expected_accuracy": expected_accuracy}
    settings = {**(settings or {}), **{k: v for k, v in named.items() if v is not None}}
    check_value("utility_budget", utility_budget, Share)
    check_value("seed", seed, Natural)
    check_value("holdout_seed", holdout_seed, Natural)
    check_trainable(trainable)
    if method != AUTO:  # a slip in a setting is refused before the data are read
        check_settings(method, settings)
    split, counts = validate_split(split, preprocessing)
    refuse_selection(selection, weights, split.forget)
    findings: tuple[Finding, ...] = ()
    if method == AUTO:
        method, why = choose_method(split, mislabelled=mislabelled, trainable=trainable)
        findings = (why,)
    entry, chosen = METHODS[method], check_settings(method, settings)
    if mislabelled and "mislabelled" in entry.settings:
        chosen["mislabelled"] = True
    effective = {**default_settings(method), **chosen}
    refuse_misfit(model, split, mislabelled=mislabelled)
    refuse_without(split, method, *entry.in_order(entry.needs))
    if entry.fresh_start and trainable != "all":
        wanted = f"trainable all for {method}, which starts from an untrained model"
        raise InputError(wanted, repr(trainable), "Omit trainable.")

    auxiliary, evaluation = split_holdout(split, seed=holdout_seed)
    names = {"classes": classes, "mislabelled": mislabelled}
    hazards = doctor(model, preprocessing, split.forget, holdout=auxiliary.holdout, **names)
    refuse_hazards(hazards)
    accuracy = effective.get("expected_accuracy")
    how = {"selection": selection, "weights": weights, "expected_accuracy": accuracy}
    selected = select_records(model, split.forget, **how, seed=seed)
    findings += hazards + selected.findings

    # the method gets a copy, whose passes are counted: not even its views share the given weights
    counted = PassCounter(model)
    start = select_trainable(counted.model, split.forget.take([0]), trainable, seed=seed)
    need = request_memory(method, start, split, effective)
    if started:
        started(need)
    began = time.perf_counter()
    master, seen = upcast_to_fp32(start), replace(auxiliary, forget=selected.forget)
    limits = {"utility_budget": utility_budget, "fresh_start": entry.fresh_start}
    adapted = trainable == "adapter"
    judge = Guard(master, seen, **limits, adapted=adapted, seed=seed) if guard else None
    prepared = time.perf_counter() - began
    title, steps = f"forget {len(seen.forget)} records", effective.get("steps")
    with progress(title, steps) as show:
        run = _run(method, master, seen, judge, chosen, seed=seed, counted=counted, show=show)
    run = _load_into_clean_copy(run, model, stored, refuse_nonfinite=guard)
    run.seconds = {"guard": prepared, **run.seconds}
    findings += (KEPT_ADAPTER,) * adapted + _not_converged(run, effective)

    new = model if run.student is None else run.student
    outcome, evidence, began = "not met" if run.failure else "done", None, time.perf_counter()
    if report:
        exact = entry.exact and run.student is not None
        about = {"outcome": outcome, "exact": exact, "seed": seed, **names}
        evidence = collect(model, run.student, evaluation, **about)
        run.seconds["report"] = time.perf_counter() - began
    manifest = Manifest(
        job="forget",
        method=method,
        settings=effective,
        trainable=count_trainable(start, trainable),
        request=counts | ({"selection": selected.facts} if selected.facts else {}),
        memory=need.as_json(),
        weights={
            "old": state_digest(model.state_dict()),
            "new": None if run.student is None else state_digest(new.state_dict()),
        },
        passes=run.passes,
        calibration=run.facts,
        guard=judge.as_json() if judge else None,
        reported=report,
        **_common(outcome, findings, auxiliary, evaluation, run.seconds, seed, holdout_seed),
    )
    result = Result(new, evidence, manifest, findings, run.adapter)
    if run.failure:
        run.failure.result = result
        raise run.failure
    return result


def score(
    old: nn.Module,
    new: nn.Module,
    split: Split,
    *,
    retrained: Sequence[nn.Module] = (),
    shadows: Shadows | None = None,
    exact: bool = False,
    mislabelled: bool = False,
    classes: tuple[str, ...] | None = None,
    preprocessing: Preprocessing | FeatureSpec | None = None,
    seed: int = 0,
    holdout_seed: int = 0,
) -> Result:
    """Report what ``new`` still knows of ``split.forget``, which ``old`` was trained on.

    Args:
        old: the model before; like all others it is not changed.
        new: the model after, of any origin, with as many outputs.
        split: as for ``forget``. Only the second half of the holdout is used, by a seeded hash:
            the first is left to the method and the guard that may have made ``new``.
        retrained: models trained without the forget records, by the recipe of ``old``, each with
            its own seed; two or more give the retrain-to-retrain variability.
        shadows: arrays of shadow models, see ``efface.io.shadows.read_shadows``.
        exact: ``new`` was itself trained from scratch without the forget records.
        mislabelled: the labels of the forget records are flagged as wrong.
        classes: names of the classes, for the report.
        preprocessing: how images or rows of a ``datasets.Dataset`` become inputs.
        seed: of everything drawn at random but the holdout's split.
        holdout_seed: of the holdout's split; that of ``forget`` if it made ``new``.

    Raises:
        InputError: the models or the records do not fit together.
        Hazard: ``old`` and the data do not fit.
    """
    check_value("seed", seed, Natural)
    check_value("holdout_seed", holdout_seed, Natural)
    began = time.perf_counter()
    split, counts = validate_split(split, preprocessing)
    refuse_misfit(old, split, mislabelled=mislabelled)
    width, numbered = output_width(old, split.forget), enumerate(retrained, start=1)
    for name, model in (("NEW", new), *((f"retrained model {n}", one) for n, one in numbered)):
        if (came := output_width(model, split.forget)) != width:
            raise InputError(
                f"{width} outputs a record, as the old model has",
                f"{came} from {name}",
                "Give models of one task, with the same classes in the same order.",
            )
    if shadows is not None:
        shadows.of(split.forget.ids)  # refuses arrays that lack a forget record
    auxiliary, evaluation = split_holdout(split, seed=holdout_seed)
    names = {"classes": classes, "mislabelled": mislabelled}
    findings = doctor(old, preprocessing, split.forget, holdout=auxiliary.holdout, **names)
    refuse_hazards(findings)
    references = {"retrained": retrained, "shadows": shadows, "exact": exact}
    references["left_out"] = counts.get("forget_records_in_retain", 0)
    evidence = collect(old, new, evaluation, seed=seed, **names, **references)
    digests = [state_digest(model.state_dict()) for model in (old, new, *retrained)]
    seconds = {"report": time.perf_counter() - began}
    manifest = Manifest(
        job="score",
        request=counts,
        weights={"old": digests[0], "new": digests[1]}
        | ({"retrained": digests[2:]} if retrained else {}),
        **_common(evidence.outcome, findings, auxiliary, evaluation, seconds, seed, holdout_seed),
    )
    return Result(new, evidence, manifest, findings)


def _common(
    outcome: str,
    findings: tuple[Finding, ...],
    auxiliary: Split,
    evaluation: Split,
    seconds: dict[str, float],
    seed: int,
    holdout_seed: int,
) -> dict[str, Any]:
    """The part of the manifest that both jobs have."""
    sizes = {"auxiliary": auxiliary.holdout, "evaluation": evaluation.holdout}
    return {
        "outcome": outcome,
        "findings": [asdict(finding) for finding in findings],
        "holdout": {name: len(part or ()) for name, part in sizes.items()},
        "seconds": seconds,
        "seed": seed,
        "holdout_seed": holdout_seed,
        "threads": torch.get_num_threads(),
    }


@dataclass(eq=False)
class _Run:
    """What came of the method: a model or a failure, its facts, seconds and passes."""

    student: nn.Module | None
    failure: NotMet | None
    facts: dict[str, Any]
    seconds: dict[str, float]
    passes: dict[str, int]
    adapter: nn.Module | None = None


def _run(
    method: str,
    model: nn.Module,
    split: Split,
    judge: Guard | None,
    settings: dict[str, Any],
    *,
    seed: int,
    counted: PassCounter,
    show: Callable[[int, float, str], None],
) -> _Run:
    """Run the method under the guard, or without; time and passes are its own and the guard's."""
    step, student, failure, facts = 0, None, None, {}
    judged: Callback = judge.callback if judge else no_callback

    def callback(student: nn.Module, loss: float) -> Action:
        nonlocal step
        action = judged(student, loss)
        step += action is Action.CONTINUE
        show(step, loss, action.value)
        return action

    if fresh := split.fresh:
        split = replace(split, fresh=lambda seed: counted.attach(fresh(seed)))
    before, began = counted.passes, time.perf_counter()
    with capture_facts(facts):
        try:
            student = METHODS[method].function(
                model, split, seed=seed, callback=callback, **settings
            )
        except NotMet as error:
            failure = error
    ran, after = time.perf_counter(), counted.passes
    if student is not None and judge:
        try:
            student = judge.settle(student)
        except NotMet as error:
            student, failure = None, error
    seconds = {"method": ran - began, "settle": time.perf_counter() - ran}
    passes = {k: getattr(after, k) - getattr(before, k) for k in ("forward", "backward")}
    student = None if student is None else counted.detach(student).eval()
    return _Run(student, failure, facts, seconds, passes)


def _load_into_clean_copy(
    run: _Run,
    model: nn.Module,
    stored: Mapping[str, torch.dtype] | None,
    *,
    refuse_nonfinite: bool,
) -> _Run:
    """The run with a clean copy of the given model that holds what will be written."""
    if run.student is None:
        return run
    merged = merge_adapter(run.student, model)
    run.adapter = None if merged is run.student else run.student
    run.student = as_stored(merged, model, stored)
    broken = nonfinite_tensors(run.student.state_dict()) if refuse_nonfinite else ()
    if broken:
        run.student = run.adapter = None
        run.failure = NotMet(
            "weights that their own dtype can hold",
            f"nan or inf after rounding {broken[0]}",
            "The old model stands. Convert it to bfloat16 or float32 first, or lower --strength.",
        )
    return run


def _not_converged(run: _Run, settings: dict[str, Any]) -> tuple[Finding, ...]:
    """How far a method got that says so, where that is not all the way."""
    progress, tolerance = run.facts.get("progress"), settings.get("tolerance")
    if run.student is None or progress is None or tolerance is None or progress >= tolerance:
        return ()
    text = (
        f"The method stopped at {max(progress, 0):.0%} of the distance to its target: the records "
        "may still be known. More steps, where there were too few, go further."
    )
    return (Finding("not reached", "warn", text),)


@contextmanager
def capture_facts(facts: dict[str, Any]) -> Iterator[None]:
    """Collect what a method logs that it found out (``extra={"facts": …}`` of its log records)."""

    class Facts(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            facts.update(getattr(record, "facts", {}))

    logger, handler = logging.getLogger("efface.methods"), Facts(level=logging.INFO)
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
