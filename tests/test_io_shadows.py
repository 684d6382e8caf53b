"""Shadow models' arrays: read without unpickling, by id, and refused in a sentence."""

import re

import numpy as np
import pytest

from efface.errors import UnknownRecords, UnsafeFile
from efface.io.shadows import read_shadows
from efface.report import collect
from efface.types import Split
from tests.refusals import refusal

IDS = np.array(["a", "b", "c"])


REMEDY = "Save it again: numpy.savez(path, ids=…, member=…, log_odds=…), ids as texts."


def _saved(folder, name, **arrays):
    whole = {"ids": IDS, "member": np.array([True, False, True]), "log_odds": np.arange(3.0)}
    given = {key: value for key, value in {**whole, **arrays}.items() if value is not None}
    np.savez(folder / f"{name}.npz", **given)


def test_records_are_found_by_their_id_whatever_their_order(tmp_path):
    _saved(tmp_path, "one")
    turned = {"ids": IDS[::-1], "member": np.array([False, True, True])}
    _saved(tmp_path, "two", **turned, log_odds=np.array([7.0, 8.0, 9.0], np.float16))
    found = read_shadows(tmp_path)
    assert (found.names, found.ids, len(found)) == (("one", "two"), ("a", "b", "c"), 2)
    assert found.member.tolist() == [[True, False, True], [True, True, False]]
    assert found.log_odds.tolist() == [[0, 1, 2], [9, 8, 7]]
    ours = found.of(("c", "a"))
    assert ours.member.tolist() == [[True, True], [False, True]]
    assert ours.log_odds.tolist() == [[2, 0], [7, 9]]
    assert ours.digest == found.digest
    _saved(tmp_path, "two", **turned, log_odds=np.zeros(3))
    assert read_shadows(tmp_path).digest != found.digest


def test_arrays_of_a_cell_are_read_with_ids_added(tmp_path):
    member, log_odds = np.array([True, False, True]), np.arange(3, dtype=np.float16)
    cell = {"train.member": member, "train.log_odds": log_odds, "train.entropy": np.zeros(3)}
    cell["test.log_odds"] = np.zeros(9, np.float16)
    for name in ("one", "two"):
        np.savez(tmp_path / f"{name}.npz", ids=IDS, **cell)
    assert read_shadows(tmp_path).log_odds.tolist() == [[0, 1, 2]] * 2


FORM = "arrays ids, member and log_odds of one length in two.npz. Got"
TYPES = "texts, booleans and floats in two.npz. Got"
NOT_FINITE = (
    "finite log_odds in two.npz. Got 2 of 3 not finite. Check that shadow model, or omit it."
)
OTHERS = (
    "shadow outputs for the same records. Got two.npz, which differs in 2: c, d. Save the arrays "
    "of all shadow models for all records of --data."
)


REFUSED = [
    ("ids", None, f"{FORM} no ids. {REMEDY}"),
    ("member", [True], f"{FORM} lengths (3,), (1,), (3,). {REMEDY}"),
    ("ids", [0, 1, 2], f"{TYPES} int64, bool and float64. {REMEDY}"),
    ("member", [1, 0, 1], f"{TYPES} <U1, int64 and float64. {REMEDY}"),
    ("log_odds", [0, np.nan, np.inf], NOT_FINITE),
    ("ids", ["a", "b", "b"], f"unique ids in two.npz. Got some twice. {REMEDY}"),
    ("ids", ["a", "b", "d"], OTHERS),
]


@pytest.mark.parametrize(("name", "array", "message"), REFUSED)
def test_arrays_of_another_form_are_refused(tmp_path, name, array, message):
    _saved(tmp_path, "one")
    _saved(tmp_path, "two", **{name: array and np.array(array)})
    assert refusal(read_shadows, tmp_path) == f"Wanted {message}"


