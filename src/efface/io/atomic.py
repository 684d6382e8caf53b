"""Files and folders that are there whole or not at all, whatever stops the writing.

``atomic_write`` and ``atomic_folder`` fill a scratch name in the same folder, sync it and rename it
into place; ``claim`` keeps other runs away from an output folder; ``refuse_nonempty`` and
``refuse_overlap`` check an output folder before any work is done.
"""

import os
import shutil
import uuid
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from efface.errors import EffaceError, InputError, OutputError

# the suffix of scratch files and folders
SCRATCH = ".writing"
OTHER_OUT = "Nothing is overwritten: give another --out."

# torch reports a full disk as a RuntimeError, safetensors as an error of its own
WRITE_ERRORS = (OSError, RuntimeError, SafetensorError)


def atomic_write(path: str | Path, content: bytes | Callable[[Path], None]) -> None:
    """Write a file next to ``path``, sync it to the disk, and rename it to ``path``.

    ``content`` is the bytes, or a function that writes them to the path it is given.
    Raises OutputError when that fails; the old file at ``path`` is then untouched.
    """
    path = Path(path)
    scratch = _scratch(path)
    try:
        if isinstance(content, bytes):
            scratch.write_bytes(content)
        else:
            content(scratch)
        # the data must reach the disk before the name does, else a power cut leaves an empty file
        _sync(scratch)
        # rename is atomic in POSIX: readers see the old file or the new one
        scratch.replace(path)
        _sync(path.parent)
    except WRITE_ERRORS as error:
        raise _write_failure(path, error) from error
    finally:
        scratch.unlink(missing_ok=True)


def write_private(path: str | Path, content: bytes) -> None:
    """As ``atomic_write``, a file that its owner alone may read, from the first byte on."""

    def write(scratch: Path) -> None:
        scratch.touch(0o600)
        scratch.write_bytes(content)

    atomic_write(path, write)


@contextmanager
def claim(out: str | Path) -> Generator[None]:
    """Reserve ``out`` for this run while the block runs; scratch of killed runs is removed.

    Raises InputError before anything is done when ``out`` is not empty or another run has claimed
    it, OutputError when its parent cannot be written to. The claim of a killed run is void.
    """
    out = Path(out)
    refuse_nonempty(out)
    path = out.absolute().with_name(f".{out.name}.lock")
    # to be removed again when the run fails: a mistyped --out leaves no empty folders
    created = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, blocking=False)
        lock.acquire()
    except Timeout as error:
        wanted, remedy = f"{out} to be free", "Wait until it has ended, or give another --out."
        raise InputError(wanted, "another run that is writing it", remedy) from error
    except OSError as error:
        raise _write_failure(out, error) from error
    try:
        # another run may have finished between the first check and the lock
        refuse_nonempty(out)
        for stale in path.parent.glob(f".{escape(out.name)}.{'[0-9a-f]' * 8}{SCRATCH}"):
            shutil.rmtree(stale, ignore_errors=True)
        yield
    finally:
        # before the release: nobody else can hold this file yet
        path.unlink(missing_ok=True)
        lock.release()
        for folder in created:
            # not empty: it holds the result
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def atomic_folder(out: str | Path) -> Generator[Path]:
    """A scratch folder to fill: renamed to ``out`` when the block ends, removed when it raises.

    Raises InputError before anything is done when ``out`` is not empty, OutputError when the disk
    is full or not writable.
    """
    out = Path(out)
    refuse_nonempty(out)
    scratch = _scratch(out)
    try:
        scratch.mkdir(parents=True)
        yield scratch
        # files before their folders, so that no name points at data that is not there yet
        for inside in [*scratch.rglob("*"), scratch]:
            _sync(inside)
        # an empty folder of the user cannot be renamed over on every system
        if out.exists():
            out.rmdir()
        scratch.replace(out)
        _sync(out.parent)
    except EffaceError:
        raise
    except (OSError, SafetensorError) as error:
        raise _write_failure(out, error) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def refuse_nonempty(out: Path) -> None:
    """Raise InputError for a file, a folder that is not empty, and one that cannot be replaced.

    The result is renamed to ``out`` at the end, which fails for a mount point and for the working
    directory of a program: better to know before the work than after it.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise InputError("a folder to write to", f"{out}, a file or a link", OTHER_OUT)
    if not out.exists():
        return
    inside = Path.cwd().is_relative_to(out.resolve())
    if inside or os.path.ismount(out):
        came = f"{out}, {'which contains the working directory' if inside else 'a mount point'}"
        raise InputError("a replaceable folder", came, f"Give one inside: --out {out / 'run'}.")
    if any(out.iterdir()):
        raise InputError("a new or empty folder", f"{out}, which is not empty", OTHER_OUT)


def refuse_overlap(out: Path, inputs: Mapping[str, str | Path | None]) -> None:
    """Raise InputError when ``out`` equals, contains or lies in a folder that the run reads.

    ``inputs``: by the name of an argument the path that it gives, or a path and a split.
    """
    target = out.resolve()
    for name, given in inputs.items():
        if given is None:
            continue
        # DATA:split names the folder DATA, unless a file has a colon in its name
        paths = (Path(given), Path(str(given).rpartition(":")[0] or given))
        folder = next((path.resolve() for path in paths if path.is_dir()), None)
        if folder is None or not (target.is_relative_to(folder) or folder.is_relative_to(target)):
            continue
        place = "in" if folder in target.parents else "around"
        place = place if folder != target else "the same as"
        came = f"{out}, {place} the folder of {name}, {given}"
        raise InputError("an --out that no run reads as input", came, "Give another --out.")


def _scratch(path: Path) -> Path:
    """A free name in the same folder: a rename is atomic within one file system only."""
    return path.absolute().with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{SCRATCH}")


def _sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, has reached the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        # some systems do not sync folders
        with suppress(PermissionError):
            os.fsync(handle)
    finally:
        os.close(handle)


def _write_failure(path: Path, error: Exception) -> OutputError:
    reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
    remedy = "The previous content is untouched. Check free space and permissions."
    return OutputError(f"to write {path}", f"{type(error).__name__}: {reason}", remedy)
