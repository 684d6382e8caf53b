"""Methods compared on one request: the numbers of single runs, resumed, chosen without evidence."""

import importlib
import json
import re
import shutil
from dataclasses import replace
from functools import partial

import pytest
import torch
from refusals import refusal
from run_files import contents, read

from efface import Hazard, Records, Split, compare, forget
from efface.calibration import calibration_distance, distance_to_unseen
from efface.comparison.page import sentences
from efface.comparison.result import Comparison, mean_interval
from efface.comparison.run import _describe, _refuse_request
from efface.methods import METHODS, Method
from efface.nets import conv_small
from efface.report import Row
from efface.task import multiclass
from efface.types import split_holdout

METHOD = {"method": "negative_gradient", "settings": {"epochs": 4, "learning_rate": 1e-3}}
HOW = {
    "methods": ("baseline", "negative_gradient"),
    "settings": {"negative_gradient": METHOD["settings"]},
    "report": "quick",
}


@pytest.fixture
def split(digits):
    """Forty records that the net was shown, and a hundred that it was not."""
    return Split(digits.take(range(40)), holdout=digits.take(range(300, 400)))


@pytest.mark.parametrize("guard", [True, False])
def test_a_cell_has_the_numbers_of_a_single_run(tiny_net, split, tmp_path, guard):
    found = compare(
        tiny_net, split, out=tmp_path, seeds=(3,), guard=(guard,), holdout_seed=2, **HOW
    )
    single = forget(tiny_net, split, **METHOD, seed=3, guard=guard, holdout_seed=2, report="quick")
    cell = found.cells[1]
    written = json.loads((tmp_path / cell["folder"] / "evidence.json").read_text())
    assert written == json.loads(json.dumps(single.report.to_json()))
    manifest = json.loads((tmp_path / cell["folder"] / "manifest.json").read_text())
    assert manifest["weights"] == single.manifest.weights
    assert cell["rows"]["attack.loss"]["after"] == single.report.row("attack.loss").after
    assert cell["distance"] == distance_to_unseen(single.report.rows)
    assert found.cells[0]["outcome"].startswith("unchanged")


def test_records_are_named_as_for_a_single_run(tiny_net, digits, tmp_path):
    named = {"indices": range(40), "holdout": digits.take(range(300, 400))}
    data = digits.take(range(300))
    how = HOW | {"methods": ("negative_gradient",), "seeds": (3,)}
    found = compare(tiny_net, data, **named, out=tmp_path, **how)
    single = forget(tiny_net, data, **named, **METHOD, seed=3, report="quick")
    assert found.cells[0]["distance"] == distance_to_unseen(single.report.rows)


def test_with_retrained_models_the_gap_is_what_score_says(tiny_net, digits, split, tmp_path):
    from efface import score

    split = replace(split, retain=digits.take(range(40, 120)))
    others = [forget(tiny_net, split, **METHOD, seed=seed, guard=False).model for seed in (5, 6)]
    found = compare(tiny_net, split, out=tmp_path, seeds=(0,), retrained=others, **HOW)
    new = forget(tiny_net, split, **METHOD, seed=0).model
    gap = score(tiny_net, new, split, retrained=others).report.row("retrained.gap")
    assert found.cells[1]["gap"] == gap.after
    assert (found.measure, found.table()[1][0][1]) == ("gap", f"{100 * gap.before:.1f}")


def test_the_given_model_is_as_far_as_doing_nothing_in_any_order_of_methods(
    tiny_net, split, tmp_path
):
    """Another model's unseen answers are another reference."""
    names, how = ["negative_gradient", "baseline"], {"report": "quick", "seeds": (0,)}
    one, other = (
        compare(tiny_net, split, out=tmp_path, methods=order, **how)
        for order in (names, names[::-1])
    )
    assert one.given_distance == other.given_distance == other.cells[0]["distance"]
    assert one.cells[0]["distance"] != one.given_distance


def test_a_comparison_goes_on_where_it_was_and_makes_what_changed(
    tiny_net, split, tmp_path, monkeypatch
):
    first = compare(tiny_net, split, out=tmp_path, seeds=(0,), **HOW)
    before, ran = contents(tmp_path / "cells"), []

    def counted(*given, **how):
        if "dry_run" not in how:
            ran.append((how["method"], how["seed"]))
        return forget(*given, **how)

    monkeypatch.setattr("efface.comparison.run.forget", counted)
    assert compare(tiny_net, split, out=tmp_path, seeds=(0,), **HOW).cells == first.cells
    assert (ran, contents(tmp_path / "cells")) == ([], before)
    compare(tiny_net, split, out=tmp_path, seeds=(0, 1), **HOW)
    assert ran == [("baseline", 1), ("negative_gradient", 1)]
    fewer = replace(split, forget=split.forget.take(range(39)))
    compare(tiny_net, fewer, out=tmp_path, seeds=(0,), **HOW)
    assert len(ran) == 4
    # stopped between two cells
    shutil.rmtree(tmp_path / first.cells[1]["folder"])
    assert compare(tiny_net, split, out=tmp_path, seeds=(0,), **HOW).cells[0] == first.cells[0]
    assert ran[4:] == [("negative_gradient", 0)]


