"""Effort where the information is: a part of the forget records is unlearned, all of them are judged.

    EFFACE_DATA=… python -m research.benchmarks.targeted STORE orders    # research/results/information/targeted_orders.json
    EFFACE_DATA=… python -m research.benchmarks.targeted STORE cells     # goes on where stopped
    EFFACE_DATA=… python -m research.benchmarks.targeted STORE records   # research/results/information/targeted.json

500 random records of 10,000 (jit_requests.py), three base models, a request of its own on each. The
method sees the records of the lowest zero-shot information content first, or as many random ones.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from efface.grid import Job, read, run
from efface.ranking.content import noise_stability
from research import pages
from research.benchmarks.jit_requests import Request, requests
from research.leave_out import least_informative_first
from research.pages import mean_range, origin, percent, table
from research.reduce import columns_of, rows_by, statistics_of
from research.tables import read_record, write_record
from research.trained import model_of, parts_of

SIGMA, COPIES = 0.12, 16
METHOD = "neighbourhood"
SHARES = (0.25, 0.5, 1.0)
ORDERS = ("information", "random")
ABOUT = {"sigma": SIGMA, "copies": COPIES, "method": METHOD}


def scored() -> list[Request]:
    """One request on each base model."""
    return [
        next(r for r in requests("random", seeds=(seed,)) if r.name.endswith(str(seed + 1)))
        for seed in (0, 1, 2)
    ]


def orders_of(store: str, request: Request) -> dict[str, list[int]]:
    """The forget rows in both orders, the first ones to be unlearned first."""
    record = read(store, request.base)
    train, _ = parts_of(request.base.settings, Path(store) / "shared")
    rows = np.array(rows_by(request.forget, train.y.numpy()))
    model = model_of(request.base.settings, record.folder)
    near = noise_stability(model, train.take(rows.tolist()), (SIGMA,), copies=COPIES)
    own = near.evaluation.labelled(near.evaluation.predicted)
    # ranked by the predicted label: a wrong label must not decide what is informative
    least = rows[least_informative_first(near.share[0], own.logit_margin)].tolist()
    shuffled = np.random.default_rng([803, request.seed]).permutation(rows).tolist()
    return dict(zip(ORDERS, (least[::-1], shuffled), strict=True))


def cell_of(request: Request, rows: list[int], share: float) -> Job:
    """The method on the first so many rows of an order."""
    chosen = sorted(rows[: round(share * len(rows))])
    return request.unlearned(METHOD, forget={"rows": chosen}, holdout=True, guard=False)


def _orders() -> list[dict[str, list[int]]]:
    return read_record("information/targeted_orders")["orders"]


def rows_of() -> list[tuple[Request, str, float, Job]]:
    """Every model of the page; all the records are one cell, whatever the order."""
    return [
        (request, order, share, cell_of(request, orders[order], share))
        for request, orders in zip(scored(), _orders(), strict=True)
        for share in reversed(SHARES)
        for order in ORDERS
        if share < 1 or order == ORDERS[0]
    ]


def columns(record: Any, rows: list[int]) -> dict[str, float]:
    """The paper's three, and the mean log-odds, of all forget records."""
    margins = record.arrays
    found = columns_of(statistics_of(margins, forget=rows), forget_classes=False)
    return {**found, "log_odds": float(margins["train.log_odds"][rows].astype(np.float64).mean())}


def as_records(store: str) -> dict[str, Any]:
    """What the page is built from."""
    found = []
    for request, order, share, cell in rows_of():
        record = read(store, cell)
        every = sorted(_orders()[request.seed][ORDERS[0]])
        facts = record.statistics
        found.append({
            "seed": request.seed, "order": order, "share": share, "id": cell.id,
            "columns": columns(record, every),
            "passes": facts["passes"], "seconds": facts["seconds"]["method"],
            "before": columns(read(store, request.base), every),
            "retrained": columns(read(store, request.retrained), every),
        })  # fmt: skip
    return {**ABOUT, "rows": found}


def gap(row: dict[str, Any]) -> float:
    """Mean distance to the retrained model over the paper's three columns, in points."""
    names = ("retain", "forget", "attack")
    return 100 * float(np.mean([abs(row["columns"][n] - row["retrained"][n]) for n in names]))


