"""The steps of a run as a person sees them: on a terminal, in a notebook, in a log."""

import json
import subprocess
import sys
import unicodedata
from contextlib import suppress

import nbformat
import pytest
from notebooks import executed
from run_files import events

from efface import show_progress, terminal
from efface.display import csv_cell, from_csv_cell, printable


def test_a_pipe_gets_a_json_line_now_and_then(capsys, monkeypatch):
    """A log of hundreds of lines hides the one that matters; a slow stage says what is left."""
    now = iter(range(0, 3000, 2))
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(now))
    with show_progress("count", None) as shown:
        for step in range(1, 5):
            shown(step, 0.5, "go on", steps=8)
    slow, last = events(capsys.readouterr().err)
    same = {"event": "count", "loss": 0.5, "note": "go on"}
    assert slow == same | {"step": 3, "steps": 8, "seconds": 8, "left": 15.0}
    assert last == same | {"step": 4, "steps": 4, "seconds": 12}


def test_what_precedes_the_first_step_is_no_measure_of_the_others(capsys, monkeypatch):
    """A model that took ten seconds to open must not make its 1,000 records ten thousand."""
    now = [0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    with show_progress("load", None) as shown:
        for now[0], step in ((10, 1), (15, 51)):
            shown(step, steps=1000)
    first, second, _ = events(capsys.readouterr().err)
    assert (first["step"], "left" in first) == (1, False)
    assert (second["seconds"], second["left"]) == (15, 94.9)


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
from efface.display import csv_cell, from_csv_cell
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
    rows = [["one record"], ["jit", "1.5", "met"]]
    terminal.table("both", ["name", "gap", ""], rows)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["one", "record"] in lines
    assert ["jit", "1.5", "met"] in lines


ODD = "o[/red]x\x1b[31m\u202e\n\ud800"
SHOWN = r"o[/red]x\x1b[31m\u202e\n\ud800"


@pytest.mark.parametrize("tty", ["0", "1"])
def test_names_of_users_are_shown_and_never_obeyed(capsys, monkeypatch, tty):
    """Brackets are no markup; what turns the terminal red, or the line round, is written out."""
    if tty == "1":
        monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    terminal.table(ODD, ["id", ODD], [[ODD], [ODD, "1"]])
    terminal.event("warning", ids=ODD)
    with show_progress(ODD, 1) as shown:
        shown(1, 0.5, ODD)
    out, err = capsys.readouterr()
    assert out.count(SHOWN) == 4
    for text in (out, err):
        assert not {"\x1b[31m\u202e", "\u202e", "\ud800"} & {text, *text}
        assert "\x1b[31m" not in text
    assert SHOWN in err if tty == "1" else json.loads(err.splitlines()[0])["ids"] == ODD


def test_each_character_that_ends_or_turns_a_line_is_written_out():
    """By Unicode's own categories and directions, and not by a list of ours."""
    turning = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    for one in map(chr, range(sys.maxunicode + 1)):
        odd = unicodedata.category(one) in {"Cc", "Cs", "Zl", "Zp"} or one in "\u200e\u200f"
        if odd or unicodedata.bidirectional(one) in turning:
            assert printable(f"a{one}b").isprintable(), f"{ord(one):x}"


@pytest.mark.parametrize(
    "one", [*"\u00ad\u061c\u180e\u200b\u200c\u200d\u200e\u200f\u2060\u2066\u2069\ufeff\U000e0041"]
)
def test_what_has_no_width_or_turns_a_line_is_written_out(one):
    """Two ids that differ in it alone would look the same."""
    assert printable(f"a{one}b") == f"a{one!a}b".replace("'", "")


@pytest.mark.parametrize(
    "text", ["Müller-Lüdenscheidt", "9\u00a0%", "\u0645\u0631\u064a\u0645", "e\u0301", "\U0001f600"]
)
def test_letters_of_any_script_stand_as_they_are(text):
    assert printable(text) == text


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-5", "@a", "\tx", "'", "''", "'=", "'a", "a", "", "a=1"]
)
def test_no_cell_of_a_csv_is_a_formula_and_each_comes_back(text):
    cell = csv_cell(text)
    assert cell[:1] not in set("=+-@\t\r")
    assert from_csv_cell(cell) == text


FULL = "Wanted to print the result. Got No space left on device. "
FULL += "What was written to files is whole."
STREAMS = [
    ("", 0, ""),
    (" > /dev/full", 1, f"{FULL}\n"),
    (" | true; exit ${PIPESTATUS[0]}", 141, ""),
    (" >&-", 0, ""),
    (" >&- 2>&-", 0, ""),
    (" nothing 2> /dev/full", 2, ""),
]


@pytest.mark.parametrize(("stream", "code", "text"), STREAMS)
def test_a_full_or_closed_stream_has_its_own_code(stream, code, text):
    """`efface … | head` is no error of the run, and a full disk is said."""
    script = f"{sys.executable} -m efface methods{stream}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (code, text)
