"""Tables on the command line: scikit-learn's real ones, from files to a new model and report."""

import csv
import json
import sys
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from torch import nn

NETS = """
from torch import nn

def net(inputs, outputs):
    return nn.Sequential(
        nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, outputs)
    )

def wine():
    return net(15, 3)

def cancer():
    return net(30, 1)

def diabetes():
    return net(10, 1)

def digits():
    return net(64, 3)
"""
LOSSES = {
    "wine": nn.functional.cross_entropy,
    "cancer": lambda z, y: nn.functional.binary_cross_entropy_with_logits(z[:, 0], y.float()),
    "diabetes": lambda z, y: nn.functional.mse_loss(z[:, 0] / 77, y / 77),
    "digits": lambda z, y: nn.functional.binary_cross_entropy_with_logits(z, y.float()),
}


def frame(load, **labels):
    """A real table in a seeded order, with ids; more columns of labels if there are functions."""
    data = load(as_frame=True)
    table = data.data.copy()
    for name, label in (labels or {"target": lambda y: y}).items():
        table[name] = label(data.target)
    table.insert(0, "id", [f"r{row:04d}" for row in range(len(table))])
    return table.sample(frac=1, random_state=0).reset_index(drop=True)


def scaled(table, names):
    """features.json for these columns of numbers."""
    return {n: {"mean": float(table[n].mean()), "std": float(table[n].std()) or 1.0} for n in names}


def trained(x, y, name, steps=400):
    """A net that has learned these rows by heart."""
    space = {}
    exec(NETS, space)  # noqa: S102  # the text above
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = space[name]()
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        LOSSES[name](net(x), y).backward()
        optimizer.step()
    return net.eval()


