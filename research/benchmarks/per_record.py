"""The whole pipeline, 32 times over: what a per-record attacker sees of six methods.

    EFFACE_DATA=… python -m research.benchmarks.per_record STORE cells     # goes on where stopped
    EFFACE_DATA=… python -m research.benchmarks.per_record STORE records   # research/results/per_record.npz and .json

Each pipeline trains a model on its own random half of 8,000 images of CIFAR-10, then lets those of
400 records go that it was trained on, by each method. So of each record about half of the pipelines
trained on it and let it go, and half never saw it while the same method ran on others.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from efface.grid import Job, read, run
from efface.methods import METHODS
from efface.metrics.lira import ruli_efficacy, ruli_privacy, u_lira
from research.jobs import training, unlearning
from research.reduce import columns_of, statistics_of
from research.tables import RESULTS, write_record

FIRST, TARGETS, PIPELINES = 8_000, 400, 32
ATTACKED: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in ("retrain", "finetune", "jit", "mu_mis", "scrub")}
}

PROCESSES = int(os.environ.get("PROCESSES", "0")) or None


def targets() -> list[int]:
    """The records that the attack is about, the same for all."""
    rows = np.random.default_rng(600).choice(FIRST, TARGETS, replace=False)
    return sorted(rows.tolist())


def trained_on(pipeline: int) -> list[int]:
    """A random half of all records."""
    rows = np.random.default_rng([601, pipeline]).choice(FIRST, FIRST // 2, replace=False)
    return sorted(rows.tolist())


def base(pipeline: int) -> Job:
    """The model before anything goes."""
    return training(
        "cifar10-vgg-quarter",
        "cifar10",
        first=FIRST,
        trained_on={"rows": trained_on(pipeline)},
        seed=600 + pipeline,
        keep_weights=True,
    )


def after(pipeline: int, name: str) -> Job:
    """The model after the targets that it was trained on went; no guard stands over it."""
    method, settings = ATTACKED[name]
    seen = METHODS[method].reads
    return unlearning(
        base(pipeline),
        method,
        forget={"rows": sorted(set(targets()) & set(trained_on(pipeline)))},
        holdout="holdout" in seen,
        retain="retain" in seen,
        guard=False,
        seed=700 + pipeline,
        **settings,
    )


def chosen() -> np.ndarray:
    """(pipelines, targets): where a target was trained on and went."""
    return np.array([np.isin(targets(), trained_on(pipeline)) for pipeline in range(PIPELINES)])


def cells_of(name: str) -> list[Job]:
    """The models that are attacked: those before anything went, or what a method made of them."""
    if name == "baseline":
        return [base(pipeline) for pipeline in range(PIPELINES)]
    return [after(pipeline, name) for pipeline in range(PIPELINES)]


def as_records(store: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the table is built from: log-odds of the targets, and the paper's columns of each model."""
    arrays, methods = {"unlearned": chosen()}, {}
    for name in ("baseline", *ATTACKED):
        records = [read(store, cell) for cell in cells_of(name)]
        arrays[name] = np.array([r.arrays["train.log_odds"][targets()] for r in records])
        methods[name] = {
            "settings": ATTACKED[name][1] if name in ATTACKED else {},
            "ids": [cell.id for cell in cells_of(name)],
            "columns": [_columns(name, place, record) for place, record in enumerate(records)],
        }
    about = {"records": FIRST, "pipelines": PIPELINES, "targets": targets(), "methods": methods}
    return about, arrays


def _columns(name: str, place: int, record: Any) -> dict[str, float]:
    """D_r, D_f and attack; of a base model for the records that will go, not for none."""
    if name != "baseline":
        return columns_of(record.statistics, forget_classes=False)
    rows = sorted(set(targets()) & set(trained_on(place)))
    return columns_of(statistics_of(record.arrays, forget=rows), forget_classes=False)


