"""The steps of a run as a person sees them: on a terminal, in a notebook, in a log."""

import json
from contextlib import suppress

import nbformat
import pytest
from notebooks import executed

from efface import show_progress, terminal


def test_a_pipe_gets_a_json_line_now_and_then(capsys):
    """A log of hundreds of lines hides the one that matters."""
    with show_progress("count", 300) as shown:
        for step in range(1, 301):
            shown(step, 0.5, "go on")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["step"] for line in lines] == [1, 300]
    last = {"event": "count", "step": 300, "steps": 300, "loss": 0.5, "note": "go on"}
    assert lines[-1] == last


@pytest.mark.parametrize(("stopped", "bar"), [(False, "100/100"), (True, "100/300")])
def test_a_terminal_gets_a_bar_full_unless_stopped(capsys, monkeypatch, stopped, bar):
    """A method may end early: a bar left at a third would look like a fault, after an error not."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with suppress(KeyboardInterrupt), show_progress("count", 300) as shown:
        shown(100, 0.125, "go on")
        if stopped:
            raise KeyboardInterrupt
    seen = capsys.readouterr().err
    assert "count  loss 0.1250  go on" in seen
    assert bar in seen


SOURCE = """
from efface import show_progress, terminal
with show_progress("count", 300) as shown:
    for step in range(1, 201):
        shown(step, 1 / step, "go on")
"""


def test_a_notebook_keeps_one_bar_in_its_place_and_needs_no_widget():
    """200 steps must not leave 200 lines, and the bar must still be there on the saved page."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SOURCE)])
    (output,) = executed(notebook).cells[0].outputs
    assert output.output_type == "display_data"
    assert set(output.data) == {"text/plain", "text/html"}
    for text in ("count  loss 0.0050  go on", "200/200"):
        assert text in output.data["text/html"]
    assert "0:0" not in output.data["text/html"]


def test_a_heading_of_one_cell_stands_over_the_rows_of_a_table(capsys):
    """The demo heads each of its requests so."""
    rows = [["[bold]one record[/bold]"], ["jit", "1.5", "met"]]
    terminal.table("both", ["name", "gap", ""], rows)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["one", "record"] in lines
    assert ["jit", "1.5", "met"] in lines
