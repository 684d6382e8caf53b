"""The benchmark: no reference saw what goes, scores are distances to it, searches are fair."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import expit

from efface.errors import InputError
from efface.metrics.retrain_gap import gap
from research.bench import board, klom, paper, protocol, record
from research.bench.scores import Reference, floors, other_half, score
from research.bench.tasks import TASKS, find_task
from research.reduce import rows_by

DIGITS = [task for task in TASKS.values() if task.name.startswith("digits")]


@pytest.mark.parametrize("task", DIGITS, ids=lambda task: task.name)
def test_what_goes_is_in_the_base_model_and_in_no_retrained_one(task):
    for request in task.requests():
        assert request.base.settings["excluded"] is None
        assert request.retrained
        for job in request.retrained:
            assert job.settings["excluded"] == request.forget
            assert job.settings["labels"] == request.base.settings["labels"]
            assert job.settings["seed"] != request.base.settings["seed"]
    seeds = [job.settings["seed"] for request in task.requests() for job in request.retrained]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("task", DIGITS, ids=lambda task: task.name)
def test_settings_are_searched_on_another_base_and_another_request(task):
    scored, tuned = task.requests(), task.tuning()
    assert tuned.base.id not in {request.base.id for request in scored}
    assert tuned.forget not in [request.forget for request in scored]
    assert not {j.id for r in scored for j in r.retrained} & {j.id for j in tuned.retrained}


def test_an_unknown_task_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="Did you mean 'random-1'"):
        find_task("random1")


def test_the_default_sees_nothing_that_stays_and_no_method_has_a_guard():
    request = TASKS["digits-random"].requests()[0]
    ours, theirs = (
        request.unlearned("neighbourhood").settings,
        request.unlearned("finetune").settings,
    )
    assert (ours["holdout"], ours["retain"]) == (True, False)
    assert theirs["retain"]
    assert not ours["guard"]
    assert not theirs["guard"]


# ---------------------------------------------------------------- scores, on models made by hand


def model(seed, *, forget=0.0, shift=0.0, n=400, m=600):
    """Log-odds of n training and m test records in three classes; the first 40 are to go.

    ``forget`` is added to these, ``shift`` to all.
    """
    # what is easy is easy in every model; the noise is a model's own
    hard, own = np.random.default_rng(0), np.random.default_rng(seed + 1)
    odds = {"train": hard.normal(2.0, 1.5, n), "test": hard.normal(2.0, 1.5, m)}
    arrays = {
        "train.member": np.ones(n, bool),
        "test.evidence": np.arange(m) % 2 == 0,
        "train.y": np.arange(n) % 3,
        "test.y": np.arange(m) % 3,
    }
    for part, values in odds.items():
        values = values + own.normal(0, 0.3, len(values)) + shift  # noqa: PLW2901
        if part == "train":
            values[:40] += forget
        p = 1 / (1 + np.exp(-values))
        arrays |= {f"{part}.margin": values, f"{part}.log_odds": values}
        arrays[f"{part}.entropy"] = -(p * np.log(p) + (1 - p) * np.log1p(-p))
    return arrays


def reference(**how):
    request = SimpleNamespace(forget={"rows": list(range(40))}, forget_classes=())
    near = np.zeros(600, bool)
    near[:60:2] = True
    return Reference(request, model(0, forget=6.0, **how), tuple(model(k) for k in (1, 2, 3)), near)  # type: ignore[arg-type]


def test_a_retrained_model_is_at_the_floor_and_the_given_one_is_found():
    known = reference()
    own = floors(known)
    assert len(own) == 3
    assert all(0.4 < one["auc"] < 0.6 for one in own)
    assert all(one["ks"] < 0.25 for one in own)
    given = score(known, known.base)
    assert given["auc"] > 0.95
    assert given["gap"] > 2 * max(one["gap"] for one in own)


def test_the_gap_is_that_to_the_mean_of_the_retrained_models():
    known = reference()
    new = model(5, forget=1.0)
    columns = [known.columns(one) for one in known.retrained]
    mean = {name: float(np.mean([one[name] for one in columns])) for name in columns[0]}
    assert score(known, new)["gap"] == pytest.approx(gap(known.columns(new), mean))


def test_a_collapsed_model_is_near_in_no_column():
    known = reference()
    fallen = score(known, model(9, shift=-6.0))
    own = floors(known)
    for name in ("gap", "ks"):
        assert fallen[name] > 3 * max(one[name] for one in own)
    assert fallen["worst_class"] < -0.3
    assert min(fallen["near"], fallen["rest"]) < -0.3
    assert fallen["retained"] < 0.5


def test_what_is_lost_near_the_forgotten_records_stands_by_itself():
    known, hurt = reference(), model(4)
    for name in ("test.margin", "test.log_odds"):
        hurt[name] = np.where(known.near, -5.0, hurt[name])
    found = score(known, hurt)
    assert found["near"] < -0.5
    assert abs(found["rest"]) < 0.1


def test_the_worst_class_is_the_one_that_lost_most():
    known, hurt = reference(), model(4)
    other = hurt["test.y"] == 1
    for name in ("test.margin", "test.log_odds"):
        hurt[name] = np.where(other, hurt[name] - 3.0, hurt[name])
    here = hurt["test.evidence"] & other

    def right(arrays):
        return (arrays["test.margin"][here] > 0).mean()

    by_hand = np.mean([right(hurt) - right(one) for one in known.retrained])
    assert score(known, hurt)["worst_class"] == pytest.approx(by_hand)


def test_a_model_of_nan_has_no_score_and_no_place():
    known, broken = reference(), model(1)
    broken["train.log_odds"] = broken["train.log_odds"] * np.nan
    assert score(known, broken) == {"finite": False, "gap": None}


# ---------------------------------------------------------------- the search


@pytest.fixture
def searched(monkeypatch):
    """The search where cells cost nothing, and the gap is the distance of ln strength to 1."""
    known, made = reference(), []
    monkeypatch.setattr(
        Reference, "of", classmethod(lambda *_, searched: known if searched else None)
    )
    monkeypatch.setattr(protocol, "is_done", lambda *_: True)
    passes = {"forward": 10, "backward": 10}

    def read(_, job):
        made.append(job)
        return SimpleNamespace(
            statistics={"passes": passes, "drift": 0.1}, arrays=known.retrained[0]
        )

    monkeypatch.setattr(protocol, "read", read)
    monkeypatch.setattr(
        protocol, "objective", lambda row, *_: abs(np.log(row.settings.get("strength", 1.0)) - 1.0)
    )
    return SimpleNamespace(passes=passes, made=made, known=known)


TASK = TASKS["digits-random"]


def test_the_first_trial_is_the_published_one_and_the_best_is_chosen(searched):
    rows = protocol.trials(TASK, "finetune", "store")
    assert next(rows).settings == {}
    found = protocol.best(TASK, "finetune", "store")
    assert abs(np.log(found["strength"]) - 1.0) < 1.0
    assert found == protocol.best(TASK, "finetune", "store")
    assert len(searched.made) >= protocol.TRIALS


def test_no_method_has_more_trials_and_an_expensive_one_fewer(searched):
    assert len(list(protocol.trials(TASK, "finetune", "store"))) == protocol.TRIALS
    searched.passes["backward"] = protocol.BUDGET // 2
    assert len(list(protocol.trials(TASK, "finetune", "store"))) == 2


@pytest.mark.usefixtures("searched")
def test_where_the_published_settings_are_best_the_searched_row_is_theirs(monkeypatch):
    monkeypatch.setattr(protocol, "objective", lambda row, *_: float(bool(row.settings)))
    assert protocol.best(TASK, "finetune", "store") == {}
    rows = protocol.searched(TASK, "store", ["finetune"])
    assert {(row.how, row.job.id) for row in rows} == {
        ("searched", row.job.id) for row in protocol.published(TASK, ["finetune"])
    }


@pytest.mark.usefixtures("searched")
def test_a_trial_that_fails_is_worse_than_any_other_and_ends_no_search(monkeypatch):
    monkeypatch.setattr(protocol, "is_done", lambda *_: False)
    monkeypatch.setattr(protocol, "read_failure", lambda *_: {"error": "refused"})
    found = protocol.ended_trials(TASK, "finetune", "store")
    assert [value for value, _ in found] == [protocol.BROKEN] * protocol.TRIALS
    assert protocol.best(TASK, "finetune", "store") is None
    monkeypatch.setattr(protocol, "read_failure", lambda *_: None)
    assert protocol.ended_trials(TASK, "finetune", "store") == []


def objective(monkeypatch, known, method, arrays, drift=0.1):
    # as a store has it: the reference of a search has the halves swapped
    found = SimpleNamespace(statistics={"drift": drift}, arrays=other_half(arrays))
    monkeypatch.setattr(protocol, "read", lambda *_: found)
    row = protocol.Row(TASK.requests()[0], method, "trial")
    return protocol.objective(row, known, "store")


def test_a_method_that_sees_nothing_that_stays_is_searched_without_the_retrained_models(
    monkeypatch,
):
    task = SimpleNamespace(kind="random")
    known = reference()
    known = replace(known, request=SimpleNamespace(**vars(known.request), task=task))  # type: ignore[arg-type]
    new = model(5, forget=-1.0)
    own = objective(monkeypatch, known, "delete", new)
    others = replace(known, retrained=tuple(model(k, shift=-4.0) for k in (1, 2, 3)))
    assert objective(monkeypatch, others, "delete", new) == own
    assert objective(monkeypatch, others, "finetune", new) > objective(
        monkeypatch, known, "finetune", new
    )
    # by hand: how far the confidence in the forget labels lies from the accuracy on unseen records
    base = known.base
    card = (base["test.margin"][base["test.evidence"]] > 0).mean()
    assert own == pytest.approx(abs(expit(new["train.log_odds"][:40]).mean() - card))
    assert objective(monkeypatch, known, "delete", new, drift=0.5) == pytest.approx(own + 0.3)
    assert objective(monkeypatch, known, "delete", new, drift=None) == protocol.BROKEN


def test_a_search_sees_no_test_record_that_scores(monkeypatch):
    known = reference()
    swapped = replace(
        known, base=other_half(known.base), retrained=tuple(map(other_half, known.retrained))
    )
    new = model(5, forget=-1.0)
    first = objective(monkeypatch, swapped, "finetune", other_half(new))
    for one in (new, known.base, *known.retrained):
        scoring = one["test.evidence"]
        for name in ("test.margin", "test.log_odds", "test.entropy"):
            one[name] = np.where(scoring, 0.3, one[name])
    again = replace(
        known, base=other_half(known.base), retrained=tuple(map(other_half, known.retrained))
    )
    assert objective(monkeypatch, again, "finetune", other_half(new)) == first


# ---------------------------------------------------------------- pages


def cell(method, gap, seed=710, how="published", **more):
    facts = {"ks": 0.1, "auc": 0.51, "tpr": None, "retained": 0.99, "worst_class": -0.01}
    facts |= {"near": -0.01, "rest": 0.0, "relearned": 0.5, "seconds": 2.0, "peak": 2**20}
    facts |= {"columns": {"retain": 0.9, "forget": 0.8, "attack": 0.5}, "unseen": 0.9}
    facts |= {"passes": {"forward": 10.0, "backward": 5.0}, "settings": {}, "turn": 0}
    return {"method": method, "how": how, "seed": seed, "gap": gap, **facts, **more}


def task_record(*cells):
    own = {"gap": 0.01, "ks": 0.05, "auc": 0.5}
    untouched = {**cell("", 0.3), "retained": 1.0}
    request = {"seed": 710, "floors": [own, own], "untouched": untouched}
    request |= {"target": untouched["columns"]}
    about = {"name": "digits-random", "title": "100 random digits", "kind": "random"}
    requests = [request, {**request, "seed": 711}]
    about_methods = {"not_applicable": ["unsir"], "untuned": ["jit"]}
    made = about_methods | {
        "command": "python -m x and y",
        "date": "2026-12-01",
        "searched_on": "digits-random",
    }
    return {"task": about, "requests": requests, "cells": list(cells), "missing": [], **made}


def test_a_page_has_every_row_and_says_what_was_not_finite():
    lost = {"method": "delete", "how": "published", "seed": 710, "gap": None, "settings": {}}
    lost |= {"passes": {"forward": 1.0}, "seconds": 1.0, "peak": 2**20}
    found = task_record(cell("finetune", 0.05), cell("finetune", 0.07, 711), lost)
    text = board.page(found)
    assert "6.0 (5.0 to 7.0)" in text
    # by Student's t of 4 and 6 points above a floor of 1
    assert "5.0 (-7.7 to 17.7)" in text
    assert "1 not finite" in text
    assert "not applicable here: `unsir`. Made to be set by nobody, so not searched: `jit`." in text
    board.pareto(found)


def test_the_leaderboard_puts_the_nearest_first_and_marks_what_was_lost():
    hurt = cell("delete", 0.02, retained=0.9)
    found = {"digits-random": task_record(cell("finetune", 0.05), hurt, cell("jit", 0.03))}
    text = board.leaderboard(found)
    assert text.index("delete") < text.index("jit") < text.index("finetune")
    assert text.count("†") == 1
    assert "data-zero" in text.split("<code>jit")[0].rsplit("<tr", 1)[1]
    assert "data-zero" not in text.split("<code>finetune")[0].rsplit("<tr", 1)[1]
    assert 'href="research/results/bench/digits-random.html"' in text


def test_the_rows_of_a_terminal_say_the_interval_above_the_floor():
    found = task_record(cell("finetune", 0.05), cell("finetune", 0.07, 711))
    ((name, settings, count, spread, over, *_),) = record.rows_of(found["cells"], found["requests"])
    assert (name, settings, count) == ("`finetune`", "published", "2")
    assert (spread, over) == ("6.0 (5.0 to 7.0)", "5.0 (-7.7 to 17.7)")


def test_the_papers_table_stands_next_to_ours_with_both_gaps():
    found = task_record(cell("finetune", 0.05), cell("finetune", 0.07, 711), cell("ssd", 0.01))
    found["task"] = {"name": "random-1", "title": "1 % of CIFAR-10"}
    text = paper.page(found)
    # T4a as printed: 84.4, 86.4, 70.8 next to 87.7, 91.0, 78.9
    row = "| FNTN, `finetune` | 84.4 / 86.4 / 70.8 | 90.0 / 80.0 / 50.0 | 5.3 | 6.0 |"
    assert row in text
    assert "| JiT, `jit_reference` | 86.3 / 88.7 / 64.2 | – | 6.1 | – |" in text
    assert "Spearman" not in text


# ---------------------------------------------------------------- KLoM


def test_klom_of_retrained_models_is_that_of_the_seed_alone_and_of_others_more():
    draw = np.random.default_rng(0)
    hundred = {part: draw.normal(0, 1, (100, 60)) for part in klom.PARTS}
    alike = {part: draw.normal(0, 1, (10, 60)) for part in klom.PARTS}
    other = {part: draw.normal(2, 1, (10, 60)) for part in klom.PARTS}
    seeds = klom.seeds_alone(hundred, 10, draws=10)
    ours, theirs = klom.score(alike, hundred), klom.score(other, hundred)
    for part in klom.PARTS:
        assert ours[part]["klom"] < 1.3 * max(seeds[part])
        assert theirs[part]["klom"] > max(seeds[part])
        assert ours[part]["error"] > 0


def test_rows_of_klom_are_those_that_go_and_samples_of_the_others():
    arrays = model(0, n=9000, m=9000)
    request = klom.REQUESTS["random"]
    rows = klom.rows_of(request, arrays)
    assert rows["forget"].tolist() == rows_by(request.forget, arrays["train.y"])
    assert not set(rows["forget"]) & set(rows["retain"])
    assert (len(rows["retain"]), len(rows["unseen"])) == (klom.RETAINED, klom.UNSEEN)
    assert arrays["test.evidence"][rows["unseen"]].all()


# ---------------------------------------------------------------- the command


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["digits-rand", "--method", "jit"], "Did you mean 'digits-random'?"),
        (["digits-random", "--method", "jitt"], "Did you mean 'jit'?"),
        (["digits-random", "--method", "nowhere.py:f"], "nowhere"),
        (["digits-random", "--method", "jit", "--settings", "searched"], "a setting to search for"),
        (["digits-random", "--method", "jit", "--settings", "tuned"], "published or searched"),
        (["digits-random", "--method", "own.py:plain"], "a function with @register_method"),
    ],
)
def test_what_is_mistyped_is_refused_before_anything_is_made(tmp_path, monkeypatch, words, text):
    from research.bench.__main__ import app

    (tmp_path / "own.py").write_text("def plain(model, split): return model\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=re.escape(text)):
        app(words, result_action="return_value")
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_method_of_ones_own_is_benchmarked_by_its_file(tmp_path, capsys, monkeypatch):
    from research.bench.__main__ import app

    template = (board.RESULTS.parents[1] / "docs" / "template" / "my_method.py").read_text()
    (tmp_path / "my_method.py").write_text(template)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # and taken off again
    words = ["digits-random", "--method", "my_method.py:my_method", "--first", "--store", "store"]
    app(words, result_action="return_value")
    first = capsys.readouterr().out
    assert "`my_method`" in first
    made = {p: p.read_bytes() for p in tmp_path.glob("store/*/arrays.safetensors")}
    app([*words[:-1], "again"], result_action="return_value")
    again = {p.parent.name: p.read_bytes() for p in tmp_path.glob("again/*/arrays.safetensors")}
    assert {p.parent.name: found for p, found in made.items()} == again
    facts = [json.loads(p.read_text()) for p in tmp_path.glob("store/*/result.json")]
    assert len(facts) == 3 + 3 * 3 + 3 + 3
