"""An example on real digits, offline: train, forget three times, compare with retraining."""

import io
import shutil
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from datasets import ClassLabel, Dataset, Features, Value
from datasets import Image as ImageColumn
from PIL import Image
from pyarrow import parquet
from sklearn.datasets import load_digits
from torch import nn

from efface import terminal
from efface.errors import NotMet
from efface.io.atomic import atomic_write
from efface.io.data import load_data
from efface.io.models import load_model, save_trained
from efface.metrics.accuracy import accuracy
from efface.metrics.evaluation import evaluate
from efface.metrics.retrain_gap import columns, gap
from efface.report import collect
from efface.types import Records, Split, split_holdout
from efface.unlearn import Result, forget
from research.recipes import RECIPES, description, fresh, train

RECIPE = "digits-conv"
SWAPPED = 20
FORGET_CLASS = 3


@dataclass(frozen=True)
class Request:
    """One of the three requests: what it is called and what it makes of the data."""

    name: str
    rows: list[int]
    forget_classes: tuple[int, ...] = ()
    mislabelled: bool = False


def write_demo(folder: Path) -> Path:
    """Write model, data as parquet and ids.csv into ``folder``; the model is trained here."""
    write_data(folder / "data")
    table = load_data(str(folder / "data"))
    recipe = RECIPES[RECIPE]
    records = table.records(None, recipe.preprocessing)
    model = train(fresh(recipe, 10, seed=0), records, recipe, seed=0)
    facts = description(RECIPE, table, seed=0, command="make demo")
    save_trained(folder / "model", model, facts)
    lines = ["id", *(table.ids[row] for row in _swapped(len(records)))]
    atomic_write(folder / "ids.csv", ("\n".join(lines) + "\n").encode())
    return folder


def write_data(folder: Path) -> None:
    """Digits as parquet: two thirds to train on, 20 labels swapped; one third never seen."""
    pixels, targets = load_digits(return_X_y=True)
    images = pixels.reshape(-1, 8, 8)
    rows = np.arange(len(images))
    parts = {"train": rows[rows % 3 != 0], "test": rows[rows % 3 == 0]}
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        labels = targets[part].copy()
        if name == "train":
            swapped = _swapped(len(part))
            labels[swapped] = (labels[swapped] + 1 + np.arange(SWAPPED) % 9) % 10
        columns_ = {
            "id": [f"digit-{row:04d}" for row in part],
            "image": [{"bytes": _png(images[row]), "path": None} for row in part],
            "label": labels.tolist(),
        }
        kinds = {"id": Value("string"), "image": ImageColumn(), "label": ClassLabel(10)}
        table = Dataset.from_dict(columns_, features=Features(kinds))
        stored = table.data.table.cast(table.features.arrow_schema)
        parquet.write_table(stored, folder / f"{name}-00000-of-00001.parquet")


def _swapped(total: int) -> list[int]:
    """The rows whose labels are swapped, the same each time."""
    return sorted(np.random.default_rng(0).choice(total, SWAPPED, replace=False).tolist())


