"""One point of two blobs is forgotten: how retraining and each method move the boundary.

Figure 2 of https://arxiv.org/abs/2402.01401, which gives no numbers, with the measure that it
lacks: the area where a model's prediction is not that of the retrained one, next to the area
between two retrained models. Two starts of one recipe differ by more than one point does; so the
model that starts from the same weights is measured too, under its own name.
"""

from collections.abc import Mapping, Sequence
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

# Points of the grid each way.
SIDE = 151

# The rows that stand in the first figure, next to the untouched and the retrained model.
PAPER = ("jit", TOY, GREEDY)

# Of the plain steps the one that can be seen in a figure.
LONGEST = 0.1


@dataclass
class Tally:
    """What was measured of one row of the table, a number a seed; ``refused``: why a seed has none.

    ``drawn``: the logits over the grid, of the first seed.
    """

    numbers: dict[str, list[float]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    drawn: Any = None


# By the point that is removed and the name of the row.
Tallies = dict[str, dict[str, Tally]]


def experiment(
    out: Path, *, seeds: Sequence[int], progress: Counting = no_progress
) -> dict[str, Any]:
    """Write the figures, the table and the animation; give back every median with its interval."""
    tallies: Tallies = {point: {} for point in two.FORGOTTEN}
    floors: dict[str, Tally] = {point: Tally() for point in two.FORGOTTEN}
    tried, first = contenders() + searched(), None
    with progress("boundary", len(seeds)) as advance:
        for place, seed in enumerate(seeds):
            family = two.family(seed)
            first = first or family
            # methods that take seconds run on the first seeds only
            here = tuple(c for c in tried if c.seeds is None or place < c.seeds)
            for point in two.FORGOTTEN:
                _one(family, point, here, tallies[point], floors[point])
            advance(f"seed {seed}")
    facts = {
        "seeds": list(seeds),
        "settings": _settings(),
        "cases": {one: _case(tallies[one], floors[one]) for one in two.FORGOTTEN},
        "tried": [asdict(contender) for contender in tried],
    }
    facts["claims"] = claims(facts)
    (out / "boundary.md").write_text(table(facts), encoding="utf-8")
    _draw(out, facts, first, tallies, floors)
    facts["animation"] = animate(out, seeds, progress)
    return facts


def _settings() -> dict[str, Any]:
    """Everything that the numbers depend on next to the seed."""
    recipe = {"optimizer": "AdamW on all records at once", "steps": two.STEPS}
    return {
        "centres": two.CENTRES,
        "spread": 1,
        "points_in_each_class": two.POINTS,
        "points": two.FORGOTTEN,
        "box": {"low": two.LOW, "high": two.HIGH, "grid_points_each_way": SIDE},
        "net": "2-32-32-2, tanh",
        "recipe": {**recipe, "learning_rate": two.RATE, "weight_decay": two.DECAY},
        "retrained_models_a_seed": two.AGAIN,
    }


def _one(
    family: two.Family, point: str, tried: Sequence[Contender], rows: dict[str, Tally], floor: Tally
) -> None:
    """Measure every row at one seed and one point."""
    x = two.grid(SIDE)
    density = two.density(x).numpy()
    again = [two.sureness(model, x).numpy() for model in family.retrained[point]]
    targets = [one > 0 for one in again]
    before, same = (
        two.sureness(model, x).numpy() > 0 for model in (family.untouched, family.same_start[point])
    )
    against = {"targets": targets, "before": before, "same": same, "density": density}
    # what another start alone changes: no method can be expected to come closer
    pairs = list(combinations(targets, 2))
    for name, weight in (("area", None), ("weighted", density.sum(1))):
        found = np.mean([area(one, other, weight) for one, other in pairs])
        floor.numbers.setdefault(name, []).append(float(found))
    floor.drawn = again if floor.drawn is None else floor.drawn
    students: dict[str, nn.Module | str] = {"untouched": family.untouched}
    students["same start"] = family.same_start[point]
    # a text says why there is no model
    students |= {one.name: run(one, family, point) for one in tried}
    for name, student in students.items():
        tally = rows.setdefault(name, Tally())
        if isinstance(student, str):
            tally.refused.append(student)
            continue
        sure = two.sureness(student, x).numpy()
        # figures show the first seed alone
        tally.drawn = sure if tally.drawn is None else tally.drawn
        measured = _measured(sure > 0, against)
        measured["flipped"] = float(flips(student, family, point))
        for key, value in measured.items():
            tally.numbers.setdefault(key, []).append(value)


def _measured(answers: Bool[np.ndarray, " n"], against: Mapping[str, Any]) -> dict[str, float]:
    """A row's numbers at one seed: plain means over the box, and weighted by where data lie.

    ``against``: ``targets`` (of the retrained models), ``before`` and ``same`` start: predictions;
    ``density`` of the blobs. ``nearer``: area to the retrained models minus the untouched model's.
    """
    targets, before, same, density = against.values()
    numbers = {}
    for name, weight in (("area", None), ("weighted", density.sum(1))):
        found, untouched = (
            np.mean([area(one, target, weight) for target in targets]) for one in (answers, before)
        )
        lost = [shift(before, target, weight) for target in targets]
        numbers[name] = float(found)
        numbers[f"{name}_nearer"] = float(found - untouched)
        numbers[f"{name}_to_same_start"] = area(answers, same, weight)
        numbers[f"{name}_to_untouched"] = area(answers, before, weight)
        numbers[f"{name}_lost_by_class_1"] = shift(before, answers, weight)
        numbers[f"{name}_lost_by_class_1_retrained"] = float(np.mean(lost))
    return numbers | {"accuracy": accuracy(answers, density)}


def _case(tallies: Mapping[str, Tally], floor: Tally) -> dict[str, Any]:
    """The medians of one point: the floor, each row, and those that could not be served."""
    served = {name: tally for name, tally in tallies.items() if tally.numbers}
    refused = {
        name: {
            "runs": len(tally.refused),
            "of": len(tally.refused) + len(tally.numbers.get("area", ())),
            "text": tally.refused[0],
        }
        for name, tally in tallies.items()
        if tally.refused
    }
    return {
        "floor": {name: asdict(middle(values)) for name, values in floor.numbers.items()},
        "rows": {name: _row(tally) for name, tally in served.items()},
        "refused": refused,
        "beyond_floor": _beyond(tallies["untouched"], floor),
        "nearer_by_seed": {name: tally.numbers["area_nearer"] for name, tally in served.items()},
    }


def _row(tally: Tally) -> dict[str, Any]:
    """Medians, and how often the point was no longer answered with its class."""
    numbers = dict(tally.numbers)
    flipped = float(np.mean(numbers.pop("flipped")))
    medians = {key: asdict(middle(values)) for key, values in numbers.items()}
    return {**medians, "flipped_share": flipped}


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
