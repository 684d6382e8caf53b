"""The notebooks of docs/ were run as they stand, and say the same when they are run again.

Printed text and tables are compared as ``tests/test_docs_blocks.py`` compares pages: words must
be equal, numbers may be off by 0.02 (2 for a percentage), or by the ``tolerance`` in a cell's
metadata.
Verdicts, the name of the class that lost most and the steps of a bar may be others on another
machine, and are not compared.
"""

import re

import nbformat
import pytest
from notebooks import NOTEBOOKS, executed, text_of
from test_docs_blocks import differences


def code_cells(notebook):
    """The cells that a kernel runs."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def compared(cell):
    """What must be the same when the cell is run again."""
    text = re.sub(r"(lost most:).*", r"\1", text_of(cell))
    return "\n".join(line.rstrip() for line in text.splitlines())


def read(path):
    """A notebook as it is committed; raises where it breaks the format."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


# More than a minute together; the others are run by ``make test``.
SLOW = {"forget_a_class": [pytest.mark.slow]}
PARAMS = [pytest.param(p, id=p.stem, marks=SLOW.get(p.stem, [])) for p in NOTEBOOKS]


@pytest.fixture(scope="module", params=PARAMS)
def pair(request):
    """(a notebook as it is committed, the same run again by a kernel of this Python)."""
    committed = read(request.param)
    return committed, executed(committed)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_committed_notebook_was_run_once_from_top_to_bottom_without_an_error(path):
    """And says nothing of the machine: times, versions and paths tell a reader nothing."""
    notebook = read(path)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    # One line in plain text: a repr of tensors would fill pages of the committed file.
    assert all(len(o.get("data", {}).get("text/plain", "")) < 2000 for o in outputs)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.language_info == {"name": "python"}
    assert {key for cell in notebook.cells for key in cell.metadata} <= {"tolerance"}
    assert not re.search(r"ipykernel_\d|site-packages", path.read_text())


def test_a_notebook_run_again_says_what_it_says(pair):
    """The outputs are those of this source: same kinds, same words, numbers within tolerance."""
    for old, new in zip(*map(code_cells, pair), strict=True):
        assert list(map(kind, old.outputs)) == list(map(kind, new.outputs))
        wrong = differences(compared(old), compared(new), old.metadata.get("tolerance"))
        assert not wrong, f"{old.source}\n{wrong}"


def test_a_bar_stays_one_output_and_ends_full(pair):
    """Hundreds of steps must not bury the table below them."""
    for notebook in pair:
        shown = [cell for cell in code_cells(notebook) if "show_progress)" in cell.source]
        assert shown
        for cell in shown:
            (bar,) = [o for o in cell.outputs if kind(o) == ("display_data", "bar")]
            assert re.search(r"\b(\d+)/\1\b", bar.data["text/html"])


def test_a_number_that_is_another_is_noticed_and_a_verdict_is_not():
    """The comparison must be able to fail, in a table as in a line."""
    row = "<tr><td>\u25cb AUC</td><td>{}</td><td>{}</td></tr>"
    cells = ("0.51", "not flagged"), ("0.51", "inconclusive"), ("0.6", "inconclusive")
    first, second, third = (compared(_cell(html=row.format(*two))) for two in cells)
    assert not differences(first, second)
    assert differences(first, third)
    assert differences(compared(_cell("17 of 20")), compared(_cell("16 of 20")))


def _cell(text=None, html=""):
    """A cell that was run and printed a text, or showed a page."""
    shown = nbformat.v4.new_output("display_data", data={"text/html": html})
    printed = nbformat.v4.new_output("stream", text=text or "")
    return nbformat.v4.new_code_cell(outputs=[shown if text is None else printed])


def kind(output):
    """A table, a picture, a bar or a text, and how it came."""
    if output.output_type == "stream":
        return "stream", output.name
    bar = "━" in output.data.get("text/html", "")
    return output.output_type, "bar" if bar else max(output.data)
