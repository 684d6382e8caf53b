"""The grid: a job's address is all that its result depends on; what is missing is made once."""

import os
import shutil
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from refusals import refusal
from run_files import events

from efface.errors import InputError, MissingExtra
from efface.grid import Job, estimate_seconds, plan, read, read_failure, results, run, source_files

HERE = Path(__file__).parent
quick = partial(run, nice=0)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Where this process finds the fake jobs, a copy that may be edited, its workers do too."""
    for name in ("fake_jobs.py", "fake_helper.py"):
        shutil.copyfile(HERE / name, tmp_path / name)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


def number(n=1, *, needs=None, kind="", **settings):
    return Job("fake_jobs:number", {"n": n, **settings}, needs=needs or {}, kind=kind)


def counts(rows):
    return dict(Counter(row.state for row in rows.values()))


def test_each_ingredient_changes_the_address():
    changed = [
        Job("fake_jobs:broken", {"n": 1, "seed": 0}),
        *(number(**settings) for settings in ({"n": 2, "seed": 0}, {"n": 1, "seed": 1}, {"n": 1})),
        *(number(seed=0, needs={name: number(n)}) for name, n in (("a", 1), ("b", 1), ("a", 3))),
    ]
    assert len({job.id for job in [number(seed=0), *changed]}) == len(changed) + 1


def test_kind_order_and_tuples_change_no_address():
    assert number(seed=0, kind="any").id == Job("fake_jobs:number", {"seed": 0, "n": 1}).id
    assert number(rows=(1, 2)).id == number(rows=[1, 2]).id


@pytest.mark.parametrize("name", ["fake_jobs.py", "fake_helper.py"])
def test_a_changed_source_changes_the_address_even_behind_an_import(folder, name):
    before, text = number().id, (folder / name).read_text()
    (folder / name).write_text(text + "\n\nLATER = 1\n")
    assert number().id != before
    (folder / name).write_text(text)
    assert number().id == before


def test_comments_docstrings_and_layout_do_not_change_the_address(folder):
    before, path = number().id, folder / "fake_helper.py"
    path.write_text('"""Other words."""\n# a word\ndef doubled(n):\n    return (2\n      * n)\n')
    assert number().id == before
    path.write_text("def doubled(n):\n    return 3 * n\n")
    assert number().id != before


def test_relative_imports_count(folder):
    (folder / "pack").mkdir()
    (folder / "pack" / "__init__.py").touch()
    (folder / "pack" / "part.py").write_text("ONE = 1\n")
    (folder / "pack" / "job.py").write_text("from . import part\nfrom .part import ONE\n")
    assert set(source_files(["pack.job:run"])) == {"pack.job", "pack.part"}


def test_a_function_that_the_settings_name_counts_as_imported():
    found = source_files(["fake_jobs:number", "efface.methods.jit:jit"])
    assert "efface.methods.jit" in found
    assert "efface.methods.jit" not in source_files(["fake_jobs:number"])
    assert {"fake_helper", "efface.grid"} <= set(found)
    assert not {"numpy", "torch", "os"} & set(found)
    plain, named = number(m="jit"), number(m="efface.methods.jit:jit")
    assert plain.description["sources"] != named.description["sources"]


REFUSED = [
    ("number", 1, "Wanted a function as package.module:function. Got 'number'. Such as "),
    ("fake_jobz:number", 1, "Wanted a source file of the module fake_jobz. Got none. Put its "),
    ("numpy:ones", 1, "Wanted a source file of the module numpy. Got none. Put its folder on "),
    ("fake_jobs:number", float("nan"), "Wanted settings that JSON can hold. Got Out of range "),
]


@pytest.mark.parametrize(("function", "n", "text"), REFUSED)
def test_what_is_no_job_is_refused_before_anything_runs(function, n, text):
    assert refusal(Job, function, {"n": n}).startswith(text)


def test_needed_jobs_come_first_and_each_once(store):
    base = number()
    above = [number(n, needs={"base": base}) for n in (2, 3)]
    top = number(4, needs={"one": above[0], "two": above[1]})
    assert list(plan([top, *above, base], store)) == [job.id for job in (base, *above, top)]


def test_jobs_are_made_after_what_they_need_and_read_back(store):
    one, two = number(1), number(2)
    both = number(3, needs={"one": one, "two": two})
    jobs = [number(4, needs={"both": both}), one, two, both]
    assert counts(quick(jobs, store)) == {"made": 4}
    assert [read(store, job).statistics["total"] for job in jobs] == [20, 2, 4, 12]
    assert np.array_equal(read(store, one).arrays["n"], np.full(3, 1 / 3, np.float16))


def test_the_same_job_twice_is_one_result_and_is_not_made_again(store):
    assert counts(quick([number(1), number(1)], store)) == {"made": 1}
    stamp = (store / number(1).id / "result.json").stat().st_mtime_ns
    assert counts(quick([number(1), number(2)], store)) == {"done": 1, "made": 1}
    assert len(results(store)) == 2
    assert (store / number(1).id / "result.json").stat().st_mtime_ns == stamp


def test_a_failed_job_is_a_row_and_so_is_what_needed_it_until_it_is_retried(store, folder, capfd):
    bad = Job("fake_jobs:broken", {"mended": str(folder / "mended")})
    above = number(2, needs={"bad": bad})
    jobs = [bad, above, number(3, needs={"above": above}), number(1)]
    rows = quick(jobs, store)
    assert [rows[job.id].state for job in jobs] == ["failed", "not run", "not run", "made"]
    planned = [row.state for row in plan(jobs, store).values()]
    assert planned == ["failed", "not run", "not run", "done"]
    assert counts(plan(jobs, store, retry=True)) == {"missing": 3, "done": 1}
    assert rows[bad.id].error == "ValueError: it is [red]broken[/red]"
    failure = read_failure(store, bad.id)
    assert "in broken" in failure["traceback"]
    assert failure["description"] == bad.description
    assert [e["event"] for e in events(capfd.readouterr().err)][-4:-1] == [
        "failed",
        "not run",
        "not run",
    ]
    with pytest.raises(InputError, match="Got a failure: ValueError: it is"):
        read(store, bad)
    (folder / "mended").touch()
    assert counts(quick([bad], store)) == {"failed": 1}
    assert counts(quick(jobs, store, retry=True)) == {"made": 3, "done": 1}
    assert read_failure(store, bad.id) is None
    assert not list((store / "failed").iterdir())


def test_a_terminal_gets_a_bar_and_failures_in_red(store, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    quick([Job("fake_jobs:broken", {"mended": "nowhere"}), number(1)], store)
    shown = capsys.readouterr().err
    red = next(line for line in shown.splitlines() if "\x1b[1;31mfailed" in line)
    assert "it is [red]broken[/red]" in red
    assert "2/2" in shown


@pytest.mark.parametrize("processes", [1, 2])
def test_a_job_that_ends_its_workers_fails_after_three_and_takes_no_other_along(store, processes):
    deadly = Job("fake_jobs:deadly", {"seconds": 0.3})
    jobs = [deadly, number(1, seconds=0.6), number(2)]
    rows = quick(jobs, store, processes=processes)
    assert [rows[job.id].state for job in jobs] == ["failed", "made", "made"]
    assert rows[deadly.id].error == "its worker died 3 times"
    assert read_failure(store, deadly.id)["description"] == deadly.description


def test_a_result_of_which_no_row_came_back_is_still_made_by_this_run(store):
    """Another's death may end the pool between the result and its row."""
    job = Job("fake_jobs:unheard")
    (row,) = quick([job], store, processes=1).values()
    assert (row.state, row.seconds) == ("made", read(store, job).facts["seconds"])
    assert counts(quick([job], store)) == {"done": 1}


