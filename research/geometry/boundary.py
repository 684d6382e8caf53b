"""One point of two blobs leaves: what that moves when the net is trained again, and by methods.

Figure 2 of https://arxiv.org/abs/2402.01401, which gives no numbers, with the measure that it
lacks: the area where a model's answer is not that of the retrained one, beside the area between two
retrained models. Two starts of one recipe differ by more than one point does; so the model that
starts from the same weights is measured too, under its own name.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from torch import nn

from efface.types import no_progress
from research.geometry import blobs as two
from research.geometry.animation import animate
from research.geometry.areas import accuracy, area, middle, shift
from research.geometry.boundary_figures import areas_figure, panels
from research.geometry.boundary_table import table
from research.geometry.claims import claims
from research.geometry.contenders import GREEDY, TOY, Contender, contenders, flips, run, searched
from research.geometry.experiment import Counting, save

SIDE = 151
"""Points of the grid each way."""

PAPER = ("jit", TOY, GREEDY)
"""The rows that stand in the first figure, beside the untouched and the retrained model."""

LONGEST = 0.1
"""Of the plain steps the one that can be seen in a figure."""


@dataclass
class Tally:
    """What was measured of one row of the table, a number a seed; ``refused``: why a seed has none.

    ``drawn``: the logits over the grid, of the first seed.
    """

    numbers: dict[str, list[float]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    drawn: Any = None


Tallies = dict[str, dict[str, Tally]]
"""By the point that leaves and the name of the row."""


def experiment(
    out: Path, *, seeds: Sequence[int], progress: Counting = no_progress
) -> dict[str, Any]:
    """Write the figures, the table and the animation; give back every median with its interval."""
    tallies: Tallies = {point: {} for point in two.LEAVING}
    floors: dict[str, Tally] = {point: Tally() for point in two.LEAVING}
    tried, first = contenders() + searched(), None
    with progress("boundary", len(seeds)) as told:
        for place, seed in enumerate(seeds):
            family = two.family(seed)
            first = first or family
            here = tuple(c for c in tried if c.seeds is None or place < c.seeds)
            for point in two.LEAVING:
                _one(family, point, here, tallies[point], floors[point])
            told(f"seed {seed}")
    facts = {
        "seeds": list(seeds),
        "settings": _settings(),
        "cases": {one: _case(tallies[one], floors[one]) for one in two.LEAVING},
        "tried": [asdict(contender) for contender in tried],
    }
    facts["claims"] = claims(facts)
    (out / "boundary.md").write_text(table(facts), encoding="utf-8")
    _draw(out, facts, first, tallies, floors)
    facts["animation"] = animate(out, seeds, progress)
    return facts


def _settings() -> dict[str, Any]:
    """Everything that the numbers depend on beside the seed."""
    return {
        "centres": two.CENTRES,
        "spread": 1,
        "points_in_each_class": two.POINTS,
        "points": two.LEAVING,
        "box": {"low": two.LOW, "high": two.HIGH, "grid_points_each_way": SIDE},
        "net": "2-32-32-2, tanh",
        "recipe": {
            "optimizer": "AdamW on all records at once",
            "steps": two.STEPS,
            "learning_rate": two.RATE,
            "weight_decay": two.DECAY,
        },
        "retrained_models_a_seed": two.AGAIN,
    }


def _one(
    family: two.Family,
    point: str,
    tried: Sequence[Contender],
    tallies: dict[str, Tally],
    floor: Tally,
) -> None:
    """Measure every row at one seed and one point."""
    x = two.grid(SIDE)
    density = two.density(x).numpy()
    again = [two.sureness(model, x).numpy() for model in family.retrained[point]]
    targets = [one > 0 for one in again]
    before = two.sureness(family.untouched, x).numpy() > 0
    same = two.sureness(family.same_start[point], x).numpy() > 0
    against = {"targets": targets, "before": before, "same": same, "density": density}
    pairs = list(combinations(targets, 2))
    for name, weight in (("area", None), ("weighted", density.sum(1))):
        found = np.mean([area(one, other, weight) for one, other in pairs])
        floor.numbers.setdefault(name, []).append(float(found))
    floor.drawn = again if floor.drawn is None else floor.drawn
    for name, student in _students(family, point, tried):
        tally = tallies.setdefault(name, Tally())
        if isinstance(student, str):
            tally.refused.append(student)
            continue
        sure = two.sureness(student, x).numpy()
        tally.drawn = sure if tally.drawn is None else tally.drawn
        measured = _measured(sure > 0, **against)
        measured["flipped"] = float(flips(student, family, point))
        for key, value in measured.items():
            tally.numbers.setdefault(key, []).append(value)


def _students(
    family: two.Family, point: str, tried: Sequence[Contender]
) -> Iterator[tuple[str, nn.Module | str]]:
    """Each row's model of this seed, or why there is none."""
    yield "untouched", family.untouched
    yield "same start", family.same_start[point]
    for contender in tried:
        yield contender.name, run(contender, family, point)


