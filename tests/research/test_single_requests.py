"""One record, one request after another, cost growth: what is counted, and what the pages say."""

import numpy as np
import pytest
import torch

from efface.metrics.evaluation import evaluate
from efface.types import Split
from research.benchmarks import cost_growth, in_a_row, one_record
from research.timed import timed_forget

ABOUT = {"command": "python -m research.benchmarks.x STORE", "date": "2026-11-30", "seed": 1}


def test_a_timed_request_is_that_of_a_user_with_its_passes_and_seconds(digits, tiny_net):
    split = Split(digits.take(range(4)), holdout=digits.take(range(200, 360)))
    new, facts = timed_forget(tiny_net, split)
    before, after = (evaluate(one, split.forget).logits for one in (tiny_net, new))
    assert not facts["refused"]
    assert abs(before - after).max() > 0
    assert 0 < facts["seconds"]["method"] < facts["seconds"]["request"]
    assert all(facts["passes"][name] > 0 for name in ("forward", "backward", "guard"))


def test_what_the_guard_refuses_is_the_given_model(digits, tiny_net):
    split = Split(digits.take(range(4)), holdout=digits.take(range(200, 360)))
    new, facts = timed_forget(tiny_net, split, settings={"learning_rate": 1e4})
    same = zip(tiny_net.state_dict().values(), new.state_dict().values(), strict=True)
    assert facts["refused"] == all(torch.equal(*pair) for pair in same)
    assert facts["refused"]


def test_places_of_models_that_never_saw_a_record_are_uniform_and_of_known_ones_not():
    draw = np.random.default_rng(1)
    unseen = draw.standard_normal((40, 16)) + 5 * draw.standard_normal((40, 1))
    found = one_record.left_out(unseen.tolist())
    assert found["ks"] < 0.2 < found["ks_high"] < 0.3
    assert 0.7 < found["inside"] < 0.9
    assert [one_record.place(v, [1.0, 2, 3]) for v in (0, 2, 9)] == [0.125, 0.5, 0.875]
    assert not one_record.inside(unseen[0].max() + 1, unseen[0].tolist())


def request(found, known, utility=0.0, *, refused=False):
    seconds, passes = {"method": 2.0, "request": 3.0}, dict.fromkeys(cost_growth.PASSES, 8.0)
    cell = {"known": known, "given": 9.0, "found": found, "unseen": [0.0, 1, 2, 3, 4, 5, 6]}
    cell |= {"utility": utility, "changed": 0.02, "refused": refused}
    return cell | {"seconds": seconds, "passes": passes}


def test_the_page_of_one_record_counts_what_lies_inside_and_what_was_refused():
    cells = [request(found, "holdout", 0.001) for found in (1.0, 3.0, 5.0)]
    cells += [request(9.0, "accuracy", -0.01, refused=True), request(9.0, "accuracy", 0.01)]
    rows = one_record.page({**ABOUT, "cells": cells}).splitlines()
    assert any("holdout | 3, 0 | 100 % | 0.25 | 0.50 | +0.100 ± 0.000" in row for row in rows)
    assert any("accuracy known | 2, 1 | 0 % | 0.94 | 0.94 | +0.000 ± 1.000" in r for r in rows)
    assert any("given model | 3 | 0 % | 0.94" in row for row in rows)


@pytest.mark.parametrize("way", in_a_row.WAYS)
def test_a_row_goes_on_from_the_last_result_and_a_union_from_the_given_model(way, monkeypatch):
    seen = []

    def noted(model, split):
        seen.append((model, [int(one) for one in split.forget.ids]))
        return len(seen), {}

    monkeypatch.setattr(in_a_row, "timed_forget", noted)
    monkeypatch.setattr(in_a_row, "measured", lambda *_: {})
    records = in_a_row.Records(torch.zeros(100, 1), torch.zeros(100).long())
    made = in_a_row.sequence(0, {"forget": records, "test": records}, way)
    counts = in_a_row.WAYS[way][0]
    assert [row["records"] for row in made] == [*counts]
    if way == "union":
        assert seen == [(0, [*range(count)]) for count in counts]
    else:
        starts = [0, *counts[:-1]]
        parts = [[*range(a, b)] for a, b in zip(starts, counts, strict=True)]
        assert seen == [*enumerate(parts)]


def test_the_page_of_a_row_says_what_is_lost_and_refused_so_far():
    start = {"unseen": 0.6, "retain": 1.0, "forget": 1.0, "log_odds": 9.0, "ks": 0.9}
    start["unseen_log_odds"] = 2.0
    row = {**start, "records": 1, "refused": True, "seconds": {"request": 3.0}}
    made = [row, {**row, "records": 2, "refused": False, "unseen": 0.59, "ks": 0.25}]
    record = {**ABOUT, "given": start, "chance": {"1": 0.5, "2": 0.4}}
    text = in_a_row.page({**record, "sequences": {"last result, one each": made}})
    assert "| 2 | 59.0 (-1.00) | 100.0 | 100 | 9.0 (2.0) | 0.25 (0.40) | 3.0 | 1 |" in text


def test_the_page_of_cost_growth_divides_by_the_records():
    passes = {"forward": 320.0, "backward": 160, "guard": 40}
    row = {"records": 10, "processes": 1, "passes": passes}
    row |= {"seconds": {"method": 1.0, "request": 2.0}}
    row |= {"peak": 2**20, "declared": {"total_bytes": 3 * 2**20, "records_bytes": 2**20}}
    text = cost_growth.page({**ABOUT, "rows": [row]})
    assert "| 10 | 1 | 32.0 | 16.0 | 4.0 | 1.0 | 2.0 | 200.0 | 1 | 3 | 1 |" in text
