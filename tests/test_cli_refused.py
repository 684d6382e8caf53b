"""Bad input at the command line: each ends in its own sentence, and nothing is written or run."""

import os
import struct
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from efface.nets import conv_small

SAVE_AGAIN = (
    "Where you trust the file and have its code, load it once and save the weights alone: "
    'torch.save(model.state_dict(), "weights.pt").'
)
NOT_WHOLE = "The file is cut short, damaged or of another kind: fetch or save it again."
MEND = "Fix the factory: it must return an untrained model, and do nothing else."
NET = ("--architecture", "tests_nets:narrow", "--mean", "0.5", "--std", "0.5", "--size", "8")
FACTORIES = """
import time
def raises():
    raise KeyError("layers")
def leaves():
    raise SystemExit(3)
def hangs():
    time.sleep(60)
def text():
    return "no net"
"""


class Payload:
    """What an attacker pickles: it would make a folder."""

    def __reduce__(self):
        return os.mkdir, ("canary",)


@pytest.fixture(scope="module")
def bad(place):
    """The folder with all that is wrong in it."""
    weights = load_file(place / "model/model.safetensors")
    torch.save(conv_small(width=8), place / "whole.pt")
    torch.save({"state_dict": weights, "note": Payload()}, place / "payload.pt")
    save_file(weights, place / "fine.safetensors")
    (place / "cut.safetensors").write_bytes((place / "fine.safetensors").read_bytes()[:-7])
    text = b'{"w":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}'
    (place / "lying.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"12345678")
    last = "4.weight"
    save_file({**weights, last: weights[last] * torch.inf}, place / "inf.safetensors")
    save_file({**weights, last: torch.ones(3, 3)}, place / "bent.safetensors")
    (place / "bad_nets.py").write_text(FACTORIES)
    (place / "empty.csv").write_text("id\n")
    (place / "outside.csv").write_text("id\n../../secret\n")
    table = parquet.read_table(place / "data/train-00000-of-00001.parquet")
    labels = table.column("label").to_pylist()
    ids = ["../digit", *table.column("id").to_pylist()[1:]]
    _written(place / "beyond", table, label=[10, *labels[1:]])
    _written(place / "named", table, label=[f"kind {label % 3}" for label in labels])
    _written(place / "twice", table, id=[ids[1], *ids[1:]])
    _written(place / "dots", table, id=ids)
    _written(place / "copy", table)
    return place


def _written(folder, table, **columns):
    """The table with other columns, and without what datasets says of the old ones."""
    folder.mkdir()
    table = table.replace_schema_metadata(None)
    for name, values in columns.items():
        at = table.column_names.index(name)
        table = table.set_column(at, name, pa.array(values))
    parquet.write_table(table, folder / "train.parquet")


def before(folder):
    """Everything that lies there."""
    return {
        path: path.stat().st_mtime_ns for path in folder.rglob("*") if "pycache" not in str(path)
    }


def said_by_safetensors(path):
    """The library's own words for what is wrong."""
    with pytest.raises(SafetensorError) as caught, safe_open(path, "pt"):
        pytest.fail("it was opened")
    return str(caught.value)


def refused(efface, folder, capfd, arguments):
    """The exit code and the last line that was said; nothing may have been made or changed."""
    old = before(folder)
    code = efface(*arguments, "--out", "wrong")
    assert before(folder) == old
    return code, capfd.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("whole.pt",
         ("Wanted a file of tensors and plain values. Got whole.pt, which holds "
          f"torch.nn.modules.container.Sequential. {SAVE_AGAIN}")),
        ("payload.pt",
         ("Wanted a file of tensors and plain values. Got payload.pt, which holds "
          f"{os.mkdir.__module__}.mkdir. {SAVE_AGAIN}")),
        ("cut.safetensors", "{safetensors}"),
        ("lying.safetensors", "{safetensors}"),
        ("inf.safetensors",
         ("Wanted finite weights in inf.safetensors. Got nan or inf in 4.weight. "
          "Use a checkpoint from before training diverged.")),
    ],
    ids=lambda value: value.split()[0],
)  # fmt: skip
def test_a_weights_file_that_is_no_model_is_refused(efface, bad, capfd, model, said):
    """Pickled, with a payload, truncated, not of the shape it says, not finite."""
    whole = f"Wanted a whole safetensors file, or one that torch.save wrote, at {model}. Got "
    if said == "{safetensors}":
        said = f"{whole}{said_by_safetensors(bad / model)}. {NOT_WHOLE}"
    given = ("forget", model, "--data", "data", "--ids", "ids.csv", *NET)
    assert refused(efface, bad, capfd, given) == (4, said)


