"""What the command line refuses of a table, word for word, and that it costs nothing."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from scikit_tables import given  # it lies beside this file

KINDS = (
    "Wanted one class of several, where a class leaves or labels are wrong. Got {kind}. "
    "Name the records alone, by ids or an expression.\n"
)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ((*given("diabetes"), "--forget-class", "3"), "regression"),
        ((*given("diabetes"), "--ids", "diabetes.txt", "--mislabelled"), "regression"),
        ((*given("digits", "even", "high", "loop"), "--forget-class", "even"), "multilabel"),
        (
            (*given("digits", "even", "high", "loop"), "--ids", "digits.txt", "--mislabelled"),
            "multilabel",
        ),
    ],
)
def test_a_class_that_nobody_has_cannot_go(in_tables, tables, capfd, words, kind):
    """The same words as in Python."""
    assert in_tables("forget", *words, "--out", "wrong") == 2
    assert capfd.readouterr().err.splitlines()[-1] + "\n" == KINDS.format(kind=kind)
    assert not (tables / "wrong").exists()


def broken(tables, name, cells):
    """The wines with other cells, by id and column."""
    folder = tables / name
    folder.mkdir()
    for split in ("train", "test"):
        table = pd.read_csv(tables / f"wine/{split}.csv", dtype=str)
        for (identity, column), cell in cells.items():
            table.loc[table["id"] == identity, column] = cell
        table.to_csv(folder / f"{split}.csv", index=False)
    return folder


def test_a_cell_that_is_no_input_fails_the_request_or_is_left_out(in_tables, tables, capfd):
    """An unread record is an unforgotten record; a holdout does without."""
    first, second, third, *_ = pd.read_csv(tables / "wine/train.csv")["id"]
    fourth, fifth, sixth = pd.read_csv(tables / "wine/test.csv")["id"].head(3)
    cells = {(first, "ash"): "", (second, "hue"): "red", (third, "strength"): "mild"}
    cells |= {
        (third, "magnesium"): "inf",
        (fourth, "hue"): "1e999",
        (fifth, "strength"): "",
        (sixth, "target"): "",
    }
    broken(tables, "broken", cells)
    words = ("forget", *given("wine")[:-1], "broken", "--setting", "steps=2")
    (tables / "three.txt").write_text(f"{first}\n{second}\n{third}\n")
    assert in_tables(*words, "--ids", "three.txt", "--out", "wrong") == 2
    assert capfd.readouterr().err.splitlines()[-1] == (
        f"Wanted rows that can be read. Got 3 that cannot: {first} (ash is empty), "
        f"{second} (hue is 'red'), {third} (magnesium is 'inf', strength is 'mild'). "
        "Nothing was changed. Fix these rows, or omit their ids from the request."
    )
    assert not (tables / "wrong").exists()
    fine = pd.read_csv(tables / "wine/train.csv")["id"][5]
    more = ("--where", f"id={fine}", "--holdout", "broken:test", "--out", "mended")
    assert in_tables(*words, *more) == 0
    record = json.loads((tables / "mended/manifest.json").read_text())
    assert record["left_out"]["unreadable in holdout"] == [fourth, fifth, sixth]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("wine.safetensors", "--architecture", "nets_of_tables:wine", "--data", "wine"),
            (
                "Wanted the preprocessing that the model was trained with. Got no mean, std, size. "
                "Give --mean --std --size, such as --mean 0.485 0.456 0.406 --std 0.229 0.224 "
                "0.225 --size 224, or --features FILE.json for a tabular model."
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
                "--image-column. For a tabular model say which columns go in: "
                "--features FILE.json."
            ),
        ),
        (
            (*given("wine"), "--size", "8"),
            (
                "Wanted features of a table, or the preprocessing of images. Got features and "
                "size. Omit one of them: a model takes rows or images."
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
                "Several columns are labels of 0 and 1 each, or several values."
            ),
        ),
        (
            given("digits", "even", "odd"),
            "Wanted a column of the table: id, ",
        ),
    ],
)
def test_what_is_not_said_is_not_guessed(in_tables, tables, capfd, words, message):
    """Exit code 2, what to do, and no folder."""
    assert in_tables("forget", *words, "--where", "id=r0001", "--out", "wrong") == 2
    assert capfd.readouterr().err.splitlines()[-1].startswith(message)
    assert not (tables / "wrong").exists()


@pytest.mark.parametrize(
    ("name", "labels", "text"),
    [
        ("digits", ("even", "high"), "2 labels each, and the model has 3 outputs"),
        ("diabetes", ("target", "s1"), "2 values each, and the model has 1 outputs"),
    ],
)
def test_labels_that_the_model_cannot_say_are_a_hazard(
    in_tables, tables, capfd, name, labels, text
):
    """The wrong columns, or too few of them: exit code 6, before anything moves."""
    words = ("forget", *given(name, *labels), "--ids", f"{name}.txt", "--out", "wrong")
    assert in_tables(*words) == 6
    assert text in capfd.readouterr().err
    assert not (tables / "wrong").exists()


def test_classes_with_a_point_are_told_to_be_whole_numbers(in_tables, tables, capfd):
    """As pandas writes them where one of them is missing; the inputs are not at fault."""
    wine = pd.read_csv(tables / "wine/train.csv", dtype={"target": float})
    wine.loc[0, "target"] = None
    wine.to_csv(tables / "points.csv", index=False)
    words = ("forget", *given("wine")[:-1], "points.csv")
    assert in_tables(*words, "--where", f"id={wine['id'][1]}", "--out", "wrong") == 6
    assert capfd.readouterr().err.splitlines()[-1] == (
        "Wanted a model and data that fit each other. Got The records have 1 values each, and the "
        "model has 3 outputs: if they are classes, write them as integers, 1 and not 1.0 (in "
        "Python y.long()). Nothing was changed. Look at the label column."
    )
    assert not (tables / "wrong").exists()
