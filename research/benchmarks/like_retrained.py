"""Do entropy and accuracy profiles match retraining? The seed's claim, on every method's model.

    EFFACE_DATA=… python -m research.benchmarks.like_retrained STORE cells     # ten retrained models
    EFFACE_DATA=… python -m research.benchmarks.like_retrained STORE records   # research/results/like_retrained.json

The request, the base model and the methods' models are those of every_method.py (500 random records
of 10,000, quarter VGG11); its retrained models differ in their seed alone.
"""

import os
import sys
from typing import Any

import numpy as np
from scipy import stats

from efface.grid import Job, is_done, read, run
from efface.metrics.equivalence import compare_with_retrained, likeness
from efface.report import jsonable
from research import pages
from research.benchmarks.every_method import published, scored
from research.benchmarks.jit_requests import FIRST
from research.jobs import training
from research.pages import origin, percent, table
from research.reduce import rows_by
from research.tables import write_record

# seeds far from those of base models (0 …) and of their retrained models (100 …)
RETRAINED, FIRST_SEED = 10, 200
LEVEL = 0.05
PROCESSES = int(os.environ.get("PROCESSES", "0")) or None


def retrained(number: int) -> Job:
    """The request's model, retrained with a seed of its own."""
    how: dict[str, Any] = {"seed": FIRST_SEED + number, "keep_weights": True}
    excluded = scored("random").forget
    return training("cifar10-vgg-quarter", "cifar10", first=FIRST, excluded=excluded, **how)


QUANTITIES, PARTS = ("entropy", "log_odds", "margin"), ("forget", "retain", "holdout")


def values(margins: dict[str, np.ndarray], part: str, what: str) -> np.ndarray:
    """One quantity on forget, on retain, or on the half of the holdout that is the evidence's."""
    if part == "holdout":
        return margins[f"test.{what}"][margins["test.evidence"].astype(bool)].astype(np.float64)
    going = np.zeros(FIRST, bool)
    going[rows_by(scored("random").forget, margins["train.y"])] = True
    return margins[f"train.{what}"][going if part == "forget" else ~going].astype(np.float64)


def as_records(store: str) -> dict[str, Any]:
    """Each method's model against the retrained ones, and each retrained one against the others."""
    them = [read(store, retrained(number)) for number in range(RETRAINED)]
    found: dict[str, Any] = {"methods": {}, "retrained": []}
    for row in published("random"):
        if is_done(store, row.job.id) and (one := read(store, row.job)).statistics["finite"]:
            profiles = _all(one.arrays, [r.arrays for r in them])
            found["methods"][row.method] = {"id": one.folder.name, **profiles}
    for place, one in enumerate(them):
        profiles = _all(one.arrays, [r.arrays for r in them if r is not one])
        found["retrained"].append({"id": one.folder.name, "number": place, **profiles})
    return {"request": scored("random").name, **found}


def _all(ours: dict[str, np.ndarray], others: list[dict[str, np.ndarray]]) -> dict[str, Any]:
    """Every quantity on every part, and the accuracies, each with its own verdict."""
    found: dict[str, Any] = {}
    for part in PARTS:
        for what in QUANTITIES:
            mine = values(ours, part, what)
            them = np.stack([values(other, part, what) for other in others])
            found[f"{part}.{what}"] = {"mean": float(mine.mean()), **_judged(mine, them, part)}
        own, *rest = (float((values(one, part, "margin") > 0).mean()) for one in (ours, *others))
        found[f"{part}.accuracy"] = {"mean": own, "others": rest, "p": outside(own, rest)}
    return found


def outside(value: float, others: list[float]) -> float:
    """Two-sided p of one more value of those drawn like the others: Student's, for a prediction."""
    if not np.ptp(others):
        return float(value == others[0])
    error = np.std(others, ddof=1) * np.sqrt(1 + 1 / len(others))
    return float(2 * stats.t.sf(abs(value - np.mean(others)) / error, len(others) - 1))


