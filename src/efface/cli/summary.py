"""What came of a run, for a person or as JSON: sentences, rows, files, the next command."""

import logging
import shlex
import sys
from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from efface import terminal
from efface.cli.doctor import print_diagnosis
from efface.cli.options import Arguments, MethodOptions
from efface.errors import Outcome
from efface.hazards import Diagnosis
from efface.manifest import EVIDENCE, MODEL, Manifest
from efface.methods import METHODS
from efface.methods._base import default_settings
from efface.report import jsonable
from efface.report.report import Row
from efface.report.text import (
    MARKS,
    TIERS,
    allowance_sentence,
    chosen_rows,
    count,
    flagging_rows,
    formatted,
    kept_sentence,
    sentences,
)
from efface.report.verdicts import Status, Verdict
from efface.unlearn import Result

# rows of the report on a terminal; --verbose shows all
ROWS = 10
# seconds of a phase that is worth a word
SHOWN = 0.05
# progress so far from 1 asks for another strength
NEAR = 0.1
COLORS = {"error": "red", "flagged": "red", "inconclusive": "yellow"}
# what retraining and an evaluation do not take, and options without a value
OF_METHOD = {f"--{field.name.replace('_', '-')}" for field in fields(MethodOptions)}
OF_METHOD |= {"--keep-adapter", "--reference"}
# and what suits one method alone
OF_ONE = {"--setting", "--strength", "--expected-accuracy"}
# the row whose loss records that stay would hold back
OTHERS = "others.accuracy"
FLAGS = {"--dry-run", "--whole-group", "--keep-adapter"}
TRAIN = "YOUR_COMMAND --exclude {exclude} --out {out}"
WHAT = {
    "model": "the new model, to be used in place of the old one",
    "report.html": "the report, to be read first",
    "exclude.csv": "the records, to be left out of the next training run",
    "evidence": "every number and setting; it names the records, so keep it apart from the model",
}


def print_summary(result: Result, out: Path, arguments: Arguments) -> str:
    """The report's sentences, its rows, the warnings, where things are and what to do next.

    Returns the next command, empty where there is none.
    """
    manifest, report = result.manifest, result.report
    said = sentences(report) if report else {"outcome": [manifest.summary]}
    said = {"outcome": said.pop("outcome"), "request": [_request_sentence(manifest)], **said}
    said.setdefault("cost", []).extend(_cost_sentences(manifest))
    files, then = _files(result, out), next_command(result, out, arguments)
    _document(result, said, files, then)
    level = logging.INFO if result.outcome is Outcome.DONE else logging.WARNING
    # to a person who sees the lines below it would be said twice
    if not (sys.stdout.isatty() and terminal.shows(logging.INFO)):
        terminal.event("outcome", level=level, text=manifest.summary, progress=result.progress)
    terminal.lines([(name.capitalize(), text) for name, texts in said.items() for text in texts])
    if report:
        every = terminal.shows(logging.DEBUG)
        rows = chosen_rows(report, len(report.rows) if every else ROWS)
        ran = chosen_rows(report, len(report.rows))
        hidden = [row for row in ran if row not in rows]
        title = f"{len(rows)} of {count(len(ran), 'row')}"
        if few := sum(row.verdict is Verdict.TOO_FEW_RECORDS for row in hidden):
            title += f", too few records for {few} of the others"
        if alarming := sum(row.status in (Status.FLAGGED, Status.ERROR) for row in hidden):
            title += f", {alarming} of the others flagged"
        columns = ["test", "n", "before", "after", "reference", "result"]
        results = {_mark(Status(name)): color for name, color in COLORS.items()}
        terminal.table(title, columns, [_cells(row) for row in rows], results)
    # once more: by now the first lines are far up
    warnings = [("Warnings", one.text) for one in result.findings if one.severity == "warn"]
    terminal.lines([*warnings, *(("Files", f"{path}  {WHAT[key]}") for key, path in files.items())])
    if then:
        _print_next(*then)
    return then[1] if then else ""