def test_weights_of_another_shape_are_refused_with_both_shapes(efface, bad, capfd):
    """Half a net would answer too."""
    given = ("forget", "bent.safetensors", "--data", "data", "--ids", "ids.csv", *NET)
    last, weights = (
        list(load_file(bad / "fine.safetensors"))[-1],
        load_file(bad / "fine.safetensors"),
    )
    assert refused(efface, bad, capfd, given) == (
        2,
        (
            "Wanted weights that fit tests_nets:narrow. Got missing: none; unexpected: none; "
            f"other shapes: {last} (3, 3) in the file, {tuple(weights[last].shape)} in the model. "
            "Name the architecture that these weights were trained with."
        ),
    )


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("no_such_package:net",
         ("Wanted a module named no_such_package. Got No module named 'no_such_package'. "
          "Install it, or put it on PYTHONPATH.")),
        ("bad_nets:raises", f"Wanted a model from bad_nets:raises. Got KeyError: 'layers'. {MEND}"),
        ("bad_nets:leaves", f"Wanted a model from bad_nets:leaves. Got SystemExit: 3. {MEND}"),
        ("bad_nets:hangs",
         ("Wanted a model from bad_nets:hangs. Got TimeoutError: no answer within 0.5 s. "
          f"{MEND}")),
        ("bad_nets:text",
         "Wanted a torch module from bad_nets:text. Got str. Name a function that makes one."),
        ("bad_nets:narow",
         ("Wanted a function or class of bad_nets. Got 'narow'. "
          "Look the name up in its documentation.")),
    ],
    ids=lambda value: value.split()[0],
)  # fmt: skip
def test_a_factory_that_makes_no_net_is_refused(efface, bad, capfd, monkeypatch, factory, said):
    """It is a user's code: it may do anything, and the request must end in words."""
    monkeypatch.setattr("efface.io.architectures.LIMIT_SECONDS", 0.5)
    given = ("forget", "fine.safetensors", "--data", "data", "--ids", "ids.csv")
    assert refused(efface, bad, capfd, (*given, "--architecture", factory)) == (2, said)


HINT = "Write comparisons such as label=dog and age>=30; put words with spaces in quotes."


@pytest.mark.parametrize(
    ("data", "naming", "ended"),
    [
        ("data", ("--ids", "empty.csv"),
         (2, "Wanted at least one id in empty.csv. Got none. Write one id a line.")),
        ("data", ("--where", "label=3 and label=4"),
         (2, ("Wanted at least one record to forget. Got none. "
          "Name them by ids, by an expression or a class."))),
        ("data", ("--where", "id!=none", "--retain", "copy"),
         (2, ("Wanted records that stay. Got all 1198 records of retain in the forget set. A model "
          "that must forget everything is an untrained model: delete it, or train anew."))),
        ("data", ("--where", "__import__('os').mkdir('canary')"),
         (2, ("Wanted one of = != >= <= > < in the expression "
          "\"__import__('os').mkdir('canary')\". "
          f"Got '(' at character 11. {HINT}"))),
        ("data", ("--ids", "outside.csv"),
         (5, ("Wanted ids that the data hold (by 'id', such as 'digit-0001'). Got 1 unknown: "
          "../../secret. Name the split that holds them, as in DATA:test, or give --id-column."))),
        ("twice", ("--ids", "ids.csv"),
         (2, ("Wanted unique ids in 'id'. Got more than once: digit-0002. "
          "Make them unique, or name another column with --id-column."))),
        ("beyond", ("--where", "label=10"),
         (6, ("Wanted a model and data that fit each other. Got The records have labels that the "
          "model with 10 outputs does not: 10. Nothing was changed. Look at --mean --std --size, "
          "at the order of the classes and at the label column."))),
        ("named", ("--ids", "ids.csv"),
         (2, ("Wanted class names that the model knows: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9. "
          "Got kind 0, kind 1, kind 2. "
          "Rename the classes of the data, or choose another --label-column."))),
        ("data", ("--ids", "ids.csv", "--method", "jit", "--setting", "sigma=0.0"),
         (2, ("Wanted sigma above 0 and at least 1 perturbation. "
          "Got sigma 0.0 and 1 perturbations. "
          "Without perturbations there is no neighbourhood to smooth; keep the defaults."))),
    ],
    ids=["no id", "no record", "everything", "code", "a path as id", "an id twice",
         "a label beyond", "other classes", "no noise"],
)  # fmt: skip
def test_a_request_that_cannot_be_meant_is_refused(efface, bad, capfd, data, naming, ended):
    """Empty, everything, code for an expression, paths or doubles as ids, wrong labels."""
    given = ("forget", "model", "--data", data, *naming)
    assert refused(efface, bad, capfd, given) == ended


