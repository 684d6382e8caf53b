"""The runner: what is missing is made once, what fails is a row, what is killed is made again."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from efface.cells import Cell, plan, read, records, run
from efface.cells.local import local
from efface.cells.store import failure
from efface.errors import InputError

HERE = Path(__file__).parent
quick = partial(run, engine=partial(local, nice=0))


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Where this process finds the fake cells, its workers do."""
    monkeypatch.syspath_prepend(HERE)


def number(n, **more):
    """A cell that gives twice its number."""
    settings = {"n": n, **more.pop("settings", {})}
    return Cell("fake_cells:number", settings, guess_seconds=0.2, **more)


def chain():
    """Four cells: two, one that needs both, and one on top."""
    one, two = number(1), number(2)
    both = number(3, needs={"one": one, "two": two})
    return [number(4, needs={"both": both}), one, two, both]


def events(text):
    """What was told, line by line."""
    return [json.loads(line) for line in text.splitlines()]


def test_cells_are_made_after_what_they_need_and_read_back(tmp_path):
    """The statistics, and margins in half precision."""
    cells = chain()
    ran = quick(cells, tmp_path)
    assert ran.counts == {"made": 4}
    assert [read(tmp_path, cell).statistics["total"] for cell in cells] == [20, 2, 4, 12]
    margins = read(tmp_path, cells[1]).margins["n"]
    assert margins.dtype == np.float16
    assert margins.tolist() == np.full(3, 1 / 3, np.float16).tolist()


def test_the_same_cell_twice_is_one_record_and_is_not_made_again(tmp_path):
    """Asked for twice in a run, and in a second run."""
    assert quick([number(1), number(1)], tmp_path).counts == {"made": 1}
    stamp = (read(tmp_path, number(1)).folder / "record.json").stat().st_mtime_ns
    assert quick([number(1), number(2)], tmp_path).counts == {"done": 1, "made": 1}
    assert len(records(tmp_path)) == 2
    assert (read(tmp_path, number(1)).folder / "record.json").stat().st_mtime_ns == stamp


def test_a_failed_cell_is_a_row_with_its_traceback_and_so_is_what_needed_it(tmp_path, capfd):
    """A missing row would look like a smaller grid."""
    bad = Cell("fake_cells:broken", {"mended": str(tmp_path / "mended")})
    cells = [bad, number(2, needs={"bad": bad}), number(1)]
    ran = quick(cells, tmp_path / "store")
    assert [row.state for row in ran.rows] == ["failed", "not run", "made"]
    assert ran.rows[0].error == "ValueError: it is [red]broken[/red]"
    assert "in broken" in ran.rows[0].traceback
    assert failure(tmp_path / "store", bad.id)["description"] == bad.description
    told = [line["event"] for line in events(capfd.readouterr().err)]
    assert told[-3:] == ["failed", "not run", "ran"]
    with pytest.raises(InputError, match="Got a failure: ValueError: it is"):
        read(tmp_path / "store", bad)


