"""Whatever stops a writer, what stood there before stands, or the new thing does, whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from efface.errors import OutputError
from efface.io import atomic
from efface.io.atomic import atomic_folder, atomic_write, claim
from tests.refusals import refusal


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def not_written(path, reason):
    untouched = "The previous content is untouched. Check free space and permissions."
    return f"Wanted to write {path}. Got {reason}. {untouched}"


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
    message = refusal(atomic_write, tmp_path / "f", b"new", kind=OutputError)
    monkeypatch.undo()
    assert message == not_written(tmp_path / "f", "OSError: No space left on device")
    assert (tmp_path / "f").read_bytes() == b"old"
    assert names(tmp_path) == ["f"]


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


def test_a_folder_appears_whole_where_none_or_an_empty_one_was(tmp_path):
    (tmp_path / "c/empty").mkdir(parents=True)
    for out in (tmp_path / "a/b", tmp_path / "c/empty"):
        with atomic_folder(out) as scratch:
            (scratch / "deep").mkdir()
            (scratch / "deep/y").write_text("2")
            assert not list(out.glob("*"))
        assert (out / "deep/y").read_text() == "2"
        assert (names(out), names(out.parent)) == (["deep"], [out.name])


OTHER_OUT = "Nothing is overwritten: give another --out."
NOT_EMPTY = f"Wanted a new or empty folder. Got {{}}, which is not empty. {OTHER_OUT}"


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
    assert refusal(enter, claim, out) == NOT_EMPTY.format(out)
    assert (out / "model").read_text() == "theirs"
    assert names(tmp_path) == ["out"]


def test_a_folder_that_is_not_empty_is_refused_before_anything_is_done(tmp_path):
    (tmp_path / "out").mkdir()
    mine = tmp_path / "out/x"
    mine.write_text("mine")
    assert refusal(enter, atomic_folder, tmp_path / "out") == NOT_EMPTY.format(tmp_path / "out")
    assert mine.read_text() == "mine"
    wanted = f"Wanted a folder to write to. Got {mine}, a file or a link. {OTHER_OUT}"
    assert refusal(enter, atomic_folder, mine) == wanted


@pytest.mark.parametrize(
    ("out", "shown"),
    [(".", "run"), ("..", "../run"), ("{here}", "{here}/run"), ("{here}/..", "{here}/../run")],
)
def test_the_working_directory_and_those_above_it_are_refused(tmp_path, monkeypatch, out, shown):
    here = tmp_path / "above/here"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    assert refusal(enter, claim, Path(out.format(here=here))) == (
        f"Wanted a replaceable folder. Got {out.format(here=here)}, which contains the working "
        f"directory. Give one inside: --out {shown.format(here=here)}."
    )
    assert names(tmp_path / "above") == ["here"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError(), OutputError("a", "b", "c")])
@pytest.mark.parametrize(("context", "out"), [(atomic_folder, "out"), (claim, "a/b/out")])
def test_what_fails_leaves_nothing_and_its_error_is_the_one_raised(tmp_path, context, out, error):
    with pytest.raises(type(error)) as caught, context(tmp_path / out) as scratch:  # noqa: PT012
        if scratch:
            (scratch / "x").write_text("1")
        raise error
    assert (caught.value, caught.value.__cause__) == (error, None)
    assert names(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="NOT RUN: root may write anywhere")
def test_a_folder_without_write_permission_is_an_output_error(tmp_path):
    tmp_path.chmod(0o500)
    message = refusal(enter, atomic_folder, tmp_path / "out", kind=OutputError)
    assert message == not_written(tmp_path / "out", "PermissionError: Permission denied")


def test_an_absent_parent_or_one_that_is_a_file_is_an_output_error(tmp_path):
    absent, below = tmp_path / "absent/f", tmp_path / "file/out"
    below.parent.write_text("")
    reason = "FileNotFoundError: No such file or directory"
    assert refusal(atomic_write, absent, b"", kind=OutputError) == not_written(absent, reason)
    reason = "NotADirectoryError: Not a directory"
    message = refusal(enter, atomic_folder, below, kind=OutputError)
    assert message == not_written(below, reason)


def test_a_second_run_into_the_same_folder_is_refused_at_once(tmp_path):
    code = (
        "import sys, time; from efface.io.atomic import claim\n"
        "with claim(sys.argv[1]):\n    print('held', flush=True); time.sleep(60)"
    )
    out = tmp_path / "out"
    other = subprocess.Popen([sys.executable, "-c", code, out], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    assert refusal(enter, claim, out) == (
        f"Wanted {out} to be free. Got another run that is writing it. "
        "Wait until it has ended, or give another --out."
    )
    other.kill()
    other.communicate()
    with claim(out):  # a killed run has given its claim up
        assert not out.exists()
    assert names(tmp_path) == []


@pytest.mark.parametrize("out", ["out", "out[1]"])
def test_what_killed_runs_left_is_removed_by_the_next(tmp_path, out):
    (tmp_path / f".{out}.12345678.writing").mkdir()
    (tmp_path / ".other.12345678.writing").mkdir()
    with claim(tmp_path / out), atomic_folder(tmp_path / out) as scratch:
        (scratch / "x").write_text("1")
    assert names(tmp_path) == [".other.12345678.writing", out]


def test_a_run_whose_folder_has_a_longer_name_keeps_what_it_writes(tmp_path):
    with atomic_folder(tmp_path / "42.retry") as scratch:
        (scratch / "x").write_text("1")
        with claim(tmp_path / "42"):
            assert names(scratch) == ["x"]
    assert names(tmp_path) == ["42.retry"]
