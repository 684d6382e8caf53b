"""Pages and figures of results, each built from its committed records alone.

    python -m research.tables               # builds every page again, and says which one changed
    python -m research.tables kinds rogues  # these pages only

``PAGES`` says which function makes a page of which records; a benchmark hands what it measured to
``write_record``. Records of before grids keep their words (schema 1); the pages read both.
"""

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from efface.manifest import versions

mpl.use("svg")  # no window opens

RESULTS = Path(__file__).parent / "results"
MADE_AT = "67a8f45"  # the commit of records that do not say their own

# The function that makes a page, as ``module:name``, and its records.
PAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "ceilings": ("ceilings:page", ("ceilings",)),
    "containers": ("containers:page", ("containers",)),
    "curvature_estimates": ("curvature_estimates:page", ("curvature_estimates",)),
    "cost_growth": ("cost_growth:page", ("cost_growth",)),
    "defects": ("defects:page", ("defects",)),
    "depth": ("depth:page", ("depth",)),
    "every_method": ("every_method_show:page", ("every_method",)),
    "foreign_checkpoint": ("foreign_checkpoint:page", ("foreign_checkpoint",)),
    "gkt_curve": ("gkt_curve:page", ("gkt_curve",)),
    "grid_kills": ("grid_kills:page", ("grid_kills",)),
    "guard_detector": ("guard_detector:page", ("guard_detector",)),
    "information": ("information_show:page", ("information/cifar10", "information/digits")),
    "information_costs": ("information_costs:page", ("information_costs",)),
    "information_million": ("information_million:page", ("information_million",)),
    "jit_differences": (
        "jit_differences_table:page",
        ("jit_differences", "jit_differences_photographs"),
    ),
    "jit_one_record": (
        "jit_one_record_show:page",
        ("jit_one_record_curves", "jit_one_record_row", "jit_one_record_together"),
    ),
    "jit_parts": ("jit_parts_show:page", ("jit_parts",)),
    "jit_quality": ("jit_tables_show:quality", ("jit_cells",)),
    "jit_robustness": ("jit_tables_show:robustness", ("jit_cells",)),
    "jit_speed": ("jit_speed:page", ("jit_speed",)),
    "jit_with_less": ("jit_with_less:page", ("jit_with_less",)),
    "kinds": ("kinds:page", ("kinds",)),
    "like_retrained": ("like_retrained:page", ("like_retrained",)),
    "lost": ("lost:page", ("lost",)),
    "memory_load": ("memory_load:page", ("memory_load",)),
    "memory_need": ("memory_need:page", ("memory_need",)),
    "method_costs": ("method_costs:page", ("method_costs",)),
    "null_pages": ("null_pages_show:page", ("null_pages",)),
    "goals": ("goals:page", ("goals",)),
    "in_a_row": ("in_a_row:page", ("in_a_row",)),
    "one_record": ("one_record:page", ("one_record",)),
    "references": ("references:page", ("references",)),
    "per_record": ("per_record:page", ("per_record", "per_record.npz")),
    "per_record_default": (
        "per_record_default:page",
        ("per_record_default", "per_record_default.npz"),
    ),
    "public_architectures": ("public_architectures:page", ("public_architectures",)),
    "rogues": ("rogues:page", ("rogues",)),
    "request_costs": ("request_costs:page", ("request_costs",)),
    "score_speed": ("score_speed:page", ("score_speed",)),
    "trainable": ("trainable:page", ("trainable",)),
    "transfer": ("transfer:page", ("transfer",)),
    "cifar10/table": ("cifar10_requests:page", ("cifar10/table",)),
    "geometry/boundary": ("geometry.boundary_table:table", ("geometry/boundary",)),
    "geometry/curvature": ("geometry.curvature_maps:table", ("geometry/curvature",)),
    "geometry/sigmoid_settings": ("sigmoid_settings:page", ("geometry/sigmoid_settings",)),
}

# The function that draws a page's figure from the same records, and the salt of its SVG's ids.
FIGURES = {
    "ceilings": ("ceilings:figure", "efface"),
    "cost_growth": ("cost_growth:figure", "efface"),
    "in_a_row": ("in_a_row:figure", "efface"),
    "depth": ("depth:figure", "efface"),
    "every_method": ("every_method_show:figure", "efface"),
    "gkt_curve": ("gkt_curve:figure", "efface"),
    "information": ("information_show:figure", "information"),
    "jit_one_record": ("jit_one_record_show:figure", "efface"),
    "jit_parts": ("jit_parts_show:figure", "efface"),
    "jit_robustness": ("jit_tables_show:heat_maps", "jit"),
}


