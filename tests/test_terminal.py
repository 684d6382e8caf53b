"""The steps of a run as a person sees them: on a terminal, in a notebook, in a log."""

import json
import sys
from contextlib import suppress
from pathlib import Path

import nbformat

sys.path.insert(0, str(Path(__file__).parent))
from notebooks import executed

from efface import show_progress, terminal


def test_a_pipe_gets_a_json_line_now_and_then(capsys):
    """A log of hundreds of lines hides the one that matters."""
    with show_progress("count", 300) as shown:
        for step in range(1, 301):
            shown(step, 0.5, "go on")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["step"] for line in lines] == [1, 300]
    assert lines[-1] == {
        "event": "count", "step": 300, "steps": 300, "loss": 0.5, "note": "go on",
    }  # fmt: skip


def test_a_terminal_gets_a_bar_that_is_full_when_the_run_ended_early(capsys, monkeypatch):
    """A method may stop by itself; a bar left at a third would look like a fault."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with show_progress("count", 300) as shown:
        shown(99, 0.25, "go on")
        shown(100, 0.125, "go on")
    seen = capsys.readouterr().err
    assert "count  loss 0.1250  go on" in seen
    assert "100/100" in seen


def test_a_terminal_keeps_the_bar_of_a_run_that_was_stopped_where_it_was(capsys, monkeypatch):
    """A full bar above an error would say that all was done."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with suppress(KeyboardInterrupt), show_progress("count", 300) as shown:
        shown(100, 0.125, "go on")
        raise KeyboardInterrupt
    assert "100/300" in capsys.readouterr().err


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
    terminal.table(
        "both", ["name", "gap", ""], [["[bold]one record[/bold]"], ["jit", "1.5", "met"]]
    )
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["one", "record"] in lines
    assert ["jit", "1.5", "met"] in lines
