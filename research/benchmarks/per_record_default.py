"""What an attacker per record sees of the default, next to the simulated ceiling of the same runs.

    EFFACE_DATA=… python -m research.benchmarks.per_record_default STORE cells     # goes on where stopped
    EFFACE_DATA=… python -m research.benchmarks.per_record_default STORE records   # research/results/per_record_default.json and .npz

The shadow runs of per_record.py, whose committed ones were trained by an earlier version and are
others to the last digit: of these the untouched models, the retrained ones, and the default alone:
with a holdout, without (it then knows the accuracy), and with the retrained model as its reference;
under the guard, as a user calls it.
"""

import sys
from functools import partial
from typing import Any

import numpy as np
from scipy.stats import ks_2samp

from efface.grid import Job, read, run
from efface.metrics.lira import ruli_efficacy, ruli_privacy, u_lira
from research import pages
from research.benchmarks.ceilings import attacked, ceiling, measured, reference_models
from research.benchmarks.per_record import (
    FIRST,
    PROCESSES,
    SHADOW_RUNS,
    TARGETS,
    base,
    chosen,
    targets,
    trained_on,
)
from research.jobs import training, unlearning
from research.pages import interval, origin, percent, table
from research.reduce import right
from research.tables import RESULTS, write_record

# the accuracy of such a model on unseen data, as its model card has it
ACCURACY = 0.52
HOW: dict[str, dict[str, Any]] = {
    "neighbourhood": {"holdout": True},
    "neighbourhood, no holdout": {"expected_accuracy": ACCURACY},
    "neighbourhood, reference model": {"holdout": True},
}
NAMES = ("untouched", "retrained", *HOW)


def retrained(shadow_run: int) -> Job:
    """The model without any target, of another seed: what is aimed at, and the reference model."""
    rows = {"rows": sorted(set(trained_on(shadow_run)) - set(targets()))}
    how: dict[str, Any] = {"trained_on": rows, "seed": 800 + shadow_run, "keep_weights": True}
    return training("cifar10-vgg-quarter", "cifar10", first=FIRST, **how)


def after(shadow_run: int, name: str) -> Job:
    """The model after the targets that it was trained on went."""
    rows = sorted(set(targets()) & set(trained_on(shadow_run)))
    how: dict[str, Any] = {"forget": {"rows": rows}, "seed": 700 + shadow_run, **HOW[name]}
    if name.endswith("reference model"):
        how["reference"] = retrained(shadow_run)
    return unlearning(base(shadow_run), "neighbourhood", **how)


def cells(name: str) -> list[Job]:
    """Those of a row of the table."""
    made = {"untouched": base, "retrained": retrained}.get(name) or partial(after, name=name)
    return [made(shadow_run) for shadow_run in range(SHADOW_RUNS)]


def as_records(store: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Log-odds of the targets, and what each run cost: retain, unseen accuracy, KS of log-odds."""
    bases = [read(store, base(shadow_run)).arrays for shadow_run in range(SHADOW_RUNS)]
    arrays: dict[str, np.ndarray] = {"unlearned": chosen()}
    methods: dict[str, Any] = {}
    for name in NAMES:
        found = [read(store, cell) for cell in cells(name)]
        each = [one.arrays for one in found]
        arrays[name] = np.array([one["train.log_odds"][targets()] for one in each])
        methods[name] = {
            "runs": [cost(*pair) for pair in zip(bases, each, strict=True)],
            "outcomes": sorted({str(o.statistics["outcome"]) for o in found if name in HOW}),
        }
    return {"records": FIRST, "targets": TARGETS, "accuracy": ACCURACY, "methods": methods}, arrays


def cost(before: Any, after: Any) -> dict[str, float]:
    """Accuracies on retained and unseen records, the change of the latter, KS of their log-odds."""
    stays, half = after["train.member"].astype(bool), after["test.evidence"].astype(bool)
    stays[targets()] = False
    unseen = [float(right(one, "test")[half].mean()) for one in (before, after)]
    ks = ks_2samp(*(one["test.log_odds"][half] for one in (before, after))).statistic
    return {
        "retain": float(right(after, "train")[stays].mean()),
        "unseen": unseen[1],
        "change": unseen[1] - unseen[0],
        "ks": float(ks),
    }


def page(about: dict[str, Any], arrays: dict[str, np.ndarray]) -> str:
    """The table: the attack on each, and the ceilings of the untouched runs."""
    odds, member = arrays["untouched"].astype(np.float64), arrays["unlearned"].astype(bool)
    noise = np.random.default_rng(1).standard_normal(odds.shape)
    scores = {"nothing": noise, "own log-odds": odds}
    scores["1 reference model"] = reference_models(odds, member, 1)
    best = ((name, *attacked(ceiling(odds, member, one))) for name, one in scores.items())
    head = "method | U-LiRA AUC | TPR at 1 % FPR | RULI privacy | RULI efficacy | retain, % | unseen accuracy, change | KS of unseen log-odds"
    return pages.page(
        "What an attacker per record sees of the default",
        f"{origin(about)}. {len(odds)} shadow runs: a quarter VGG11 trained on a random half of {about['records']:,} CIFAR-10 images, then those of "
        f"{about['targets']} targets that it was trained on (about half) go, by `efface.forget` as a user calls it, under the guard; without a "
        f"holdout it is told an accuracy of {percent(about['accuracy'])} %. The reference model is the retrained one: the same images but the targets, from fresh weights. AUC: chance and reference 0.5, 95 % interval over targets and shadow runs. "
        "Utility: mean over runs, against the untouched model on the half of the test set that the method does not see.",
        table(head, (row(name, about, arrays, member) for name in about["methods"])),
        "## The best use of what is known, simulated on these untouched runs ([how](ceilings.md))",
        table("known of each forget record | AUC | TPR at 1 % FPR", best),
    )


def row(name: str, about: dict[str, Any], arrays: dict[str, np.ndarray], member: Any) -> list[str]:
    """A method's attack and utility."""
    odds, runs = arrays[name].astype(np.float64), about["methods"][name]["runs"]
    ruli = [ruli_privacy(odds, member).attack]
    if name != "retrained":
        theirs = arrays["retrained"].astype(np.float64)
        ruli.append(ruli_efficacy(odds, member, theirs, out=member).attack)
    mean = {key: float(np.mean([one[key] for one in runs])) for key in runs[0]}
    return [
        f"`{name}`" if name in HOW else name,
        *attacked(measured(u_lira(odds, member))),
        *[interval(one.auc, *one.auc_interval) for one in ruli],
        *["–"] * (2 - len(ruli)),
        percent(mean["retain"]),
        f"{100 * mean['change']:+.2f}",
        f"{mean['ks']:.3f}",
    ]


def main(store: str, what: str) -> None:
    """Make the cells, whole shadow runs at a time, or their record."""
    if what == "cells":
        for name in NAMES:
            run(cells(name), store, processes=PROCESSES)
        return
    about, arrays = as_records(store)
    np.savez_compressed(RESULTS / "per_record_default.npz", **arrays)  # type: ignore[arg-type]
    write_record(
        "per_record_default", "per_record_default STORE cells and records", about, indent=None
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