def test_another_number_of_classes_is_refused_where_nothing_has_names(efface, bad, capfd):
    """A weights file knows no class names: three names cannot be matched with ten outputs."""
    given = ("forget", "fine.safetensors", "--data", "named", "--ids", "ids.csv", *NET)
    said = (
        "Wanted the 10 classes of the model. Got 3 class names: kind 0, kind 1, kind 2. Without "
        "the model's own class names the numbers cannot be matched: give data with all classes, "
        "or with labels as numbers."
    )
    assert refused(efface, bad, capfd, given) == (2, said)


def test_an_id_that_looks_like_a_path_is_only_an_id(efface, bad):
    """It is forgotten under its name, and no file of that name is looked for or made."""
    (bad / "dots.csv").write_text("id\n../digit\n")
    given = ("forget", "model", "--data", "dots", "--ids", "dots.csv", "--setting", "steps=1")
    old = set(before(bad))
    assert efface(*given, "--out", "dotted") == 0
    made = {path for path in set(before(bad)) - old if path.parent != bad / "dotted"}
    assert made == {bad / "dotted"}
    assert "../digit," in (bad / "dotted/exclude.csv").read_text()


def test_forgetting_every_record_of_the_data_is_warned_of(efface, bad, capfd):
    """Whoever has only the records to forget names them all; whoever has the rest does not."""
    table = parquet.read_table(bad / "data/train-00000-of-00001.parquet").slice(0, 3)
    (bad / "three").mkdir()
    parquet.write_table(table, bad / "three/train.parquet")
    given = ("forget", "model", "--data", "three", "--where", "id!=none", "--setting", "steps=1")
    assert efface(*given, "--out", "all") == 0
    assert (
        '{"event": "warning", "named": "every record of the data", '
        '"hint": "if the model was trained on nothing else, delete it instead"}'
    ) in capfd.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("out", "where"),
    [
        ("model/new", "is inside the folder of MODEL, model"),
        ("model/../model", "is the folder of MODEL, model"),
        ("data/deep/new", "is inside the folder of --data, data"),
        (".", "contains the folder of MODEL, model"),
        ("other/new", "is inside the folder of --holdout, other:test"),
    ],
)
def test_a_folder_that_is_read_is_not_written_into(efface, place, capfd, monkeypatch, out, where):
    """The next run would take the evidence of this one for data."""
    (place / "other").mkdir(exist_ok=True)
    monkeypatch.setattr("efface.asked.load_model", lambda *_, **__: pytest.fail("it was read"))
    given = ("forget", "model", "--data", "data", "--ids", "ids.csv", "--holdout", "other:test")
    assert efface(*given, "--out", out) == 2
    assert capfd.readouterr().err == (
        f"Wanted an --out apart from the inputs. Got {Path(out)}, which {where}. "
        "The next run would read the result as part of its input: give another --out.\n"
    )
    assert not list(place.rglob("new"))


def test_training_does_not_write_into_its_data(efface, capfd):
    """As above."""
    assert efface("train", "digits-conv", "--data", "data:train", "--out", "data/model") == 2
    assert capfd.readouterr().err == (
        "Wanted an --out apart from the inputs. Got data/model, which is inside the folder of "
        "--data, data:train. "
        "The next run would read the result as part of its input: give another --out.\n"
    )


@pytest.mark.parametrize(
    ("rows", "taken"), [(5, ""), (12, ", after 2 forget records were taken out")]
)
def test_a_holdout_that_is_too_small_to_be_halved_is_refused(efface, bad, capfd, rows, taken):
    """One record would be called tier T1, and say nothing."""
    kind = "test" if not taken else "train"
    table = parquet.read_table(bad / f"data/{kind}-00000-of-00001.parquet").slice(0, rows)
    _written(bad / f"few-{rows}", table)
    given = ("forget", "model", "--data", "data", "--ids", "ids.csv", "--holdout", f"few-{rows}")
    said = (
        "Wanted a holdout of 12 records or more, half for the guard, half for the evidence. "
        f"Got {rows - 2 if taken else rows}{taken}. "
        "With fewer, losing every one of them could be chance: give more, or give no holdout."
    )
    assert refused(efface, bad, capfd, given) == (2, said)