def tensors(table, features):
    """What the features say, by hand: pandas and a loop."""
    parts = []
    for name, how in features.items():
        if "categories" in how:
            parts += [(table[name] == category).astype(float) for category in how["categories"]]
        else:
            parts.append((table[name] - how.get("mean", 0)) / how.get("std", 1))
    return torch.tensor(np.stack(parts, 1), dtype=torch.float32)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with four tables, each cut into train and test, and a net that knows the first."""
    folder = tmp_path_factory.mktemp("tables")
    (folder / "nets_of_tables.py").write_text(NETS)
    wine = frame(load_wine)
    names = [name for name in wine.columns if name not in {"id", "target"}]
    wine["strength"] = pd.cut(wine["alcohol"], 3, labels=["light", "middle", "strong"]).astype(str)
    features = scaled(wine, [name for name in names if name != "alcohol"])
    features["strength"] = {"categories": ["light", "middle", "strong"]}
    pixels = [f"pixel_{row}_{column}" for row in range(8) for column in range(8)]
    described = {
        "even": lambda y: (y % 2 == 0).astype(int),
        "high": lambda y: (y > 4).astype(int),
        "loop": lambda y: y.isin([0, 6, 8, 9]).astype(int),
    }
    digits = frame(load_digits, **described).head(800)
    cancer = frame(load_breast_cancer)
    cancer["target"] = np.where(cancer["target"] == 1, "malignant no", "malignant")
    diabetes = frame(load_diabetes)
    every = {
        "wine": (wine, features, ["target"]),
        "cancer": (cancer, scaled(cancer, list(cancer.columns[1:-1])), ["target"]),
        "diabetes": (diabetes, scaled(diabetes, list(diabetes.columns[1:-1])), ["target"]),
        "digits": (digits, {name: {"mean": 5, "std": 6} for name in pixels}, [*described]),
    }
    for name, (table, how, labels) in every.items():
        half = len(table) // 2
        write(table.head(half), folder / name, "train")
        write(table.tail(len(table) - half), folder / name, "test")
        (folder / f"{name}.json").write_text(json.dumps(how))
        y = table[labels].head(half).to_numpy()
        y = (y == "malignant no") if name == "cancer" else y
        y = torch.tensor(y if len(labels) > 1 else y[:, 0])
        y = y.float() if name == "diabetes" else y.long()
        net = trained(tensors(table.head(half), how), y, name, 1500 if name == "diabetes" else 400)
        save_file(net.state_dict(), folder / f"{name}.safetensors")
        (folder / f"{name}.txt").write_text("\n".join(table["id"].head(20)))
    return folder


def write(table, folder, split):
    """Wines and digits as CSV, the others as parquet and arrow (a file, then a stream)."""
    folder.mkdir(exist_ok=True)
    if folder.name in {"wine", "digits"}:
        table.to_csv(folder / f"{split}.csv", index=False)
    elif folder.name == "cancer":
        table.to_parquet(folder / f"{split}.parquet")
    else:
        found = pa.Table.from_pandas(table, preserve_index=False)
        make = pa.ipc.new_file if split == "train" else pa.ipc.new_stream
        with make(str(folder / f"{split}.arrow"), found.schema) as sink:
            sink.write_table(found)


@pytest.fixture
def efface(place, monkeypatch):
    """Run the command in this process; gives back its exit code."""
    from efface.cli import main

    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["efface", *arguments])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return run


def given(name, *labels):
    """The model and the data of a kind, as words of the command."""
    model = (f"{name}.safetensors", "--architecture", f"nets_of_tables:{name}")
    found = (*model, "--features", f"{name}.json", "--data", name)
    return (*found, "--label-column", *labels) if labels else found


def rows_of(out):
    """The rows of the evidence by their keys; none of them crashed."""
    evidence = json.loads((out / "evidence.json").read_text())
    assert not [row for row in evidence["rows"] if row["status"] == "red"]
    return {row["key"]: row for row in evidence["rows"]}


@pytest.mark.parametrize("method", ["jit", "neighbourhood"])
@pytest.mark.parametrize(
    ("name", "labels", "row_says"),
    [
        ("wine", (), "Forget records answered rightly"),
        ("cancer", (), "Forget records answered rightly"),
        (
            "diabetes",
            (),
            "Forget records: closeness of the values (1 exact, 0 off by their spread)",
        ),
        ("digits", ("even", "high", "loop"), "Forget records: labels answered rightly"),
    ],
)
def test_a_table_goes_from_files_to_a_new_model_and_its_account(
    efface, place, name, labels, row_says, method
):
    """One label of three, one sigmoid unit, values, many labels: the same command."""
    out = place / f"{name}-{method}"
    more = ("--ids", f"{name}.txt", "--holdout", f"{name}:test", "--retain", name)
    words = ("forget", *given(name, *labels), *more, "--method", method, "--out", out.name)
    assert efface(*words, "--setting", "steps=40" if method == "neighbourhood" else "steps=10") == 0
    assert (out / "report.html").exists()
    old, new = (load_file(p / f"{name}.safetensors") for p in (place, out))
    assert list(old) == list(new)
    assert any(not old[key].equal(new[key]) for key in old)
    record = json.loads((out / "record.json").read_text())
    assert record["request"]["forget"] == 20
    assert record["request"]["forget_records_in_retain"] == 20
    assert record["left_out"]["unreadable in holdout"] == []
    excluded = [row["id"] for row in csv.DictReader((out / "exclude.csv").open())]
    assert excluded == (place / f"{name}.txt").read_text().split()
    rows = rows_of(out)
    assert rows["forget.accuracy"]["name"] == row_says
    assert rows["forget.accuracy"]["before"] > 0.9
    fell = rows["holdout.accuracy"]["before"] - rows["holdout.accuracy"]["after"]
    assert fell < 0.05


def test_the_numbers_of_the_report_are_those_of_the_table(efface, place):
    """Read by pandas and by a net of torch alone: the oracle of the whole way in."""
    words = ("forget", *given("wine"), "--where", "id=r0003 or id=r0150", "--method", "jit")
    assert efface(*words, "--setting", "steps=2", "--out", "two") == 0
    table = pd.concat([pd.read_csv(place / f"wine/{s}.csv") for s in ("train", "test")])
    chosen = pd.read_csv(place / "wine/train.csv")
    chosen = chosen[chosen["id"].isin(["r0003", "r0150"])]
    x = tensors(chosen, json.loads((place / "wine.json").read_text()))
    space = {}
    exec(NETS, space)  # noqa: S102  # the text above
    net = space["wine"]()
    net.load_state_dict(load_file(place / "wine.safetensors"))
    p = net(x).softmax(1)[torch.arange(len(chosen)), torch.tensor(chosen["target"].to_numpy())]
    margins = (p / (1 - p)).log().tolist()
    records = json.loads((place / "two/evidence.json").read_text())["records"]
    assert [record["id"] for record in records] == chosen["id"].tolist()
    assert [record["margin_before"] for record in records] == pytest.approx(margins, rel=1e-3)
    assert len(table) == 178


def test_a_folder_that_describes_its_features_needs_no_flag(efface, place):
    """features.json comes back byte for byte, with what else lies beside the weights."""
    folder = place / "described"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes((place / "wine.safetensors").read_bytes())
    (folder / "features.json").write_bytes((place / "wine.json").read_bytes())
    (folder / "README.md").write_text("A net of wines.\n")
    words = ("--data", "wine", "--architecture", "nets_of_tables:wine")
    assert efface("doctor", "described", *words) == 0
    out = ("--ids", "wine.txt", "--setting", "steps=2", "--out", "described-new")
    assert efface("forget", "described", *words, *out) == 0
    new = place / "described-new"
    for name in ("features.json", "README.md"):
        assert (new / name).read_bytes() == (folder / name).read_bytes()
    recipe = {"schema": 1, "architecture": "nets_of_tables:wine", "num_classes": 3}
    recipe["classes"] = ["barolo", "grignolino", "barbera"]
    (folder / "recipe.json").write_text(json.dumps(recipe))
    assert efface("doctor", "described", "--data", "wine") == 0


def test_values_of_few_records_are_measured_in_the_spread_of_the_whole_table(efface, place):
    """Two patients do not tell what an error of 20 means; the other 219 do."""
    words = ("forget", *given("diabetes"), "--where", "id=r0003 or id=r0007", "--method", "jit")
    assert efface(*words, "--setting", "steps=2", "--out", "few") == 0
    row = rows_of(place / "few")["forget.accuracy"]
    assert 0.9 < row["before"] <= 1


KINDS = (
    "Wanted one class of several, where a class leaves or labels are wrong. Got {kind}. "
    "Name the records alone, by ids or an expression.\n"
)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ((*given("diabetes"), "--forget-class", "3"), "values"),
        ((*given("diabetes"), "--ids", "diabetes.txt", "--mislabelled"), "values"),
        ((*given("digits", "even", "high", "loop"), "--forget-class", "even"), "many labels"),
        (
            (*given("digits", "even", "high", "loop"), "--ids", "digits.txt", "--mislabelled"),
            "many labels",
        ),
    ],
)
def test_a_class_that_nobody_has_cannot_go(efface, place, capfd, words, kind):
    """The same words as in Python."""
    assert efface("forget", *words, "--out", "wrong") == 2
    assert capfd.readouterr().err.splitlines()[-1] + "\n" == KINDS.format(kind=kind)
    assert not (place / "wrong").exists()


def broken(place, name, cells):
    """The wines with other cells, by id and column."""
    folder = place / name
    folder.mkdir()
    for split in ("train", "test"):
        table = pd.read_csv(place / f"wine/{split}.csv", dtype=str)
        for (identity, column), cell in cells.items():
            table.loc[table["id"] == identity, column] = cell
        table.to_csv(folder / f"{split}.csv", index=False)
    return folder


def test_a_cell_that_is_no_input_fails_the_request_or_is_left_out(efface, place, capfd):
    """An unread record is an unforgotten record; a holdout does without."""
    first, second, third, *_ = pd.read_csv(place / "wine/train.csv")["id"]
    fourth, fifth = pd.read_csv(place / "wine/test.csv")["id"].head(2)
    cells = {(first, "ash"): "", (second, "hue"): "red", (third, "strength"): "mild"}
    cells |= {(third, "magnesium"): "inf", (fourth, "hue"): "1e999", (fifth, "strength"): ""}
    broken(place, "broken", cells)
    words = ("forget", *given("wine")[:-1], "broken", "--setting", "steps=2")
    (place / "three.txt").write_text(f"{first}\n{second}\n{third}\n")
    assert efface(*words, "--ids", "three.txt", "--out", "wrong") == 2
    assert capfd.readouterr().err.splitlines()[-1] == (
        f"Wanted rows that can be read. Got 3 that cannot: {first} (ash is empty), "
        f"{second} (hue is 'red'), {third} (magnesium is inf, strength is 'mild'). "
        "Nothing was changed. Mend these rows, or leave their ids out of the request."
    )
    assert not (place / "wrong").exists()
    fine = pd.read_csv(place / "wine/train.csv")["id"][5]
    more = ("--where", f"id={fine}", "--holdout", "broken:test", "--out", "mended")
    assert efface(*words, *more) == 0
    record = json.loads((place / "mended/record.json").read_text())
    assert record["left_out"]["unreadable in holdout"] == [fourth, fifth]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("wine.safetensors", "--architecture", "nets_of_tables:wine", "--data", "wine"),
            (
                "Wanted the preprocessing that the model was trained with. Got no mean, std, size. "
                "Give --mean --std --size, such as --mean 0.485 0.456 0.406 --std 0.229 0.224 "
                "0.225 --size 224, or --features FILE.json for a model of tables."
            ),
        ),
        (
            (
                *("wine.safetensors", "--architecture", "nets_of_tables:wine", "--data", "wine"),
                *("--mean", "0.5", "--std", "0.5", "--size", "8"),
            ),
            (
                "Wanted one column of the table that holds the image. Got the columns id, alcohol, "
                "malic_acid, ash, alcalinity_of_ash, magnesium, total_phenols, flavanoids, "
                "nonflavanoid_phenols, proanthocyanins, color_intensity, hue, "
                "od280/od315_of_diluted_wines, proline, target, strength. Name it with "
                "--image-column. For a model of numbers say which columns go in: --features FILE.json."
            ),
        ),
        (
            (*given("wine"), "--size", "8"),
            (
                "Wanted features of a table, or the preprocessing of images. Got features and "
                "size. Leave one away: a model takes rows or images."
            ),
        ),
        (
            (*given("cancer")[:-1], "wine"),
            "Wanted the columns of the features in the table: mean radius, mean texture, ",
        ),
        (
            (*given("wine")[:-1], "digits", "--label-column", "even", "high", "loop"),
            "Wanted the columns of the features in the table: malic_acid, ",
        ),
        (
            (*given("digits", "even", "pixel_0_2")[:-1], "id"),
            (
                "Wanted numbers in each of the label columns 'even', 'id'. Got string in 'id'. "
                "Several columns are many labels of 0 and 1, or several values."
            ),
        ),
        (
            given("digits", "even", "odd"),
            "Wanted a column of the table: id, ",
        ),
    ],
)
def test_what_is_not_said_is_not_guessed(efface, place, capfd, words, message):
    """Exit code 2, what to do, and no folder."""
    assert efface("forget", *words, "--where", "id=r0001", "--out", "wrong") == 2
    assert capfd.readouterr().err.splitlines()[-1].startswith(message)
    assert not (place / "wrong").exists()


@pytest.mark.parametrize(
    ("name", "labels", "text"),
    [
        ("digits", ("even", "high"), "2 labels each, and the model has 3 outputs"),
        ("diabetes", ("target", "s1"), "2 values each, and the model has 1 outputs"),
    ],
)
def test_labels_that_the_model_cannot_say_are_a_hazard(efface, place, capfd, name, labels, text):
    """The wrong columns, or too few of them: exit code 6, before anything moves."""
    words = ("forget", *given(name, *labels), "--ids", f"{name}.txt", "--out", "wrong")
    assert efface(*words) == 6
    assert text in capfd.readouterr().err
    assert not (place / "wrong").exists()


def test_a_wrong_scale_is_noticed_before_anything_moves(efface, place, capfd):
    """The commonest silent error: the numbers of another table."""
    how = json.loads((place / "wine.json").read_text())
    how["proline"] = {"mean": 0, "std": 1}
    (place / "raw.json").write_text(json.dumps(how))
    words = ("wine.safetensors", "--architecture", "nets_of_tables:wine", "--data", "wine")
    efface("doctor", *words, "--features", "raw.json")
    assert "reach 1680 in 'proline': mean and std of other" in " ".join(
        capfd.readouterr().out.split()
    )


def test_a_saved_data_set_is_read_with_its_splits(efface, place):
    """``DatasetDict.save_to_disk``: arrow streams, a folder a split, caches of map beside them."""
    train, test = (pd.read_csv(place / f"wine/{split}.csv") for split in ("train", "test"))
    both = {
        "train": datasets.Dataset.from_pandas(train),
        "test": datasets.Dataset.from_pandas(test),
    }
    datasets.DatasetDict(both).save_to_disk(place / "saved")
    cached = next((place / "saved/train").glob("*.arrow"))
    (place / "saved/train/cache-0123.arrow").write_bytes(cached.read_bytes())
    words = ("forget", *given("wine")[:-1], "saved", "--ids", "wine.txt", "--holdout", "saved:test")
    assert efface(*words, "--setting", "steps=2", "--out", "from-saved") == 0
