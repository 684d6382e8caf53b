"""Small files that a stranger may have written: regular, of bounded size, texts and JSON.

``read_text`` and ``read_json`` read every configuration, list and manifest; ``copy_mode`` gives a
written file the permissions of the one that it replaces.
"""

import json
import re
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

from efface.errors import InputError

# the configuration of 20,000 classes has 2 MiB, a list of ten million ids 200
JSON_LIMIT, TEXT_LIMIT = 64 * 2**20, 512 * 2**20
# of JSON: ours has 6
MAX_DEPTH = 50
Hook = Callable[[list[tuple[str, Any]]], Any]


def read_text(path: str | Path, wanted: str, remedy: str, limit: int = TEXT_LIMIT) -> str:
    """The text of a file, UTF-8 with or without a mark. Raises InputError, which says ``wanted``.

    A pipe would wait for a writer and a device never end: neither is opened.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise InputError(wanted, f"{path}, which is no regular file", remedy)
        with path.open("rb") as file:
            content = file.read(limit + 1)
        if len(content) > limit:
            raise InputError(wanted, f"more than {limit >> 20} MiB in {path.name}", remedy)
        return content.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(wanted, f"{type(error).__name__} at {path.name}", remedy) from error


def read_json(
    path: str | Path, wanted: str = "", remedy: str = "", pairs: Hook | None = None
) -> dict[str, Any]:
    """A JSON object of texts that can be written again. Raises InputError where there is none.

    ``pairs`` makes each object out of its names and values (``object_pairs_hook``).
    """
    path = Path(path)
    wanted, remedy = wanted or f"a JSON object in {path}", remedy or "Fetch or write it again."
    text = read_text(path, wanted, remedy, JSON_LIMIT)
    try:
        if depth(text) > MAX_DEPTH:
            raise InputError(wanted, f"more than {MAX_DEPTH} brackets in each other", remedy)
        value = json.loads(text, object_pairs_hook=pairs)
        # half of a surrogate pair is a text that no file can hold
        json.dumps(value, ensure_ascii=False).encode()
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(wanted, f"{type(error).__name__} at {path.name}", remedy) from error
    if not isinstance(value, dict):
        raise InputError(wanted, f"{type(value).__name__} at {path.name}", remedy)
    return value


def depth(text: str) -> int:
    """How many brackets stand open at once outside of quoted texts."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', "", text)
    steps = (1 if bracket in "[{" else -1 for bracket in re.findall(r"[\[\]{}]", bare))
    return max(accumulate(steps), default=0)


def copy_mode(source: Path, target: Path) -> None:
    """Who may read or write ``source`` may read or write ``target``, its owner both."""
    target.chmod(source.stat().st_mode & 0o777 | 0o600)
