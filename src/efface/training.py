"""``efface train``: a recipe into a folder, whole or not at all, and on again where it stopped."""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from efface.adapters import refuse_other_kinds
from efface.devices import device_named
from efface.io.atomic import claimed, refuse_overlap
from efface.io.dataset import open_table
from efface.io.model import WEIGHTS, save_trained
from efface.io.naming import rows_named
from efface.recipes import description, fresh, named, train
from efface.show import show_progress


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
    with claimed(out):
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
    table = open_table(data, label_column=columns)
    refuse_other_kinds(table.kind)
    rows = set(range(len(table)))
    if any(value is not None for value in excluded.values()):
        rows -= set(rows_named(table, excluded)[0])
    records = table.records(sorted(rows), recipe.preprocessing)
    facts = description(
        name,
        table,
        seed=seed,
        command=shlex.join(["efface", *sys.argv[1:]]),
        excluded=len(table) - len(rows),
    )
    model = fresh(recipe, facts["num_classes"], seed=seed).to(device_named(device))
    state = _progress(out)
    train(model, records, recipe, seed=seed, state=state, progress=show_progress)
    save_trained(out, model.cpu(), facts)
    state.unlink(missing_ok=True)


def _progress(out: Path) -> Path:
    """Where a training that is not done keeps what it needs to go on."""
    return out.with_name(f".{out.name}.training")