def print_plan(result: Result, price: Mapping[str, Any], out: Path | None) -> None:
    """What a run would do and cost, and what could be said afterwards; nothing was changed."""
    manifest, tier = result.manifest, str(result.manifest.tier)
    seconds = {**manifest.seconds, **price["seconds"]}
    command = _retype({"--out": str(out or "new")})
    memory = round((manifest.memory or {})["total_bytes"] / 2**20)
    facts = {"outcome": result.outcome, "method": manifest.method, "tier": tier}
    facts |= {"settings": manifest.settings, "memory": manifest.memory, "seconds": seconds}
    facts |= {"accuracy": manifest.accuracy, "findings": manifest.findings, "next": command}
    terminal.document(**jsonable(facts))
    print_diagnosis(Diagnosis(result.findings, manifest.accuracy))
    said = [
        ("Request", _request_sentence(manifest)),
        ("Method", f"{manifest.method}, which may change {_weights(manifest)}"),
        ("Cost", f"about {sum(seconds.values()):.0f} seconds ({_phases(seconds)}), {memory} MiB"),
        ("Evidence", f"tier {tier}: {TIERS[tier]}"),
        ("Written", "nothing"),
    ]
    terminal.lines(said)
    _print_next("The run itself", command)


def _print_next(why: str, line: str) -> None:
    terminal.lines([("Next", f"{why}:")])
    terminal.command(line)


def cost_sentence(manifest: Manifest) -> str:
    """The seconds of a run by phase, and the steps of its method."""
    each = manifest.seconds
    steps = f"{count(manifest.steps, 'step')} of {manifest.method}, " if manifest.steps else ""
    return f"{steps}{sum(each.values()):.1f} seconds ({_phases(each)})."


def _cost_sentences(manifest: Manifest) -> list[str]:
    """What the guard kept of a change that is made and what it measured, then the seconds."""
    guard = manifest.guard if manifest.outcome.has_new_model else None
    said = kept_sentence(guard or {}), allowance_sentence(guard or {}), cost_sentence(manifest)
    return [one for one in said if one]


def _weights(manifest: Manifest) -> str:
    found = manifest.trainable or {}
    return f"{found['numbers']:,} of {found['of']:,} weights ({found['name']})"


