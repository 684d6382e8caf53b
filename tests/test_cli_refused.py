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
    'load it once and save the weights alone: torch.save(model.state_dict(), "weights.pt").'
)
NOT_WHOLE = "The file is cut short, damaged or of another kind: fetch or save it again."
NET = ("--architecture", "tests_nets:narrow", "--mean", "0.5", "--std", "0.5", "--size", "8")
IDS = ("--ids", "ids.csv")
REQUEST = ("--data", "data", *IDS)
FINE = ("fine.safetensors", *REQUEST, "--architecture")
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
    _written(place / "few", parquet.read_table(next((place / "data").glob("test*"))).slice(0, 5))
    _written(place / "few-left", table.slice(0, 12))
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


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("whole.pt", *REQUEST, *NET), 4,
         "Got whole.pt, which holds torch.nn.modules.container.Sequential. Where you trust"),
        (("payload.pt", *REQUEST, *NET), 4, f"which holds {os.mkdir.__module__}.mkdir. Where you"),
        (("payload.pt", *REQUEST, *NET), 4, SAVE_AGAIN),
        (("cut.safetensors", *REQUEST, *NET), 4, NOT_WHOLE),
        (("lying.safetensors", *REQUEST, *NET), 4, NOT_WHOLE),
        (("inf.safetensors", *REQUEST, *NET), 4,
         ("Wanted finite weights in inf.safetensors. Got nan or inf in 4.weight. "
          "Use a checkpoint from before training diverged.")),
        (("bent.safetensors", *REQUEST, *NET), 2,
         ("Wanted weights that fit tests_nets:narrow. Got missing: none; unexpected: none; "
          "other shapes: 4.weight (3, 3) in the file, (10, 64) in the model.")),
        ((*FINE, "no_such_package:net"), 2, "No module named 'no_such_package'. Install it, or"),
        ((*FINE, "bad_nets:raises"), 2, "Got KeyError: 'layers'. Fix the factory"),
        ((*FINE, "bad_nets:leaves"), 2, "Got SystemExit: 3. Fix the factory"),
        ((*FINE, "bad_nets:hangs"), 2, "Got TimeoutError: no answer within 0.5 s. Fix the"),
        ((*FINE, "bad_nets:text"), 2, "Wanted a torch module from bad_nets:text. Got str."),
        ((*FINE, "bad_nets:narow"), 2, "Wanted a function or class of bad_nets. Got 'narow'."),
        (("fine.safetensors", "--data", "named", *IDS, *NET), 2,
         "Wanted the 10 classes of the model. Got 3 class names: kind 0, kind 1, kind 2."),
        (("model", "--data", "data", "--ids", "empty.csv"), 2,
         "Wanted at least one id in empty.csv. Got none."),
        (("model", "--data", "data", "--where", "label=3 and label=4"), 2,
         "Wanted at least one record to forget. Got none."),
        (("model", "--data", "data", "--where", "id!=none", "--retain", "copy"), 2,
         "Got all 1198 records of retain in the forget set."),
        (("model", "--data", "data", "--where", "__import__('os').mkdir('canary')"), 2,
         "Got '(' at character 11."),
        (("model", "--data", "data", "--ids", "outside.csv"), 5,
         "(by 'id', such as 'digit-0001'). Got 1 unknown: ../../secret."),
        (("model", "--data", "twice", *IDS), 2, "Got more than once: digit-0002."),
        (("model", "--data", "beyond", "--where", "label=10"), 6,
         "The records have labels that the model with 10 outputs does not: 10."),
        (("model", "--data", "named", *IDS), 2,
         "the model knows: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9. Got kind 0, kind 1, kind 2."),
        (("model", *REQUEST, "--method", "jit", "--setting", "sigma=0.0"), 2, "Got 0.0."),
        (("model", *REQUEST, "--holdout", "few"), 2,
         "Wanted a holdout of 12 records or more"),
        (("model", *REQUEST, "--holdout", "few-left"), 2,
         "Got 10, after 2 forget records were taken out."),
    ],
    ids=lambda value: "-".join(value[:5]) if isinstance(value, tuple) else None,
)  # fmt: skip
def test_bad_input_ends_in_its_own_sentence_and_nothing_is_written_or_run(
    efface, bad, capfd, monkeypatch, arguments, code, text
):
    """Pickles, damaged and foreign weights, a factory of the user's, requests nobody can mean."""
    monkeypatch.setattr("efface.io.models.LIMIT_SECONDS", 0.5)
    old = before(bad)
    assert efface("forget", *arguments, "--out", "wrong") == code
    assert before(bad) == old
    assert text in capfd.readouterr().err.strip().splitlines()[-1]


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
