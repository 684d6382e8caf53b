"""Shadow models' arrays: read without unpickling, by id, and refused in a sentence."""

import numpy as np
import pytest

from efface.errors import UnknownRecords, UnsafeFile
from efface.io.shadows import read_shadows
from efface.report import collect
from efface.types import Split
from tests.io_helpers import error_of

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
    cell = {
        "train.member": np.array([True, False, True]),
        "train.log_odds": np.arange(3, dtype=np.float16),
        "train.entropy": np.zeros(3, np.float16),
        "test.log_odds": np.zeros(9, np.float16),
    }
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


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"ids": None}, f"{FORM} no ids. {REMEDY}"),
        ({"member": np.array([True])}, f"{FORM} lengths (3,), (1,), (3,). {REMEDY}"),
        ({"ids": np.arange(3)}, f"{TYPES} int64, bool and float64. {REMEDY}"),
        ({"member": np.array([1, 0, 1])}, f"{TYPES} <U1, int64 and float64. {REMEDY}"),
        ({"log_odds": np.array([0, np.nan, np.inf])}, NOT_FINITE),
        ({"ids": np.array(["a", "b", "b"])}, f"unique ids in two.npz. Got some twice. {REMEDY}"),
        ({"ids": np.array(["a", "b", "d"])}, OTHERS),
    ],
)
def test_arrays_of_another_form_are_refused(tmp_path, arrays, message):
    _saved(tmp_path, "one")
    _saved(tmp_path, "two", **arrays)
    assert error_of(read_shadows, tmp_path) == f"Wanted {message}"


def test_objects_are_never_unpickled_and_damage_is_named(tmp_path):
    _saved(tmp_path, "one")
    _saved(tmp_path, "two", ids=np.array(["a", "b", None], object))
    with pytest.raises(
        UnsafeFile, match=r"Wanted arrays of plain numbers and texts\. Got ValueError in two\.npz"
    ):
        read_shadows(tmp_path)
    np.save(tmp_path / "alone.npy", np.zeros(3))
    alone = (tmp_path / "alone.npy").read_bytes()
    for content in (b"", b"no archive", alone, (tmp_path / "one.npz").read_bytes()[:-30]):
        (tmp_path / "two.npz").write_bytes(content)
        with pytest.raises(UnsafeFile, match=r"Got \w+ in two\.npz: "):
            read_shadows(tmp_path)


def test_one_shadow_model_or_no_folder_is_refused(tmp_path):
    assert "which holds 0" in error_of(read_shadows, tmp_path)
    _saved(tmp_path, "one")
    assert "which holds 1" in error_of(read_shadows, tmp_path)
    assert "no folder" in error_of(read_shadows, tmp_path / "nowhere")


def test_a_forget_record_without_shadow_outputs_is_named(tmp_path):
    for name in ("one", "two"):
        _saved(tmp_path, name)
    assert error_of(read_shadows(tmp_path).of, ("a", "x", "y"), kind=UnknownRecords) == (
        "Wanted shadow outputs for every forget record. Got 2 without: x, y. "
        "Save the arrays of all shadow models for all records of --data."
    )


def test_too_few_shadow_models_are_a_row_that_says_so(tiny_net, digits, tmp_path):
    forget, ids = digits.take([0, 1]), np.array(digits.ids)
    for seed in range(4):
        member = (np.arange(len(ids)) % 4 != seed) & (np.arange(len(ids)) < 300)
        _saved(tmp_path, str(seed), ids=ids, member=member, log_odds=np.zeros(len(ids)))
    shadows = read_shadows(tmp_path)
    parts = digits.take(range(300, 400)), digits.take(range(2, 300))
    found = collect(tiny_net, tiny_net, Split(forget, *parts), shadows=shadows)
    row = found.row("attack.lira")
    assert (found.tier, found.counts["shadows"]) == ("T4", 4)
    assert (row.status, row.after, row.reference) == ("not run", None, None)
    assert row.note == "4 shadow models without each record are needed, there are 1"
    alone = collect(tiny_net, tiny_net, Split(forget), shadows=shadows)
    assert alone.tier == "T0"


def test_tables_that_number_their_rows_alike_are_not_mixed_up(tiny_net, digits, tmp_path):
    ids = np.array(digits.ids)
    for seed in range(8):
        member = np.arange(len(ids)) % 2 == seed % 2
        _saved(tmp_path, str(seed), ids=ids, member=member, log_odds=np.zeros(len(ids)))
    parts = digits.take(range(300, 400)), digits.take(range(2, 300))
    split = Split(digits.take([0, 1]), *parts)
    row = collect(tiny_net, tiny_net, split, shadows=read_shadows(tmp_path)).row("attack.lira")
    assert row.note == (
        "shadow models were trained on records with the ids of unseen ones: two tables that "
        "number their rows alike cannot be distinguished"
    )
