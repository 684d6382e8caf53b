"""Training and unlearning, 32 times over: what a per-record attacker sees of six methods.

    EFFACE_DATA=… python -m research.benchmarks.per_record STORE cells     # goes on where stopped
    EFFACE_DATA=… python -m research.benchmarks.per_record STORE records   # research/results/per_record.npz and .json

Each shadow run trains a model on its own random half of 8,000 images of CIFAR-10, then lets those of
400 records that it was trained on are forgotten by each method. So of each record about half of the shadow runs
trained on it and let it go, and half never saw it while the same method ran on others.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from efface.grid import Job, read, run
from efface.metrics.lira import ruli_efficacy, ruli_privacy, u_lira
from research import pages
from research.jobs import seen_by, training, unlearning
from research.pages import interval, origin, percent, table
from research.reduce import columns_of, statistics_of
from research.tables import RESULTS, write_record

FIRST, TARGETS, SHADOW_RUNS = 8_000, 400, 32
ATTACKED: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in ("retrain", "finetune", "jit", "mu_mis", "scrub")}
}

PROCESSES = int(os.environ.get("PROCESSES", "0")) or None


def targets() -> list[int]:
    """The records that the attack is about, the same for all."""
    # 600, 601: streams apart from those of the requests
    rows = np.random.default_rng(600).choice(FIRST, TARGETS, replace=False)
    return sorted(rows.tolist())


def trained_on(shadow_run: int) -> list[int]:
    """A random half of all records."""
    rows = np.random.default_rng([601, shadow_run]).choice(FIRST, FIRST // 2, replace=False)
    return sorted(rows.tolist())


def base(shadow_run: int) -> Job:
    """The model before anything goes."""
    rows = {"rows": trained_on(shadow_run)}
    how: dict[str, Any] = {"trained_on": rows, "seed": 600 + shadow_run, "keep_weights": True}
    return training("cifar10-vgg-quarter", "cifar10", first=FIRST, **how)


def after(shadow_run: int, name: str) -> Job:
    """The model after the targets that it was trained on were unlearned, without a guard."""
    method, settings = ATTACKED[name]
    rows = sorted(set(targets()) & set(trained_on(shadow_run)))
    how: dict[str, Any] = {**seen_by(method)}
    how |= {"forget": {"rows": rows}, "guard": False, "seed": 700 + shadow_run, **settings}
    return unlearning(base(shadow_run), method, **how)


def chosen() -> np.ndarray:
    """(shadow runs, targets): where a target was trained on and went."""
    return np.array(
        [np.isin(targets(), trained_on(shadow_run)) for shadow_run in range(SHADOW_RUNS)]
    )


def cells_of(name: str) -> list[Job]:
    """The models that are attacked: those before anything went, or what a method made of them."""
    if name == "baseline":
        return [base(shadow_run) for shadow_run in range(SHADOW_RUNS)]
    return [after(shadow_run, name) for shadow_run in range(SHADOW_RUNS)]


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
    return {"records": FIRST, "targets": targets(), "methods": methods}, arrays


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
    models = about["methods"][name]["columns"]
    means = {
        key: float(np.mean([c[key] for c in models])) for key in ("retain", "forget", "attack")
    }
    attacks = {"u_lira": found, "privacy": ruli.attack, "efficacy": efficacy.attack}
    return {"name": name, **attacks, **means}


def page(about: dict[str, Any], arrays: dict[str, np.ndarray]) -> str:
    """The table, and how the two attacks rank the methods."""
    rows = [line(name, about, arrays) for name in about["methods"]]
    target = next(row["attack"] for row in rows if row["name"] == "retrain")
    orders: dict[str, Callable[[dict[str, Any]], float]] = {
        "U-LiRA: AUC nearest to 1/2": lambda row: abs(row["u_lira"].attack.auc - 0.5),
        "the paper's attack, as published: lower is better": lambda row: row["attack"],
        "the paper's attack, nearest to retrained": lambda row: abs(row["attack"] - target),
    }
    ranks = [
        (order, ", ".join(f"`{row['name']}`" for row in sorted(rows, key=by)))
        for order, by in orders.items()
    ]
    weakest, runs = rows[0]["u_lira"].attack, len(arrays["unlearned"])
    head = "method | U-LiRA AUC | TPR at 1 % FPR | TPR at 0.1 % FPR | RULI privacy | RULI efficacy | paper's attack | D_r / D_f"
    return pages.page(
        "What an attacker per record sees",
        f"{origin(about)}. {runs} shadow runs: a quarter VGG11 trained on a random half of "
        f"{about['records']:,} CIFAR-10 images, then those of {len(about['targets'])} targets that it was trained on (about half) go. "
        "U-LiRA and RULI judge the log-odds of a target in one shadow run by Gaussians (densities) of the same target in the "
        "other shadow runs, unlearned against never seen: AUC (chance and target 0.5) with 95 % interval, which counts both targets and "
        "shadow runs; TPR at 1 % and at 0.1 % FPR (target: the same). Efficacy: unlearned against retrained "
        f"models. The smallest AUC that would have been detected 4 times in 5: {weakest.smallest_auc:.3f} (`{rows[0]['name']}`). "
        "The paper's attack: share of forget records that a threshold on the entropy takes for members, mean of all models; "
        "its target is the retrained models' value. D_r on unseen records, D_f on the forget records. All with their defaults, `jit` without a "
        "guard; with its defaults `mu_mis` takes more from a model on random records than it may (every_method.md).",
        table(head, map(_row, rows)),
        "## How they rank",
        table("by | first to last", ranks),
    )


def _row(row: dict[str, Any]) -> list[str]:
    found = row["u_lira"].attack
    aucs = (_auc(row[name]) for name in ("privacy", "efficacy"))
    shares = percent(row["attack"]), f"{percent(row['retain'])} / {percent(row['forget'])}"
    return [f"`{row['name']}`", _auc(found), *map(_rate, found.rates), *aucs, *shares]


def _auc(found: Any) -> str:
    return interval(found.auc, *found.auc_interval)


def _rate(rate: Any) -> str:
    if rate.tpr is None:
        return "not resolvable"
    found = interval(*(100 * value for value in (rate.tpr, *rate.interval)), form=".1f")
    return found.replace(" (", " % (")


def main(store: str, what: str) -> None:
    """Make the cells, their records, or the table."""
    if what == "cells":
        # a grid that is stopped then holds complete shadow runs, which can be scored
        for shadow_run in range(SHADOW_RUNS):  # so that a part of the grid is whole shadow runs
            run([after(shadow_run, name) for name in ATTACKED], store, processes=PROCESSES)
    else:
        about, arrays = as_records(store)
        np.savez_compressed(RESULTS / "per_record.npz", **arrays)
        command = "per_record STORE cells, records and table"
        write_record("per_record", command, about, indent=None)


if __name__ == "__main__":
    main(*sys.argv[1:])
