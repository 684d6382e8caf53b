"""CPU seconds and forward passes of the demo's request, by part: ``efface forget`` on 20 digits.

    make demo && python -m research.benchmarks.request_costs    # a minute alone

Each round is a process of its own with one thread. A part is what runs inside the functions that
``PLACES`` names, without the parts inside it; modules that are loaded on the way count as imports.
``--source`` runs an older checkout's package with the names of its own.
"""

import argparse
import builtins
import importlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any

from research.own_process import run_alone

ROUNDS = 5
REQUEST = ("--ids", "ids.csv", "--mislabelled")
TORCH, COMPILER, IMPORTS = "import torch", "import torch's compiler", "other imports"
PARTS = (TORCH, COMPILER, IMPORTS, "load", "doctor", "method", "guard", "evidence", "page", "rest")
# What the request cannot do without: torch's own optimizers load its compiler.
NEEDED = {TORCH, COMPILER, "method"}
# What each part runs in, as module:name; the method's function is found by itself.
PLACES = {
    "load": ["efface.cli.loading:Inputs.read"],
    "doctor": ["efface.unlearn:doctor"],
    "guard": [f"efface.guard:Guard.{name}" for name in ("__init__", "callback", "settle")],
    "evidence": ["efface.report.runner:collect"],
    "page": ["efface.unlearn:Result.save"],
}
# The same at commit 67a8f45.
PLACES_BEFORE = {
    "load": ["efface.command:gathered", "efface.asked:Flags.model"],
    "doctor": ["efface.request:examine"],
    "guard": [f"efface.guard.judge:Guard.{name}" for name in ("__init__", "watch", "settle")],
    "evidence": ["efface.request:collect"],
    "page": ["efface.command:write_evidence"],
}  # fmt: skip


class Clock:
    """CPU seconds and records through a model by part, each without the parts inside it."""

    def __init__(self) -> None:
        self.seconds, self.passes = dict.fromkeys(PARTS, 0.0), dict.fromkeys(PARTS, 0)
        self.stack, self.since = ["rest"], 0.0

    def tick(self) -> None:
        """Charge what has passed to the innermost part."""
        now = time.process_time()
        self.seconds[self.stack[-1]] += now - self.since
        self.since = now

    def inside(self, part: str, function: Callable, *given: Any, **named: Any) -> Any:
        """Call a function as part of ``part``."""
        self.tick()
        self.stack.append(part)
        try:
            return function(*given, **named)
        finally:
            self.tick()
            self.stack.pop()

    def wrap(self, part: str, place: str) -> None:
        """Measure a function or a method, in place."""
        module, _, path = place.partition(":")
        *owners, name = path.split(".")
        owner = importlib.import_module(module)
        for one in owners:
            owner = getattr(owner, one)
        plain = owner.__dict__[name]
        bound = isinstance(plain, classmethod)
        function = plain.__func__ if bound else plain
        timed = wraps(function)(partial(self.inside, part, function))

        # a function, since a partial is no method
        def call(*given: Any, **named: Any) -> Any:
            return timed(*given, **named)

        setattr(owner, name, classmethod(call) if bound else call)

    def count_imports(self) -> None:
        """Modules that are loaded count as imports, wherever they are loaded."""
        plain = builtins.__import__

        def load(name: str, *given: Any, **named: Any) -> Any:
            if name in sys.modules or "import" in self.stack[-1]:
                return plain(name, *given, **named)
            part = COMPILER if name.startswith("torch._dynamo") else IMPORTS
            return self.inside(part, plain, name, *given, **named)

        builtins.__import__ = load

    def count_passes(self) -> None:
        """Records through the first layer of the demo's net."""
        from torch.nn import Conv2d
        from torch.nn.modules.module import register_module_forward_hook

        def count(module: Any, inputs: Any, _: Any) -> None:
            if isinstance(module, Conv2d) and module.in_channels == 1:
                self.passes[self.stack[-1]] += len(inputs[0])

        register_module_forward_hook(count)


