"""What ``torch.save`` wrote: read without unpickling, written in the same form."""

import re
import tempfile
import warnings
import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from efface.errors import InputError, UnsafeFile

HOW_TO_SAVE = (
    "Where you trust the file and have its code, load it once and save the weights alone: "
    'torch.save(model.state_dict(), "weights.pt").'
)


def read_torch(path: Path) -> dict[str, Any]:
    """What ``torch.save`` wrote, as far as it is tensors and plain values."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch warns of here is refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise _must_be_unpickled(path, error) from error
    except Exception as error:
        if "TorchScript" in str(error):
            raise _must_be_unpickled(path, error) from error
        # a damaged file ends in whatever its broken bytes lead to
        reason = re.split(r"\. |\n", str(error))[0].rstrip(".")
        raise damaged(path, f"{type(error).__name__} {reason}".strip()) from error
    if not isinstance(content, dict):
        raise InputError(f"a state dict in {path}", f"a {type(content).__name__}", HOW_TO_SAVE)
    return content


def _must_be_unpickled(path: Path, error: Exception) -> UnsafeFile:
    names = re.findall(r"GLOBAL ([\w.]+)", str(error))
    script = "a TorchScript program" if "TorchScript" in str(error) else "pickled objects"
    found = f"{path}, which holds {names[0] if names else script}"
    return UnsafeFile("a file of tensors and plain values", found, HOW_TO_SAVE)


def damaged(path: Path, found: str) -> UnsafeFile:
    """The error for a file that is not whole, or is nothing that holds weights."""
    return UnsafeFile(
        f"a whole safetensors file, or one that torch.save wrote, at {path}",
        found,
        "The file is cut short, damaged or of another kind: fetch or save it again.",
    )


def is_legacy(head: bytes) -> bool:
    """Whether the file is of the form that torch wrote before it wrote zip archives."""
    return head[:1] == b"\x80"


def archive_name(path: Path) -> str:
    """The folder inside the zip archive: torch names it after the file that it first wrote."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()[0].partition("/")[0]
    except (zipfile.BadZipFile, OSError, IndexError):
        return "archive"


def write_torch(content: Any, path: Path, *, archive: str | None) -> None:
    """Write as ``torch.save`` does: ``archive`` is the inner folder, None the form before zip."""
    if archive is None:
        torch.save(content, path, _use_new_zipfile_serialization=False)
        return
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        inner = Path(folder) / f"{archive}.pt"
        torch.save(content, inner)
        inner.replace(path)
