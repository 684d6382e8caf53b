"""Tables on the command line: scikit-learn's real ones, from files to a new model and report."""

import json

import datasets
import pandas as pd
import pytest
import torch
from run_files import MADE, lines_of, read, rows_of
from safetensors.torch import load_file
from scikit_tables import given, tensors, untrained

WINE = given("wine")
STEPS = ("--setting", "steps=2")
MANY = ("even", "high", "loop")


def wines(tables, split="train", **options):
    return pd.read_csv(tables / f"wine/{split}.csv", **options)


def refused(in_tables, tables, capfd, *words):
    """The exit code and the last line; no folder may be there."""
    capfd.readouterr()
    code = in_tables("forget", *words, "--out", "wrong")
    assert not (tables / "wrong").exists()
    return code, capfd.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "labels"), [("wine", ()), ("cancer", ()), ("diabetes", ()), ("digits", MANY)]
)
def test_a_table_goes_from_files_to_a_new_model_and_its_report(in_tables, tables, name, labels):
    """Multiclass, one sigmoid unit, regression, multilabel: the same command."""
    out = tables / f"{name}-new"
    parts = ("--ids", f"{name}.txt", "--holdout", f"{name}:test", "--retain", name)
    words = ("forget", *given(name, *labels), *parts, "--setting", "steps=40")
    assert in_tables(*words, "--out", out.name) in MADE
    assert (out / "evidence/report.html").exists()
    old, new = (load_file(p / f"{name}.safetensors") for p in (tables, out / "model"))
    assert list(old) == list(new)
    assert any(not old[key].equal(new[key]) for key in old)
    manifest = read(out)
    request = manifest["request"]
    assert request["forget"] == request["forget_records_in_retain"] == 20
    assert manifest["omitted"]["unreadable in holdout"] == []
    excluded = [row["id"] for row in lines_of(out / "evidence/exclude.csv")]
    assert excluded == (tables / f"{name}.txt").read_text().split()
    rows = rows_of(out)
    assert rows["forget.accuracy"]["before"] > 0.9
    assert rows["holdout.accuracy"]["before"] - rows["holdout.accuracy"]["after"] < 0.05


def test_the_numbers_of_the_report_are_those_of_the_table(in_tables, tables):
    """Read by pandas and by a model of torch alone: the oracle of the whole way in."""
    chosen = wines(tables).iloc[[3, 50]]
    one, other = chosen["id"]
    words = ("forget", *WINE, "--where", f"id={one} or id={other}", "--method", "jit", *STEPS)
    # jit takes no step for these two, so there is no new model
    assert in_tables(*words, "--out", "two") == 12
    x = tensors(chosen, read(tables, "wine"))
    net = untrained("wine")
    net.load_state_dict(load_file(tables / "wine.safetensors"))
    p = net(x).softmax(1)[torch.arange(len(chosen)), torch.tensor(chosen["target"].to_numpy())]
    margins = (p / (1 - p)).log().tolist()
    records = read(tables / "two", "evidence")["records"]
    assert [record["id"] for record in records] == chosen["id"].tolist()
    assert [record["logit_margin_before"] for record in records] == pytest.approx(margins, rel=1e-3)


def test_a_folder_that_describes_its_features_needs_no_option(in_tables, tables):
    """features.json comes back byte for byte, with what else lies next to the weights."""
    folder = tables / "described"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes((tables / "wine.safetensors").read_bytes())
    (folder / "features.json").write_bytes((tables / "wine.json").read_bytes())
    (folder / "README.md").write_text("A net of wines.\n")
    words = ("--data", "wine", "--architecture", "nets_of_tables:wine")
    assert in_tables("doctor", "described", *words) == 0
    forget = ("forget", "described", "--ids", "wine.txt", *STEPS)
    assert in_tables(*forget, *words, "--out", "described-new") in MADE
    recipe = {"schema": 1, "architecture": "nets_of_tables:wine", "num_classes": 3}
    recipe["classes"] = ["barolo", "grignolino", "barbera"]
    (folder / "recipe.json").write_text(json.dumps(recipe))
    # what a file may not name, the user may type
    assert in_tables(*forget, "--data", "wine", "--out", "recipe-new") == 2
    assert in_tables(*forget, *words, "--out", "recipe-new") in MADE
    for out, other in (("described-new", "README.md"), ("recipe-new", "recipe.json")):
        for name in ("features.json", other):
            assert (tables / out / "model" / name).read_bytes() == (folder / name).read_bytes()


def test_a_regression_error_is_in_standard_deviations_of_the_whole_table(in_tables, tables):
    """Two patients do not tell what an error of 20 means; the other 219 do."""
    one, other = (tables / "diabetes.txt").read_text().split()[:2]
    words = ("forget", *given("diabetes"), "--where", f"id={one} or id={other}", "--method", "jit")
    assert in_tables(*words, *STEPS, "--out", "few") in MADE
    assert 0.9 < rows_of(tables / "few")["forget.accuracy"]["before"] <= 1