def measure(demo: Path, holdout: bool, before: bool) -> dict[str, Any]:
    """One request in this process."""
    clock = Clock()
    # what Python itself took to start
    clock.tick()
    clock.inside(TORCH, importlib.import_module, "torch")
    clock.count_imports()
    clock.count_passes()
    clock.inside(
        IMPORTS,
        importlib.import_module,
        "efface.command" if before else "efface.cli.forget",
    )
    from efface.cli import main
    from efface.methods import METHODS

    for part, places in (PLACES_BEFORE if before else PLACES).items():
        for place in places:
            clock.wrap(part, place)
    method = METHODS["neighbourhood"]
    timed = partial(clock.inside, "method", method.function)
    object.__setattr__(method, "function", wraps(method.function)(timed))
    words = ["forget", str(demo / "model"), "--data", str(demo / "data"), "--mislabelled"]
    words += ["--ids", str(demo / "ids.csv")]
    words += ["--holdout", f"{demo / 'data'}:test"] * holdout
    with tempfile.TemporaryDirectory() as folder:
        sys.argv = ["efface", *words, "--out", f"{folder}/out"]
        try:
            main()
        except SystemExit as ended:
            # 10 and above: outcomes, not failures
            if ended.code and int(ended.code) < 10:  # noqa: PLR2004
                raise
    clock.tick()
    return {"seconds": clock.seconds, "passes": clock.passes}


def rounds(options: argparse.Namespace, *, holdout: bool, before: bool) -> dict[str, Any]:
    """The round with the least CPU time of several: what other processes cost it least."""
    words = ["--child", "--demo", str(options.demo)] + ["--holdout"] * holdout
    environment = {"OMP_NUM_THREADS": "1"}
    if before:
        words += ["--before"]
        environment["PYTHONPATH"] = str(options.source / "src")
    found = [run_alone("request_costs", *words, **environment) for _ in range(options.rounds)]
    return min(found, key=lambda one: sum(one["seconds"].values()))


def main() -> None:
    """Measure, and write record and page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--demo", type=Path, default=Path("demo"))
    parser.add_argument("--source", type=Path, help="a checkout of 67a8f45")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--holdout", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--before", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.demo.resolve(), options.holdout, options.before)))
        return
    from research.tables import RESULTS, write_record

    options.demo = options.demo.resolve()
    path, found = RESULTS / "request_costs.json", {}
    # without the older checkout its numbers stay as they are
    if options.source is None and path.exists():
        found = {
            name: one for name, one in json.loads(path.read_text()).items() if "before" in name
        }
    for before in (True, False) if options.source else (False,):
        for holdout in (False, True):
            name = f"{'before' if before else 'now'}, {'with' if holdout else 'no'} holdout"
            found[name] = rounds(options, holdout=holdout, before=before)
    write_record("request_costs", "request_costs", found)


def page(record: dict[str, Any]) -> str:
    """The table from the record."""
    from research import pages
    from research.pages import origin, table

    names = [f"{when}, {what} holdout" for what in ("no", "with") for when in ("before", "now")]
    cells = {part: [_cell(record[name], part) for name in names] for part in PARTS}
    besides = (_beside(record[name]["seconds"]) for name in names)
    rows = [(part, *cells[part]) for part in PARTS]
    rows += [("**all but torch and the method**", *besides)]
    return pages.page(
        "What the demo's request costs",
        f"{origin(record)}. `efface forget demo/model --data demo/data --ids demo/ids.csv --mislabelled`, without and "
        "with `--holdout demo/data:test`: 20 digits with wrong labels. CPU seconds in a process with one thread, the "
        "cheapest of its rounds; in brackets records that went forward through a model. Before: commit 67a8f45. "
        "Torch's optimizers load its compiler at their first step; before, torchvision had loaded it among the imports.",
        table(f"part | {' | '.join(names)}", rows),
    )


def _cell(found: dict[str, Any], part: str) -> str:
    """Seconds and passes; a dash for a part that is no longer what was measured."""
    if part not in found["seconds"]:
        return "–"
    return f"{found['seconds'][part]:.2f} ({found['passes'][part]:,})"


def _beside(seconds: dict[str, float]) -> str:
    if {*PARTS} - {*seconds}:
        return "–"
    return f"**{sum(s for part, s in seconds.items() if part not in NEEDED):.2f}**"


if __name__ == "__main__":
    main()
