"""The default on other models: what a row of it is, and what its page says is missed."""

import numpy as np
import torch

from efface.nets import conv_quarter
from efface.types import Records
from research.benchmarks.transfer import CASES, KNOWN, OURS, page
from research.benchmarks.transfer_cell import _floor, measured, mislabelled
from research.reduce import arrays_of


def arrays(net, digits, going=()):
    member = ~np.isin(np.arange(300), going)
    return arrays_of(net, digits.take(range(300)), digits.take(range(300, 400)), member=member)


def test_what_equals_a_retrained_model_has_no_gap_and_nothing_done_changes_nothing(
    digits, tiny_net
):
    going, blank = list(range(25)), conv_quarter().eval()
    base, other = arrays(tiny_net, digits), arrays(blank, digits, going)
    row = measured(base, other, [other], going, ())
    assert (row["gap"], row["ks"]) == (0, 0)
    assert row["unseen"][0] != row["unseen"][1]
    assert row["ks_unseen"] > 0
    nothing = measured(base, base, [other], going, ())
    assert nothing["gap"] > 0
    assert nothing["ks_unseen"] == 0
    assert _floor([other, other], going, ())["floor"] == 0
    assert _floor([other, base], going, ())["floor"] == nothing["gap"]


def test_wrong_labels_are_wrong_and_the_others_as_they_were():
    records = Records(torch.zeros(50, 3), torch.arange(50) % 5)
    found, rows = mislabelled(records, 12, seed=3)
    assert (found.y != records.y).nonzero().flatten().tolist() == rows
    assert len(rows) == 12
    assert mislabelled(records, 12, seed=4)[1] != rows


def cell(gap):
    row = {
        "gap": gap,
        "retain": 1.0,
        "unseen": [0.9, 0.89],
        "ks": 0.1,
        "ks_unseen": 0.05,
        "seconds": 1.0,
    }
    found = {
        "family": CASES[0].family,
        "kind": "random",
        "seed": 0,
        "floor": 0.01,
        "ks_floor": 0.05,
        "ks_unseen_floor": 0.02,
    }
    return found | {
        "rows": {"nothing done": row, OURS: row, KNOWN: row | {"outcome": "not met", "gap": 0.2}}
    }


def test_the_page_says_which_rows_miss_the_goal_and_what_was_refused():
    text = page(
        {"command": "transfer STORE", "date": "2026-11-30", "cells": [cell(0.02), cell(0.022)]}
    )
    assert "1 of 2 rows" in text
    assert f"not made (model, request, seed): {CASES[0].family}, random, 1; " in text
    assert f"{CASES[0].family}, random, {KNOWN}: 19.0" in text
    assert "20.0 (20.0 to 20.0), 2 refused" in text
    assert f"| {OURS} | 2.1 (2.0 to 2.2) | 100.0 | -1.0 | 0.10 (0.05) | 0.05 (0.02) |" in text