KEPT = ("ks_mean", "floor", "percentile", "outlier_p", "rank_p", "difference", "margin", "tost_p")
FIELD = ("a12", "ks_p", "mann_whitney_p", "wilcoxon_p", "energy_p")


def _judged(mine: np.ndarray, them: np.ndarray, part: str) -> dict[str, Any]:
    """The verdict and what it rests on; on the forget records the tests of the field as well."""
    if part != "forget":
        compared, field = compare_with_retrained(mine, them), {}
    else:
        found = likeness(mine, them)
        compared, field = found.comparison, {name: jsonable(getattr(found, name)) for name in FIELD}
    kept = {name: jsonable(getattr(compared, name)) for name in KEPT}
    return {"like": compared.like_retrained, **kept, **field}


def page(record: dict[str, Any]) -> str:
    """Methods by their distance to the retrained models, and the seed's claim."""
    them, methods = record["retrained"], record["methods"]
    keys = [f"{part}.{what}" for part in PARTS for what in QUANTITIES]
    flagged = {key: sum(one[key]["like"] is False for one in them) for key in keys}
    counts = ", ".join(f"{key} {n}" for key, n in flagged.items() if n) or "none"
    alike = sum(one[key]["like"] is True for one in them for key in keys)
    order = sorted(methods, key=lambda name: methods[name]["forget.log_odds"]["ks_mean"])
    columns = ("entropy", "log-odds", "accuracy")
    head = " | ".join(["method", *(f"{part} {what}" for part in PARTS for what in columns)])
    claims = [
        (f"`{name}`", *(_of_part(methods[name], part) for part in PARTS))
        for name in ("baseline", "jit_reference", "jit_paper", "jit", "neighbourhood", "retrain")
        if name in methods
    ]
    return pages.page(
        "Do entropy and accuracy profiles match retraining?",
        f"{origin(record)}. {record['request']} random records of 10,000 CIFAR-10 images, quarter VGG11; "
        f"the models of [every method](every_method.md) as published, one each, against {len(them)} models retrained with seeds of their own. "
        "Each cell: Kolmogorov-Smirnov distance to the retrained models (mean), in brackets that between two of them, and the verdict: "
        "**like** (within their variability, and equivalent by TOST with it as margin), **unlike** (beyond it, and farther out than one "
        "retrained model in twenty), **open**. Accuracy in %, with p among the retrained ones. No p of two models decides: with "
        "500 to 9,500 records any two retrained models differ.",
        table(head, ((f"`{name}`", *_cells(methods[name])) for name in order)),
        f"Retrained models among the other {len(them) - 1}: called unlike in {sum(flagged.values())} of {len(keys) * len(them)} profiles "
        f"({counts}), like in {alike}.",
        "## The seed's claim",
        table(" | forget | retain | holdout", claims),
    )


def _of_part(found: dict[str, Any], part: str) -> str:
    entropy, accuracy = found[f"{part}.entropy"], found[f"{part}.accuracy"]
    within = "inconclusive" if accuracy["p"] > LEVEL else "**unlike**"
    return f"entropy {_word(entropy['like'])}, accuracy {within}"


def _word(like: bool | None) -> str:
    return {True: "like", False: "**unlike**", None: "open"}[like]


def _cells(found: dict[str, Any]) -> list[str]:
    cells = []
    for part in PARTS:
        for what in ("entropy", "log_odds"):
            one = found[f"{part}.{what}"]
            cells.append(f"{one['ks_mean']:.3f} ({one['floor']:.3f}) {_word(one['like'])}")
        one = found[f"{part}.accuracy"]
        cells.append(f"{percent(one['mean'])}, p {one['p']:.2g}")
    return cells


def main(store: str, what: str) -> None:
    """Make the cells, their record, or the table."""
    if what == "cells":
        run([retrained(number) for number in range(RETRAINED)], store, processes=PROCESSES)
    else:
        command = "like_retrained STORE cells, records and table"
        write_record("like_retrained", command, as_records(store), indent=None)


if __name__ == "__main__":
    main(*sys.argv[1:])
