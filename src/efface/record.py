"""What a run leaves behind in words and numbers: digests, versions, keyed hashes."""

import csv
import hashlib
import hmac
import io
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version

import torch
from torch import Tensor

SCHEMA = 1

PACKAGES = ("efface", "torch", "torchvision", "numpy", "scikit-learn", "datasets", "safetensors")


def versions() -> dict[str, str]:
    """What this ran on: packages, Python and processor kind; no name of the machine."""
    found = {name: version(name) for name in PACKAGES}
    return {**found, "python": platform.python_version(), "processor": platform.machine()}


def state_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of all tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def keyed_hashes(ids: Iterable[str], key: bytes) -> list[str]:
    """HMAC-SHA-256 of each id: who holds the key can match an id, nobody else can list them."""
    return [hmac.new(key, identity.encode(), hashlib.sha256).hexdigest() for identity in ids]


def exclusion_table(ids: Sequence[str], key: bytes) -> bytes:
    """CSV for the next training run: id and keyed hash."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["id", "keyed_hash"])
    rows.writerows(zip(ids, keyed_hashes(ids, key), strict=True))
    return text.getvalue().encode()
