"""Jobs with models: what is trained on, what a method sees, and what the record is worth."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from efface.grid import read, run
from efface.metrics.evaluation import evaluate
from efface.metrics.retrain_gap import columns
from research.data import data_set, load_part
from research.jobs import training, unlearning
from research.recipes import RECIPES
from research.reduce import columns_of, rows_by, statistics_of
from research.trained import model_of, parts_of, trained
from tests.refusals import refusal

SHORT = replace(RECIPES["digits-conv"], epochs=3)
CLASS, RANDOM = {"class": 3}, {"random": 40, "seed": 2}
WRECKED = {"forget": CLASS, "forget_classes": [3]}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with one base model."""
    folder = tmp_path_factory.mktemp("store")
    make(folder, base())
    return folder


def base(**changes):
    return training(SHORT, "digits", **{"keep_weights": True, "labels": {0: 9}, **changes})


def make(store, job):
    """The result of a job made in this process."""
    assert not run([job], store, backend="sequential")[job.id].error
    return read(store, job)


def test_a_retrained_model_never_saw_the_excluded_rows(store):
    """And says so per record; nothing else differs but the seed."""
    result = make(store, training(SHORT, "digits", excluded=CLASS, forget_classes=[3], seed=1))
    assert np.array_equal(result.arrays["train.member"], result.arrays["train.y"] != 3)
    accuracy = result.statistics["accuracy"]
    assert accuracy["forget"] == accuracy["test_forget"] == 0
    assert accuracy["test_staying"] > 0.9
    assert not (result.folder / "weights.safetensors").exists()


def test_a_shadow_model_is_trained_on_its_own_rows(store):
    """A random half by a seeded rule, and of it not the excluded ones."""
    half, two = {"random": 100, "seed": 5}, {"rows": [0, 1]}
    job = training(SHORT, "digits", first=200, trained_on=half, excluded=two)
    member = make(store, job).arrays["train.member"]
    chosen = np.random.default_rng(5).choice(200, 100, replace=False)
    assert set(np.flatnonzero(member)) == set(chosen.tolist()) - {0, 1}


def test_the_same_job_gives_the_same_bits(store, tmp_path):
    """Else a record could not be made again."""
    (tmp_path / "shared").mkdir()
    again, first = trained(base().settings, {}, tmp_path / "shared"), read(store, base())
    assert all(np.array_equal(again.arrays[n], a) for n, a in first.arrays.items())
    seconds = {"training_seconds": 0}
    assert {**again.statistics, **seconds} == {**first.statistics, **seconds}


def test_statistics_of_any_request_come_from_the_record_alone(store):
    """The row "nothing done" of every request is in the base's record."""
    result = read(store, base())
    untouched = make(store, unlearning(base(), "baseline", forget=RANDOM, guard=False))
    rows = rows_by(RANDOM, result.arrays["train.y"])
    for made, options in ((result, {}), (untouched, {"forget": rows})):
        found = statistics_of(result.arrays, **options)
        assert found == {name: made.statistics[name] for name in found}


@pytest.mark.parametrize(("rule", "forget_classes"), [(RANDOM, []), (CLASS, [3])])
def test_the_columns_of_a_record_are_those_of_the_model(store, rule, forget_classes):
    """Half precision loses nothing that a table shows: the scores on the model are the oracle."""
    result, settings = read(store, base()), base().settings
    records, test = parts_of(settings, store / "shared")
    model = model_of(settings, store / base().id)
    rows = rows_by(rule, records.y.numpy())
    stays = [row for row in range(len(records)) if row not in set(rows)]
    evidence = test.take(np.flatnonzero(result.arrays["test.evidence"]).tolist())
    parts = [evaluate(model, part) for part in (records.take(rows), evidence, records.take(stays))]
    found = statistics_of(result.arrays, forget=rows, forget_classes=forget_classes)
    exact = columns(*parts, forget_classes=forget_classes)
    assert columns_of(found, forget_classes=bool(forget_classes)) == exact
    for name, part in (("forget", parts[0]), ("retain", parts[2])):
        assert found["loss"][name] == pytest.approx(float(part.loss.mean()), rel=2**-10)


def test_a_label_that_the_settings_change_is_learned_and_kept(store):
    """A mislabelled record: what the base answers it with is the label that it came with."""
    assert read(store, base()).arrays["train.y"][0] == 9
    records, _ = parts_of(base(labels={}).settings, store / "shared")
    assert records.y[0] != 9


