"""``python -m research.geometry``: its flags and their help, and the table of the experiments."""

import importlib
import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from cyclopts import App

if TYPE_CHECKING:
    from research.geometry.experiment import Experiment

# The module of each experiment, whose function ``experiment`` is run; torch loads only then.
EXPERIMENTS: Mapping[str, str] = MappingProxyType(
    {
        "boundary": "research.geometry.boundary",
        "curvature": "research.geometry.curvature_maps",
        "sigmoid": "research.geometry.sigmoid",
        "entropy": "research.geometry.entropy",
        "drawings": "research.geometry.drawings",
    }
)

ALL = "all"

app = App(name="python -m research.geometry")


@app.default
def geometry(name: str, /, *, out: Path, seeds: int = 20) -> None:
    """Make a low-dimensional experiment of the paper again: figures, and what they show as JSON.

    Args:
        name: `boundary`, `curvature`, `sigmoid`, `entropy`, `drawings`, or `all` for every one.
        out: A folder that does not exist yet; it gets each figure as PNG and SVG, and of each
            experiment what it found as NAME.json, all or nothing.
        seeds: How many times each experiment is made, with the seeds 0, 1, …
    """
    from efface.errors import InputError
    from efface.io.atomic import atomic_folder, claim
    from efface.terminal import event, show_count

    names = chosen(name)
    if seeds < 1:
        raise InputError("1 seed or more", str(seeds), "Give --seeds 20, as the tables have it.")
    with claim(out), atomic_folder(out) as scratch:
        for one in names:
            facts = experiment_named(one)(scratch, seeds=range(seeds), progress=show_count)
            _write(scratch / f"{one}.json", facts)
    event("written", to=str(out), experiments=list(names))


def chosen(name: str) -> tuple[str, ...]:
    """The experiments that a name stands for. Raises InputError when there are none."""
    from efface.errors import InputError

    if name == ALL:
        return tuple(EXPERIMENTS)
    if name not in EXPERIMENTS:
        raise InputError(
            f"an experiment out of {', '.join(EXPERIMENTS)}, or {ALL}",
            repr(name),
            "Choose one of these.",
        )
    return (name,)


def experiment_named(name: str) -> "Experiment":
    """The function that makes an experiment."""
    return importlib.import_module(EXPERIMENTS[name]).experiment


def _write(path: Path, facts: dict[str, Any]) -> None:
    """What an experiment found, with the command and the versions that made it."""
    from efface.manifest import versions

    made = {
        "command": shlex.join(["python", "-m", "research.geometry", *sys.argv[1:]]),
        "versions": versions(),
    }
    path.write_text(json.dumps(facts | made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    from efface.cli import exits

    with exits():
        app()
