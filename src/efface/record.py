"""What a run leaves behind in words and numbers: digests, versions, keyed hashes."""

import csv
import hashlib
import hmac
import io
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from efface.versions import SCHEMA, versions

__all__ = [
    "SCHEMA",
    "exclusion_table",
    "facts_into",
    "keyed_hashes",
    "state_digest",
    "versions",
]


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


@contextmanager
def facts_into(facts: dict[str, Any]) -> Iterator[None]:
    """Collect what a method says that it found out (``extra={"facts": …}`` of its log records)."""

    class Facts(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            facts.update(getattr(record, "facts", {}))

    logger, handler = logging.getLogger("efface.methods"), Facts(level=logging.INFO)
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
