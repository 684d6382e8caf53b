"""Whatever stops a writer, what stood there before stands, or the new thing does, whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from efface.errors import OutputError
from efface.io import atomic
from efface.io.atomic import atomic_folder, atomic_write, claim
from tests.io_helpers import error_of


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    "content", [b"new", lambda path: path.write_bytes(b"new")], ids=["bytes", "function"]
)
def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path, content):
    (tmp_path / "f").write_bytes(b"old")
    atomic_write(tmp_path / "f", content)
    assert (tmp_path / "f").read_bytes() == b"new"
    assert names(tmp_path) == ["f"]


@pytest.mark.parametrize(
    ("owner", "call"), [(Path, "write_bytes"), (Path, "replace"), (atomic.os, "fsync")]
)
def test_a_full_disk_at_any_call_leaves_the_old_file(tmp_path, monkeypatch, owner, call):
    (tmp_path / "f").write_bytes(b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(owner, call, fail)
    message = error_of(atomic_write, tmp_path / "f", b"new", kind=OutputError)
    monkeypatch.undo()
    assert message == (
        f"Wanted to write {tmp_path / 'f'}. Got OSError: No space left on device. "
        "The previous content is untouched. Check free space and permissions."
    )
    assert (tmp_path / "f").read_bytes() == b"old"
    assert names(tmp_path) == ["f"]


def test_an_absent_folder_is_an_output_error(tmp_path):
    message = error_of(atomic_write, tmp_path / "absent" / "f", b"new", kind=OutputError)
    assert "FileNotFoundError: No such file or directory" in message


def test_a_writer_killed_at_any_moment_leaves_a_whole_file(tmp_path):
    code = """
import os, random, signal, sys, time
from efface.io.atomic import atomic_write
path = sys.argv[1]
draw = random.Random(0)
for attempt in range(40):
    child = os.fork()
    if not child:
        while True:
            atomic_write(path, bytes([draw.randrange(256)]) * 3_000_000)
    time.sleep(draw.random() * 0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    content = open(path, "rb").read()
    assert len(content) == 3_000_000 and len(set(content)) == 1, attempt
"""
    path = tmp_path / "f"
    path.write_bytes(b"\0" * 3_000_000)
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_folder_appears_whole(tmp_path):
    out = tmp_path / "a" / "b"
    with atomic_folder(out) as scratch:
        (scratch / "x").write_text("1")
        (scratch / "deep").mkdir()
        (scratch / "deep" / "y").write_text("2")
        assert not out.exists()
    assert (out / "x").read_text() == "1"
    assert (out / "deep" / "y").read_text() == "2"
    assert names(out.parent) == ["b"]


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "out").mkdir()
    with atomic_folder(tmp_path / "out") as scratch:
        (scratch / "x").write_text("1")
    assert names(tmp_path / "out") == ["x"]


def enter(context, path):
    """Enter the context, whose block must not run."""
    with context(path):
        pytest.fail("the block must not run")


def test_what_another_run_finished_between_the_look_and_the_claim_stands(tmp_path, monkeypatch):
    out, acquire = tmp_path / "out", atomic.FileLock.acquire

    def late(lock):
        out.mkdir()
        (out / "model").write_text("theirs")
        return acquire(lock)

    monkeypatch.setattr(atomic.FileLock, "acquire", late)
    assert "which is not empty. Nothing is overwritten" in error_of(enter, claim, out)
    assert (out / "model").read_text() == "theirs"
    assert names(tmp_path) == ["out"]


def test_a_folder_that_is_not_empty_is_refused_before_anything_is_done(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").write_text("mine")
    assert error_of(enter, atomic_folder, tmp_path / "out") == (
        f"Wanted a new or empty folder. Got {tmp_path / 'out'}, which is not empty. "
        "Nothing is overwritten: give another --out."
    )
    assert (tmp_path / "out" / "x").read_text() == "mine"
    message = error_of(enter, atomic_folder, tmp_path / "out" / "x")
    assert "a file or a link" in message


@pytest.mark.parametrize(
    ("out", "shown"),
    [(".", "run"), ("..", "../run"), ("{here}", "{here}/run"), ("{here}/..", "{here}/../run")],
)
def test_the_working_directory_and_those_above_it_are_refused(tmp_path, monkeypatch, out, shown):
    here = tmp_path / "above/here"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    assert error_of(enter, claim, Path(out.format(here=here))) == (
        f"Wanted a replaceable folder. Got {out.format(here=here)}, which contains the working "
        f"directory. Give one inside: --out {shown.format(here=here)}."
    )
    assert names(tmp_path / "above") == ["here"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_folder_whose_filling_fails_is_absent(tmp_path, error):
    with pytest.raises(error), atomic_folder(tmp_path / "out") as scratch:  # noqa: PT012
        (scratch / "x").write_text("1")
        raise error
    assert names(tmp_path) == []


def test_an_error_of_our_own_passes_through_as_it_is(tmp_path):
    ours = OutputError("a", "b", "c")
    with pytest.raises(OutputError) as caught, atomic_folder(tmp_path / "out"):
        raise ours
    assert caught.value is ours
    assert caught.value.__cause__ is None


@pytest.mark.skipif(os.geteuid() == 0, reason="NOT RUN: root may write anywhere")
def test_a_folder_without_write_permission_is_an_output_error(tmp_path):
    tmp_path.chmod(0o500)
    message = error_of(enter, atomic_folder, tmp_path / "out", kind=OutputError)
    assert "Permission denied" in message


def test_a_parent_that_is_a_file_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("")
    message = error_of(enter, atomic_folder, tmp_path / "file" / "out", kind=OutputError)
    assert "Not a directory" in message


def test_a_second_run_into_the_same_folder_is_refused_at_once(tmp_path):
    code = (
        "import sys, time; from efface.io.atomic import claim\n"
        "with claim(sys.argv[1]):\n    print('held', flush=True); time.sleep(60)"
    )
    out = tmp_path / "out"
    other = subprocess.Popen([sys.executable, "-c", code, out], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    assert error_of(enter, claim, out) == (
        f"Wanted {out} to be free. Got another run that is writing it. "
        "Wait until it has ended, or give another --out."
    )
    other.kill()
    other.communicate()
    with claim(out):  # a killed run has given its claim up
        assert not out.exists()
    assert names(tmp_path) == []


def test_what_killed_runs_left_is_removed_by_the_next(tmp_path):
    (tmp_path / ".out.12345678.writing").mkdir()
    (tmp_path / ".other.12345678.writing").mkdir()
    with claim(tmp_path / "out"), atomic_folder(tmp_path / "out") as scratch:
        (scratch / "x").write_text("1")
    assert names(tmp_path) == [".other.12345678.writing", "out"]


def test_a_run_whose_folder_has_a_longer_name_keeps_what_it_writes(tmp_path):
    with atomic_folder(tmp_path / "42.retry") as scratch:
        (scratch / "x").write_text("1")
        with claim(tmp_path / "42"):
            assert names(scratch) == ["x"]
    assert names(tmp_path) == ["42.retry"]


def test_a_claim_that_came_to_nothing_leaves_no_folders(tmp_path):
    with pytest.raises(ValueError, match="by hand"), claim(tmp_path / "a" / "b" / "out"):
        raise ValueError("by hand")
    assert names(tmp_path) == []
