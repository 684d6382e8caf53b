"""Nothing is lost: by a stop at any moment, a full disk or broken input."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from kills import contents, prepared, whole
from run_files import MADE

from efface.cli import main

HERE = Path(__file__).parent
UNTOUCHED = "The previous content is untouched. Check free space and permissions."
needs_mount = pytest.mark.skipif(not shutil.which("mount"), reason="NOT RUN: no mount command here")


def counts(script, *arguments):
    """What a script counts, in a process of its own: one with threads must not fork."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, HERE / script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


STOPS = [("SIGKILL", 3), slow("SIGKILL", 200), slow("SIGINT", 40)]


@pytest.mark.parametrize(("kind", "count"), [*STOPS, slow("SIGTERM", 40)])
def test_a_stopped_request_leaves_the_old_state_or_the_whole_result(tmp_path, kind, count):
    """Law 4; ``kill -9`` gives no program a chance to clean up."""
    found = counts("kills.py", tmp_path, count, kind)
    assert found["absent"] + found["whole"] == count
    assert count < 20 or found["absent"] > count / 4  # else no signal arrived


RESUMED = [("inspection", 2), slow("training", 60), slow("inspection", 100)]


@pytest.mark.parametrize(("kind", "count"), RESUMED)
def test_what_is_killed_is_resumed_to_the_same_bytes(tmp_path, kind, count):
    found = counts("kills.py", tmp_path, count, kind)
    assert found["kills"] == count
    assert found["resumed"] >= count // 5


@pytest.mark.parametrize("count", [100, slow(10_000)])
def test_broken_files_and_arguments_end_in_a_sentence_and_write_nothing(tmp_path, count):
    """Each line of ``bad`` names the batch and the row that make it again."""
    found = counts("fuzz.py", tmp_path / "fuzz", count)
    assert found["bad"] == []
    assert found["inputs"] == count
    assert sum(n for name, n in found["counts"].items() if name.endswith("refused")) > count / 2


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model, its data and ids to forget."""
    return prepared(tmp_path_factory.mktemp("disk"))


@contextmanager
def mounted(folder, options):
    """A file system of its own in memory, with these options."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"NOT RUN: no file system may be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def forget_into(place, out, capfd):
    """Run a request; its exit code and its last line."""
    code = 0
    try:
        main(["forget", f"{place}/model", "--data", f"{place}/data", "--ids", f"{place}/ids.csv",
              "--out", str(out), "--method", "jit", "--setting", "steps=1",
              "--device", "cpu"])  # fmt: skip
    except SystemExit as end:
        code = end.code
    lines = capfd.readouterr().err.strip().splitlines()
    return code, lines[-1] if lines else ""


@needs_mount
def test_a_full_disk_at_any_point_leaves_nothing_but_what_was_there(place, tmp_path, capfd):
    """From room for the first file alone to room for all."""
    before, codes = contents(place), []
    for size in range(1, 11, 3):
        with mounted(tmp_path / "full", f"size={size * 40}k") as disk:
            (disk / "old").write_bytes(b"x" * 4000)
            code, line = forget_into(place, disk / "out", capfd)
            codes.append(code)
            if code not in MADE:
                assert (code, line.startswith("Wanted to write")) == (8, True)
                assert line.endswith(f"No space left on device. {UNTOUCHED}")
                assert [path.name for path in disk.iterdir()] == ["old"]
            else:
                assert whole(disk / "out")
            assert (disk / "old").read_bytes() == b"x" * 4000
    assert codes[0] == 8
    whole_from = next(i for i, code in enumerate(codes) if code in MADE)
    assert all(code in MADE for code in codes[whole_from:])
    assert contents(place) == before


@needs_mount
def test_a_file_system_that_is_read_only_is_refused_before_any_work(place, tmp_path, capfd):
    with mounted(tmp_path / "fixed", "size=1m,ro") as disk:
        out = disk / "out"
        expected = f"Wanted to write {out}. Got OSError: Read-only file system. {UNTOUCHED}"
        assert forget_into(place, out, capfd) == (8, expected)


@needs_mount
def test_the_root_of_a_mounted_file_system_is_refused_before_any_work(place, tmp_path, capfd):
    """An empty volume looks like any empty folder, and cannot be replaced by another."""
    with mounted(tmp_path / "volume", "size=1m") as disk:
        assert forget_into(place, disk, capfd) == (2, (
            f"Wanted a replaceable folder. Got {disk}, a mount point. "
            f"Give one inside: --out {disk / 'run'}."
        ))  # fmt: skip
        assert forget_into(place, disk / "run", capfd)[0] in MADE
        assert whole(disk / "run")