def line(name: str, about: dict[str, Any], arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """All numbers of one method."""
    odds, member = arrays[name].astype(np.float64), arrays["unlearned"]
    found, ruli = u_lira(odds, member), ruli_privacy(odds, member)
    efficacy = ruli_efficacy(odds, member, arrays["retrain"].astype(np.float64), out=member)
    column = {
        key: [c[key] for c in about["methods"][name]["columns"]]
        for key in ("retain", "forget", "attack")
    }
    return {"name": name, "u_lira": found, "privacy": ruli.attack, "efficacy": efficacy.attack,
            **{key: float(np.mean(values)) for key, values in column.items()}}  # fmt: skip


def page(about: dict[str, Any], arrays: dict[str, np.ndarray]) -> str:
    """The table, and how the two attacks rank the methods."""
    rows = [line(name, about, arrays) for name in about["methods"]]
    target = next(row["attack"] for row in rows if row["name"] == "retrain")
    orders = {
        "U-LiRA: area nearest to 1/2": lambda row: abs(row["u_lira"].attack.auc - 0.5),
        "the paper's attack, as published: lower is better": lambda row: row["attack"],
        "the paper's attack, nearest to retrained": lambda row: abs(row["attack"] - target),
    }
    least, chance = rows[0]["u_lira"].attack, "chance and target 0.5"
    return "\n".join(
        [
            "# What an attacker per record sees",
            "",
            (
                f"`{about['command']}`, {about['date']}. {about['pipelines']} pipelines: a quarter VGG11 trained on a random half of "
                f"{about['records']:,} CIFAR-10 images, then those of {len(about['targets'])} targets that it was trained on (about half) go. "
                "U-LiRA and RULI judge the log-odds of a target in one pipeline by Gaussians (densities) of the same target in the "
                f"other pipelines, unlearned against never seen: area ({chance}) with 95 % interval, which counts both targets and "
                "pipelines; share found at 1 % and at 0.1 % false alarms (target: the same). Efficacy: unlearned against retrained "
                f"models. The smallest area that would have been seen 4 times in 5: {least.smallest_auc:.3f} (`{rows[0]['name']}`). "
                "The paper's attack: share of forget records that a threshold on the entropy takes for members, mean of all models; "
                "its target is the retrained models' value. D_r on unseen records, D_f on the forget records. All as they come, `jit` without a "
                "guard; as it comes `mu_mis` takes more from a model on random records than it may (every_method.md)."
            ),
            "",
            "| method | U-LiRA area | at 1 % | at 0.1 % | RULI privacy | RULI efficacy | paper's attack | D_r / D_f |",
            "|---|---|---|---|---|---|---|---|",
            *(_row(row) for row in rows),
            "",
            "## How they rank",
            "",
            "| by | first to last |",
            "|---|---|",
            *(
                f"| {said} | {', '.join(f'`{name}`' for name in _ranked(rows, by))} |"
                for said, by in orders.items()
            ),
            "",
        ]
    )


def _ranked(rows: list[dict[str, Any]], by: Callable[[dict[str, Any]], float]) -> list[str]:
    return [row["name"] for row in sorted(rows, key=by)]


def _row(row: dict[str, Any]) -> str:
    found = row["u_lira"].attack
    rates = [_rate(rate) for rate in found.rates]
    return (
        f"| `{row['name']}` | {_area(found)} | {' | '.join(rates)} | {_area(row['privacy'])} | {_area(row['efficacy'])} "
        f"| {100 * row['attack']:.1f} | {100 * row['retain']:.1f} / {100 * row['forget']:.1f} |"
    )


def _area(found: Any) -> str:
    low, high = found.auc_interval
    return f"{found.auc:.3f} ({low:.3f} to {high:.3f})"


def _rate(rate: Any) -> str:
    if rate.tpr is None:
        return "not resolvable"
    low, high = rate.interval
    return f"{100 * rate.tpr:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def main(store: str, what: str) -> None:
    """Make the cells, their records, or the table."""
    if what == "cells":
        for pipeline in range(PIPELINES):  # so that a part of the grid is whole pipelines
            run([after(pipeline, name) for name in ATTACKED], store, processes=PROCESSES)
    else:
        about, arrays = as_records(store)
        np.savez_compressed(RESULTS / "per_record.npz", **arrays)
        command = "per_record STORE cells, records and table"
        write_record("per_record", command, about, indent=None)


if __name__ == "__main__":
    main(*sys.argv[1:])
