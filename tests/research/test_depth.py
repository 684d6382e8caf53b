"""Attacks on the default: what they measure, and when ours is called worse than others."""

from efface.nets import conv_quarter
from efface.types import Records
from research.benchmarks.depth import NOTHING, OURS, RETRAINED, collapsed, figure, page, verdict
from research.benchmarks.depth_attacks import VIEWS, relearned, seen, viewed

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


def attacked(value):
    """What the job says of a model on which every attack finds the same."""
    both = {"accuracy": [value, 0.5], "log_odds": [value, 0.0]}
    found = {name: [value, value, value] for name in ("probe", "outputs", "dent")}
    found |= {"views": dict.fromkeys(VIEWS, both), "copies": {"int8": both, "pruned 50 %": both}}
    return found | {
        "unseen_accuracy": 0.6,
        "relearning": {"at": [0, 4], "these": [value, 1.0], "other": [value, value]},
    }


def test_the_page_names_what_fails_and_the_figure_shows_a_row_a_request():
    models = {FIRST: 0.6, SECOND: 0.62, NOTHING: 1.0, OURS: 0.7, "`jit`": 0.9}
    models = {name: attacked(value) for name, value in models.items()}
    models[OURS]["dent"] = [0.2, 0.1, 0.3]
    part = {"kind": "random", "request": "500", "base_seed": 51, "models": models}
    record = {"command": "depth STORE", "date": "2026-11-30", "requests": [part]}
    record["settings"] = {"rate": 1e-4, "epochs": 10, "batch": 64, "draws": 4}
    text = page(record)
    assert "in 18 of 19. Worse: own log-odds less those of views, AUC." in text
    assert "| int8: forget accuracy | 0.600 | 0.620 | 1.000 | 0.700 | 0.900 | no worse |" in text
    assert len(figure(record).axes) == 3