class Custom(torch.nn.Module):
    """One with a function of its own between net and outputs."""

    def __init__(self, net, last):
        super().__init__()
        self.net, self.last = net, last

    def forward(self, x):
        return self.last(self.net(x))


def recipe(model, records, seed, scale=1.0):  # noqa: ARG001
    return model


def closure(scale):
    return lambda model, records, seed: recipe(model, records, seed, scale)


def task(divisor):
    """Of one name, whatever it divides by."""
    return replace(
        multiclass, name="own", loss=lambda logits, y: multiclass.loss(logits, y) / divisor
    )


def same(value):
    return value


def negated(value):
    return -value


def pairs(net, digits):
    """Two of each, that no tensor and no name tells apart."""
    yield partial(recipe, scale=1.0), partial(recipe, scale=5.0)
    yield closure(1.0), closure(5.0)
    yield Custom(net, same), Custom(net, negated)
    yield [replace(digits, task=task(divisor)) for divisor in (1, 2)]


def test_another_recipe_model_or_task_is_another_cell(tiny_net, digits):
    twice = zip(pairs(tiny_net, digits), pairs(tiny_net, digits), strict=True)
    for (one, other), (again, _) in twice:
        assert _describe(one) == _describe(again) != _describe(other)


def test_a_recipe_of_an_edited_module_is_another_one(tmp_path, monkeypatch):
    """Its own file, and one that it imports."""
    monkeypatch.syspath_prepend(tmp_path)
    helper = tmp_path / "own_helper.py"
    helper.write_text("scale = 1.0\n")
    (tmp_path / "own_recipe.py").write_text("import own_helper\ndef train(): pass\n")
    train = importlib.import_module("own_recipe").train
    before = _describe(train)
    assert _describe(train) == before
    helper.write_text("scale = 50.0\n")
    assert _describe(train) != before


def test_a_recipe_that_cannot_be_described_is_no_cell_that_is_there():
    drawn = (number for number in (1, 2))
    assert _describe(partial(recipe, scale=drawn)) != _describe(partial(recipe, scale=drawn))


def test_a_method_that_fails_is_a_row_and_the_others_stand(tiny_net, split, tmp_path, monkeypatch):
    def broken(model, split, *, seed=0, callback=None):  # noqa: ARG001
        raise RuntimeError(f"seed {seed} is cursed")

    monkeypatch.setitem(METHODS, "broken", Method(broken, frozenset({"model", "forget"})))
    how = HOW | {"methods": ("broken", "baseline"), "settings": {}}
    found = compare(tiny_net, split, out=tmp_path, seeds=(0,), **how)
    assert [cell["error"] for cell in found.cells] == ["RuntimeError: seed 0 is cursed", ""]
    assert "seed 0 is cursed" in (tmp_path / "compare.html").read_text()
    assert "1 failed" in str(found)
    found = compare(tiny_net, split, out=tmp_path / "new", **how | {"methods": ("broken",)})
    assert [cell["error"] for cell in found.cells] == [
        f"RuntimeError: seed {n} is cursed" for n in range(3)
    ]
    assert "seed 2 is cursed" in (tmp_path / "new/compare.html").read_text()


def test_a_strength_is_searched_on_the_auxiliary_part_alone(tiny_net, split, tmp_path):
    """Other labels in the part that the report uses change no trial, in this part they do."""
    how = HOW | {"methods": ("negative_gradient",), "search_strength": 3, "seeds": (0, 1)}
    found = compare(tiny_net, split, out=tmp_path / "as it is", **how)
    distances = [trial["calibration_distance"] for trial in found.trials]
    best = [0.1, 1.0, 10.0][distances.index(min(distances))]
    assert [cell["settings"]["strength"] for cell in found.cells] == [best, best]
    parts = [{*part.holdout.ids} for part in split_holdout(split, seed=0)]
    for part, same in ((1, True), (0, False)):
        wrong = torch.tensor([one in parts[part] for one in split.holdout.ids])
        y = torch.where(wrong, (split.holdout.y + 1) % 10, split.holdout.y)
        other = replace(split, holdout=Records(split.holdout.x, y, split.holdout.ids))
        again = compare(tiny_net, other, out=tmp_path / f"{part}", accept=("chance",), **how)
        assert ([t["calibration_distance"] for t in again.trials] == distances) == same


