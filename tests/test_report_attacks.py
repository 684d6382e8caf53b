"""The first part of the page, for a reader who must judge: what was tested, and what is not known.

Each attack that the EDPB's Opinion 28/2024 names has its answer, in the JSON and on the page.
"""

import copy
import html
import re
from dataclasses import replace

import pytest
import torch

from efface.report import collect, gather, render
from efface.report.attacks import named_attacks
from efface.report.words import unknown
from efface.types import Records, Split

NAMES = [
    "membership inference",
    "attribute inference",
    "exfiltration",
    "regurgitation",
    "model inversion",
    "reconstruction",
]


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
def evidence(tiny_net, altered, parts):
    """Tier T2."""
    return collect(tiny_net, altered, Split(*parts))


def _words(page):
    bare = re.sub(r"<(style|svg).*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", bare)).split())


def _answers(found):
    return {named.attack: named.answer for named in found.attacks}


def test_every_attack_of_the_opinion_has_an_answer_at_every_tier(tiny_net, altered, parts):
    """In its order; what was not tested says why, what was tested has rows, controls and power."""
    for split in (Split(parts[0]), Split(*parts[:2]), Split(*parts)):
        found = collect(tiny_net, altered, split)
        assert [named.attack for named in found.attacks] == NAMES
        keys = {row.key for row in found.rows}
        for named in found.attacks:
            assert bool(named.why) is (named.answer != "tested")
            assert {*named.rows, *named.controls, *named.power} <= keys
            assert all([named.rows, named.controls, named.power]) is (named.answer == "tested")
        tested = split.holdout is not None
        assert _answers(found)["membership inference"] == ("tested" if tested else "not tested")


def test_the_answer_is_as_bad_as_the_worst_row_behind_it(evidence):
    """A void control is no calm; a crash is red."""
    for status, worst in (("plain", "plain"), ("look", "look"), ("red", "red")):
        for key in ("attack.loss", "attack.entropy", "control.negative"):
            rows = [replace(row, status="plain") for row in evidence.rows if row.status != "red"]
            rows = [replace(row, status=status) if row.key == key else row for row in rows]
            assert named_attacks(rows, kind="multiclass", new=True)[0].status == worst


def test_a_crashed_attack_is_red_on_the_first_part_of_the_page(
    tiny_net, altered, parts, monkeypatch
):
    """A missing line would read as: nothing found."""

    def broken(facts):  # noqa: ARG001
        raise ZeroDivisionError("by hand")

    tests = [replace(t, run=broken) if t.key == "attack.loss" else t for t in gather.TESTS]
    monkeypatch.setattr(gather, "TESTS", tuple(tests))
    found = collect(tiny_net, altered, Split(*parts))
    first = render(found, {}).partition("Appendix: for whoever")[0]
    assert found.attacks[0].status == "red"
    assert '<tr class="red"><th scope="row">Membership inference</th>' in first
    assert "crashed : Membership attack on the loss. ZeroDivisionError: by hand" in _words(first)


def test_without_a_new_model_nothing_was_tested(tiny_net, parts):
    """The attack on the old model is no answer about the new one."""
    found = collect(tiny_net, None, Split(*parts), outcome="not met")
    assert found.attacks[0].why == "there is no new model"
    assert "tested" not in _answers(found).values()


def test_only_outputs_that_can_hold_no_record_make_regurgitation_not_applicable(evidence):
    """A model of many values could give an input back: nobody looked."""
    for kind, answer in (
        ("multiclass", "not applicable"), ("multilabel", "not applicable"),
        ("values", "not tested"), ("one of my own", "not tested"),
    ):  # fmt: skip
        named = named_attacks(evidence.rows, kind=kind, new=True)
        assert {one.attack: one.answer for one in named}["regurgitation"] == answer


def test_the_first_part_has_results_controls_power_and_limits_in_words(evidence):
    """Before any of the engineer's tables; the numbers are those of the rows."""
    first = _words(render(evidence, {}).partition("Appendix: for whoever")[0])
    attack = evidence.row("attack.loss")
    shown = f"{attack.verdict} : {attack.name}, {attack.after:.3g}"
    ends = " to ".join(f"{end:.3g}" for end in attack.interval)
    assert f"{shown} ({ends}), target 0.5" in first.replace(" ,", ",")
    for key in ("control.positive", "control.negative"):
        assert f"{evidence.row(key).verdict} : {evidence.row(key).name}" in first
    assert f"{evidence.row('power.area').name}: {evidence.row('power.area').after:.3g}" in first
    for words in (
        "Opinion 28/2024 of the European Data Protection Board",
        "The method is approximate. Nothing here is a promise",
        "assumes an honest operator",
        "(black box)",
        "(white box)",
        "ends with the next fine-tuning, merging or quantising",
        "What is not known",
    ):
        assert words in first


def test_what_is_not_known_shrinks_with_what_is_at_hand(tiny_net, altered, parts):
    """A retrained model is no longer missed once it is there; one alone leaves its floor open."""
    bare = unknown(collect(tiny_net, altered, Split(parts[0])))
    whole = collect(tiny_net, altered, Split(*parts), retrained=[altered])
    assert sum("takes" in line for line in bare) == 4
    assert "a second one" in " ".join(unknown(whole))
    assert len(unknown(whole)) < len(bare)
    page = _words(render(whole, {}))
    assert all(line in page for line in unknown(whole))


def test_records_with_many_labels_are_answered_for_too(digits):
    """The table does not need classes."""
    many = torch.nn.functional.one_hot(digits.y % 3, 3)
    forget, holdout = (Records(digits.x[a:b], many[a:b]) for a, b in ((0, 20), (300, 360)))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    found = collect(net, net, Split(forget, holdout))
    assert _answers(found)["membership inference"] == "tested"
    assert "No record can be repeated" not in render(found, {})


def test_the_appendix_says_how_to_run_it_again(evidence):
    """Command, seed, versions, and the command that compares every number."""
    record = {
        "seed": 7,
        "versions": {"efface": "9.9", "torch": "8.8"},
        "command": "efface score OLD NEW",
        "arguments": {"old": "OLD"},
        "job": "score",
        "weights": {"old": "a" * 64, "new": "b" * 64},
    }
    page = _words(render(evidence, record))
    assert "Seed 7, efface 9.9, torch 8.8. efface score --replay" in page
    assert "a" * 16 in page.partition("Appendix")[0]
    assert "What the second model still shows" in page
    assert "exclude.csv" not in page