def test_a_wrong_scale_is_noticed_before_anything_moves(in_tables, tables, capfd):
    """The commonest silent error: the numbers of another table."""
    how = read(tables, "wine")
    how["proline"] = {"mean": 0, "std": 1}
    (tables / "raw.json").write_text(json.dumps(how))
    model = ("wine.safetensors", "--architecture", "nets_of_tables:wine", "--data", "wine")
    in_tables("doctor", *model, "--feature-spec", "raw.json")
    assert "reach 1680 in 'proline': mean and std" in " ".join(capfd.readouterr().out.split())


def test_a_saved_data_set_is_read_with_its_splits(in_tables, tables):
    """``DatasetDict.save_to_disk``: arrow streams, a folder a split, caches of map next to them."""
    splits = {s: datasets.Dataset.from_pandas(wines(tables, s)) for s in ("train", "test")}
    datasets.DatasetDict(splits).save_to_disk(tables / "saved")
    cached = next((tables / "saved/train").glob("*.arrow"))
    (tables / "saved/train/cache-0123.arrow").write_bytes(cached.read_bytes())
    words = ("forget", *WINE[:-1], "saved", "--ids", "wine.txt", "--holdout", "saved:test")
    assert in_tables(*words, *STEPS, "--out", "from-saved") in MADE


def test_row_numbers_that_stand_for_ids_are_warned_of(in_tables, tables, capfd):
    """Whoever sorts the table tomorrow has other records under the same numbers."""
    wine = wines(tables)
    wine.drop(columns="id").to_csv(tables / "bare.csv", index=False)
    wine.rename(columns={"id": "bottle_id"}).to_csv(tables / "bottles.csv", index=False)
    (tables / "rows.txt").write_text("3\n50\n")
    words, ids = ("forget", *WINE[:-1]), ("--ids", "rows.txt", *STEPS)
    assert in_tables(*words, "bare.csv", *ids, "--out", "by-row") in MADE
    warning = '"event": "warning", "ids": "row numbers, counted from 0"'
    assert warning in capfd.readouterr().err
    assert in_tables(*words, "bottles.csv", *ids, "--out", "wrong") == 2
    assert "'bottle_id'" in capfd.readouterr().err
    (tables / "rows.txt").write_text("\n".join(wine["id"][:2]))
    ids = (*ids, "--id-column", "bottle_id")
    assert in_tables(*words, "bottles.csv", *ids, "--out", "by-id") in MADE
    assert warning not in capfd.readouterr().err


def test_an_unreadable_cell_fails_a_forget_and_omits_a_holdout_record(in_tables, tables, capfd):
    """An unread record is an unforgotten record; a holdout does without."""
    first, second, third, *_, fine = wines(tables)["id"][:6]
    fourth, fifth, sixth = wines(tables, "test")["id"].head(3)
    cells = {(first, "ash"): "", (second, "hue"): "red", (third, "strength"): "mild",
             (third, "magnesium"): "inf", (fourth, "hue"): "1e999", (fifth, "strength"): "",
             (sixth, "target"): ""}  # fmt: skip
    (tables / "broken").mkdir()
    for split in ("train", "test"):
        table = wines(tables, split, dtype=str)
        for (identity, column), cell in cells.items():
            table.loc[table["id"] == identity, column] = cell
        table.to_csv(tables / f"broken/{split}.csv", index=False)
    words = (*WINE[:-1], "broken", *STEPS)
    (tables / "three.txt").write_text(f"{first}\n{second}\n{third}\n")
    code, line = refused(in_tables, tables, capfd, *words, "--ids", "three.txt")
    assert code == 2
    unreadable = f"Got 3 unreadable: {first} (ash is empty), {second} (hue is 'red'), "
    unreadable += f"{third} (magnesium is 'inf', strength is 'mild'). Nothing was changed."
    assert unreadable in line
    words = ("forget", *words, "--where", f"id={fine}", "--holdout", "broken:test")
    assert in_tables(*words, "--out", "mended") in MADE
    omitted = read(tables / "mended")["omitted"]
    assert omitted["unreadable in holdout"] == [fourth, fifth, sixth]


def test_classes_written_as_floats_are_a_hazard_that_names_the_cause(in_tables, tables, capfd):
    """As pandas writes them where one of them is missing; the inputs are not at fault."""
    wine = wines(tables, dtype={"target": float})
    wine.loc[0, "target"] = None
    wine.to_csv(tables / "points.csv", index=False)
    words = (*WINE[:-1], "points.csv", "--where", f"id={wine['id'][1]}")
    code, line = refused(in_tables, tables, capfd, *words)
    assert code == 6
    assert "1 and not 1.0 (in Python y.long())" in line
