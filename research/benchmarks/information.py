"""Which records matter: what stands in for memorisation, and how well.

    EFFACE_DATA=… python -m research.benchmarks.information STORE NAME columns   # research/results/information/NAME.npz
    EFFACE_DATA=… python -m research.benchmarks.information STORE NAME groups    # …/NAME_groups.json
    EFFACE_DATA=… python -m research.benchmarks.information STORE NAME cells     # goes on where stopped
    EFFACE_DATA=… python -m research.benchmarks.information STORE NAME records   # …/NAME.json, NAME_halves.npz
    python -m research.benchmarks.information_show                               # research/results/information.md

NAME is ``cifar10`` (8,000 images, quarter VGG11) or ``digits``. Models on random halves show what
omitting a record changes; models without a whole group of records show what its removal does.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit
from torch import nn

from efface.grid import read, run
from efface.methods._head import embed
from efface.metrics.evaluation import evaluate
from efface.ranking.content import STABILITY, information_content, noise_stability
from efface.ranking.curvature import (
    input_gradient_norm,
    log_probability,
    piecewise_linear_curvature,
    probability,
)
from efface.ranking.neighbours import nearest, within
from efface.types import Records
from research.benchmarks.information_models import (
    SETTINGS,
    half,
    halves,
    measured_model,
    whole,
    without,
)
from research.gradients import loss_curvature
from research.leave_out import (
    Removal,
    answer_floor,
    answer_gain,
    correct_from,
    information_gain,
    least_informative_first,
    memorisation,
    removal,
)
from research.tables import RESULTS, read_record, write_record
from research.trained import model_of, parts_of

# from where no copy changes its prediction to where most do
SIGMAS = (0.05, 0.1, 0.12, 0.15, 0.2, 0.3, 0.4, 0.5)
NEIGHBOURS = 20


# The quantities whose lowest and highest records are removed.
GROUPED = ("copies", "features", "inputs", "margin")


def columns(model: nn.Module, records: Records) -> Iterator[tuple[str, np.ndarray]]:
    """Every quantity of each record, oriented so that more of it should mean more information."""
    near = noise_stability(model, records, SIGMAS)
    for sigma, kept in zip(SIGMAS, near.share, strict=True):
        yield f"copies {sigma}", 1 - kept
    measured = near.evaluation
    yield "margin", -measured.logit_margin
    yield "loss", measured.loss
    yield "entropy", measured.entropy
    points = {"features": embed(model, records).x.numpy(), "inputs": records.x.flatten(1).numpy()}
    for where, rows in points.items():
        radius = 0.0
        for neighbours in (10, NEIGHBOURS, 50):
            balls = nearest(rows, neighbours=neighbours)
            yield f"{where} {neighbours}", 1 - information_content(balls, measured.y)
            if neighbours == NEIGHBOURS:
                radius = float(np.median(balls.radius))
                yield f"{where} answers", 1 - information_content(balls, measured.predicted)
        balls = within(rows, radius=radius)
        yield f"{where} radius", 1 - information_content(balls, measured.y)
        yield f"{where} radius size", balls.sizes
    for of in (log_probability, probability):
        found = piecewise_linear_curvature(model, records, of=of)
        yield f"gradient {of.__name__}", found.gradient_norm
        yield f"hessian {of.__name__}", found.hessian_norm
        yield f"ratio {of.__name__}", found.ratio
    yield "input gradient", input_gradient_norm(model, records)
    yield "loss curvature", loss_curvature(model, records, step=1.0)


def primary(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The quantities that groups are cut by: copies at the σ where about ``STABILITY`` of them keep."""
    sigma = min(SIGMAS, key=lambda s: abs(1 - found[f"copies {s}"].mean() - STABILITY))
    return {
        "copies": found[f"copies {sigma}"],
        "features": found[f"features {NEIGHBOURS}"],
        "inputs": found[f"inputs {NEIGHBOURS}"],
        "margin": found["margin"],
    }


