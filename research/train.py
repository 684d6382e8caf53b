"""``python -m research.train``: a recipe into a folder, whole or absent; it can be resumed."""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cyclopts import App

from efface.cli import exits
from efface.io.atomic import claim, refuse_overlap
from efface.io.data import load_data
from efface.io.models import WEIGHTS, save_trained
from efface.runtime import resolve_device
from efface.task import require_multiclass
from efface.terminal import show_progress
from research.recipes import description, fresh, named, train


def run_train(
    name: str,
    *,
    data: str,
    out: Path,
    seed: int,
    excluded: Mapping[str, Any],
    label_column: str | None,
    device: str,
) -> None:
    """Train a recipe into a new folder; its progress is kept beside it until it is done."""
    refuse_overlap(out, {"--data": data})
    if (out / WEIGHTS).is_file():  # killed between the last two lines of an earlier run
        _progress(out).unlink(missing_ok=True)
    with claim(out):
        _train(name, data, out, seed=seed, excluded=excluded, columns=label_column, device=device)


def _train(
    name: str,
    data: str,
    out: Path,
    *,
    seed: int,
    excluded: Mapping[str, Any],
    columns: str | None,
    device: str,
) -> None:
    """The training itself, with the folder claimed."""
    recipe = named(name)
    table = load_data(data, label_column=columns)
    require_multiclass(table.kind)
    rows = set(range(len(table)))
    if any(value is not None for value in excluded.values()):
        rows -= set(table.requested_rows(excluded)[0])
    records = table.records(sorted(rows), recipe.preprocessing)
    facts = description(
        name,
        table,
        seed=seed,
        command=shlex.join(["python", "-m", "research.train", *sys.argv[1:]]),
        excluded=len(table) - len(rows),
    )
    model = fresh(recipe, facts["num_classes"], seed=seed).to(resolve_device(device))
    state = _progress(out)
    train(model, records, recipe, seed=seed, state=state, progress=show_progress)
    save_trained(out, model.cpu(), facts)
    state.unlink(missing_ok=True)


def _progress(out: Path) -> Path:
    """Where a training that is not done keeps what it needs to go on."""
    return out.with_name(f".{out.name}.training")


app = App(name="python -m research.train")


@app.default
def command(
    recipe: str,
    /,
    *,
    data: str,
    out: Path,
    seed: int = 0,
    exclude: Path | None = None,
    exclude_class: str | None = None,
    label_column: str | None = None,
    device: str = "auto",
) -> None:
    """Train a named recipe from scratch; stopped, it goes on after its last whole epoch.

    Args:
        recipe: Name of a recipe, for example `cifar10-resnet`.
        data: Records, as in `efface forget`.
        out: A folder that does not exist yet; it gets model.safetensors and recipe.json.
        seed: Of the initial weights and everything drawn at random.
        exclude: File of ids that must not be trained on, for example an exclude.csv.
        exclude_class: A class that must not be trained on.
        label_column: Column of the labels.
        device: For torch: cpu, cuda or mps; `auto` takes the best that is here.
    """
    run_train(
        recipe,
        data=data,
        out=out,
        seed=seed,
        excluded={"ids": exclude, "forget_class": exclude_class},
        label_column=label_column,
        device=device,
    )


if __name__ == "__main__":
    with exits():
        app()