def _png(pixels: np.ndarray) -> bytes:
    """An 8 x 8 grey image; the digits' 0 to 16 become 0 to 255."""
    file = io.BytesIO()
    Image.fromarray((pixels * 255 / 16).round().astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def run(folder: Path) -> None:
    """Train, forget three times with two methods, retrain, print the table, write the report."""
    started = time.perf_counter()
    for earlier in ("model", "out"):
        shutil.rmtree(folder / earlier, ignore_errors=True)
    write_demo(folder)
    terminal.event("trained", seconds=round(time.perf_counter() - started, 1))
    loaded = load_model(folder / "model")
    data = str(folder / "data")
    training = load_data(data).records(None, loaded.preprocessing)
    holdout = load_data(f"{data}:test").records(None, loaded.preprocessing)
    rows: list[list[str]] = []
    for request in _requests(training):
        rows += _story(request, loaded.model, training, holdout, folder)
    titles = ["model", "forget", "holdout", "retain", "attack", "gap", "seconds", ""]
    terminal.table(
        "Accuracy and entropy attack in %, gap to the retrained model in points", titles, rows
    )
    _last_words(folder, time.perf_counter() - started)


def _requests(training: Records) -> list[Request]:
    swapped = _swapped(len(training))
    threes = torch.nonzero(training.y == FORGET_CLASS).flatten().tolist()
    single = next(row for row in range(len(training)) if row not in {*swapped, *threes})
    return [
        Request("20 swapped labels", swapped, mislabelled=True),
        Request(f"class {FORGET_CLASS}", threes, forget_classes=(FORGET_CLASS,)),
        Request("one record", [single]),
    ]


def _story(
    request: Request, model: nn.Module, training: Records, holdout: Records, folder: Path
) -> list[list[str]]:
    """The rows of one request: nothing done, both methods, the retrained model as the target."""
    staying = [row for row in range(len(training)) if row not in set(request.rows)]
    going, retain = training.take(request.rows), training.take(staying)
    recipe, began = RECIPES[RECIPE], time.perf_counter()
    retrained = train(fresh(recipe, 10, seed=1), retain, recipe, seed=1)
    seconds = time.perf_counter() - began
    split = Split(going, holdout, forget_classes=request.forget_classes)
    # the half of the holdout that method and guard do not see
    unseen = split_holdout(split, seed=0)[1].holdout
    parts = (going, unseen, retain)
    target = _columns(retrained, parts, request)
    rows = [_row(request, "nothing done", model, parts, target, None)]
    for method in ("jit", "neighbourhood"):
        how = {"method": method, "mislabelled": request.mislabelled, "report": "off"}
        try:
            result = forget(model, split, **how)
        except NotMet as error:
            rows.append([method, *["-"] * 5, "", f"not met: {error.came}"])
            continue
        rows.append(
            _row(request, method, result.model, parts, target, result.manifest.seconds["method"])
        )
        if request.mislabelled:
            _report(model, result, Split(going, unseen, retain), folder)
    rows.append(_row(request, "retrained", retrained, parts, target, seconds))
    return [[request.name], *rows]


def _columns(model: nn.Module, parts: tuple[Records, ...], request: Request) -> dict[str, float]:
    forgotten, holdout, retain = (evaluate(model, part) for part in parts)
    return columns(forgotten, holdout, retain, forget_classes=request.forget_classes)


def _row(
    request: Request,
    name: str,
    model: nn.Module,
    parts: tuple[Records, ...],
    target: dict[str, float],
    seconds: float | None,
) -> list[str]:
    """Accuracy on the forget records, on the holdout of classes that stay, on retain records."""
    forgotten, _, retain = (evaluate(model, part) for part in parts)
    found = _columns(model, parts, request)
    shares = [
        accuracy(forgotten.predicted, forgotten.y),
        found["retain"],
        accuracy(retain.predicted, retain.y),
        found["attack"],
        gap(found, target),
    ]
    took = "" if seconds is None else f"{seconds:.1f}"
    return [name, *(f"{100 * share:.1f}" for share in shares), took, ""]


def _report(model: nn.Module, result: Result, split: Split, folder: Path) -> None:
    """The report, with the records that stay as evidence that the method did not see."""
    report = collect(model, result.model, split, mislabelled=True)
    came = {"outcome": report.outcome, "summary": report.summary, "progress": report.progress}
    manifest = replace(result.manifest, command="make demo", **came)
    replace(result, report=report, manifest=manifest).save_report(folder / "report.html")


def _last_words(folder: Path, seconds: float) -> None:
    data = folder / "data"
    sys.stdout.write(
        f"{seconds:.0f} seconds. The report on the swapped labels: {folder / 'report.html'}\n"
        "The target is the retrained model's value in each column, not the lowest.\n"
        "The same on the command line:\n\n"
        f"  .venv/bin/efface forget {folder / 'model'} --data {data} --ids {folder / 'ids.csv'} "
        f"--mislabelled --holdout {data}:test --out {folder / 'out'}\n"
    )


if __name__ == "__main__":
    run(Path("demo"))
