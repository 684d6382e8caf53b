"""Tables on the command line: scikit-learn's real ones, from files to a new model and report."""

import csv
import json
import sys
from pathlib import Path

import datasets
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))
from scikit_tables import given, rows_of, tensors, untrained  # it lies beside this file


@pytest.mark.parametrize(
    ("name", "labels", "row_says"),
    [
        ("wine", (), "Forget records answered with their label"),
        ("cancer", (), "Forget records answered with their label"),
        (
            "diabetes",
            (),
            "Forget records: closeness of the values (1 exact, 0 off by their spread)",
        ),
        ("digits", ("even", "high", "loop"), "Forget records: labels answered rightly"),
    ],
)
def test_a_table_goes_from_files_to_a_new_model_and_its_account(
    in_tables, tables, name, labels, row_says
):
    """One label of three, one sigmoid unit, values, many labels: the same command."""
    out = tables / f"{name}-new"
    more = ("--ids", f"{name}.txt", "--holdout", f"{name}:test", "--retain", name)
    words = ("forget", *given(name, *labels), *more, "--setting", "steps=40")
    assert in_tables(*words, "--out", out.name) == 0
    assert (out / "report.html").exists()
    old, new = (load_file(p / f"{name}.safetensors") for p in (tables, out))
    assert list(old) == list(new)
    assert any(not old[key].equal(new[key]) for key in old)
    record = json.loads((out / "manifest.json").read_text())
    assert record["request"]["forget"] == 20
    assert record["request"]["forget_records_in_retain"] == 20
    assert record["left_out"]["unreadable in holdout"] == []
    excluded = [row["id"] for row in csv.DictReader((out / "exclude.csv").read_text().splitlines())]
    assert excluded == (tables / f"{name}.txt").read_text().split()
    rows = rows_of(out)
    assert rows["forget.accuracy"]["name"] == row_says
    assert rows["forget.accuracy"]["before"] > 0.9
    fell = rows["holdout.accuracy"]["before"] - rows["holdout.accuracy"]["after"]
    assert fell < 0.05


def test_the_numbers_of_the_report_are_those_of_the_table(in_tables, tables):
    """Read by pandas and by a net of torch alone: the oracle of the whole way in."""
    chosen = pd.read_csv(tables / "wine/train.csv").iloc[[3, 50]]
    one, other = chosen["id"]
    words = ("forget", *given("wine"), "--where", f"id={one} or id={other}", "--method", "jit")
    assert in_tables(*words, "--setting", "steps=2", "--out", "two") == 0
    x = tensors(chosen, json.loads((tables / "wine.json").read_text()))
    net = untrained("wine")
    net.load_state_dict(load_file(tables / "wine.safetensors"))
    p = net(x).softmax(1)[torch.arange(len(chosen)), torch.tensor(chosen["target"].to_numpy())]
    margins = (p / (1 - p)).log().tolist()
    records = json.loads((tables / "two/evidence.json").read_text())["records"]
    assert [record["id"] for record in records] == chosen["id"].tolist()
    assert [record["margin_before"] for record in records] == pytest.approx(margins, rel=1e-3)


def test_a_folder_that_describes_its_features_needs_no_flag(in_tables, tables):
    """features.json comes back byte for byte, with what else lies beside the weights."""
    folder = tables / "described"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes((tables / "wine.safetensors").read_bytes())
    (folder / "features.json").write_bytes((tables / "wine.json").read_bytes())
    (folder / "README.md").write_text("A net of wines.\n")
    words = ("--data", "wine", "--architecture", "nets_of_tables:wine")
    assert in_tables("doctor", "described", *words) == 0
    out = ("--ids", "wine.txt", "--setting", "steps=2", "--out", "described-new")
    assert in_tables("forget", "described", *words, *out) == 0
    new = tables / "described-new"
    for name in ("features.json", "README.md"):
        assert (new / name).read_bytes() == (folder / name).read_bytes()
    recipe = {"schema": 1, "architecture": "nets_of_tables:wine", "num_classes": 3}
    recipe["classes"] = ["barolo", "grignolino", "barbera"]
    (folder / "recipe.json").write_text(json.dumps(recipe))
    out = ("--ids", "wine.txt", "--setting", "steps=2", "--out", "recipe-new")
    assert in_tables("forget", "described", "--data", "wine", *out) == 0
    for name in ("features.json", "recipe.json"):
        assert (tables / "recipe-new" / name).read_bytes() == (folder / name).read_bytes()


def test_values_of_few_records_are_measured_in_the_spread_of_the_whole_table(in_tables, tables):
    """Two patients do not tell what an error of 20 means; the other 219 do."""
    one, other = (tables / "diabetes.txt").read_text().split()[:2]
    words = ("forget", *given("diabetes"), "--where", f"id={one} or id={other}", "--method", "jit")
    assert in_tables(*words, "--setting", "steps=2", "--out", "few") == 0
    row = rows_of(tables / "few")["forget.accuracy"]
    assert 0.9 < row["before"] <= 1


def test_a_wrong_scale_is_noticed_before_anything_moves(in_tables, tables, capfd):
    """The commonest silent error: the numbers of another table."""
    how = json.loads((tables / "wine.json").read_text())
    how["proline"] = {"mean": 0, "std": 1}
    (tables / "raw.json").write_text(json.dumps(how))
    words = ("wine.safetensors", "--architecture", "nets_of_tables:wine", "--data", "wine")
    in_tables("doctor", *words, "--features", "raw.json")
    assert "reach 1680 in 'proline': mean and std of other" in " ".join(
        capfd.readouterr().out.split()
    )


def test_a_saved_data_set_is_read_with_its_splits(in_tables, tables):
    """``DatasetDict.save_to_disk``: arrow streams, a folder a split, caches of map beside them."""
    train, test = (pd.read_csv(tables / f"wine/{split}.csv") for split in ("train", "test"))
    both = {
        "train": datasets.Dataset.from_pandas(train),
        "test": datasets.Dataset.from_pandas(test),
    }
    datasets.DatasetDict(both).save_to_disk(tables / "saved")
    cached = next((tables / "saved/train").glob("*.arrow"))
    (tables / "saved/train/cache-0123.arrow").write_bytes(cached.read_bytes())
    words = ("forget", *given("wine")[:-1], "saved", "--ids", "wine.txt", "--holdout", "saved:test")
    assert in_tables(*words, "--setting", "steps=2", "--out", "from-saved") == 0


def test_row_numbers_that_stand_for_ids_are_warned_of(in_tables, tables, capfd):
    """Whoever sorts the table tomorrow has other records under the same numbers."""
    wine = pd.read_csv(tables / "wine/train.csv")
    wine.drop(columns="id").to_csv(tables / "bare.csv", index=False)
    wine.rename(columns={"id": "bottle_id"}).to_csv(tables / "bottles.csv", index=False)
    (tables / "rows.txt").write_text("3\n50\n")
    words = ("forget", *given("wine")[:-1])
    more = ("--ids", "rows.txt", "--setting", "steps=2")
    assert in_tables(*words, "bare.csv", *more, "--out", "by-row") == 0
    warning = '"event": "warning", "ids": "row numbers, counted from 0"'
    assert warning in capfd.readouterr().err
    assert in_tables(*words, "bottles.csv", *more, "--out", "wrong") == 2
    assert "Got the column 'bottle_id', which is not named." in capfd.readouterr().err
    (tables / "rows.txt").write_text("\n".join(wine["id"][:2]))
    more = (*more, "--id-column", "bottle_id")
    assert in_tables(*words, "bottles.csv", *more, "--out", "by-id") == 0
    assert warning not in capfd.readouterr().err
