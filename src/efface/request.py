"""The main job: prepare, examine, unlearn under guard, measure."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from efface.doctor import Finding, examine, refuse_if_needed
from efface.errors import InputError, NotMet
from efface.evidence import Evidence, collect, render
from efface.guard import Guard
from efface.io.dataset import content_digests, records_of
from efface.io.preprocessing import Preprocessing
from efface.methods import METHODS
from efface.record import SCHEMA, state_digest, versions
from efface.settings import check_ranges, hyperparameters, settings_of
from efface.types import Records, Split, Verdict, Watch, record_key

Progress = Callable[[int, float, str], None]
"""``progress(step, loss, verdict)`` after each step of the method."""


@dataclass(frozen=True, eq=False)
class Result:
    """What ``forget`` gives back.

    ``model``: the new model, in eval mode; ``evidence``: what changed, at the tier that the data
    allow; ``record``: settings, seeds, versions, digests; ``findings``: what doctor saw before.
    """

    model: nn.Module
    evidence: Evidence
    record: dict[str, Any]
    findings: tuple[Finding, ...] = field(default=())

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
    mislabelled: bool = False,
    classes: tuple[str, ...] | None = None,
    preprocessing: Preprocessing | None = None,
    utility_budget: float = 0.02,
    seed: int = 0,
    progress: Progress | None = None,
    **settings: Any,
) -> Result:
    """Give back a model that behaves as if it had not seen ``split.forget``, with evidence.

    Args:
        model: any classifier that answers (n, *features) with logits (n, k); it is not changed.
        split: what must go and whatever else is at hand; records as ``Records``, tensors (x, y),
            a torch Dataset or DataLoader, or a ``datasets.Dataset``. The holdout is split once by a
            seeded hash: method and guard see the first half, the evidence the second.
        method: a name in ``efface.methods.METHODS``.
        mislabelled: the labels of the forget records are wrong.
        classes: names of the classes, for the report.
        preprocessing: how images of a ``datasets.Dataset`` become inputs.
        utility_budget: accuracy that may be lost on the guard's half of the holdout, 0 to 1.
        seed: of everything drawn at random.
        progress: called after each step.
        **settings: ``strength``, ``expected_accuracy`` and other settings of the method.

    Raises:
        InputError: the records or the settings are not what the method takes.
        Hazard: the model and the data do not fit.
        NotMet: the guard could not meet the request; ``error.result`` holds the evidence.
    """
    if not isinstance(split, Split):
        raise InputError("a Split", type(split).__name__, "Give Split(forget=records).")
    chosen = settings_of(method, mislabelled=mislabelled, settings=settings)
    check_ranges({**chosen, "utility_budget": utility_budget, "seed": seed})
    split, counts = _prepared(split, preprocessing)
    theirs, ours = halves(split, seed=seed)
    findings = examine(
        model,
        preprocessing,
        split.forget,
        classes=classes,
        mislabelled=mislabelled,
        holdout=theirs.holdout,
    )
    refuse_if_needed(findings)
    guard = Guard(model, theirs, utility_budget=utility_budget, seed=seed)
    run = _unlearned(method, model, theirs, guard, chosen, seed=seed, progress=progress)
    told = {"mislabelled": mislabelled, "classes": classes, "seed": seed}
    evidence = collect(model, run.student, ours, outcome=run.outcome, **told)
    record = {
        "schema": SCHEMA,
        "versions": versions(),
        "method": method,
        "settings": {**hyperparameters(method), **chosen},
        "seed": seed,
        "request": counts,
        "halves": {"guard": _count(theirs), "evidence": _count(ours)},
        "findings": [asdict(finding) for finding in findings],
        "weights": _digests(model, run.student),
        **run.as_json(guard),
    }
    result = Result(run.student or model, evidence, record, findings)
    if run.failure:
        run.failure.result = result
        raise run.failure
    return result


@dataclass(frozen=True, eq=False)
class _Run:
    """What unlearning came to: the new model or the failure, what the method said, how long."""

    student: nn.Module | None
    failure: NotMet | None
    facts: dict[str, Any]
    seconds: float

    @property
    def outcome(self) -> str:
        """Done, or not met."""
        return "not met" if self.failure else "done"

    def as_json(self, guard: Guard) -> dict[str, Any]:
        """The part of the record that the run itself makes."""
        facts = {"guard": guard.as_json(), "calibration": self.facts, "seconds": self.seconds}
        return {"outcome": self.outcome, **facts}


def _unlearned(
    method: str,
    model: nn.Module,
    split: Split,
    guard: Guard,
    chosen: dict[str, Any],
    *,
    seed: int,
    progress: Progress | None,
) -> _Run:
    """Run the method under the guard; time it alone, without the evidence."""
    began, facts = time.perf_counter(), {}
    student, failure = None, None
    watch = _told(guard.watch, progress)
    with _facts_into(facts):
        try:
            raw = METHODS[method].function(model, split, seed=seed, watch=watch, **chosen)
            student = guard.settle(raw).eval()
        except NotMet as error:
            failure = error
    return _Run(student, failure, facts, time.perf_counter() - began)


def _count(split: Split) -> int:
    return 0 if split.holdout is None else len(split.holdout)


def _digests(model: nn.Module, student: nn.Module | None) -> dict[str, str | None]:
    new = None if student is None else state_digest(student.state_dict())
    return {"old": state_digest(model.state_dict()), "new": new}


def _prepared(split: Split, preprocessing: Preprocessing | None) -> tuple[Split, dict[str, Any]]:
    """Records of every part, the forget records taken out of the others, and the counts."""
    parts = {
        name: None if (part := getattr(split, name)) is None else records_of(part, preprocessing)
        for name in ("forget", "holdout", "retain")
    }
    gone = parts["forget"]
    if gone is None or not len(gone):
        raise InputError(
            "at least one record to forget",
            "none",
            "Name them by ids, by an expression or a class.",
        )
    counts: dict[str, Any] = {"forget": len(gone), "leaving": list(split.leaving)}
    for name in ("holdout", "retain"):
        part = parts[name]
        if part is not None:
            parts[name], counts[f"forget_records_in_{name}"] = _without(
                part, gone, by_name=name == "retain"
            )
            counts[name] = len(part) - counts[f"forget_records_in_{name}"]
    return replace(split, forget=gone, holdout=parts["holdout"], retain=parts["retain"]), counts


def _without(part: Records, gone: Records, *, by_name: bool) -> tuple[Records, int]:
    """The part without the records to forget: by content, and by ids that are names in ``retain``.

    The ids of a holdout are those of another split: equal file names there are other records.
    """
    contents = set(content_digests(gone))
    names = set(gone.ids) if by_name and _named(gone) and _named(part) else set()
    rows = [
        row
        for row, (identity, content) in enumerate(zip(part.ids, content_digests(part), strict=True))
        if identity not in names and content not in contents
    ]
    return (part, 0) if len(rows) == len(part) else (part.take(rows), len(part) - len(rows))


def _named(records: Records) -> bool:
    """Whether the ids say more than a row's number, which another table uses too."""
    return not all(identity.isdigit() for identity in records.ids)


def halves(split: Split, *, seed: int) -> tuple[Split, Split]:
    """The holdout cut in two by a seeded hash: the method's and guard's half, the evidence's."""
    if split.holdout is None:
        return split, split
    order = sorted(
        range(len(split.holdout)),
        key=lambda row: record_key(f"{seed}/holdout/{split.holdout.ids[row]}"),
    )
    middle = len(order) // 2
    first, second = (split.holdout.take(sorted(half)) for half in (order[:middle], order[middle:]))
    return replace(split, holdout=first), replace(split, holdout=second)


def _told(watch: Watch, progress: Progress | None) -> Watch:
    """The guard's watch, with progress told after each step."""
    step = 0

    def told(student: nn.Module, loss: float) -> Verdict:
        nonlocal step
        verdict = watch(student, loss)
        step += verdict is Verdict.GO_ON
        if progress:
            progress(step, loss, verdict.value)
        return verdict

    return told


@contextmanager
def _facts_into(facts: dict[str, Any]) -> Iterator[None]:
    """Collect what a method says that it found out (``extra={"facts": …}`` of its log records)."""

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