def test_sources_that_change_under_a_run_are_refused(store, folder):
    job = number(1)
    assert job.id
    (folder / "fake_helper.py").write_text("def doubled(n):\n    return 3 * n\n")
    assert "files that have changed since" in quick([job], store)[job.id].error


def test_a_second_run_in_one_process_makes_jobs_with_the_sources_of_its_own_time(store, folder):
    quick([number(1)], store)
    (folder / "fake_helper.py").write_text("def doubled(n):\n    return 3 * n\n")
    later = number(1)
    quick([later], store)
    assert read(store, later).statistics["total"] == 3


def test_the_estimate_is_the_median_of_finished_jobs_of_a_kind(store, capfd):
    jobs = [number(n, seconds=0.3, kind="sleep") for n in range(6)]
    assert estimate_seconds(plan(jobs, store), store, 1) is None
    quick(jobs[:2], store, processes=2)
    seconds = [result.facts["seconds"] for result in results(store)]
    expected = round(4 * sum(seconds) / 2 / 2, 1)
    assert estimate_seconds(plan(jobs, store), store, 2) == expected > 0.5
    capfd.readouterr()
    quick(jobs, store, processes=2)
    told = events(capfd.readouterr().err)
    assert told[0] == {"event": "plan", "done": 2, "missing": 4, "processes": 2,
                       "estimated_seconds": expected}  # fmt: skip
    assert told[-1] | {"seconds": 0} == {"event": "ran", "done": 2, "made": 4, "seconds": 0,
                                         "estimated_seconds": expected}  # fmt: skip


