"""Files and folders that are there whole or not at all, whatever stops the writing."""

import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from efface.errors import EffaceError, InputError, OutputError

WRITING = ".writing"
"""How the names of scratch files and folders end."""


def write_whole(path: str | Path, content: bytes | Callable[[Path], None]) -> None:
    """Write a file beside ``path``, bring it to the disk, and put it in place of ``path``.

    ``content`` is the bytes, or a function that writes them to the path it is given.
    Raises OutputError when that fails; what stood at ``path`` is then untouched.
    """
    path = Path(path)
    scratch = _beside(path)
    try:
        if isinstance(content, bytes):
            scratch.write_bytes(content)
        else:
            content(scratch)
        _to_disk(scratch)
        scratch.replace(path)
        _to_disk(path.parent)
    except (
        OSError,
        RuntimeError,
        SafetensorError,
    ) as error:  # torch tells a full disk by the second
        raise _not_written(path, error) from error
    finally:
        scratch.unlink(missing_ok=True)


@contextmanager
def claimed(out: str | Path) -> Iterator[None]:
    """Hold ``out`` for this run alone while the block runs; what killed runs left is removed.

    Raises InputError before anything is done when ``out`` holds something or another run has
    claimed it, OutputError when its folder cannot be written to. A killed run gives its claim up.
    """
    out = Path(out)
    refuse_taken(out)
    path = out.absolute().with_name(f".{out.name}.lock")
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, blocking=False)
        lock.acquire()
    except Timeout as error:
        raise InputError(
            f"{out} to be free",
            "another run that is writing it",
            "Wait until that run has ended, or give another --out.",
        ) from error
    except OSError as error:
        raise _not_written(out, error) from error
    try:
        refuse_taken(out)
        for stale in path.parent.glob(f".{_literal(out.name)}.{'[0-9a-f]' * 8}{WRITING}"):
            shutil.rmtree(stale, ignore_errors=True)
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: nobody else can be between
        lock.release()
        for folder in made:
            with suppress(OSError):  # it holds the result
                folder.rmdir()


def _literal(name: str) -> str:
    """A name in which no sign stands for other signs."""
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in name)


@contextmanager
def whole_folder(out: str | Path) -> Iterator[Path]:
    """A folder to fill; it is renamed to ``out`` when the block ends, and gone when it raises.

    Raises InputError before anything is done when ``out`` is there and holds something, OutputError
    when the disk is full or may not be written to.
    """
    out = Path(out)
    refuse_taken(out)
    scratch = _beside(out)
    try:
        scratch.mkdir(parents=True)
        yield scratch
        for inside in [*scratch.rglob("*"), scratch]:
            _to_disk(inside)
        if out.exists():
            out.rmdir()
        scratch.replace(out)
        _to_disk(out.parent)
    except EffaceError:
        raise
    except (OSError, SafetensorError) as error:
        raise _not_written(out, error) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def refuse_taken(out: Path) -> None:
    """Raise InputError for a file, a folder that holds something, and one that cannot be replaced.

    What was written beside ``out`` takes its place in the end: where a file system is mounted, or a
    program works, nothing can.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise InputError(
            "a folder to write to", f"{out}, which is a file or a link", "Give another --out."
        )
    if not out.exists():
        return
    worked_in = Path.cwd().is_relative_to(out.resolve())
    if worked_in or os.path.ismount(out):
        held = "is or holds the working directory" if worked_in else "is a mounted file system"
        raise InputError(
            "a folder that another can take the place of",
            f"{out}, which {held}",
            f"Give a new folder inside it: --out {out / 'run'}.",
        )
    if any(out.iterdir()):
        raise InputError(
            "a folder that is not there yet, or is empty",
            f"{out}, which holds files",
            "Nothing is overwritten: give another --out, or remove that folder.",
        )


def refuse_overlap(out: Path, read: Mapping[str, str | Path | None]) -> None:
    """Raise InputError when ``out`` is, holds or lies in a folder that the run reads.

    ``read``: by the name of an argument the path that it gives, or a path and a split.
    """
    target = out.resolve()
    for name, given in read.items():
        if given is None:
            continue
        paths = (Path(given), Path(str(given).rpartition(":")[0] or given))
        folder = next((path.resolve() for path in paths if path.is_dir()), None)
        if folder is None or not (target.is_relative_to(folder) or folder.is_relative_to(target)):
            continue
        inside = "is" if folder == target else "is inside" if folder in target.parents else "holds"
        raise InputError(
            "an --out apart from what is read",
            f"{out}, which {inside} the folder of {name}, {given}",
            "The next run would take what is written there for a part of it: give another --out.",
        )


def _beside(path: Path) -> Path:
    """A free name in the same folder: renaming works within one file system only."""
    return path.absolute().with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{WRITING}")


def _to_disk(path: Path) -> None:
    """Wait until a file or a folder's list of names has reached the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        with suppress(PermissionError):  # some systems sync no folders
            os.fsync(handle)
    finally:
        os.close(handle)


def _not_written(path: Path, error: Exception) -> OutputError:
    reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
    return OutputError(
        f"to write {path}",
        f"{type(error).__name__}: {reason}",
        "What was there before is untouched. Look at free space and permissions.",
    )