def page(record: dict[str, Any]) -> str:
    """One line an order and a share, means of three requests with their range."""
    rows, lines = record["rows"], []
    whole = {r["seed"]: sum(r["passes"].values()) for r in rows if r["share"] == 1}
    for what, label in (("before", "nothing"), ("retrained", "retrained")):
        firsts = [{**r, "columns": r[what]} for r in rows if r["share"] == 1]
        lines.append(_line(label, "", firsts, None))
    for share in SHARES:
        for order in ORDERS:
            some = [r for r in rows if r["share"] == share and r["order"] == order]
            if some:
                cost = np.mean([sum(r["passes"].values()) / whole[r["seed"]] for r in some])
                label = order if share < 1 else "all"
                lines.append(_line(f"{percent(share, 0)} %", label, some, float(cost)))
    about = (__doc__ or "").split("\n\n")[-1].strip().replace("\n", " ")
    return pages.page(
        "Effort where the information is",
        f"{origin(record)}. {about} "
        f"`{record['method']}` with its defaults; σ {record['sigma']}, {record['copies']} copies. All columns on all 500 forget records; the target is "
        "the retrained model's value. Mean of three base models, in brackets the minimum and the maximum. "
        "Passes are the method's own, forward and backward; ranking the 500 records takes 17 a record more (8,500), and a search for σ up to 19,000. "
        "The shares are set here; the command cuts where α is below 0.9.",
        table(
            "unlearned | first | gap to retrained | D_f | MIA | mean log-odds | D_r | passes, share of all",
            lines,
        ),
        "![gap against cost](targeted.svg)",
    )


def _line(share: str, order: str, rows: list[dict[str, Any]], cost: float | None) -> list[str]:
    cells = [share, order, mean_range([gap(r) for r in rows])]
    for name, scale in (("forget", 100), ("attack", 100), ("log_odds", 1), ("retain", 100)):
        cells.append(f"{np.mean([scale * r['columns'][name] for r in rows]):.1f}")
    return [*cells, "" if cost is None else f"{percent(cost, 0)} %"]


def figure(record: dict[str, Any]) -> Figure:
    """Gap against the share of records seen, and against cost; one line an order."""
    rows = record["rows"]
    whole = {r["seed"]: sum(r["passes"].values()) for r in rows if r["share"] == 1}
    drawn = Figure(figsize=(8.4, 3.4), layout="constrained")
    panels = drawn.subplots(1, 2, sharey=True)
    labels = ("records that the method sees, %", "passes, % of those for all 500 records")
    for axes, label in zip(panels, labels, strict=True):
        for order, mark, line in zip(ORDERS, "os", ("-", "--"), strict=True):
            points = []
            for share in SHARES:
                some = [
                    r for r in rows if r["share"] == share and (r["order"] == order or share == 1)
                ]
                cost = [100 * sum(r["passes"].values()) / whole[r["seed"]] for r in some]
                at = [100 * share] * len(some) if axes is panels[0] else cost
                axes.plot(at, [gap(r) for r in some], mark, color="0.6", markersize=4)
                points.append((np.mean(at), np.mean([gap(r) for r in some])))
            axes.plot(*np.array(points).T, line, marker=mark, color="0.1", label=f"{order} first")
        nothing = np.mean([gap({**r, "columns": r["before"]}) for r in rows if r["share"] == 1])
        axes.axhline(nothing, color="0.5", linewidth=0.8)
        axes.annotate("nothing done", (5, nothing), va="top", fontsize=8)
        axes.set(xlabel=label, ylim=(0, None), xlim=(0, 105))
    panels[0].set_ylabel("gap to retrained, points")
    panels[0].legend(frameon=False, title="n = 3 base models (grey), means", loc="lower left")
    return drawn


def main(store: str, what: str) -> None:
    """Make the orders, the cells, their records, or the page."""
    if what == "orders":
        found = {**ABOUT, "orders": [orders_of(store, request) for request in scored()]}
        write_record("information/targeted_orders", "targeted STORE orders", found, indent=None)
    elif what == "cells":
        run([cell for *_, cell in rows_of()], store)
    else:
        command = "targeted STORE cells and records"
        write_record("information/targeted", command, as_records(store), indent=None)


if __name__ == "__main__":
    main(*sys.argv[1:])