def test_objects_are_never_unpickled_and_damage_is_named(tmp_path):
    _saved(tmp_path, "one")
    _saved(tmp_path, "two", ids=np.array(["a", "b", None], object))
    objects = (tmp_path / "two.npz").read_bytes()
    np.save(tmp_path / "alone.npy", np.zeros(3))
    alone = (tmp_path / "alone.npy").read_bytes()
    cut = (tmp_path / "one.npz").read_bytes()[:-30]
    for content in (objects, b"", b"no archive", alone, cut):
        (tmp_path / "two.npz").write_bytes(content)
        message = refusal(read_shadows, tmp_path, kind=UnsafeFile)
        error = "ValueError" if content == objects else r"\w+"
        wanted = rf"Wanted arrays of plain numbers and texts\. Got {error} in two\.npz: .+"
        assert re.fullmatch(wanted + re.escape(REMEDY), message)


def test_one_shadow_model_or_no_folder_is_refused(tmp_path):
    (tmp_path / "one").mkdir()
    _saved(tmp_path / "one", "model")
    for folder, came in (
        ("", ", which holds 0"),
        ("one", ", which holds 1"),
        ("no", ", no folder"),
    ):
        assert refusal(read_shadows, tmp_path / folder) == (
            "Wanted a folder of two or more shadow models, each an .npz file. "
            f"Got {tmp_path / folder}{came}. Train shadow models on subsets of the data, "
            "save their outputs (docs/metrics.md)."
        )


def test_a_forget_record_without_shadow_outputs_is_named(tmp_path):
    for name in ("one", "two"):
        _saved(tmp_path, name)
    assert refusal(read_shadows(tmp_path).of, ("a", "x", "y"), kind=UnknownRecords) == (
        "Wanted shadow outputs for every forget record. Got 2 without: x, y. "
        "Save the arrays of all shadow models for all records of --data."
    )


TOO_FEW = "4 shadow models without each record are needed, there are 1"
MIXED_UP = (
    "shadow models were trained on records with the ids of unseen ones: two tables that "
    "number their rows alike cannot be distinguished"
)
ROWS = np.arange(400)


THREE_OF_FOUR = [(seed != ROWS % 4) & (ROWS < 300) for seed in range(4)]
HALVES = [seed % 2 == ROWS % 2 for seed in range(8)]
USELESS = [(THREE_OF_FOUR, TOO_FEW), (HALVES, MIXED_UP)]


@pytest.mark.parametrize(("members", "note"), USELESS)
def test_useless_shadow_models_are_a_row_that_says_so(tiny_net, digits, tmp_path, members, note):
    for seed, member in enumerate(members):
        arrays = {"ids": np.array(digits.ids), "member": member, "log_odds": np.zeros(400)}
        _saved(tmp_path, str(seed), **arrays)
    shadows, forget = read_shadows(tmp_path), digits.take([0, 1])
    parts = digits.take(range(300, 400)), digits.take(range(2, 300))
    found = collect(tiny_net, tiny_net, Split(forget, *parts), shadows=shadows)
    row = found.row("attack.lira")
    assert (found.tier, found.counts["shadows"]) == ("T4", len(members))
    assert (row.status, row.after, row.reference, row.note) == ("not run", None, None, note)
    assert collect(tiny_net, tiny_net, Split(forget), shadows=shadows).tier == "T0"


def test_an_archive_of_a_kind_that_nobody_reads_ends_in_a_sentence(tmp_path):
    """The module zipfile raises NotImplementedError, which is no error of a value or a file."""
    for name in ("one", "two"):
        np.savez(tmp_path / f"{name}.npz", ids=["a"], member=[True], log_odds=[0.5])
    content = (tmp_path / "one.npz").read_bytes()
    # compression method 99 of each entry, in the directory at the end
    place = content.index(b"PK\x01\x02") + 10
    (tmp_path / "one.npz").write_bytes(content[:place] + b"\x63" + content[place + 1 :])
    text = refusal(read_shadows, tmp_path, kind=UnsafeFile)
    assert "NotImplementedError in one.npz: That compression method is not supported" in text