def test_two_runners_on_one_store_share_the_work(store):
    code = (
        "import sys; from efface.grid import Job, run\n"
        "jobs = [Job('fake_jobs:number', {'n': n, 'seconds': 0.3}) for n in range(10)]\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "rows = run(jobs, sys.argv[1], processes=1, nice=0).values()\n"
        "print(); print(*(row.state for row in rows))"
    )
    pipes = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE) | {"stderr": subprocess.DEVNULL}
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    runners = [
        subprocess.Popen([sys.executable, "-c", code, store], text=True, env=env, **pipes)
        for _ in range(2)
    ]
    assert [runner.stdout.readline() for runner in runners] == ["ready\n"] * 2
    for runner in runners:
        runner.stdin.write("go\n")
        runner.stdin.flush()
    states = [runner.communicate()[0].splitlines()[-1].split() for runner in runners]
    assert [len(each) for each in states] == [10, 10]
    assert sum(each.count("made") for each in states) == 10 == len(results(store))
    assert all("made" in each and set(each) <= {"made", "done"} for each in states)


@pytest.mark.parametrize(("given", "nice"), [({}, 10), ({"nice": 3}, 3)])
def test_workers_stand_back_and_have_one_thread_each(store, given, nice):
    run([Job("fake_jobs:surroundings")], store, processes=1, **given)
    found = results(store)[0].statistics
    assert found == {"nice": min(os.nice(0) + nice, 19), "threads": "1"}


@pytest.fixture
def on_ray():
    """Ray for one test, on this machine alone."""
    ray = pytest.importorskip("ray")
    yield partial(run, backend="ray", processes=2)
    ray.shutdown()


def test_a_grid_on_ray_makes_what_processes_make_and_tries_a_dead_worker_again(
    store, tmp_path, on_ray
):
    one, deadly = number(1), Job("fake_jobs:deadly")
    jobs = [one, number(2, needs={"one": one}), deadly]
    rows = on_ray(jobs, store)
    assert [rows[job.id].state for job in jobs] == ["made", "made", "failed"]
    assert "its worker died 3 times" in rows[deadly.id].error
    here = tmp_path / "here"
    quick(jobs[:2], here)
    for job in jobs[:2]:
        ours, theirs = read(store, job), read(here, job)
        assert ours.statistics == theirs.statistics
        assert all(np.array_equal(ours.arrays[n], a) for n, a in theirs.arrays.items())
    # known by the store, whatever made them
    assert counts(quick(jobs, store)) == {"done": 2, "failed": 1}


def test_ray_is_told_not_to_report_its_use(store, on_ray):
    on_ray([number(1)], store)
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_without_ray_a_grid_on_ray_says_what_to_install(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"pip install 'efface\[ray\]'"):
        run([number(1)], store, backend="ray")


def test_another_backend_is_refused_with_the_nearest(store):
    assert "Did you mean 'ray'?" in refusal(run, [number(1)], store, backend="rey")


def test_each_ended_job_says_how_long_the_others_may_take(store, capfd):
    quick([number(n, seconds=0.2) for n in range(3)], store, processes=1)
    told = [one for one in events(capfd.readouterr().err) if one["event"] == "jobs"]
    for done, one in enumerate(told, 1):
        assert one["seconds_left"] == pytest.approx(
            one["after_seconds"] / done * (3 - done), abs=0.06
        )
    assert told[0]["seconds_left"] > 0
