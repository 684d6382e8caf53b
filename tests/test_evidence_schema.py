"""The published form of evidence.json: what is written fits it at every tier, what is odd not."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator

import efface.report
from efface.io.shadows import Shadows
from efface.report import collect
from efface.report.rows import TIERS
from efface.types import Records, Split

SCHEMA = json.loads((Path(efface.report.__file__).parent / "schema.json").read_text())
FORM = Draft202012Validator(SCHEMA)


@pytest.fixture(scope="module")
def parts(digits):
    """Forget, holdout, retain."""
    return [digits.take(rows) for rows in (range(40), range(300, 400), range(40, 300))]


@pytest.fixture(scope="module")
def altered(tiny_net):
    """The tiny net, its last layer moved a little."""
    student = copy.deepcopy(tiny_net)
    with torch.no_grad():
        student[-1].bias += torch.linspace(-1, 1, 10)
    return student


@pytest.fixture(scope="module")
def whole(tiny_net, altered, parts):
    """Evidence of tier T2, as JSON."""
    return collect(tiny_net, altered, Split(*parts)).as_json()


def _wrong(found):
    """Where it does not fit; through text, as a reader in another language gets it."""
    return [error.json_path for error in FORM.iter_errors(json.loads(json.dumps(found)))]


def _shadows(ids):
    member = np.array([[True, False]] * len(ids)).T
    return Shadows(("a", "b"), ids, member, np.zeros((2, len(ids))), "d")


@pytest.mark.parametrize("tier", list(TIERS))
def test_evidence_of_every_tier_fits(tiny_net, altered, parts, tier):
    """Done, and not met."""
    FORM.check_schema(SCHEMA)
    at = list(TIERS).index(tier)
    split = Split(*parts[: min(at, 2) + 1])
    beside = {
        "retrained": [altered] * 2 * (tier == "T3"),
        "shadows": _shadows(parts[0].ids) if tier == "T4" else None,
        "exact": tier == "TE",
    }
    found = collect(tiny_net, altered, split, classes=list("abcdefghij"), **beside)
    assert found.tier == tier
    assert _wrong(found.as_json()) == []
    unmet = collect(tiny_net, None, split, outcome="not met").as_json()
    assert _wrong(unmet) == []


def test_other_kinds_of_outputs_and_broken_models_fit_too(tiny_net, digits, parts):
    """Many labels, values, a class that goes, and answers that are no numbers."""
    flat = digits.x.flatten(1)
    for y in (torch.nn.functional.one_hot(digits.y % 3, 3), digits.y.float().unsqueeze(1)):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net = torch.nn.Linear(64, y.shape[1])
        split = Split(*(Records(flat[a:b], y[a:b]) for a, b in ((0, 20), (300, 360), (20, 90))))
        assert _wrong(collect(net, net, split).as_json()) == []
    threes = parts[0].take((parts[0].y == 3).nonzero()[:, 0])
    broken = copy.deepcopy(tiny_net)
    with torch.no_grad():
        broken[-1].bias[:] = torch.nan
    found = collect(tiny_net, broken, Split(threes, parts[1], forget_classes=(3,))).as_json()
    assert "red" in {row["status"] for row in found["rows"]}
    assert _wrong(found) == []


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda e: e.pop("attacks"), "$"),
        (lambda e: e.update(extra=1), "$"),
        (lambda e: e.update(tier="T9"), "$.tier"),
        (lambda e: e["rows"][0].pop("target"), "$.rows[0]"),
        (lambda e: e["rows"][0].update(status="fine"), "$.rows[0].status"),
        (lambda e: e["rows"][0].update(interval=[0.1]), "$.rows[0].interval"),
        (lambda e: e["rows"][0].update(after="97 %"), "$.rows[0].after"),
        (lambda e: e["rows"][-1].update(after=0.5), "$.rows[-1].after"),
        (lambda e: e["rows"][-1].update(note=""), "$.rows[-1].note"),
        (lambda e: e["attacks"].pop(), "$.attacks"),
        (lambda e: e["attacks"][1].update(why=""), "$.attacks[1].why"),
        (lambda e: e["attacks"][0].update(rows=[]), "$.attacks[0].rows"),
        (lambda e: e["records"][0].pop("id"), "$.records[0]"),
        (lambda e: e["counts"].update(forget=0), "$.counts.forget"),
    ],
)
def test_what_is_odd_does_not_fit(whole, change, where):
    """A form that lets everything through is none."""
    found = copy.deepcopy(whole)
    assert found["rows"][-1]["status"] == "not run"
    change(found)
    place = where.replace("[-1]", f"[{len(found['rows']) - 1}]")
    assert _wrong(found) == [place]


def test_every_field_of_the_form_is_written_and_no_other(whole):
    """The form and the code say the same."""
    assert set(SCHEMA["properties"]) == set(whole)
    assert set(SCHEMA["$defs"]["tier"]["enum"]) == set(TIERS)