def test_the_step_that_is_kept_is_the_nearest_on_the_auxiliary_part(tiny_net, split):
    """Its weights are those of a run that ends there."""
    steep = {"method": "negative_gradient", "guard": False, "report": "off"}
    settings = [{"epochs": epochs, "learning_rate": 0.1} for epochs in range(1, 8)]
    ends = [forget(tiny_net, split, settings=one, **steep).model for one in settings]
    auxiliary, _ = split_holdout(split, seed=0)
    distances = [calibration_distance(tiny_net, end, auxiliary, seed=0) for end in ends]
    best = distances.index(min(distances))
    assert 0 < best < 6  # else the first or the last one would do as well
    kept = forget(tiny_net, split, settings=settings[-1], keep_best=1, **steep)
    facts = kept.manifest.calibration
    assert (facts["kept_step"], facts["calibration_distance"]) == (best + 1, distances[best])
    state = kept.model.state_dict()
    assert all(state[name].equal(t) for name, t in ends[best].state_dict().items())


def test_what_a_run_would_refuse_is_refused_before_the_first_one(tiny_net, digits, split, tmp_path):
    def refused(data=split, **how):
        return refusal(compare, tiny_net, data, **{"out": tmp_path / "no", **HOW, **how})

    assert "Did you mean 'delete'?" in refused(methods=("baseline", "delet"), settings={})
    assert "retain for finetune" in refused(methods=("baseline", "finetune"), settings={})
    assert "2 to 12 strengths" in refused(search_strength=13)
    assert "settings of the methods compared" in refused(settings={"jit": {}})
    assert "methods and seeds" in refused(seeds=())
    # the shape checks of the tests are stricter than what a user runs
    single = refusal(_refuse_request, {"guard": False}, {})
    assert single == "Wanted guard as a list. Got False. Write guard=(False,)."
    assert "methods as a list. Got 'jit'." in refused(methods="jit", settings={})
    assert refused(seed=7).endswith("Got seed=. Give seeds.")
    assert "Got method=." in refused(method="jit")
    assert "Got dry_run=." in refused(dry_run=True)
    # what the first method has, and the second has not
    named = {"methods": ("jit", "baseline"), "settings": {}, "expected_accuracy": 0.9}
    assert "a setting of baseline" in refused(**named)
    many = digits.take(range(40))
    many = Split(replace(many, y=torch.nn.functional.one_hot(many.y)))
    two = {"methods": ("baseline", "random_labels"), "settings": {}}
    assert "a multiclass task for random_labels" in refused(data=many, accept=("chance",), **two)
    assert "Got 3 from retrained model 1." in refused(retrained=[conv_small(3)])
    with pytest.raises(TypeError, match="utilty_budget"):
        compare(tiny_net, split, out=tmp_path / "no", **HOW, utilty_budget=0.1)
    parts = {name: getattr(split, name) for name in ("forget", "holdout")}
    wrong = {name: replace(part, y=(part.y + 1) % 10) for name, part in parts.items()}
    with pytest.raises(Hazard):
        compare(tiny_net, replace(split, **wrong), out=tmp_path / "no", **HOW)
    assert refusal(forget, tiny_net, Split(split.forget), **METHOD, keep_best=1).startswith(
        "Wanted a holdout to choose"
    )
    assert not (tmp_path / "no").exists()


def test_the_distance_is_the_mean_over_what_has_a_reference():
    rows = [
        Row(1.0, 0.7, 0.9, key="forget.accuracy"),
        Row(0.9, 0.4, 0.5, key="attack.loss", unit="auc"),
        Row(0.95, 0.9, "unchanged", key="holdout.accuracy"),
        Row(1.0, 0.0, 0.5, key="residual.blur"),
    ]
    assert distance_to_unseen(rows) == pytest.approx((0.2 + 0.1 + 0.05) / 3)
    assert distance_to_unseen(rows[2:]) is None


def test_intervals_over_seeds_are_those_of_students_t():
    # by hand: mean 2, standard deviation 1, 4.302653 is the quantile of two degrees of freedom
    assert mean_interval([1.0, 2.0, 3.0]) == pytest.approx((2, 2 - 2.484138, 2 + 2.484138))
    assert mean_interval([0.25]) == (0.25, None, None)