def groups(store: str, name: str, found: dict[str, np.ndarray]) -> dict[str, list[int]]:
    """Rows of each group, by name: the lowest, a middle and the highest by a quantity, random ones.

    ``truth`` cuts by the information gain itself, as far as half of the models tell it.
    """
    setting, made = SETTINGS[name], {}
    _, member, odds = halves(store, name, setting.halves // 2)
    truth = information_gain(-np.logaddexp(0, -odds), member).value
    for by, values in {**primary(found), "truth": truth}.items():
        order = least_informative_first(-values, -found["margin"])
        made[f"{by} low"] = order[: setting.group]
        made[f"{by} high"] = order[-setting.group :]
        # the middle is cut for two quantities alone: each group costs whole trainings
        if by in {"copies", "margin"}:
            middle = len(order) // 2 - setting.group // 2
            made[f"{by} middle"] = order[middle : middle + setting.group]
    for number in range(4):
        made[f"random {number}"] = _random(name, setting.group, number)
    order = least_informative_first(-primary(found)["copies"], -found["margin"])
    for size in setting.nested:
        made[f"copies low {size}"], made[f"copies high {size}"] = order[:size], order[-size:]
        made[f"random {size}"] = _random(name, size, 4)
    return {key: sorted(int(row) for row in rows) for key, rows in made.items()}


def _random(name: str, size: int, number: int) -> np.ndarray:
    return np.random.default_rng([802, size, number]).choice(SETTINGS[name].records, size, replace=False)  # fmt: skip


def truths(store: str, name: str) -> dict[str, np.ndarray]:
    """What omitting a record changes, by all models on halves."""
    count = SETTINGS[name].halves
    records, member, odds = halves(store, name, count)
    log_p = -np.logaddexp(0, -odds)
    margins = np.stack([r.arrays["train.margin"] for r in records])
    gain, memory = (information_gain(log_p, member), memorisation(correct_from(margins), member))
    answers = answers_of(store, name, count)
    parts = {
        f"gain {place}": information_gain(log_p[rows], member[rows]).value
        for place, rows in enumerate((slice(0, None, 2), slice(1, None, 2)))
    }
    return {
        "gain": gain.value,
        "gain error": gain.standard_error,
        "memorisation": memory.value,
        "memorisation error": memory.standard_error,
        "right without": memory.without_it,
        "answer gain": answer_gain(answers, member),
        "answer floor": answer_floor(answers, member),
        **parts,
    }


def answers_of(store: str, name: str, count: int) -> np.ndarray:
    """(models, records, classes): probabilities, from one pass of each model on halves."""
    cell = half(name, 0)
    train, _ = parts_of(cell.settings, Path(store) / "shared")
    found = []
    for number in range(count):
        cell = half(name, number)
        record = read(store, cell)
        model = model_of(cell.settings, record.folder)
        found.append(evaluate(model, train).probabilities.astype(np.float32))
    return np.stack(found)


def removals(store: str, name: str, made: dict[str, list[int]]) -> dict[str, Any]:
    """What removing each group did: to its own records, to all that stay, and to unseen ones."""
    setting, parts = SETTINGS[name], ("own", "staying", "unseen")
    them = [read(store, whole(name, number)).arrays for number in range(setting.whole)]
    found = {}
    for key, rows in made.items():
        cells = [without(name, rows, number) for number in range(setting.again)]
        both = them, [read(store, cell).arrays for cell in cells]

        def change(part: str, what: str, both: Any = both, rows: list[int] = rows) -> Any:
            return _as_json(removal(*(_values(models, part, what, rows) for models in both)))

        found[key] = {
            "ids": [cell.id for cell in cells],
            "records": len(rows),
            "accuracy": {part: [_accuracy(m, part, rows) for m in both] for part in parts},
            **{part: {what: change(part, what) for what in ("p", "log_p")} for part in parts},
        }
    return found


def _values(
    models: list[dict[str, np.ndarray]], part: str, what: str, rows: list[int]
) -> np.ndarray:
    """(models, records) of one quantity on the group, on what is retained, or on unseen records."""
    kind, chosen = _chosen(models, part, rows)
    odds = np.stack([m[f"{kind}.log_odds"][chosen].astype(np.float64) for m in models])
    return expit(odds) if what == "p" else -np.logaddexp(0, -odds)


def _chosen(models: list[dict[str, np.ndarray]], part: str, rows: list[int]) -> tuple[str, Any]:
    """Train or test, and which of its records."""
    if part == "unseen":
        return "test", slice(None)
    return "train", np.isin(np.arange(len(models[0]["train.y"])), rows) == (part == "own")


def _accuracy(models: list[dict[str, np.ndarray]], part: str, rows: list[int]) -> float:
    kind, chosen = _chosen(models, part, rows)
    return float(np.mean([(m[f"{kind}.margin"][chosen] > 0).mean() for m in models]))


def _as_json(found: Removal) -> dict[str, float]:
    return {name: getattr(found, name) for name in ("difference", "noise", "most")}


def make_columns(store: str, name: str) -> None:
    """Measure the model on all records."""
    run([whole(name, 0)], store)
    model, train, _ = measured_model(store, name)
    found = {key: np.asarray(values, np.float32) for key, values in columns(model, train)}
    arrays: dict[str, Any] = {"y": train.y.numpy().astype(np.int16), **found}
    np.savez_compressed(RESULTS / f"information/{name}.npz", **arrays)


def make_groups(store: str, name: str) -> None:
    """Cut the groups and write their rows."""
    run([half(name, number) for number in range(SETTINGS[name].halves // 2)], store)
    made = groups(store, name, read_record(f"information/{name}.npz"))
    command = f"information STORE {name} groups"
    write_record(f"information/{name}_groups", command, {"groups": made}, indent=None)


def make_cells(store: str, name: str) -> None:
    """Train what is not there yet."""
    setting, made = SETTINGS[name], _groups(name)
    run([whole(name, number) for number in range(setting.whole)], store)
    again = range(setting.again)
    run([without(name, rows, number) for number in again for rows in made.values()], store)
    run([half(name, number) for number in range(setting.halves)], store)


def make_records(store: str, name: str) -> None:
    """Reduce the models to what the page is built from."""
    setting = SETTINGS[name]
    _, member, odds = halves(store, name, setting.halves)
    arrays: dict[str, Any] = {"member": member, "log_odds": odds.astype(np.float16)}
    arrays |= {key: values.astype(np.float32) for key, values in truths(store, name).items()}
    np.savez_compressed(RESULTS / f"information/{name}_halves.npz", **arrays)
    found = {
        "halves": [half(name, number).id for number in range(setting.halves)],
        "whole": [whole(name, number).id for number in range(setting.whole)],
        "removals": removals(store, name, _groups(name)),
    }
    write_record(f"information/{name}", f"information STORE {name} records", found, indent=None)


def _groups(name: str) -> dict[str, list[int]]:
    return read_record(f"information/{name}_groups")["groups"]


STEPS: dict[str, Callable[[str, str], None]] = {
    "columns": make_columns,
    "groups": make_groups,
    "cells": make_cells,
    "records": make_records,
}

if __name__ == "__main__":
    STEPS[sys.argv[3]](sys.argv[1], sys.argv[2])
