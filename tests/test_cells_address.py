"""The address of a cell: everything that its record depends on, and nothing else."""

import re
import shutil
from pathlib import Path

import pytest

from efface.cells import Cell
from efface.cells.cell import in_order
from efface.cells.sources import files_of
from efface.errors import InputError

HERE = Path(__file__).parent

NO_ADDRESS = (
    "Wanted a function as package.module:function. Got 'number'. "
    "Such as efface.cells.trained:trained."
)
NO_MODULE = (
    "Wanted a source file of the module fake_cellz. Got none. "
    "Put its folder on PYTHONPATH; installed packages hold no cells."
)
NO_JSON = (  # in the middle Python's own words, which differ
    r"Wanted settings that JSON can hold\. Got Out of range float values are not JSON .*\. "
    r"Use numbers, texts, lists and mappings\."
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of the fake cells that a test may edit."""
    for name in ("fake_cells.py", "fake_helper.py"):
        shutil.copyfile(HERE / name, tmp_path / name)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def cell(**changes):
    """A cell, with something changed."""
    given = {"function": "fake_cells:number", "settings": {"n": 1, "seed": 0}, **changes}
    return Cell(**given)


def test_each_ingredient_changes_the_address(folder):  # noqa: ARG001
    """Two cells that differ anywhere must not share a record."""
    others = [
        cell(function="fake_cells:broken"),
        cell(settings={"n": 2, "seed": 0}),
        cell(settings={"n": 1, "seed": 1}),
        cell(settings={"n": 1}),
        cell(needs={"base": cell()}),
        cell(needs={"other": cell()}),
        cell(needs={"base": cell(settings={"n": 3})}),
    ]
    assert len({cell().id, *(other.id for other in others)}) == len(others) + 1


def test_what_serves_the_plan_alone_and_the_order_of_settings_change_nothing(folder):  # noqa: ARG001
    """Nor do tuples, which JSON does not know."""
    same = [
        cell(kind="any", guess_seconds=1.0),
        cell(settings={"seed": 0, "n": 1}),
    ]
    assert {other.id for other in same} == {cell().id}
    assert cell(settings={"rows": (1, 2)}).id == cell(settings={"rows": [1, 2]}).id


@pytest.mark.parametrize("name", ["fake_cells.py", "fake_helper.py"])
def test_a_changed_source_file_changes_the_address_even_behind_an_import(folder, name):
    """A record of other code is another record."""
    before = cell().id
    text = (folder / name).read_text()
    (folder / name).write_text(text + "\n\nLATER = 1\n")
    assert cell().id != before
    (folder / name).write_text(text)
    assert cell().id == before


def test_comments_docstrings_and_layout_do_not_change_the_address(folder):
    """They change nothing that was computed."""
    before = cell().id
    path = folder / "fake_helper.py"
    path.write_text('"""Other words."""\n# a word\ndef doubled(n):\n    return (2\n      * n)\n')
    assert cell().id == before
    path.write_text("def doubled(n):\n    return 3 * n\n")
    assert cell().id != before


def test_a_function_that_the_settings_name_counts_as_imported(folder):  # noqa: ARG001
    """A method or an architecture is imported by its address, where no import statement stands."""
    with_method = files_of(["fake_cells:number", "efface.methods.jit:jit"])
    assert "efface.methods.jit" in with_method
    assert "efface.methods.jit" not in files_of(["fake_cells:number"])
    plain, named = cell(settings={"m": "jit"}), cell(settings={"m": "efface.methods.jit:jit"})
    assert plain.description["sources"] != named.description["sources"]


def test_a_trained_model_rests_on_no_guard_and_no_method():
    """Work on guard, methods and evidence must not void models that took hours."""
    found = files_of(["efface.cells.trained:trained"])
    assert {"efface.training", "research.recipes", "efface.metrics.measure"} <= set(found)
    rooms = {name.removeprefix("efface.").split(".")[0] for name in found}
    assert not {"guard", "evidence", "request", "prepare", "doctor"} & rooms
    parts = {name for name in found if name.startswith("efface.methods")}
    assert parts == {"efface.methods.parts.neighbours"}  # the recipe's crops


def test_one_method_does_not_rest_on_the_others():
    """Work on one method must not void the records of all."""
    found = files_of(["efface.cells.unlearned:unlearned", "efface.methods.jit:jit"])
    assert {"efface.training", "efface.guard", "efface.metrics.measure"} <= set(found)
    assert not {"efface.methods", "efface.methods.neighbourhood", "efface.unlearn"} & set(found)
    assert not [name for name in found if name.split(".")[0] != "efface"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"function": "number"}, NO_ADDRESS),
        ({"function": "fake_cellz:number"}, NO_MODULE),
        ({"settings": {"n": float("nan")}}, NO_JSON),
    ],
)
def test_what_is_no_cell_is_refused_in_words(folder, given, said):  # noqa: ARG001
    """Before anything runs."""
    with pytest.raises(InputError) as caught:
        cell(**given)
    assert str(caught.value) == said or re.fullmatch(said, str(caught.value))


def test_needed_cells_come_first_and_each_once(folder):  # noqa: ARG001
    """However often one is named."""
    base = cell()
    above = [cell(settings={"n": n}, needs={"base": base}) for n in (2, 3)]
    top = cell(settings={"n": 4}, needs={"one": above[0], "two": above[1]})
    assert list(in_order([top, *above, base])) == [c.id for c in (base, *above, top)]
