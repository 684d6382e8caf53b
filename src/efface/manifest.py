"""The metadata of a run: its manifest, digests of weights, keyed hashes of ids.

The command line imports this before torch: nothing here loads it at import.
"""

import csv
import hashlib
import hmac
import io
import json
import logging
import platform
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from efface.display import csv_cell
from efface.errors import EffaceError, InputError, Outcome, abbreviate
from efface.io.files import read_json

LOG = logging.getLogger(__name__)

# 1: record.json of efface 0.1, whose words differ; committed results of that time keep it
SCHEMA = 2
FILE = "manifest.json"
# the folders of a run: the new model alone, and all that names records
MODEL, EVIDENCE = "model", "evidence"
PACKAGES = ("efface", "torch", "torchvision", "numpy", "scikit-learn", "datasets", "safetensors")


def versions() -> dict[str, str]:
    """Versions of packages and Python, and the kind of processor; no name of the machine."""
    packages = {name: version(name) for name in PACKAGES}
    return {**packages, "python": platform.python_version(), "processor": platform.machine()}


def now() -> str:
    """The time in UTC as ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass
class Manifest:
    """The metadata of one run of ``forget`` or ``score``; the only writer of ``manifest.json``.

    ``date``: when the run began, ISO 8601 in UTC;
    ``outcome``, and in words with its reason ``summary``; ``progress``: how far the forget records
    came towards unseen ones (``metrics.equivalence.progress_to_unseen``), None where that is not
    known; ``steps``: those that the guard let stand;
    ``request``: numbers of records, before and after the forget records were taken out of the other
    parts; ``holdout``: records in its ``auxiliary`` part (method and guard) and in its
    ``evaluation`` part (report); ``accuracy``: of the given model, on a sample of each part;
    ``tier``: that a dry run says the evidence can reach; ``weights``: digests of the models;
    ``seconds``: by phase; ``passes``: records that went forward and backward in the method; those
    of the guard stand in ``guard``; ``calibration``: what the method found out; ``guard``: its
    limits and measurements, None without a guard; ``report``: ``full``, ``quick`` or ``off``;
    ``note``: the caller's own, such as the number of a case. The command line adds ``command``,
    ``arguments``, ``omitted`` (records and files that could not be read), ``data``, ``digests`` and
    ``keyed_hashes``.
    """

    job: str
    seed: int
    holdout_seed: int
    outcome: Outcome = Outcome.NOT_JUDGED
    summary: str = ""
    progress: float | None = None
    steps: int | None = None
    method: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    trainable: dict[str, Any] | None = None
    request: dict[str, Any] = field(default_factory=dict)
    holdout: dict[str, int] = field(default_factory=dict)
    findings: list[dict[str, str]] = field(default_factory=list)
    accuracy: dict[str, Any] = field(default_factory=dict)
    tier: str | None = None
    weights: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, int] | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    passes: dict[str, int] | None = None
    calibration: dict[str, Any] = field(default_factory=dict)
    guard: dict[str, Any] | None = None
    report: str = "full"
    note: str = ""
    command: str | None = None
    arguments: dict[str, Any] | None = None
    omitted: dict[str, list[str]] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    keyed_hashes: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=versions)
    threads: int | None = None
    date: str = field(default_factory=now)
    schema: int = SCHEMA

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Note the wall time of a phase in ``seconds``, also of one that fails."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] = time.perf_counter() - began
            LOG.debug("%s took %.2f s", phase, self.seconds[phase])

    def to_json(self) -> dict[str, Any]:
        """Plain values; numbers that are not finite become None."""
        from efface.report import jsonable

        return jsonable(asdict(self))

    def write(self, folder: Path) -> None:
        """``manifest.json`` in a folder that exists; the caller makes the folder appear whole."""
        # NaN is no JSON: to_json has None for it, and anything that slipped through must fail here
        text = json.dumps(self.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
        # a path in the command may hold bytes that are no text: they are written as JSON has them
        (Path(folder) / FILE).write_text(f"{text}\n", "utf-8", errors="backslashreplace")

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """The manifest of a run's folder. Raises InputError where there is none of this schema."""
        if (Path(folder) / "record.json").exists():
            raise _unreadable(f"{folder} with record.json, a run of efface 0.1")
        written = read_json(Path(folder) / FILE, WANTED, REMEDY)
        if written.get("schema") != SCHEMA:
            raise _unreadable(f"schema {written.get('schema')!r:.20}, of another version of efface")
        if other := sorted(written.keys() ^ {field.name for field in fields(cls)}):
            raise _unreadable(f"missing or unknown: {abbreviate(other)}")
        if written["outcome"] not in list(Outcome):
            raise _unreadable(f"the outcome {written['outcome']!r:.40}")
        written["outcome"] = Outcome(written["outcome"])
        for name, kind in get_type_hints(cls).items():
            kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
            if not isinstance(value := written[name], tuple(get_origin(k) or k for k in kinds)):
                raise _unreadable(f"{name} as {type(value).__name__}")
        return cls(**written)


WANTED = f"a run with {FILE} of schema {SCHEMA}"
REMEDY = "Give the folder that was named with --out, by a run of this version of efface."


def _unreadable(came: str) -> InputError:
    return InputError(WANTED, came, REMEDY)


def state_digest(state: Mapping[str, Any]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of all tensors, in the order of their names."""
    import torch

    digest = hashlib.sha256()
    # sorted: the same weights under another order of modules are the same model
    for name in sorted(state):
        # a module's extra state may be anything
        if not isinstance(state[name], torch.Tensor):
            continue
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        # numpy has no bfloat16: the bytes are read as integers
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def tensor_digests(model: Any) -> dict[str, str]:
    """The digest of each weight and buffer, by its name; those that are not saved included."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {name: state_digest({name: tensor}) for name, tensor in tensors}


def changed_tensors(model: Any, before: Mapping[str, str]) -> list[str]:
    """Names of the weights and buffers whose digests are not those from before."""
    now = tensor_digests(model)
    return [name for name in {**before, **now} if now.get(name) != before.get(name)]


def refuse_changed(model: Any, before: Mapping[str, str], name: str = "the model") -> None:
    """Raise EffaceError, naming the tensor, where a digest is not the one from before."""
    if changed := changed_tensors(model, before):
        remedy = "Its own code writes it, such as forward: make it a buffer, or give a copy."
        raise EffaceError(f"{name} as it was given", f"another {changed[0]}", remedy)


def keyed_hashes(ids: Iterable[str], key: bytes) -> list[str]:
    """HMAC-SHA-256 of each id: who holds the key can match an id, nobody else can list them."""
    # keyed, since ids are guessed easily: a plain hash would be as good as the id
    return [hmac.new(key, identity.encode(), hashlib.sha256).hexdigest() for identity in ids]


def exclusion_table(ids: Sequence[str], key: bytes | None = None) -> bytes:
    """CSV for the next training run: id and, with a key, keyed hash; a formula after a ``'``."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["id", "keyed_hash"] if key else ["id"])
    columns = [map(csv_cell, ids), keyed_hashes(ids, key)] if key else [map(csv_cell, ids)]
    rows.writerows(zip(*columns, strict=True))
    return text.getvalue().encode()
