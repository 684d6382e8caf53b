"""The bars of each class: what changed is drawn, whichever way, and what is not is counted."""

import copy
import re
from dataclasses import replace

import pytest
import torch

from efface.report import collect
from efface.report.figures import MINUS, MOST_BARS, figures
from efface.types import Split


@pytest.fixture(scope="module")
def evidence(tiny_net, digits):
    """The tiny net with a last layer pushed so far that classes fall and rise; 3 leaves."""
    student = copy.deepcopy(tiny_net)
    with torch.no_grad():
        student[-1].bias += torch.linspace(3, -3, 10)
    threes = digits.take((digits.y[:300] == 3).nonzero()[:, 0])
    return collect(tiny_net, student, Split(threes, digits.take(range(300, 400)), None, (3,)))


def _with(evidence, changes, unseen=0, forget_classes=()):
    """The evidence with classes of 50 unseen records each, changed by so many records."""
    classes = [
        {
            "class": c,
            "name": f"c-{c}",
            "forget_classes": c in forget_classes,
            "forget_n": 0,
            "holdout_n": 50,
            "holdout_before": 0.5,
            "holdout_after": 0.5 + change / 50,
        }
        for c, change in enumerate(changes)
    ]
    for entry in classes[len(classes) - unseen :]:
        entry["holdout_n"] = 0
        del entry["holdout_before"], entry["holdout_after"]
    return replace(evidence, per_class=classes)


def _drawn(evidence):
    """(the classes that have a bar, downwards, and the number at each; the caption)."""
    figure = figures(evidence)["classes"]
    names = re.findall(r">([^<>]+), n = \d+<", figure["svg"])[::-1]
    values = re.findall(rf">([+{MINUS}]\d+\.\d)<", figure["svg"])[::-1]
    return list(zip(names, values, strict=True)), figure["caption"]


def test_each_class_that_changed_stands_with_its_change_the_worst_on_top(evidence):
    """Against the numbers of the evidence itself, worked out here once more."""
    bars, caption = _drawn(evidence)
    change = {
        c["name"]: round(100 * (c["holdout_after"] - c["holdout_before"]), 1)
        for c in evidence.per_class
        if not c["forget_classes"]
    }
    numbers = {name: float(value.replace(MINUS, "-")) for name, value in bars}
    assert numbers == {name: value for name, value in change.items() if value}
    assert list(numbers.values()) == sorted(numbers.values())
    assert min(numbers.values()) < 0 < max(numbers.values())
    assert caption.startswith(f"Drawn: {len(bars)} of 9 classes that stay. Not drawn: ")


def test_of_many_classes_those_that_changed_most_either_way_are_drawn(evidence):
    """A class that rose says as much about what moved as one that fell."""
    changes = [0] * 43 + [-1] * 12 + [1] * 4 + [-9] * 4 + [7] * 20
    bars, caption = _drawn(_with(evidence, changes))
    assert len(bars) == MOST_BARS == 24
    assert [value for _, value in bars] == [f"{MINUS}18.0"] * 4 + ["+14.0"] * 20
    assert caption == (
        "Drawn: 24 of 83 classes that stay. Not drawn: 12 that fell and 4 that rose, by 2.0 at "
        "most, 43 that did not change."
    )


def test_a_class_that_did_not_change_takes_no_bar(evidence):
    """23 empty bars beside one that fell would hide it."""
    bars, caption = _drawn(_with(evidence, [0] * 30 + [-2] + [0] * 52, unseen=5))
    assert bars == [("c-30", f"{MINUS}4.0")]
    assert caption == (
        "Drawn: 1 of 83 classes that stay. Not drawn: 77 that did not change, "
        "5 without records in the holdout."
    )


def test_where_nothing_changed_there_is_a_sentence_instead_of_bars(evidence):
    """An empty frame would look like a fault."""
    bars, caption = _drawn(_with(evidence, [0] * 8, unseen=2))
    assert bars == []
    assert caption == (
        "Changed: 0 of 8 classes that stay. Not drawn: 2 without records in the holdout."
    )


def test_a_class_that_leaves_does_not_flatten_the_figure_of_the_others(evidence):
    """It falls by design; its number stands in words, and the bars show those that stay."""
    bars, caption = _drawn(_with(evidence, [-25, 1, 0], forget_classes=(0,)))
    assert bars == [("c-1", "+2.0")]
    assert caption == (
        "Drawn: 1 of 2 classes that stay. Not drawn: 1 that did not change. "
        f"Classes that leave: c-0 {MINUS}50.0 points."
    )