def add_benchmark() -> None:
    """Pages of the benchmark whose records are there: cells take hours, made a task at a time."""
    names = [f"bench/{path.stem}" for path in sorted((RESULTS / "bench").glob("*.json"))]
    for name in names:
        PAGES[name], FIGURES[name] = ("bench.board:page", (name,)), ("bench.board:pareto", "efface")
    # the first that the paper has too
    if {"bench/class", "bench/sub-class", "bench/random-1"} & {*names}:
        PAGES["bench/paper"] = ("bench.paper:page", tuple(names))
    if (RESULTS / "bench_ablation.json").exists():
        PAGES["bench_ablation"] = ("bench.ablation:page", ("bench_ablation",))
        FIGURES["bench_ablation"] = ("bench.ablation:figure", "efface")
    if (RESULTS / "klom" / "scores.json").exists():
        PAGES["klom/scores"] = ("bench.klom:page", ("klom/scores",))


add_benchmark()


def read_record(name: str) -> Any:
    """A record: JSON, or arrays by name where the name says .npz."""
    path = RESULTS / _file(name)
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return dict(arrays)
    return json.loads(path.read_text())


def commit() -> str:
    """The short hash of HEAD."""
    head = ["git", "rev-parse", "--short", "HEAD"]
    git = subprocess.run(  # noqa: S603  # our own words
        head, cwd=Path(__file__).parent, check=True, capture_output=True, text=True
    )
    return git.stdout.strip()


def about(command: str) -> dict[str, Any]:
    """What every record says of itself: command, date, commit, versions.

    ``command``: of ``python -m research.benchmarks.``, or ``python -m research.`` where it begins
    with ``bench``; with STORE for a folder: no path is kept.
    """
    module = command if command.startswith(("bench.", "bench ")) else f"benchmarks.{command}"
    made = {"command": f"python -m research.{module}", "date": time.strftime("%Y-%m-%d")}
    return {**made, "commit": commit(), "versions": versions()}


def write_record(
    name: str, command: str, found: Mapping[str, Any], *, indent: int | None = 1
) -> None:
    """Write NAME.json, with what ``about(command)`` says, and its pages."""
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**about(command), **found}, indent=indent) + "\n")
    add_benchmark()
    for page, (_, records) in PAGES.items():
        if name in records and all((RESULTS / _file(one)).exists() for one in records):
            rebuild(page)


def _file(record: str) -> str:
    return record if record.endswith(".npz") else f"{record}.json"


def build(name: str) -> str:
    """The text of a page, with a line on where its records come from."""
    address, names = PAGES[name]
    records = [read_record(one) for one in names]
    text = _function(address)(*records)
    about = [r for r in records if "command" in r]
    commands = " and ".join(dict.fromkeys(f"`{record['command']}`" for record in about))
    commits = ", ".join(dict.fromkeys(one.get("commit", MADE_AT) for one in about or records))
    line = f"Records made at commit {commits}{' by ' * bool(about)}{commands}; table rebuilt by "
    line += f"`python -m research.tables {name}`.\n"
    # After the title, where there is one: what follows is the page as its records always made it.
    title, _, rest = text.partition("\n\n") if text.startswith("# ") else ("", "", text)
    return "\n\n".join(filter(None, [title, line + "\n" + rest]))


def rebuild(name: str) -> bool:
    """Write a page and its figure again; whether one of them changed."""
    page = RESULTS / f"{name}.md"
    paths = [page, page.with_suffix(".svg")]
    before = [path.read_text() if path.exists() else "" for path in paths]
    page.write_text(build(name))
    if name in FIGURES:
        address, salt = FIGURES[name]
        # Without a date, and with a salt, the same records make the same file.
        with mpl.rc_context({"svg.hashsalt": salt}):
            figure = _function(address)(*map(read_record, PAGES[name][1]))
            figure.savefig(paths[1], metadata={"Date": None})
    return before != [path.read_text() if path.exists() else "" for path in paths]


def _function(address: str) -> Any:
    module, function = address.split(":")
    room = "research" if "." in module else "research.benchmarks"
    return getattr(import_module(f"{room}.{module}"), function)


if __name__ == "__main__":
    for one in sys.argv[1:] or PAGES:
        sys.stdout.write(f"{'CHANGED' if rebuild(one) else 'as it was'}  {one}\n")
