"""Safetensors files: read tensor by tensor, and written under the header that they came with.

The form is 8 bytes that hold the length of the header, the header in JSON, and the tensors one
after another. With the header copied as it is, a file comes back byte for byte where nothing moved,
whichever tool wrote it; and no more than one tensor is in memory as bytes at a time.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from efface.io.torch_file import damaged

LENGTH = 8
"""Bytes that hold the length of the header."""


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str] | None, bytes]:
    """Tensors in the order that the library gives, metadata, and the header's bytes."""
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata()
        with path.open("rb") as file:
            length = file.read(LENGTH)
            header = length + file.read(int.from_bytes(length, "little"))
    except (SafetensorError, OSError, ValueError) as error:
        raise damaged(path, str(error)) from error
    return state, metadata, header


def write_safetensors(header: bytes, state: Mapping[str, Tensor], path: Path) -> None:
    """The header as it is, then each tensor at the place that the header gives it."""
    places = json.loads(header[LENGTH:])
    names = sorted(state, key=lambda name: places[name]["data_offsets"])
    with path.open("wb") as file:
        file.write(header)
        for name in names:
            flat = state[name].detach().cpu().contiguous().reshape(-1)
            file.write(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
