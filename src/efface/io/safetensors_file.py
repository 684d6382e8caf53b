"""Safetensors files: read a portion at a time, and written under the header that they came with.

The form is 8 bytes that hold the length of the header, the header in JSON, and the tensors one
after another. With the header copied as it is, a file comes back byte for byte where nothing moved,
whichever tool wrote it; and no more than one tensor is in memory as bytes at a time.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from efface.errors import UnsafeFile
from efface.io.torch_file import damaged

LENGTH = 8
"""Bytes that hold the length of the header."""

AT_ONCE = 16 * 2**20
"""Bytes of tensors that are read together; a larger tensor is read alone."""


def read_outlines(path: Path) -> tuple[dict[str, Tensor], dict[str, str] | None, bytes]:
    """Shapes and dtypes as tensors without numbers (torch's meta device), metadata, the header.

    They come in the order that the library gives. Raises UnsafeFile when the file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            found = {
                name: torch.empty_like(file.get_tensor(name), device="meta")
                for name in file.keys()  # noqa: SIM118
            }
            return found, file.metadata(), _header(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise damaged(path, str(error)) from error


def read_portions(
    path: Path, header: bytes, outlines: Mapping[str, Tensor]
) -> Iterator[dict[str, Tensor]]:
    """The tensors of these names, as many at once as fit into ``AT_ONCE``, at least one.

    The file is opened anew for each portion: the pages of one would stay in memory else.
    Raises UnsafeFile when the file is no longer the one that had this header.
    """
    for names in _portions(outlines):
        try:
            with safe_open(path, framework="pt") as file:
                portion = {name: file.get_tensor(name) for name in names}
                same = _header(path) == header
        except (SafetensorError, OSError, ValueError) as error:
            raise damaged(path, str(error)) from error
        if not same:
            raise UnsafeFile(
                f"{path} as it was when it was opened",
                "another file in its place",
                "Start again when nothing else writes it.",
            )
        yield portion


def _portions(outlines: Mapping[str, Tensor]) -> Iterator[list[str]]:
    names: list[str] = []
    size = 0
    for name, outline in outlines.items():
        if names and size + outline.nbytes > AT_ONCE:
            yield names
            names, size = [], 0
        names.append(name)
        size += outline.nbytes
    if names:
        yield names


def _header(path: Path) -> bytes:
    with path.open("rb") as file:
        length = file.read(LENGTH)
        return length + file.read(int.from_bytes(length, "little"))


def write_safetensors(header: bytes, state: Mapping[str, Tensor], path: Path) -> None:
    """The header as it is, then each tensor at the place that the header gives it."""
    places = json.loads(header[LENGTH:])
    names = sorted(state, key=lambda name: places[name]["data_offsets"])
    with path.open("wb") as file:
        file.write(header)
        for name in names:
            flat = state[name].detach().cpu().contiguous().reshape(-1)
            file.write(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
