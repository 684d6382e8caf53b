"""Before the method: the choice of one by ``auto``, and which forget records it sees."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from by_hand import same
from PIL import Image
from refusals import refusal
from run_files import MADE, events
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import ImageFolder
from torchvision.transforms import ToTensor

from efface import Manifest, Records, Split, forget
from efface.io.data import load_data, read_record_weights
from efface.io.features import FeatureSpec
from efface.methods import METHODS
from efface.prepare import (
    REASONS,
    choose_method,
    request_memory,
    select_records,
    validate_split,
)
from efface.ranking.content import noise_stability
from efface.testing import fresh_from, train_recipe

# what else would have made the choice exact
MORE = (
    "; with {} it would have chosen retrain, which is exact (on the command line "
    "--method retrain --train-command 'YOUR COMMAND')."
)
SOME = Records(torch.zeros(2, 3), torch.tensor([0, 1]))
RECIPE = {"retain": SOME, "fresh": lambda _: None, "train": lambda m, *_: m}
CLASS_0 = {"forget_classes": (0,)}
MANY = replace(SOME, y=torch.ones(2, 4, dtype=torch.int64))
ALL = "retain, fresh and train"
SINGLE, LABELS = ("neighbourhood", "records"), ("neighbourhood", "wrong labels")
OTHER = ("neighbourhood", "another task")
EXACT = ("retrain", "the recipe")
WRONG = f"auto chose neighbourhood: {REASONS['wrong labels']}{MORE.format(ALL)}"
BAD = {"mislabelled": True}
EMPTY = {**RECIPE, "retain": SOME.take([])}
CHOICES = {  # split, options, (method, reason), what was lacking
    "records": (Split(SOME), {}, SINGLE, ALL),
    "values": (Split(Records(torch.zeros(12, 3), torch.arange(12.0))), {}, OTHER, ALL),
    "multilabel": (Split(MANY), {}, OTHER, ALL),
    "a class": (Split(SOME, **CLASS_0), {}, ("neighbourhood", "a class"), ALL),
    "wrong labels": (Split(SOME), BAD, LABELS, ALL),
    "wrong labels of a class": (Split(SOME, **CLASS_0), BAD, LABELS, ALL),
    "all": (Split(SOME, **RECIPE), {}, EXACT, None),
    "all of a class": (Split(SOME, **RECIPE, **CLASS_0), BAD, EXACT, None),
    **{f"all but {p}": (Split(SOME, **{**RECIPE, p: None}), {}, SINGLE, p) for p in RECIPE},
    "empty retain": (Split(SOME, **EMPTY), {}, SINGLE, "retain"),
    "some weights": (Split(SOME, **RECIPE), {"trainable": "norm"}, SINGLE, "trainable all"),
    "data alone": (Split(SOME, holdout=SOME, retain=SOME), {}, SINGLE, "fresh and train"),
}


@pytest.mark.parametrize("case", CHOICES)
def test_each_choice_says_why_and_what_more_would_have_changed(case):
    split, options, (method, reason), lacking = CHOICES[case]
    chosen, why = choose_method(split, **{"mislabelled": False, "trainable": "all", **options})
    text = f"auto chose {method}: {REASONS[reason]}" + (MORE.format(lacking) if lacking else ".")
    assert (chosen, why.name, why.severity, why.text) == (method, "auto", "note", text)
    assert method in METHODS
    (named, *_) = [word.strip("(),.;") for word in text.split() if ".md" in word]
    assert (Path(__file__).parent.parent / named).is_file()


def test_a_request_runs_what_was_chosen_and_its_report_says_why(tiny_net, digits, tmp_path):
    split, how = Split(digits.take(range(6))), {"mislabelled": True, "settings": {"steps": 2}}
    result, named = (
        forget(tiny_net, split, method=name, **how) for name in ("auto", "neighbourhood")
    )
    assert result.manifest.method == "neighbourhood"
    assert result.manifest.weights == named.manifest.weights
    assert result.manifest.findings[0]["text"] == WRONG
    assert all(finding.name != "auto" for finding in named.findings)
    page = result.save_report(tmp_path / "report.html").read_text()
    assert "neighbourhood reduced the gap to retraining from" in page


def test_the_manifest_of_a_dry_run_has_what_was_found(tiny_net, digits):
    result = forget(tiny_net, Split(digits.take(range(6))), method="auto", dry_run=True)
    found = [(one["name"], one["text"]) for one in result.manifest.findings]
    assert found[0] == ("auto", result.findings[0].text)
    assert found == [(one.name, one.text) for one in result.findings]


@pytest.mark.parametrize(("method", "more"), [("scrub", True), ("jit", False)])
def test_the_memory_counts_the_retain_records_of_a_method_that_reads_them(
    tiny_net, digits, method, more
):
    splits = (Split(digits.take(range(4)), retain=digits.take(range(4, n))) for n in (8, 108))
    few, many = (
        request_memory(METHODS[method], tiny_net, split, {}).activations_bytes for split in splits
    )
    assert (many > few) is more


def test_the_memory_counts_the_halves_of_the_holdout_next_to_it(tiny_net, digits):
    going, holdout = digits.take(range(4)), digits.take(range(4, 24))
    found = request_memory(METHODS["jit"], tiny_net, Split(going, holdout=holdout), {})
    one = digits.x[0].nbytes + digits.y[0].nbytes
    assert found.records_bytes == (4 + 2 * 20) * one


def test_with_the_recipe_given_the_request_trains_again(tiny_net, digits):
    def train(model, records, seed):
        for _ in range(4):
            model = train_recipe(model, records, seed)
        return model

    given = {"fresh": fresh_from(tiny_net), "train": train, "retain": digits.take(range(20, 300))}
    result = forget(tiny_net, Split(digits.take(range(5)), **given), method="auto")
    assert (result.manifest.method, result.findings[0].name) == ("retrain", "auto")
    assert result.manifest.passes["backward"] > 280


def test_the_command_line_says_what_was_chosen(efface, place, capfd):
    code = efface(
        "forget", "model", "--data", "data", "--ids", "ids.csv", "--out", "chosen",
        "--method", "auto", "--mislabelled", "--setting", "steps=1",
    )  # fmt: skip
    assert code in MADE
    (event,) = [one for one in events(capfd.readouterr().err) if one["event"] == "chosen"]
    assert event == {"event": "chosen", "method": "neighbourhood", "why": WRONG}
    manifest = json.loads((place / "chosen/evidence/manifest.json").read_text())
    assert manifest["findings"][0]["text"] == WRONG


@pytest.mark.parametrize(("part", "taken"), [("retain", 2), ("holdout", 0)])
def test_a_record_leaves_retain_by_its_name_too(digits, part, taken):
    """Stored again, its pixels differ; a row number and a name in another split say nothing."""
    some, again = digits.take(range(2)), digits.take(range(40))
    again = replace(again, x=again.x + 0.01)
    numbered = [Records(one.x, one.y) for one in (some, again)]
    for (forget_part, other), count in (((some, again), taken), (numbered, 0)):
        split = Split(forget_part, **{part: other})
        assert validate_split(split, None)[1][f"forget_records_in_{part}"] == count


QUICK = {"method": "negative_gradient", "strength": 0.1, "utility_budget": 1.0}


def _selected(model, records, seed, selection="all", weights=None):
    manifest = Manifest("forget", seed, 0)
    split, findings = select_records(model, Split(records), manifest, selection, weights)
    return split.forget, [finding.text for finding in findings], manifest.request


def test_equal_weights_change_nothing(tiny_net, digits):
    some = digits.take(range(20))
    plain = forget(tiny_net, Split(some), **QUICK)
    equal = forget(tiny_net, Split(some), weights=dict.fromkeys(some.ids, 3.0), **QUICK)
    assert not same(plain.model, tiny_net)
    assert same(plain.model, equal.model)


def test_a_weight_says_how_often_a_record_is_seen(tiny_net, digits):
    some = digits.take(range(40))
    weights = dict(zip(some.ids, np.random.default_rng(0).exponential(1, 40), strict=True))
    seen, *_ = _selected(tiny_net, some, 5, weights=weights)
    assert len(seen) == len(set(seen.ids)) == 40
    times = Counter(name.partition(" again ")[0] for name in seen.ids)
    for name, weight in weights.items():
        assert abs(times[name] - 40 * weight / sum(weights.values())) < 1


def test_a_small_weight_is_seen_as_often_as_it_says_over_many_seeds(tiny_net, digits):
    """Also for the first record: where the counting starts is drawn from a whole step."""
    some = digits.take(range(5))
    weights = dict(zip(some.ids, (0.2, 1.2, 1.2, 1.2, 1.2), strict=True))
    seen = (_selected(tiny_net, some, seed, weights=weights)[0].ids for seed in range(500))
    assert np.mean([some.ids[0] in ids for ids in seen]) == pytest.approx(0.2, abs=0.06)


def test_a_record_of_weight_0_is_not_seen(tiny_net, digits):
    some = digits.take(range(6))
    weights = {name: float(place % 2) for place, name in enumerate(some.ids)}
    seen, findings, counts = _selected(tiny_net, some, 0, weights=weights)
    rows = [some.ids.index(name.partition(" again ")[0]) for name in seen.ids]
    assert set(rows) == {1, 3, 5}
    assert torch.equal(seen.x, some.x[rows])
    assert counts == {"selection": {"weighted": True, "seen": 3, "of": 6}}
    text = "By the weights the method saw 3 of 6 records. The report is on all of them."
    assert findings == [text]


def test_only_records_of_high_information_are_seen_and_all_are_judged(tiny_net, digits):
    some = digits.take(range(60))
    result = forget(tiny_net, Split(some), selection="high-information", seed=3, **QUICK)
    facts = result.manifest.request["selection"]
    how = {"copies": facts["copies"], "seed": 3}
    alpha = noise_stability(tiny_net, some, (facts["sigma"],), **how).share[0]
    assert facts["not_selected"] == int((alpha >= facts["threshold"]).sum())
    assert 0 < facts["not_selected"] < 60
    assert result.report.arrays["entropy"]["n"]["forget_after"] == 60
    (text,) = [finding.text for finding in result.findings if finding.name == "selection"]
    assert text.startswith(f"{facts['not_selected']} of 60 records were not selected, ")
    by_hand = some.take(np.flatnonzero(alpha < facts["threshold"]).tolist())
    assert same(result.model, forget(tiny_net, Split(by_hand), seed=3, **QUICK).model)


def test_the_accuracy_that_is_expected_chooses_the_noise_of_the_selection(tiny_net, digits):
    how = {"method": "jit", "selection": "high-information", "settings": {"steps": 1}}
    split = Split(digits.take(range(20)))
    for given, wanted in ({"expected_accuracy": 0.6}, 0.6), ({}, 0.75):
        facts = forget(tiny_net, split, **how, **given).manifest.request["selection"]
        assert facts["kept_wanted"] == wanted


def test_where_every_record_is_of_low_information_nothing_is_pretended(digits):
    blank = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    torch.nn.init.zeros_(blank[1].weight)
    assert refusal(_selected, blank, digits.take(range(5)), 0, "high-information") == (
        "Wanted a forget record of high information (content below 0.9). "
        "Got 5 at or above 0.9. Omit the selection: all records are unlearned then."
    )


def test_weights_are_read_from_a_table(tmp_path):
    path = tmp_path / "weights.csv"
    path.write_text("weight,id\n0.5,a\n2,b\n")
    assert read_record_weights(path) == {"a": 0.5, "b": 2.0}


TABLES = [
    ("id,weight\na,1\na,2\n", "Got 'a' twice"),
    ("id,weight\na,much\n", "Got id 'a' and weight 'much'"),
    ("name,weight\na,1\n", "Got id '' and weight '1'"),
    ("id,weight\n", "Wanted at least one weight in"),
    (None, "Got FileNotFoundError"),
]


@pytest.mark.parametrize(("text", "came"), TABLES)
def test_a_table_of_weights_that_is_wrong_is_refused_by_what_stands_there(tmp_path, text, came):
    path = tmp_path / "weights.csv"
    if text is not None:
        path.write_text(text)
    said = refusal(read_record_weights, path)
    assert came in said
    assert str(path) in said


def test_given_ids_name_the_same_records_in_retain_and_numbers_that_nobody_gave_do_not():
    """A loader that augments gives a forget record other pixels, and the id tells."""
    x, y = torch.rand(30, 3), torch.zeros(30, dtype=torch.int64)
    for ids in (torch.arange(500, 530), [f"p{row}" for row in range(30)]):
        split, counts = validate_split(Split((x[:4], y[:4], ids[:4]), retain=(x + 1, y, ids)), None)
        assert (len(split.retain), counts["forget_records_in_retain"]) == (26, 4)
    split, counts = validate_split(Split((x[:4], y[:4]), retain=(x + 1, y)), None)
    assert (len(split.retain), counts["forget_records_in_retain"]) == (30, 0)


def named(*labels):
    """A data set with these labels as text, one number a row."""
    numbers = [float(row) for row in range(len(labels))]
    return datasets.Dataset.from_dict({"x": numbers, "label": labels})


ONE_NUMBER = FeatureSpec({"x": {}})
ORDER = "Load them with the model's classes (load_data(…, classes=…))."


def test_names_in_a_part_are_numbered_by_the_model_and_never_by_the_names_that_it_holds():
    split = Split(named("dog", "dog"), retain=named("cat", "dog", "emu"))
    assert refusal(validate_split, split, ONE_NUMBER) == (
        "Wanted the order of the classes. Got names alone in 'label'. Give classes=(…) in the "
        "model's order, or labels as numbers or ClassLabel."
    )
    prepared, _ = validate_split(split, ONE_NUMBER, ("emu", "dog", "cat"))
    assert prepared.forget.y.tolist() == [1, 1]
    numbers, _ = validate_split(Split(named("1", "1"), retain=named("0", "1", "2")), ONE_NUMBER)
    assert numbers.forget.y.tolist() == [1, 1]


def test_parts_that_number_their_classes_differently_are_refused(tmp_path):
    for name in ("train/cat", "train/dog", "test/dog"):
        (tmp_path / name).mkdir(parents=True)
        Image.new("L", (2, 2)).save(tmp_path / name / "1.png")
    folders = [ImageFolder(tmp_path / name, ToTensor()) for name in ("train", "test")]
    sources = [load_data(tmp_path / name) for name in ("train", "test")]
    loaders = DataLoader(folders[0]), DataLoader(Subset(folders[1], [0]))
    for forget_part, retain in (folders, sources, loaders):
        assert refusal(validate_split, Split(forget_part, retain=retain), None) == (
            f"Wanted parts with the same classes in order. Got cat, dog in forget, and dog in "
            f"retain. {ORDER}"
        )


@pytest.mark.parametrize("y", [torch.tensor([2.0, 3.0]), torch.eye(2).long()])
def test_labels_of_another_kind_in_a_part_are_refused(y):
    assert refusal(validate_split, Split(SOME, retain=replace(SOME, y=y)), None) == (
        "Wanted labels of one kind in all parts. Got torch.int64 of shape (2,) in forget, "
        f"{y.dtype} of shape {tuple(y.shape)} in retain. Write classes as integers."
    )


@pytest.mark.parametrize("given", [(True,), ("3",), 3, (3.0,)])
def test_forget_classes_that_are_no_class_numbers_are_refused(given):
    text = "Wanted forget_classes as class numbers in a tuple. Got "
    split = Split(forget=SOME)
    # past the check of types, which users do not have
    object.__setattr__(split, "forget_classes", given)
    assert refusal(validate_split, split, None).startswith(f"{text}{given!r}.")
    object.__setattr__(split, "forget_classes", (np.int64(1),))
    split, counts = validate_split(split, None)
    assert [type(one) for one in (*split.forget_classes, *counts["forget_classes"])] == [int, int]


def test_a_value_that_is_nan_is_refused_by_its_record():
    values = Records(torch.zeros(2, 3), torch.tensor([1.5, float("nan")]), ("a", "b"))
    text = "Wanted finite values in forget. Got nan or inf in b. Fix these records, or omit them."
    assert refusal(validate_split, Split(forget=values), None) == text
