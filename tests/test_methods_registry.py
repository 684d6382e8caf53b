"""What the decorator does for every method: settings and labels refused, epochs of an own order."""

import inspect
import json
from pathlib import Path

import pytest
import torch
from by_hand import Answers, accuracy, without_class
from docstring_parser import parse
from method_promises import CASES, CLASSES_ONLY
from refusals import refusal
from torch import nn

import efface.methods
from efface.methods import BUILT_IN, METHODS, Method, check_settings, check_value, register_method
from efface.methods._base import Count, NonNegative, PositiveShare, Share
from efface.types import Action, Records, Split

FILES = sorted(Path(efface.methods.__file__).parent.glob("[!_]*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_of_methods_names_its_source_in_line_1(path):
    """And a method that is not in the table would escape every test that runs over it."""
    first_line = path.read_text().splitlines()[0]
    assert "https://" in first_line or "docs/" in first_line
    modules = {method.function.__module__ for method in METHODS.values()}
    assert f"efface.methods.{path.stem}" in modules
    assert all(method.function.__name__ == name for name, method in METHODS.items())


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_has_a_default_that_survives_json_and_is_explained(name):
    """The signature is the only home of a default, the docstring the help of the command."""
    parameters = inspect.signature(METHODS[name].function).parameters
    assert list(parameters)[:2] == ["model", "split"]
    assert {"seed", "callback"} <= {*parameters}
    for key in parameters.keys() - {"model", "split", "callback"}:
        assert parameters[key].kind is inspect.Parameter.KEYWORD_ONLY, key
        assert json.loads(json.dumps(parameters[key].default)) == parameters[key].default, key
    explained = parse(inspect.getdoc(METHODS[name].function)).params
    assert {one.arg_name for one in explained} == {*parameters}


def test_what_a_method_costs_is_what_was_counted_and_each_says_what_it_is_for():
    """Of the two that were counted at fewer rounds the most that they can take is declared."""
    rows = json.loads(
        Path(__file__).parents[1].joinpath("research/results/method_costs.json").read_text()
    )["rows"]
    counted = {row["method"]: round(sum(row["counted"]) / 256) for row in rows}
    # counted at fewer rounds, a training of one's own, and a method that came after the record
    elsewhere = {"gkt", "l2ul", "retrain", "neighbourhood"}
    declared = {name: METHODS[name].passes for name in counted.keys() - elsewhere}
    assert declared == {name: counted[name] for name in declared}
    assert all(0 < len(method.purpose) < 80 for method in BUILT_IN.values())
    assert [n for n, m in BUILT_IN.items() if m.runs_from == "Python"] == ["gkt", "bad_teacher"]


@pytest.mark.parametrize(
    ("method", "setting", "value", "wanted", "default"),
    [
        ("amun", "radius", 0.0, "a number above 0", 0.04),
        ("amun", "attack_steps", 0, "an integer of at least 1", 50),
        ("amun", "decay_every", 0, "an integer of at least 1", 1),
        ("bad_teacher", "retained_share", 30.0, "a number of at least 0 and at most 1", 0.3),
        ("boundary_shrink", "bound", -0.1, "a number of at least 0", 0.1),
        ("gkt", "batch_size", 1, "an integer of at least 2", 256),
        ("gkt", "threshold", 1.5, "a number of at least 0 and at most 1", 0.01),
        ("jit", "sigma", 0.0, "a number above 0", 0.15),
        ("jit_paper", "perturbations", 0, "an integer of at least 1", 25),
        ("jit_reference", "sigma", 0.0, "a number above 0", 0.5),
        ("l2ul", "penalty", -1.0, "a number of at least 0", 1.0),
        ("mu_mis", "recovery", -0.1, "a number of at least 0", 1.0),
        ("salun", "keep", 0.0, "a number above 0 and at most 1", 0.5),
        ("salun", "momentum", 1.0, "a number of at least 0 and below 1", 0.9),
        ("scrub", "temperature", 0.0, "a number above 0", 4.0),
        ("source_free_newton", "retained_records", 0, "an integer of at least 1", None),
        ("ssd", "selection_weighting", -1.0, "a number of at least 0", 10.0),
        ("synthetic_embeddings", "samples_per_class", 2.5, "an integer of at least 1", 5000),
        ("finetune", "training_mode", 1, "true or false", True),
    ],
)
def test_a_setting_out_of_range_is_refused_by_its_name(method, setting, value, wanted, default):
    text = f"Wanted {wanted} for {setting}. Got {value!r}. Its default is {default}."
    case = CASES[method]
    assert refusal(case.method.function, case.model, case.split, **{setting: value}) == text
    assert refusal(check_settings, method, {setting: value}) == text


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (Count, (1, 7), (0, 1.0, True, "1", None)),
        (NonNegative, (0.0, 3, 1e9), (-1e-9, float("inf"), float("nan"), None)),
        (PositiveShare, (1e-9, 1.0), (0.0, 1.1)),
        (Share | None, (None, 0.0, 1), (1.5,)),
        (bool, (True,), (1, None)),
        (str, ("anything", 3), ()),
    ],
)
def test_a_value_is_checked_by_kind_and_range(annotation, good, bad):
    for value in good:
        check_value("it", value, annotation)
    for value in bad:
        assert "for it" in refusal(check_value, "it", value, annotation)


