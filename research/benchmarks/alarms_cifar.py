"""How often the evidence flags a truly retrained model of photographs: each of ten against the other nine.

    EFFACE_DATA=… python -m research.benchmarks.alarms_cifar STORE    # research/results/alarms_cifar.json, six minutes

The request and the retrained models are those of like_retrained.py; each is the new model once, the
others are what tier T3 has. So ten are counted that are not independent. 3,000 of the holdout's half
and 1,500 retain records are used. The old model is judged too, as itself.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from efface.grid import Job
from efface.report import collect, significant_rows
from efface.types import Split, split_holdout
from research.benchmarks.every_method import scored
from research.benchmarks.like_retrained import RETRAINED, retrained
from research.reduce import rows_by
from research.tables import write_record
from research.trained import members, model_of, parts_of

TIERS = ("T0", "T1", "T2", "T3")
# not all records: more of them would only take longer
HOLDOUT, RETAIN = 3_000, 1_500


def model(store: str, cell: Job) -> torch.nn.Module:
    """The model of a cell that kept its weights."""
    return model_of(cell.settings, Path(store, cell.id)).eval()


def split_of(store: str) -> Split:
    """The request's records, and the half of the holdout that is the evidence's."""
    request = scored("random")
    records, test = parts_of(request.base.settings, Path(store))
    y = records.y.numpy()
    stays = members(request.base.settings, y)
    going = rows_by(request.forget, y)
    stays[going] = False
    whole = Split(records.take(going), test, records.take(np.flatnonzero(stays)[:RETAIN].tolist()))
    ours = split_holdout(whole, seed=0)[1]
    assert ours.holdout is not None
    return replace(ours, holdout=ours.holdout.take(range(HOLDOUT)))


def main(store: str) -> None:
    """Collect, and write which rows were flagged at which tier."""
    torch.set_num_threads(1)
    split, old = split_of(store), model(store, scored("random").base)
    them = [model(store, retrained(number)) for number in range(RETRAINED)]
    new = {"the old model": old} | {f"retrained {k}": them[k] for k in range(RETRAINED)}
    found: list[dict[str, Any]] = []
    for name, student in new.items():
        evidence = collect(
            old, student, split, retrained=[one for one in them if one is not student], seed=7
        )
        flagged = {
            tier: [row.key for row in significant_rows(evidence.rows, tier=tier)] for tier in TIERS
        }
        least = sorted((row.p, row.key) for row in evidence.rows if row.p is not None)[:3]
        found.append({"model": name, "alarms": flagged, "least": least})
        print(json.dumps(found[-1]), flush=True)
    ids = [retrained(number).id for number in range(RETRAINED)]
    write_record("alarms_cifar", "alarms_cifar STORE", {"ids": ids, "models": found})


if __name__ == "__main__":
    main(*sys.argv[1:])
