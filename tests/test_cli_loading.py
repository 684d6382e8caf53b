"""What the command says of data before anything moves: order of classes, records not used."""

import datasets
import pytest
import torch
from torch import nn

from efface.cli.loading import Inputs, omit_unreadable, read_data, set_threads
from efface.cli.options import Arguments, ReadOptions, RecordOptions, SplitOptions
from efface.io.data import load_data
from efface.io.features import FeatureSpec
from efface.io.models import LoadedModel
from efface.types import Records
from tests.refusals import refusal
from tests.run_files import events


def model(classes=None):
    """A loaded model of three classes on one number."""
    return LoadedModel(nn.Linear(1, 3), (), FeatureSpec({"x": {}}), "linear", {}, classes)


def table(path, labels):
    path.write_text("x,label\n" + "".join(f"{row},{label}\n" for row, label in enumerate(labels)))
    return str(path)


def test_a_holdout_is_numbered_as_the_data_where_the_model_names_no_classes(tmp_path, capfd):
    data = read_data(table(tmp_path / "a.csv", ["dog", "cat", "fox"]), ReadOptions(), model())
    spec = table(tmp_path / "b.csv", ["fox", "dog"])
    part = read_data(spec, ReadOptions(), model(), data)
    assert (data.labels.tolist(), part.labels.tolist()) == ([1, 0, 2], [2, 1])
    note = "The model does not name its classes; 'label' has them as cat, dog, fox."
    expected = {"event": "labels", "data": str(tmp_path / "a.csv"), "note": note}
    assert events(capfd.readouterr().err) == [expected]
    named = read_data(spec, ReadOptions(), model(("fox", "dog", "cat")), data)
    assert named.labels.tolist() == [0, 1]


def test_the_others_are_the_records_that_are_not_named(tmp_path, monkeypatch):
    monkeypatch.setattr("efface.cli.loading.read_model", lambda *_: model())
    data, named = table(tmp_path / "a.csv", "012012"), RecordOptions(forget_class="1")
    inputs = Inputs.read(Arguments(tmp_path, None, data, named, SplitOptions(), ReadOptions(), 0))
    assert (inputs.split.forget.ids, inputs.others.ids) == (("1", "4"), ("0", "2", "3", "5"))


@pytest.mark.parametrize(("blank", "refused"), [(1, False), (2, False), (3, True)])
def test_records_that_are_not_used_are_counted_and_refused_above_a_tenth(
    tmp_path, capfd, blank, refused
):
    path = table(tmp_path / "a.csv", ["", "-1", "", *"012012012012012012"][3 - blank :])
    data, n = load_data(path, num_classes=3), 18 + blank
    came = f"{blank} of {n} that cannot be used: has no label ({blank})"
    if refused:
        assert refusal(omit_unreadable, "holdout", data, model()) == (
            f"Wanted a holdout of which nine in ten records can be used. Got {came}. "
            "Fix them, or give a holdout without them."
        )
        return
    records, omitted = omit_unreadable("holdout", data, model())
    assert (len(records), omitted) == (18, list(data.ids[:blank]))
    expected = {"event": "warning", "omitted_from": "holdout", "records": came}
    assert events(capfd.readouterr().err) == [expected]


def test_columns_of_several_labels_are_those_of_the_data(tmp_path):
    for name, tags in (("a", [["p", "q"], ["r"]]), ("b", [["r"], ["q"]])):
        datasets.Dataset.from_dict({"x": [1, 2], "label": tags}).to_parquet(
            tmp_path / f"{name}.parquet"
        )
    data = read_data(str(tmp_path / "a.parquet"), ReadOptions(), model())
    part = read_data(str(tmp_path / "b.parquet"), ReadOptions(), model(), data)
    assert part.labels.tolist() == [[0, 0, 1], [0, 1, 0]]


@pytest.mark.parametrize(("n", "batch"), [(3, 3), (200, 128)])
def test_threads_are_chosen_for_a_batch_of_the_records(monkeypatch, n, batch):
    def choose(_, forward, *, records_at_once):
        asked.append((len(forward()), records_at_once))
        return 3

    asked, told = [], []
    monkeypatch.setattr("efface.cli.loading.choose_threads", choose)
    monkeypatch.setattr("torch.set_num_threads", told.append)
    records = Records(torch.zeros(n, 1), torch.zeros(n, dtype=torch.int64))
    set_threads(nn.Linear(1, 3), records)
    assert (asked, told) == ([(1, batch)], [3])