@pytest.mark.parametrize("method", CLASSES_ONLY)
def test_records_without_one_class_of_several_are_refused(method):
    records = Records(torch.zeros(2, 2), torch.ones(2, 3, dtype=torch.int64))
    split = CASES[method].split_of(records, records, nn.Linear(2, 3))
    assert refusal(METHODS[method].function, nn.Linear(2, 3), split) == (
        f"Wanted a multiclass task for {method}, which relabels records. Got "
        "multilabel. Choose a method that does not relabel; `efface methods` lists them."
    )


@pytest.mark.parametrize(
    ("method", "settings", "records"),
    [
        ("amun", {"epochs": 2}, 10),
        ("bad_teacher", {"epochs": 2, "retained_share": 1.0}, 10),
        ("scrub", {"epochs": 2, "max_epochs": 0}, 5),
        ("emmn", {"repair_epochs": 0, "copies": 1, "noise_per_class": 3}, 9),
    ],
)
def test_every_epoch_has_an_order_of_its_own(method, settings, records):
    seen = []

    class Recording(nn.Linear):
        def forward(self, x):
            # the teacher's passes have no gradients, and attacks come before the epochs
            seen.extend(x[:, 0].tolist() if self.weight.requires_grad else ())
            return super().forward(x)

    x = torch.randn(10, 4, generator=torch.Generator().manual_seed(0)).double()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Recording(4, 3).double()
    some = Records(x, model(x).argmax(1))
    split = CASES[method].split_of(some.take(range(5)), some.take(range(5, 10)), model)
    seen.clear()
    METHODS[method].function(model, split, batch_size=1, **settings)
    first, second = seen[-2 * records : -records], seen[-records:]
    assert sorted(first) == sorted(second)
    assert first != second


@pytest.mark.parametrize("method", ["emmn", "scrub", "unsir", "amun", "jit_reference"])
def test_stop_in_one_phase_ends_them_all(method):
    stop = Answers(Action.STOP)
    CASES[method].run(CASES[method].model, CASES[method].split, callback=stop)
    assert len(stop.losses) == 1


@pytest.mark.parametrize(
    ("method", "settings", "gone", "kept"),
    [
        ("delete", {"learning_rate": 3e-4}, 0.0, 0.97),
        ("mu_mis", {"learning_rate": 0.05}, 0.1, 0.97),
        ("ssd", {}, 0.5, 0.9),
        ("neighbourhood", {}, 0.1, 0.95),
        ("synthetic_embeddings", {"samples_per_class": 300, "batch_size": 300}, 0.0, 0.97),
    ],
)
def test_a_class_is_forgotten_and_the_others_are_kept(
    method, settings, gone, kept, tiny_net, digits
):
    forget, retain = without_class(digits.take(range(300)), 3)
    split = Split(forget, retain=retain, forget_classes=(3,))
    result = METHODS[method].function(tiny_net, split, **settings)
    assert accuracy(tiny_net, forget) > 0.95
    assert accuracy(result, forget) <= gone
    assert accuracy(result, retain) > kept


def test_the_name_of_a_method_of_efface_is_not_taken_by_another_module():
    def ssd(model, split, *, seed=0, callback=None):  # noqa: ARG001
        return model

    assert "Rename the function" in refusal(register_method(reads={"forget"}), ssd)
    assert METHODS["ssd"].function.__module__ == "efface.methods.ssd"


def test_what_a_method_needs_and_whose_labels_it_reads_it_reads():
    ssd = METHODS["ssd"]
    assert ssd.reads == {"model", "forget", "forget labels", "retain", "retain labels"}
    assert (ssd.function.method, ssd.labels) == (ssd, ("forget", "retain"))
    assert METHODS["jit"].optional == ("holdout", "forget_classes")
    needs = ("retain", "train", "forget_classes")
    zero_shot = [Method(ssd.function, needs=frozenset({one})).zero_shot for one in needs]
    assert zero_shot == [False, False, True]


def test_scrub_rewind_has_the_settings_of_scrub():
    assert METHODS["scrub_rewind"].settings == METHODS["scrub"].settings
