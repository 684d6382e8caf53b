"""Attacks on the default: what they measure, and when ours is called worse than others."""

import numpy as np

from efface.nets import conv_quarter
from efface.types import Records
from research.benchmarks.depth import OURS, RETRAINED, collapsed, page, verdict
from research.benchmarks.depth_attacks import VIEWS, relearned, seen, viewed
from research.tables import read_record

FIRST, SECOND = RETRAINED


def told(ours, jit, delete):
    values = {FIRST: 0.60, SECOND: 0.64, OURS: ours, "`jit`": jit, "`delete`": delete}
    return verdict(values, ["`jit`", "`delete`"])


def test_ours_is_worse_when_it_lies_further_from_retraining_than_the_best_and_than_the_seed():
    assert told(0.70, 0.9, 0.2) == ("no worse", "`jit`")
    assert told(0.50, 0.65, 0.2) == ("**worse**", "`jit`")
    assert told(0.59, 0.62, 0.2) == ("no worse", "`jit`")  # within what two retrained are apart


def test_a_method_that_lost_more_than_ten_points_is_no_peer():
    models = {
        name: {"unseen_accuracy": x}
        for name, x in {"nothing done": 0.6, "a": 0.51, "b": 0.49}.items()
    }
    assert (collapsed(models, "a"), collapsed(models, "b")) == (False, True)


def test_each_view_is_another_and_a_draw_of_it_too(digits):
    some = Records(digits.x[:6], digits.y[:6])
    plain, mirrored, *drawn = (viewed(some, view, 0).x for view in VIEWS)
    assert plain.equal(some.x)
    assert mirrored.flip(-1).equal(some.x)
    for view, x in zip(VIEWS[2:], drawn, strict=True):
        assert not x.equal(some.x)
        assert not x.equal(viewed(some, view, 1).x)
    assert viewed(some, VIEWS[2], 1).x.equal(viewed(some, VIEWS[2], 1).x)


def test_relearning_reads_a_half_that_is_not_trained_on(digits, tiny_net):
    found = relearned(conv_quarter().eval(), digits.take(range(40)))
    assert len(found["at"]) == len(found["these"]) == len(found["other"])
    assert found["these"] != found["other"]
    assert [len(one) for one in seen(tiny_net, digits.take(range(4)), VIEWS[1])] == [4]


def test_the_page_names_what_fails():
    record = read_record("depth")
    for part in record["requests"]:
        for found in part["models"].values():
            found["dent"] = [0.5, 0.4, 0.6]
        part["models"][OURS]["dent"] = [0.9, 0.8, 1.0]
        text = page(record).split(f"## {part['kind'].capitalize()}")[1].split("| attack")[0]
        assert "own log-odds less those of views, AUC" in text
    assert np.isfinite(
        [v for part in record["requests"] for m in part["models"].values() for v in m["probe"]]
    ).all()
