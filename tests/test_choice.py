"""The method where it is left open: each row of the table, and the sentence word for word."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from efface import Split, forget
from efface.errors import InputError
from efface.methods import METHODS
from efface.prepare import RULES
from efface.testing import fresh_from, train_recipe
from efface.types import Records

WRONG = (
    "auto chose jit: the labels are wrong, and of 24 such records, each alone, jit left none "
    "answered with its label, without a measurable loss (research/results/jit_one_record.md)"
)
LEAVING = (
    "auto chose jit: a class leaves, and on nine such requests jit came from 39.1 points of the "
    "retrained model to 5.1 (research/results/jit_quality.md)"
)
MANY = (
    "auto chose jit: a record has many labels, and in the one such request that was measured "
    "neighbourhood forgot too much (research/results/kinds.md)"
)
SINGLE = (
    "auto chose neighbourhood: single records go, and of all methods neighbourhood came nearest to "
    "the retrained model on 500 of them, from 25.6 points to 3.2, in one measurement "
    "(research/results/every_method.md)"
)
EXACT = (
    "auto chose retrain: all that training again without the records needs is at hand, and only "
    "that is exact (README.md)."
)
ANEW = " (on a command line: efface train RECIPE --exclude ids.csv)."
MORE = f"; with retain, fresh and train it would have chosen retrain, which is exact{ANEW}"


def said(split, *, mislabelled=False, trainable="all"):
    """The sentence; the method is the one that it names."""
    method, why = method_for(split, mislabelled=mislabelled, trainable=trainable)
    assert why.startswith(f"auto chose {method}: ")
    return why


@pytest.fixture
def some():
    """Two records of one class each."""
    return Records(torch.zeros(2, 3), torch.tensor([0, 1]))


def whole(some, **parts):
    """A split with all that retraining needs."""
    given = {"retain": some, "fresh": lambda _: None, "train": lambda m, *_: m, **parts}
    return Split(some, **given)


def test_each_row_says_why_and_what_more_would_have_changed(some):
    """Word for word, since a person acts on it."""
    many = replace(some, y=torch.ones(2, 4, dtype=torch.int64))
    values = Records(torch.zeros(12, 3), torch.arange(12.0))
    assert said(Split(some)) == SINGLE + MORE
    assert said(Split(values)) == SINGLE + MORE
    assert said(Split(many)) == MANY + MORE
    assert said(Split(some, forget_classes=(0,))) == LEAVING + MORE
    assert said(Split(some), mislabelled=True) == WRONG + MORE
    assert said(whole(some)) == EXACT


def test_rows_stand_in_an_order(some):
    """Retraining before all, wrong labels before a class."""
    both = Split(some, forget_classes=(0,))
    assert said(both, mislabelled=True) == WRONG + MORE
    assert said(whole(some, forget_classes=(0,)), mislabelled=True) == EXACT


@pytest.mark.parametrize(
    ("part", "lacking"), [("retain", "retain"), ("fresh", "fresh"), ("train", "train")]
)
def test_what_alone_is_lacking_for_retraining_is_named(some, part, lacking):
    """One thing to give, and not three."""
    more = f"; with {lacking} it would have chosen retrain, which is exact{ANEW}"
    assert said(whole(some, **{part: None})) == SINGLE + more


def test_an_empty_part_is_none_and_closed_weights_cannot_be_drawn_anew(some):
    """Both would be refused by retrain itself."""
    more = f"; with retain it would have chosen retrain, which is exact{ANEW}"
    assert said(whole(some, retain=some.take([]))) == SINGLE + more
    more = f"; with trainable all it would have chosen retrain, which is exact{ANEW}"
    assert said(whole(some), trainable="norm") == SINGLE + more


def test_a_holdout_or_records_that_stay_alone_change_no_choice(some):
    """No committed result compares methods there."""
    more = f"; with fresh and train it would have chosen retrain, which is exact{ANEW}"
    assert said(Split(some, holdout=some, retain=some)) == SINGLE + more


def test_every_row_names_a_method_and_a_result_that_is_there():
    """A reason without its numbers is an opinion."""
    root = Path(__file__).parent.parent
    for rule in RULES:
        assert rule.method in METHODS
        named = [word.strip("(),") for word in rule.because.split() if ".md" in word]
        assert named
        assert all((root / name).is_file() for name in named)


def test_a_request_runs_what_was_chosen_and_its_first_finding_says_why(tiny_net, digits):
    """The same weights as the method by its name, and the sentence in record and report."""
    split = Split(digits.take(range(6)))
    result = forget(tiny_net, split, method="auto", mislabelled=True, settings={"steps": 2})
    named = forget(tiny_net, split, method="jit", mislabelled=True, settings={"steps": 2})
    assert result.manifest.method == "jit"
    assert result.manifest.weights == named.manifest.weights
    assert result.manifest.findings[0] == {
        "name": "auto",
        "severity": "note",
        "text": WRONG + MORE,
    }
    assert all(finding.name != "auto" for finding in named.findings)


def test_the_report_says_which_and_why(tiny_net, digits, tmp_path):
    """Whoever reads the page did not see the run."""
    split = Split(digits.take(range(6)))
    result = forget(tiny_net, split, method="auto", mislabelled=True, settings={"steps": 1})
    page = result.save_report(tmp_path / "report.html").read_text()
    assert "of 24 such records, each alone, jit left none answered with its label" in page


def test_with_the_recipe_at_hand_the_request_trains_again(tiny_net, digits):
    """The whole way, guard and evidence included: nothing else is exact."""
    parts = {
        "fresh": fresh_from(tiny_net),
        "train": train_recipe,
        "retain": digits.take(range(20, 300)),
    }

    def train(model, records, seed):
        for _ in range(4):
            model = train_recipe(model, records, seed)
        return model

    split = Split(digits.take(range(5)), **{**parts, "train": train})
    result = forget(tiny_net, split, method="auto")
    assert result.manifest.method == "retrain"
    assert result.findings[0].text == EXACT


def test_a_setting_that_the_chosen_method_does_not_have_is_refused_by_its_name(tiny_net, digits):
    """Not dropped: the run would be another than the one asked for."""
    with pytest.raises(InputError) as error:
        forget(tiny_net, Split(digits.take([0])), method="auto", settings={"sigma": 0.1})
    assert str(error.value).startswith("Wanted a setting of neighbourhood: ")


def test_the_command_line_says_what_was_chosen(efface, place, capfd):
    """As an event, and in the record that it writes."""
    code = efface(
        "forget", "model", "--data", "data", "--ids", "ids.csv", "--out", "chosen",
        "--method", "auto", "--mislabelled", "--setting", "steps=1",
    )  # fmt: skip
    assert code == 0
    events = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line[:1] == "{"]
    (event,) = [one for one in events if one["event"] == "method"]
    assert event == {"event": "method", "chosen": "jit", "why": WRONG + MORE}
    record = json.loads((place / "chosen" / "manifest.json").read_text())
    assert record["findings"][0]["text"] == WRONG + MORE