def test_a_terminal_gets_a_bar_and_failures_in_red(tmp_path, capsys, monkeypatch):
    """What a person must not miss; brackets in an error are no markup."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    quick([Cell("fake_cells:broken", {"mended": "nowhere"}), number(1)], tmp_path)
    shown = capsys.readouterr().err
    red = next(line for line in shown.splitlines() if "\x1b[1;31mfailed" in line)
    assert "it is [red]broken[/red]" in red
    assert "2/2" in shown


def test_a_failure_stays_until_it_is_asked_for_again(tmp_path):
    """And is gone once the cell has succeeded."""
    bad = Cell("fake_cells:broken", {"mended": str(tmp_path / "mended")})
    store = tmp_path / "store"
    quick([bad], store)
    (tmp_path / "mended").touch()
    assert quick([bad], store).counts == {"failed": 1}
    assert quick([bad], store, again=True).counts == {"made": 1}
    assert failure(store, bad.id) is None
    assert not list((store / "failed").iterdir())


def test_a_cell_that_ends_its_workers_fails_after_five(tmp_path):
    """Else it would end them for ever."""
    deadly = Cell("fake_cells:deadly")
    ran = quick([deadly, number(1)], tmp_path, processes=1)
    assert [row.state for row in ran.rows] == ["failed", "made"]
    assert ran.rows[0].error == "its worker ended 5 times, the last time with -9"


def test_sources_that_change_under_a_run_are_refused(tmp_path, monkeypatch):
    """The record would be filed under code that did not make it."""
    for name in ("fake_cells.py", "fake_helper.py"):
        (tmp_path / name).write_bytes((HERE / name).read_bytes())
    monkeypatch.syspath_prepend(tmp_path)
    cell = number(1)
    assert cell.id
    (tmp_path / "fake_helper.py").write_text("def doubled(n):\n    return 3 * n\n")
    ran = quick([cell], tmp_path / "store")
    assert "files that have changed since" in ran.rows[0].error


def test_the_plan_says_how_long_before_and_the_run_how_wrong_it_was(tmp_path, capfd):
    """From guesses at first, from finished cells of the kind later."""
    cells = [number(n, settings={"seconds": 0.3}, kind="sleep") for n in range(6)]
    first = plan(cells[:2], tmp_path, processes=1)
    assert (first.seconds, first.kinds["sleep"].known_from) == (0.4, 0)
    quick(cells[:2], tmp_path, processes=1)
    later = plan(cells, tmp_path, processes=2)
    assert later.kinds["sleep"].known_from == 2
    assert (len(later.done), len(later.missing)) == (2, 4)
    assert later.seconds == pytest.approx(2 * later.kinds["sleep"].seconds)
    ran = quick(cells, tmp_path, processes=2)
    assert ran.estimate_error == (ran.plan.seconds - ran.seconds) / ran.seconds
    told = events(capfd.readouterr().err)
    assert told[0]["event"] == "plan"
    assert told[-1]["event"] == "ran"
    assert told[-1]["estimate_error"] == round(ran.estimate_error, 3)


def test_the_plan_waits_for_what_a_cell_needs():
    """Three cells in a row take three times as long on any number of processes."""
    one = number(1)
    two = number(2, needs={"one": one})
    assert plan([number(3, needs={"two": two})], "nowhere", processes=8).seconds == (
        pytest.approx(0.6)
    )


def test_two_runners_on_one_store_share_the_work(tmp_path):
    """Each cell is made by one of them."""
    code = (
        "import sys; from functools import partial; from efface.cells import Cell, run\n"
        "from efface.cells.local import local\n"
        "cells = [Cell('fake_cells:number', {'n': n, 'seconds': 0.3}) for n in range(10)]\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "print(run(cells, sys.argv[1], processes=1, engine=partial(local, nice=0)).counts)"
    )
    path = os.pathsep.join([str(HERE), *sys.path])
    runners = [
        subprocess.Popen(
            [sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
        )
        for _ in range(2)
    ]  # fmt: skip
    assert [runner.stdout.readline() for runner in runners] == ["ready\n"] * 2
    for runner in runners:
        runner.stdin.write("go\n")
        runner.stdin.flush()
    said = [eval(runner.communicate()[0]) for runner in runners]  # noqa: S307  # our own line
    assert sum(counts.get("made", 0) for counts in said) == 10
    assert [sum(counts.values()) for counts in said] == [10, 10]
    assert all(counts.get("made", 0) >= 1 for counts in said)
    assert len(records(tmp_path)) == 10


def test_workers_stand_back_and_have_one_thread_each(tmp_path):
    """Two cells on two cores must not starve each other, nor anybody's other programs."""
    store = tmp_path / "store"
    run([Cell("fake_cells:surroundings")], store, processes=1)
    found = records(store)[0].statistics
    assert found["nice"] >= min(os.nice(0) + 10, 19)
    assert found["threads"] == "1"