def _measured(
    answers: Bool[np.ndarray, " n"],
    *,
    targets: Sequence[np.ndarray],
    before: np.ndarray,
    same: np.ndarray,
    density: np.ndarray,
) -> dict[str, float]:
    """A row's numbers at one seed: plain means over the box, and weighted by where data lie.

    ``nearer``: area to the retrained models less that of the untouched model.
    """
    numbers = {}
    for name, weight in (("area", None), ("weighted", density.sum(1))):
        found = [area(answers, target, weight) for target in targets]
        untouched = [area(before, target, weight) for target in targets]
        numbers[name] = float(np.mean(found))
        numbers[f"{name}_nearer"] = float(np.mean(found) - np.mean(untouched))
        numbers[f"{name}_to_same_start"] = area(answers, same, weight)
        numbers[f"{name}_to_untouched"] = area(answers, before, weight)
        numbers[f"{name}_lost_by_class_1"] = shift(before, answers, weight)
        lost = [shift(before, target, weight) for target in targets]
        numbers[f"{name}_lost_by_class_1_retrained"] = float(np.mean(lost))
    return numbers | {"accuracy": accuracy(answers, density)}


def _case(tallies: Mapping[str, Tally], floor: Tally) -> dict[str, Any]:
    """The medians of one point: the floor, each row, and those that could not be served."""
    return {
        "floor": {name: asdict(middle(values)) for name, values in floor.numbers.items()},
        "rows": {name: _row(tally) for name, tally in tallies.items() if tally.numbers},
        "refused": {
            name: {"runs": len(tally.refused), "of": _runs(tally), "text": tally.refused[0]}
            for name, tally in tallies.items()
            if tally.refused
        },
        "beyond_floor": _beyond(tallies["untouched"], floor),
        "nearer_by_seed": {
            name: tally.numbers["area_nearer"] for name, tally in tallies.items() if tally.numbers
        },
    }


def _row(tally: Tally) -> dict[str, Any]:
    """Medians, and how often the point was no longer answered with its class."""
    numbers = dict(tally.numbers)
    flipped = float(np.mean(numbers.pop("flipped")))
    medians = {key: asdict(middle(values)) for key, values in numbers.items()}
    return {**medians, "flipped_share": flipped}


def _runs(tally: Tally) -> int:
    return len(tally.refused) + len(tally.numbers.get("area", ()))


def _beyond(untouched: Tally, floor: Tally) -> dict[str, Any]:
    """Area from the untouched to the retrained models, less that between these, over seeds."""
    return {
        name: asdict(middle(np.subtract(untouched.numbers[name], floor.numbers[name]).tolist()))
        for name in ("area", "weighted")
    }


def _draw(
    out: Path,
    facts: Mapping[str, Any],
    first: two.Family | None,
    tallies: Tallies,
    floors: Mapping[str, Tally],
) -> None:
    """The panels of the first seed, and the areas over all."""
    if first is None:
        return
    fields = {
        point: {name: tally.drawn for name, tally in rows.items() if tally.drawn is not None}
        for point, rows in tallies.items()
    }
    again = {point: floor.drawn for point, floor in floors.items()}
    drawn = {c.name for c in contenders() if abs(c.step or LONGEST) == LONGEST} - {*PAPER}
    plain = [name for name in fields["core"] if name in drawn]
    save(panels(first, fields, again, rows=PAPER), out, "boundary")
    save(panels(first, fields, again, rows=plain, paper=False), out, "boundary_others", dpi=90)
    save(areas_figure(facts), out, "boundary_areas")