def _phases(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {each:.1f}" for name, each in seconds.items() if each >= SHOWN)


def _request_sentence(manifest: Manifest) -> str:
    records = count(manifest.request["forget"])
    note = f" · {manifest.note}" if manifest.note else ""
    return f"{records}, named by {manifest.request['named']}{note}."


def _mark(status: Status) -> str:
    return f"{MARKS[status]} {status}"


def _cells(row: Row) -> list[str]:
    numbers = (formatted(value, row.unit) for value in (row.before, row.after, row.reference))
    # a loss that could be chance is not nothing
    fell = row.verdict is Verdict.UNCHANGED and (row.after or 0) < (row.before or 0)
    mark = f"{MARKS[row.status]} not significant" if fell else _mark(row.status)
    return [row.name, "" if row.n is None else str(row.n), *numbers, mark]


def _files(result: Result, out: Path) -> dict[str, str]:
    """The files of the run by what they are, those that it wrote."""
    made = result.manifest.job == "forget" and result.outcome.has_new_model
    evidence = f"{out}/{EVIDENCE}"
    files = {"model": f"{out}/{MODEL}"} if made else {}
    files |= {"report.html": f"{evidence}/report.html"} if result.report else {}
    files |= {"exclude.csv": f"{evidence}/exclude.csv"} if result.manifest.job == "forget" else {}
    return files | {"evidence": evidence}


def next_command(result: Result, out: Path, arguments: Arguments) -> tuple[str, str] | None:
    """Why, and what to type next; None where nothing is left to do on a command line."""
    again = {"--out": str(out.with_name(f"{out.name}-2"))}
    if _may_hold(result):
        text = (
            "Others lost accuracy; with records that stay to hold them (those to forget left out)"
        )
        return text, _retype(again | {"--retain": arguments.data})
    return _by_outcome(result, out, arguments, again)


def _by_outcome(
    result: Result, out: Path, arguments: Arguments, again: dict[str, str]
) -> tuple[str, str] | None:
    outcome, manifest = result.outcome, result.manifest
    progress = 1 if result.progress is None else result.progress
    if manifest.job == "score" or outcome is Outcome.DONE:
        text = "Anybody can evaluate it again, and compare each number"
        # what was typed may have options of forget alone, or stand in a file
        words = ["efface", "score", *arguments.to_score(), "--replay", str(out)]
        return text, shlex.join(words)
    # what follows of a retrained model is no command
    if outcome is Outcome.LIKE_UNSEEN or manifest.method == "retrain":
        return None
    if outcome is Outcome.NOT_JUDGED:
        how, text = {"--report": "full"}, "a report"
        if "holdout" not in manifest.request:
            how, text = {"--holdout": "UNSEEN"}, "records that were never trained on"
        return f"Whether that is enough shows with {text}", _retype(again | how)
    if outcome is Outcome.PARTLY and abs(progress - 1) > NEAR and _may_help(result, progress):
        strength, far = ("1.5", "short of") if progress < 1 else ("0.7", "beyond")
        text = f"The records went {far} unseen ones; to try another strength"
        return text, _retype({**again, "--strength": strength})
    if _is_limited(manifest) and manifest.method != MethodOptions.method:
        text = f"The guard limits {manifest.method}; to try the default method"
        return text, _retype(again | {"--method": MethodOptions.method}, OF_ONE)
    exact = {**again, "--method": "retrain", "--train-command": TRAIN}
    text = "Only retraining without the records is exact; put your own training for YOUR_COMMAND"
    return text, _retype(exact, OF_METHOD)


def _may_hold(result: Result) -> bool:
    """Whether records that stay would hold in place what lost accuracy without them."""
    rows, manifest = result.report.rows if result.report else (), result.manifest
    fell = any(row.key == OTHERS and row.verdict is Verdict.DROPPED for row in rows)
    known = METHODS.get(str(manifest.method))
    return (
        fell and known is not None and "retain" in known.reads - known.needs - {*manifest.request}
    )


def _is_limited(manifest: Manifest) -> bool:
    """Whether the guard refused the change, or kept a part of it."""
    kept = (manifest.guard or {}).get("interpolation")
    return manifest.outcome is Outcome.NOT_MET or kept is not None


def _may_help(result: Result, progress: float) -> bool:
    """Whether another strength may: not twice, not for power, not more where it costs too much."""
    manifest, report = result.manifest, result.report
    default = default_settings(str(manifest.method)).get("strength")
    untried = manifest.settings.get("strength", default) == default
    flags = report is None or flagging_rows(report.rows, report.forget_classes)
    costly = any(one.name == "utility-budget" for one in result.findings)
    too_much = progress < 1 and (costly or _is_limited(manifest))
    return default is not None and untried and bool(flags) and not too_much


def _retype(changes: Mapping[str, str], without: Collection[str] = ()) -> str:
    """The command that was typed, with these options, without others and without --dry-run."""
    left = iter(sys.argv[1:])
    kept = []
    for token in left:
        name = token.partition("=")[0]
        if name not in {*changes, *without, "--dry-run"}:
            kept.append(token)
        # a value of its own goes with the option
        elif name == token and name not in FLAGS:
            next(left, None)
    return shlex.join(["efface", *kept, *(part for pair in changes.items() for part in pair)])


def _document(
    result: Result, said: Mapping[str, Any], files: Mapping[str, str], then: tuple[str, str] | None
) -> None:
    manifest, report = result.manifest, result.report
    keys = ("key", "name", "before", "after", "reference", "unit", "p", "status", "note")
    rows = [{key: getattr(row, key) for key in keys} for row in report.rows] if report else []
    facts = {
        "outcome": result.outcome,
        "exit_code": result.outcome.exit_code if manifest.job == "forget" else 0,
        "summary": manifest.summary,
        "progress": result.progress,
        "tier": report.tier if report else None,
        "method": manifest.method,
        "note": manifest.note,
        "request": manifest.request,
        "sentences": said,
        "seconds": manifest.seconds,
        "findings": manifest.findings,
        "rows": rows,
        "files": files,
        "next": then and then[1],
    }
    terminal.document(**jsonable(facts))
