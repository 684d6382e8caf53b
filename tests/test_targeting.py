"""Effort where the information is: which forget records the method sees, and how often."""

from collections import Counter

import numpy as np
import pytest
import torch

from efface import Split, forget
from efface.errors import InputError
from efface.io.data import read_record_weights
from efface.ranking.content import noise_stability

QUICK = {"method": "negative_gradient", "strength": 0.1, "utility_budget": 1.0}


def _same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_equal_weights_change_nothing(tiny_net, digits):
    """Bit for bit, in order: the request without weights is a special case."""
    some = digits.take(range(20))
    plain = forget(tiny_net, Split(some), **QUICK)
    equal = forget(tiny_net, Split(some), weights=dict.fromkeys(some.ids, 3.0), **QUICK)
    assert not _same(plain.model, tiny_net)
    assert _same(plain.model, equal.model)


def test_a_weight_says_how_often_a_record_is_seen(tiny_net, digits):
    """Within one of its share, the number of records as before; an id comes once."""
    some = digits.take(range(40))
    weights = dict(zip(some.ids, np.random.default_rng(0).exponential(1, 40), strict=True))
    seen = targeted(tiny_net, some, weights=weights, seed=5).forget
    assert len(seen) == 40
    assert len(set(seen.ids)) == 40
    times = Counter(name.partition(" again ")[0] for name in seen.ids)
    total = sum(weights.values())
    for name, weight in weights.items():
        assert abs(times[name] - 40 * weight / total) < 1


def test_a_small_weight_is_seen_as_often_as_it_says_over_many_seeds(tiny_net, digits):
    """Also for the first record: where the counting starts is drawn from a whole step."""
    some = digits.take(range(5))
    weights = dict(zip(some.ids, (0.2, 1.2, 1.2, 1.2, 1.2), strict=True))
    first = some.ids[0]
    seen = [
        first in targeted(tiny_net, some, weights=weights, seed=seed).forget.ids
        for seed in range(500)
    ]
    assert np.mean(seen) == pytest.approx(0.2, abs=0.06)


def test_a_weight_of_0_leaves_a_record_alone(tiny_net, digits):
    """The method sees the others only; each input is still its record's own."""
    some = digits.take(range(6))
    weights = {name: float(place % 2) for place, name in enumerate(some.ids)}
    aim = targeted(tiny_net, some, weights=weights, seed=0)
    rows = [some.ids.index(name.partition(" again ")[0]) for name in aim.forget.ids]
    assert set(rows) == {1, 3, 5}
    assert torch.equal(aim.forget.x, some.x[rows])
    assert aim.facts == {"weighted": True, "seen": 3, "of": 6}
    assert [finding.text for finding in aim.findings] == [
        "By the weights given the method saw 3 of 6 records. Evidence is measured on all of them."
    ]


def test_only_records_of_high_information_are_seen_and_all_are_judged(tiny_net, digits):
    """The page and the record say how many were left alone."""
    some = digits.take(range(60))
    found = forget(tiny_net, Split(some), target="high-information", seed=3, **QUICK)
    facts = found.manifest.request["targeted"]
    alpha = noise_stability(
        tiny_net, some, (facts["sigma"],), copies=facts["copies"], seed=3
    ).share[0]
    assert facts["left_alone"] == int((alpha >= facts["threshold"]).sum())
    assert 0 < facts["left_alone"] < 60
    assert found.report.arrays["entropy"]["n"]["forget_after"] == 60
    texts = [finding.text for finding in found.findings if finding.name == "left alone"]
    assert [text.split(",")[0] for text in texts] == [
        f"{facts['left_alone']} of 60 records were left alone"
    ]
    by_hand = some.take(np.flatnonzero(alpha < facts["threshold"]).tolist())
    assert _same(found.model, forget(tiny_net, Split(by_hand), seed=3, **QUICK).model)


def test_where_every_record_is_of_low_information_nothing_is_pretended(digits):
    """A model that answers everything alike keeps its answer under any noise."""
    blank = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    torch.nn.init.zeros_(blank[1].weight)
    with pytest.raises(InputError) as error:
        targeted(blank, digits.take(range(5)), target="high-information", seed=0)
    assert str(error.value) == (
        "Wanted a forget record of high information (content below 0.9). "
        "Got 5 of at least that. Leave target out: all records are unlearned then."
    )


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (
            {"target": "low"},
            "Wanted target all or high-information. Got 'low'. Leave it out for all records.",
        ),
        (
            {"weights": {"0": 1.0}},
            (
                "Wanted a weight for each of the 2 forget records. Got none for '1'. "
                "Name each record once."
            ),
        ),
        (
            {"weights": {"0": 1.0, "1": 1.0, "x": 1.0}},
            (
                "Wanted a weight for each of the 2 forget records. Got one for 'x'. "
                "Name each record once."
            ),
        ),
        (
            {"weights": {"0": -1.0, "1": 1.0}},
            (
                "Wanted weights of 0 or more, not all 0. Got -1 to 1. "
                "A weight of 0 leaves a record alone."
            ),
        ),
    ],
)
def test_a_target_that_cannot_be_read_is_refused(tiny_net, digits, asked, text):
    """Before anything moves."""
    some = type(digits)(x=digits.x[:2], y=digits.y[:2])
    with pytest.raises(InputError) as error:
        forget(tiny_net, Split(some), **asked)
    assert str(error.value) == text


def test_weights_are_read_from_a_table(tmp_path):
    """Columns by name, in any order."""
    path = tmp_path / "weights.csv"
    path.write_text("weight,id\n0.5,a\n2,b\n")
    assert read_record_weights(path) == {"a": 0.5, "b": 2.0}


@pytest.mark.parametrize(
    ("text", "came"),
    [
        ("id,weight\na,1\na,2\n", "'a' twice"),
        ("id,weight\na,much\n", "id 'a' and weight 'much'"),
        ("name,weight\na,1\n", "id '' and weight '1'"),
    ],
)
def test_a_table_of_weights_with_a_wrong_line_is_refused(tmp_path, text, came):
    """By what stands there."""
    path = tmp_path / "weights.csv"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_record_weights(path)
    assert str(error.value) == (
        f"Wanted in {path} columns id and weight, each record once and with a number. "
        f"Got {came}. Write one line a record, under the header id,weight."
    )


def test_a_table_of_weights_that_is_empty_or_not_there_is_refused(tmp_path):
    """Both by name."""
    path = tmp_path / "weights.csv"
    with pytest.raises(InputError) as error:
        read_record_weights(path)
    assert str(error.value) == (
        f"Wanted a CSV of weights at {path}. Got FileNotFoundError. Columns id and weight, UTF-8."
    )
    path.write_text("id,weight\n")
    with pytest.raises(InputError) as error:
        read_record_weights(path)
    assert str(error.value) == (
        f"Wanted at least one weight in {path}. Got none. Write a line for each record."
    )
