"""The form of an experiment, and how its figures are written.

An experiment is a function ``experiment(out, *, seeds, progress)`` in a module of its own, named in
the table of ``research.geometry.__main__``. It writes figures into ``out`` and gives back what they
show as numbers, texts, lists and mappings, which become NAME.json.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from matplotlib import rc_context
from matplotlib.figure import Figure

# ``with progress(title, total) as advance``: ``advance(what)`` after each of ``total`` things.
# ``efface.terminal.show_count`` is one; so is ``efface.types.no_progress``.
Counting = Callable[[str, int], AbstractContextManager[Callable[[str], None]]]


class Experiment(Protocol):
    """A function that makes one experiment with each of the seeds."""

    def __call__(
        self, out: Path, *, seeds: Sequence[int], progress: Counting = ...
    ) -> dict[str, Any]:
        """Write figures into ``out``, and give back what they show."""
        ...


# With the salt and without a date the same figure is the same file.
STYLE = {
    "svg.hashsalt": "efface",
    "svg.fonttype": "path",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def save(figure: Figure, out: Path, name: str, *, dpi: int = 130) -> None:
    """Write ``name``.png and ``name``.svg: the same bytes for the same figure."""
    with rc_context(STYLE):
        figure.savefig(out / f"{name}.svg", dpi=dpi, metadata={"Date": None})
        figure.savefig(out / f"{name}.png", dpi=dpi, metadata={"Software": None})
