"""What a run leaves behind besides the model and the report: its manifest, digests, keyed hashes.

The command line imports this before torch: nothing here loads it at import.
"""

import csv
import hashlib
import hmac
import io
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from efface.errors import InputError

SCHEMA = 2
FILE = "manifest.json"
PACKAGES = ("efface", "torch", "torchvision", "numpy", "scikit-learn", "datasets", "safetensors")


def versions() -> dict[str, str]:
    """Versions of packages and Python, and the kind of processor; no name of the machine."""
    packages = {name: version(name) for name in PACKAGES}
    return {**packages, "python": platform.python_version(), "processor": platform.machine()}


@dataclass(kw_only=True)
class Manifest:
    """The metadata of one run of ``forget`` or ``score``; the only writer of ``manifest.json``.

    ``request``: numbers of records, before and after the forget records were taken out of the other
    parts; ``holdout``: records in its ``auxiliary`` part (method and guard) and in its
    ``evaluation`` part (report); ``weights``: digests of the models; ``seconds``: by phase;
    ``passes``: records that went forward and backward while the method ran, those of the guard
    included; ``calibration``: what the method found out; ``guard``: its limits and measurements,
    None without a guard; ``reported``: whether evidence was collected. The command line adds
    ``command``, ``arguments``, ``omitted`` (records and files that could not be read), ``data``,
    ``digests`` and ``keyed_hashes``.
    """

    job: str
    outcome: str
    seed: int
    holdout_seed: int
    request: dict[str, Any]
    holdout: dict[str, int]
    findings: list[dict[str, str]]
    weights: dict[str, Any]
    seconds: dict[str, float]
    threads: int
    method: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    trainable: dict[str, Any] | None = None
    memory: dict[str, int] | None = None
    passes: dict[str, int] | None = None
    calibration: dict[str, Any] = field(default_factory=dict)
    guard: dict[str, Any] | None = None
    reported: bool = True
    command: str | None = None
    arguments: dict[str, Any] | None = None
    omitted: dict[str, list[str]] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    keyed_hashes: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=versions)
    schema: int = SCHEMA

    def to_json(self) -> dict[str, Any]:
        """Plain values; numbers that are not finite become None."""
        from efface.report.rows import plain

        return plain(asdict(self))

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> "Manifest":
        """The manifest that ``to_json`` wrote. Raises InputError for one of another schema."""
        names = {one.name for one in fields(cls)}
        if written.get("schema") != SCHEMA or not set(written) <= names:
            raise InputError(
                f"a manifest of schema {SCHEMA}",
                f"schema {written.get('schema')}" + ", a run of efface 0.1" * ("halves" in written),
                "Make the run again with this version, or read it with the version that made it.",
            )
        return cls(**written)

    def write(self, folder: Path) -> None:
        """``manifest.json`` in a folder that exists; the caller makes the folder appear whole."""
        text = json.dumps(self.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
        (Path(folder) / FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """The manifest of a run's folder. Raises InputError where there is none of this schema."""
        folder = Path(folder)
        if (folder / "record.json").exists() and not (folder / FILE).exists():
            raise InputError(
                f"a run with {FILE}",
                f"{folder} with record.json, a run of efface 0.1",
                "Make the run again with this version, or read it with the version that made it.",
            )
        try:
            return cls.from_json(json.loads((folder / FILE).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"a run with {FILE}",
                f"{folder}: {type(error).__name__}",
                "Give the folder that was named with --out.",
            ) from error


def state_digest(state: Mapping[str, Any]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of all tensors, in the order of their names."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        # numpy has no bfloat16: the bytes are read as integers
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
