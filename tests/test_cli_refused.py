"""Bad input at the command line: each ends in its own sentence, and nothing is written or run."""

import os
import struct
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from safetensors.torch import load_file, save_file

from efface.nets import conv_small

SAVE_AGAIN = (
    "Where you trust the file and have its code, load it once and save the weights alone: "
    'torch.save(model.state_dict(), "weights.pt").'
)
NOT_WHOLE = "The file is cut short, damaged or of another kind: fetch or save it again."
NET = ("--architecture", "tests_nets:narrow", "--mean", "0.5", "--std", "0.5", "--size", "8")
REQUEST = ("--data", "data", "--ids", "ids.csv")
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
    infinite = weights["4.weight"] * torch.inf
    save_file({**weights, "4.weight": infinite}, place / "inf.safetensors")
    save_file({**weights, "4.weight": torch.ones(3, 3)}, place / "bent.safetensors")
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
        ("cut.safetensors", NOT_WHOLE),
        ("lying.safetensors", NOT_WHOLE),
        ("inf.safetensors",
         ("Wanted finite weights in inf.safetensors. Got nan or inf in 4.weight. "
          "Use a checkpoint from before training diverged.")),
    ],
    ids=lambda value: value.split()[0],
)  # fmt: skip
def test_a_weights_file_that_is_no_model_is_refused(efface, bad, capfd, model, said):
    """Pickled, with a payload, truncated, not of the shape it says, not finite."""
    code, line = refused(efface, bad, capfd, ("forget", model, *REQUEST, *NET))
    assert code == 4
    assert line.endswith(said)
    assert model in line


def test_weights_of_another_shape_are_refused_with_both_shapes(efface, bad, capfd):
    """Half a model would answer too."""
    code, line = refused(efface, bad, capfd, ("forget", "bent.safetensors", *REQUEST, *NET))
    shape = tuple(load_file(bad / "fine.safetensors")["4.weight"].shape)
    assert code == 2
    assert "Wanted weights that fit tests_nets:narrow. Got missing: none; unexpected: none" in line
    assert f"4.weight (3, 3) in the file, {shape} in the " in line


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("no_such_package:net", "Got No module named 'no_such_package'. Install it, or put it on"),
        ("bad_nets:raises", "from bad_nets:raises. Got KeyError: 'layers'. Fix the factory: it"),
        ("bad_nets:leaves", "from bad_nets:leaves. Got SystemExit: 3. Fix the factory: it"),
        ("bad_nets:hangs", "Got TimeoutError: no answer within 0.5 s. Fix the factory: it"),
        ("bad_nets:text", "Wanted a torch module from bad_nets:text. Got str."),
        ("bad_nets:narow", "Wanted a function or class of bad_nets. Got 'narow'."),
    ],
)
def test_a_factory_that_makes_no_model_is_refused(efface, bad, capfd, monkeypatch, factory, said):
    """It is a user's code: it may do anything, and the request must end in a sentence."""
    monkeypatch.setattr("efface.io.models.LIMIT_SECONDS", 0.5)
    given = ("forget", "fine.safetensors", *REQUEST, "--architecture", factory)
    code, line = refused(efface, bad, capfd, given)
    assert code == 2
    assert said in line


IDS = ("--ids", "ids.csv")


@pytest.mark.parametrize(
    ("data", "naming", "code", "said"),
    [
        ("data", ("--ids", "empty.csv"), 2, "Wanted at least one id in empty.csv. Got none."),
        ("data", ("--where", "label=3 and label=4"), 2, "at least one record to forget. Got none."),
        ("data", ("--where", "id!=none", "--retain", "copy"), 2,
         "Got all 1198 records of retain in the forget set."),
        ("data", ("--where", "__import__('os').mkdir('canary')"), 2, "Got '(' at character 11."),
        ("data", ("--ids", "outside.csv"), 5,
         "(by 'id', such as 'digit-0001'). Got 1 unknown: ../../secret."),
        ("twice", IDS, 2, "Got more than once: digit-0002."),
        ("beyond", ("--where", "label=10"), 6,
         "The records have labels that the model with 10 outputs does not: 10."),
        ("named", IDS, 2,
         "the model knows: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9. Got kind 0, kind 1, kind 2."),
        ("data", (*IDS, "--method", "jit", "--setting", "sigma=0.0"), 2, "Got 0.0."),
    ],
    ids=["no id", "no record", "everything", "code", "a path as id", "an id twice",
         "a label beyond", "other classes", "no noise"],
)  # fmt: skip
def test_a_request_that_cannot_be_meant_is_refused(efface, bad, capfd, data, naming, code, said):
    """Empty, everything, code for an expression, paths or doubles as ids, wrong labels."""
    ended, line = refused(efface, bad, capfd, ("forget", "model", "--data", data, *naming))
    assert ended == code
    assert said in line


def test_another_number_of_classes_is_refused_where_nothing_has_names(efface, bad, capfd):
    """A weights file knows no class names: three names cannot be matched with ten outputs."""
    given = ("forget", "fine.safetensors", "--data", "named", *IDS, *NET)
    code, line = refused(efface, bad, capfd, given)
    assert code == 2
    assert "Wanted the 10 classes of the model. Got 3 class names: kind 0, kind 1, kind 2." in line


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
    monkeypatch.setattr(
        "efface.cli.loading.load_model", lambda *_, **__: pytest.fail("it was read")
    )
    given = ("forget", "model", "--data", "data", "--ids", "ids.csv", "--holdout", "other:test")
    assert efface(*given, "--out", out) == 2
    assert capfd.readouterr().err == (
        f"Wanted an --out apart from the inputs. Got {Path(out)}, which {where}. "
        "The next run would read the result as part of its input: give another --out.\n"
    )
    assert not list(place.rglob("new"))


@pytest.mark.parametrize(("kind", "rows", "taken"), [("test", 5, 0), ("train", 12, 2)])
def test_a_holdout_that_is_too_small_to_be_split_is_refused(efface, bad, capfd, kind, rows, taken):
    """One record would be called tier T1, and say nothing."""
    table = parquet.read_table(bad / f"data/{kind}-00000-of-00001.parquet").slice(0, rows)
    _written(bad / f"few-{rows}", table)
    given = ("forget", "model", *REQUEST, "--holdout", f"few-{rows}")
    code, line = refused(efface, bad, capfd, given)
    assert code == 2
    assert "Wanted a holdout of 12 records or more" in line
    after = f", after {taken} forget records were taken out" if taken else ""
    assert f"Got {rows - taken}{after}." in line
