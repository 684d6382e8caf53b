"""The default next to retraining: parts swapped one by one, and a page that says what came."""

import torch

from efface.methods.neighbourhood import neighbourhood
from efface.types import Split
from research.benchmarks.goals import KINDS, OURS, page, peers
from research.benchmarks.goals_parts import reranked, swapped


def request(digits):
    """25 of some digits go, 60 are the holdout."""
    return Split(digits.take(range(25)), holdout=digits.take(range(300, 360)))


def weights(model):
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


def test_as_it_stands_the_form_with_parts_is_the_method_and_each_part_changes_it(digits, tiny_net):
    net, split = tiny_net, request(digits)
    ours = weights(neighbourhood(net, split))
    assert torch.equal(weights(swapped(net, split)), ours)
    parts = [{"optimizer": "sgd"}, {"target": "own"}, {"target": "median"}, {"score": "own"}]
    parts += [{"anchors": "perspectives"}, {"anchors": "none"}, {"longer": 2}]
    found = [weights(swapped(net, split, **part)) for part in parts]
    assert all((one - other).abs().max() > 1e-6 for one in found for other in [ours])


def test_ranked_again_each_class_keeps_its_values_in_the_order_of_the_score():
    values, score = torch.tensor([1.0, 2, 3, 4]), torch.tensor([9.0, 5, 1, 2])
    found = reranked(values, score, torch.tensor([0, 0, 1, 1]))
    assert found.tolist() == [2, 1, 3, 4]


def test_peers_see_nothing_that_stays_but_fine_tuning():
    assert {"jit", "delete", "mu_mis"} < {*peers("random")}
    assert not {"scrub", "ssd", OURS, "emmn", "gkt"} & {*peers("random")}
    assert "emmn" in peers("class")


def cell(kind, variant, **facts):
    ks = {"label": 0.1, "entropy": 0.2, "unseen": 0.05}
    passes = {"forward": 36.0, "backward": 12.0, "guard": 4.0}
    found = {
        "kind": kind,
        "variant": variant,
        "turn": 0,
        "gap": 0.021,
        "floor": 0.01,
        "untouched": 0.3,
        "retain": 0.99,
    }
    found |= {"unseen": [0.6, 0.59], "ks": ks, "ks_retrained": ks, "passes": passes, "seconds": 7.0}
    return {**found, "outcome": "not judged", **facts}


def test_the_page_says_gaps_floors_costs_and_what_was_refused():
    lost = cell("random", "`mislabel`", gap=None, ks=dict.fromkeys(("label", "entropy", "unseen")))
    cells = [cell("random", OURS), cell("random", OURS, gap=0.041), lost]
    cells += [cell("class", OURS, outcome="not met")]
    text = page({"command": "goals STORE cells and records", "date": "2026-11-30", "cells": cells})
    assert "| neighbourhood | 2 | 3.1 (2.1 to 4.1) | 99.0 | -1.0 | 0.10 (0.10 to 0.10) |" in text
    assert "| 36, 12, 4 | 7.0 |" in text
    assert "gap 1.0 (1.0 to 1.0)" in text
    # 1.1 and 3.1 above the floor: half of the interval is 12.7 standard errors of two values
    assert "Ours above the floor: 2.1 points, 95 % by Student's t -10.6 to 14.8." in text
    assert "| `mislabel` | 1 | not finite |" in text
    assert "| 1, 1 refused |" in text
    assert [kind for kind in KINDS if f"## {kind.capitalize()}" in text] == ["random", "class"]


def test_rows_of_every_request_stand_apart_from_those_of_first_requests_alone():
    first = [cell("class", OURS, gap=0.01), cell("class", "`jit`"), cell("class", "`delete`")]
    later = [cell("class", OURS, gap=0.03, turn=1), cell("class", "`delete`", turn=2)]
    text = page({"command": "goals", "date": "2026-11-30", "cells": first + later})
    every, alone = text.split("## Class: parts, and methods of others")
    assert "| neighbourhood | 2 | 2.0 (1.0 to 3.0) |" in every
    assert "| `delete` | 2 |" in every
    assert "`jit`" not in every
    assert "| neighbourhood | 1 | 1.0 (1.0 to 1.0) |" in alone
    assert "| `jit` | 1 |" in alone