def test_what_the_guard_refuses_is_measured_as_the_old_model(store):
    """Such a job is a failure to forget and must not look like a collapse, nor like success."""
    result = make(store, unlearning(base(), "fake_methods:wrecking", **WRECKED))
    assert result.statistics["outcome"] == "not met"
    assert "not finite" in result.statistics["guard"]["failed"]
    before = read(store, base()).arrays
    assert all(np.array_equal(result.arrays[name], before[name]) for name in before)


def test_a_wrecked_model_without_a_guard_is_a_row_of_nothing(store):
    """JSON has no nan, and an attack has nothing to read."""
    job = unlearning(base(), "fake_methods:wrecking", **WRECKED, guard=False)
    found = make(store, job).statistics
    assert (found["finite"], found["attack"], found["outcome"]) == (
        False,
        None,
        "changed, not judged",
    )
    assert set(found["accuracy"].values()) == {0.0}
    assert set(found["loss"].values()) == {None}


TWENTY = {"forget": {"random": 20, "seed": 1}, "guard": False}
SEEN = [
    ({}, "[20, 0, 0] ()"),
    ({"holdout": True, "forget_classes": [3]}, "[20, 299, 0] (3,)"),
    ({"retain": True}, "[20, 0, 1178] ()"),
]


@pytest.mark.parametrize(("given", "said"), SEEN)
def test_a_method_sees_what_the_job_gives_it(store, tmp_path, given, said):
    """Half of the test records at most: the other half is the evidence's."""
    job = unlearning(base(), "fake_methods:telling", **TWENTY, said=str(tmp_path / "said"), **given)
    result = make(store, job)
    assert (tmp_path / "said").read_text() == said
    assert result.statistics["seconds"]["method"] > 0
    assert result.arrays["test.evidence"].sum() == 300


def test_a_base_without_weights_is_refused_in_words(store):
    bare = base(keep_weights=False)
    job = unlearning(bare, "jit", forget=CLASS)
    assert run([job], store, backend="sequential")[job.id].error == (
        "InputError: Wanted the weights of the job that this one starts from. "
        f"Got none in result {bare.id}. Describe that job with keep_weights=True."
    )


def test_data_are_decoded_once_and_mapped_after(tmp_path, monkeypatch):
    """Decoding costs seconds in each process."""
    load = partial(load_part, data_set("digits"), "train", SHORT.preprocessing, shared=tmp_path)
    first = load()
    monkeypatch.setattr("research.data._decode", None)
    again = load()
    assert torch.equal(first.x, again.x)
    assert torch.equal(again.y, first.y)
    assert (len(again), again.ids[0]) == (1198, "digit-0001")


def test_other_data_than_described_are_refused(tmp_path):
    """A record of other data is another record."""
    data = data_set("digits")
    other = {**data, "digests": {**data["digests"], "train": "0" * 64}}
    assert refusal(load_part, other, "train", SHORT.preprocessing, shared=tmp_path) == (
        f"Wanted digits:train with digest 000000000000. Got {data['digests']['train'][:12]}. "
        "Give the same data."
    )


def test_data_by_name_need_the_folder_that_holds_them(monkeypatch):
    """No path stands in a record, so the environment names it."""
    monkeypatch.delenv("EFFACE_DATA", raising=False)
    assert refusal(data_set, "cifar10") == (
        "Wanted the folder that holds the data 'cifar10'. Got no EFFACE_DATA in the environment. "
        "Set EFFACE_DATA to that folder."
    )


def test_a_rule_names_rows():
    """A line of settings instead of hundreds of numbers."""
    rules = [None, {"rows": [3, 1]}, {"class": 7}, {"random": 2, "seed": 0, "of": [2, 5]}]
    found = [rows_by(rule, np.array([0, 7, 7, 0, 0, 0])) for rule in rules]
    assert found == [[], [1, 3], [1, 2], [2, 5]]


def test_passes_are_counted_and_the_hook_is_gone(store):
    """Two epochs over 20 records are 40 forward and backward; an untrained teacher counts too."""
    found = make(store, unlearning(base(), "negative_gradient", **TWENTY, epochs=2)).statistics
    assert found["passes"] == {"forward": 40, "backward": 40}
    job = unlearning(base(), "bad_teacher", **TWENTY, epochs=2, retain=True)
    found = make(store, job).statistics
    an_epoch = 20 + round(0.3 * found["n"]["retain"])
    assert found["passes"] == {"forward": 4 * an_epoch, "backward": 2 * an_epoch}
