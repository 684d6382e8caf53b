"""A disk that is full at any point of the writing, and one that may not be written to."""

import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from kills import contents, prepared, whole

from efface.cli import main


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


def forgotten(place, out, capfd):
    """Run the request; its exit code and the last line that it said."""
    code = 0
    try:
        main(["forget", f"{place}/model", "--data", f"{place}/data", "--ids", f"{place}/ids.csv",
              "--out", str(out), "--setting", "steps=1", "--device", "cpu"])  # fmt: skip
    except SystemExit as end:
        code = end.code
    said = capfd.readouterr().err.strip().splitlines()
    return code, said[-1] if said else ""


@pytest.mark.skipif(not shutil.which("mount"), reason="NOT RUN: no mount command here")
def test_a_full_disk_at_any_point_leaves_nothing_but_what_was_there(place, tmp_path, capfd):
    """Ten sizes, from room for the first file alone to room for all."""
    before, ended = contents(place), []
    for size in range(1, 11):
        with mounted(tmp_path / "full", f"size={size * 40}k") as disk:
            (disk / "old").write_bytes(b"x" * 4000)
            code, said = forgotten(place, disk / "out", capfd)
            ended.append(code)
            if code:
                assert code == 8
                assert "No space left on device" in said
                assert said.startswith("Wanted to write")
                assert said.endswith(
                    "The previous content is untouched. Check free space and permissions."
                )
                assert [path.name for path in disk.iterdir()] == ["old"]
            else:
                assert whole(disk / "out")
            assert (disk / "old").read_bytes() == b"x" * 4000
    assert ended[0] == 8
    assert ended == sorted(ended, reverse=True)
    assert contents(place) == before


@pytest.mark.skipif(not shutil.which("mount"), reason="NOT RUN: no mount command here")
def test_a_file_system_that_is_read_only_is_refused_before_any_work(place, tmp_path, capfd):
    """An hour of work for nothing is the other way to find out."""
    with mounted(tmp_path / "fixed", "size=1m,ro") as disk:
        code, said = forgotten(place, disk / "out", capfd)
    assert code == 8
    assert said == (
        f"Wanted to write {tmp_path / 'fixed' / 'out'}. Got OSError: Read-only file system. "
        "The previous content is untouched. Check free space and permissions."
    )


@pytest.mark.skipif(not shutil.which("mount"), reason="NOT RUN: no mount command here")
def test_a_place_where_a_file_system_is_mounted_is_refused_before_any_work(place, tmp_path, capfd):
    """An empty volume looks like any empty folder, and cannot be replaced by another."""
    with mounted(tmp_path / "volume", "size=1m") as disk:
        code, said = forgotten(place, disk, capfd)
        inside, _ = forgotten(place, disk / "run", capfd)
        assert whole(disk / "run")
    assert code == 2
    assert inside == 0
    assert said == (
        "Wanted a folder that can be replaced. "
        f"Got {tmp_path / 'volume'}, which is a mount point. "
        f"Give a new folder inside it: --out {tmp_path / 'volume' / 'run'}."
    )