def test_the_front_is_what_nothing_beats_in_both_within_the_budget():
    def cell(name, distance, seconds, lost=0.0):
        rows = {"holdout.accuracy": {"before": 0.9, "after": 0.9 - lost, "reference": "unchanged"}}
        facts = {"name": name, "outcome": "done", "rows": rows, "gap": None, "passes": 1}
        return facts | {"distance": distance, "seconds": seconds}

    cells = [cell("near", 0.1, 9), cell("fast", 0.3, 1), cell("beaten", 0.3, 2)]
    cells += [cell("damaging", 0.01, 0.5, lost=0.5)]
    assert set(Comparison(cells).front) == {"near", "fast"}


def test_the_nearest_stands_next_to_doing_nothing_and_to_what_the_attack_can_show():
    """Of seconds the median counts: the first run loads what the others have."""

    def cell(name, after, seconds):
        facts = {"name": name, "outcome": "done", "rows": {}, "gap": None, "passes": 1}
        return facts | {"distance": abs(after - 0.5), "seconds": seconds}

    def said(control):
        cells = [cell("far", 0.0, 1), cell("same", 0.9, 1)]
        cells += [cell("near", 0.6, n) for n in (60, 2, 3)]
        positive = {"before": 0.5, "after": None, "reference": "above 0.5", "verdict": control}
        own = {"before": 0.9, "after": 0.9, "reference": 0.5}
        return Comparison(cells, given={"forget.accuracy": own, "control.positive": positive})

    lines = " ".join(sentences(said("control_failed")))
    assert "Nearest: near, distance to unseen records 10.0 points; as given 40.0." in lines
    assert "1 of 3 methods ended farther than the model as given" in lines
    assert "its column decides nothing" in lines
    found = said("control_passed")
    assert "decides nothing" not in " ".join(sentences(found))
    assert found.summary()[0]["seconds"][0] == 3


def test_the_command_makes_the_page_with_the_numbers_of_forget(efface, place, capfd):
    given = ("model", "--data", "data", "--ids", "ids.csv", "--holdout", "data:test")
    quick = ("--report", "quick")
    words = ("--methods", "jit", "baseline", "--setting", "jit.steps=2", "--seeds", "4")
    assert efface("compare", *given, *quick, *words, "--out", "table") == 0
    printed = capfd.readouterr().out
    words_of_it = ("; as given ", "jit", "baseline", "distance to unseen records", "nearest first")
    assert all(word in " ".join(printed.split()) for word in words_of_it)
    single = ("--setting", "steps=2", "--seed", "4", "--method", "jit")
    efface("forget", *given, *quick, *single, "--out", "alone")
    (cell,) = (place / "table/cells").glob("jit-*")
    assert json.loads((cell / "evidence.json").read_text()) == read(place / "alone", "evidence")
    page = (place / "table/compare.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:|cells/|#)', page)
    for link in re.findall(r'href="(cells/[^"]+)"', page):
        assert (place / "table" / link).exists()
    assert efface("compare", *given, *quick, *words, "--out", "table") == 0
    assert efface("compare", *given, *quick, *words, "--out", "model") == 2


def test_a_script_gets_the_cells_and_what_went_wrong(efface, place, capfd, monkeypatch):
    """With --quiet too: a mail at night says what failed."""
    given = ("compare", "model", "--data", "data", "--ids", "ids.csv", "--report", "quick")
    given += ("--methods", "baseline", "--seeds", "0", "--json", "--quiet", "--out")
    assert efface(*given, "for-a-script") == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["page"], found["failed"]) == ("for-a-script/compare.html", 0)
    assert (place / "for-a-script" / found["cells"][0]["folder"] / "evidence.json").exists()
    broken = Method(lambda *_, **__: 1 / 0, frozenset({"model", "forget"}))
    monkeypatch.setitem(METHODS, "baseline", broken)
    (place / "stopped/trials").mkdir(parents=True)
    (place / "stopped/trials/one").touch()
    assert efface(*given, "stopped") == 1
    printed = capfd.readouterr()
    found = json.loads(printed.out)
    assert (found["exit_code"], found["failed"]) == (1, 1)
    assert found["cells"][0]["error"] == "ZeroDivisionError: division by zero"
    assert "ZeroDivisionError" in printed.err


def test_the_model_of_a_comparison_may_stand_in_a_file(efface, place):
    (place / "table.toml").write_text('[compare]\nmodel = "model"\nmethods = ["baseline"]\n')
    given = ("--data", "data", "--ids", "ids.csv", "--report", "quick", "--seeds", "0")
    assert efface("compare", "--config", "table.toml", *given, "--out", "by-file") == 0
    # the next command of the process does not ask for the file again
    (place / "table.toml").unlink()
    assert efface("methods") == 0
