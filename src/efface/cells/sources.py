"""Which source files a function rests on, and one digest over what they say.

Imports are read off the syntax, wherever they stand in a file. A package's own file counts when
something is imported from the package itself. What is installed (site-packages) and Python's own
library are left out: a record names their versions. Comments, docstrings and layout do not count.
"""

import ast
import hashlib
import json
import re
import sysconfig
from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from efface.errors import InputError

ADDRESS = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
"""``package.module:function``"""


def digest_of(addresses: Iterable[str]) -> str:
    """SHA-256 over what the source files say that these functions rest on.

    Raises InputError for a function whose module is not to be found.
    """
    found = files_of(addresses)
    said = {name: _read(str(path), path.stat().st_mtime_ns)[0] for name, path in found.items()}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def files_of(addresses: Iterable[str]) -> dict[str, Path]:
    """Module names with their files: those of the functions, and all that they import.

    An address that is no module of ours (``timm:resnet18``) has no files.
    """
    waiting = [address.partition(":")[0] for address in addresses]
    found: dict[str, Path] = {}
    while waiting:
        name = waiting.pop()
        path = None if name in found else file_of(name)
        if path is not None:
            found[name] = path
            waiting += _read(str(path), path.stat().st_mtime_ns)[1]
    return found


def refuse_unknown(address: str) -> None:
    """Raise InputError when an address has another form, or no module of ours behind it."""
    if not ADDRESS.fullmatch(address):
        raise InputError(
            "a function as package.module:function",
            repr(address),
            "Such as efface.cells.trained:trained.",
        )
    if file_of(address.partition(":")[0]) is None:
        raise InputError(
            f"a source file of the module {address.partition(':')[0]}",
            "none",
            "Put its folder on PYTHONPATH; installed packages hold no cells.",
        )


def addresses_in(value: Any) -> Iterator[str]:
    """Every address that stands as a text in JSON settings."""
    if isinstance(value, str):
        if ADDRESS.fullmatch(value):
            yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from addresses_in(part)
    elif isinstance(value, list):
        for part in value:
            yield from addresses_in(part)


def file_of(name: str) -> Path | None:
    """The source file of a module, found without importing it; None for what is not ours."""
    top, *rest = name.split(".")
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    places = [Path(place, *rest) for place in spec.submodule_search_locations or ()]
    files = [
        file for p in places for file in (p.with_suffix(".py") if rest else p, p / "__init__.py")
    ]
    if not rest and spec.origin and spec.origin.endswith(".py"):
        files = [Path(spec.origin)]
    return next((file for file in files if file.is_file() and _ours(top, file)), None)


def _ours(top: str, file: Path) -> bool:
    """Not installed beside us and not Python's own."""
    if top == "efface":
        return True
    installed = "site-packages" in file.parts or "dist-packages" in file.parts
    return not installed and not file.is_relative_to(sysconfig.get_path("stdlib"))


@lru_cache(maxsize=4096)
def _read(path: str, changed: int) -> tuple[str, tuple[str, ...]]:  # noqa: ARG001  # part of the key
    """What a file says, as a digest, and the modules that it imports."""
    tree = ast.parse(Path(path).read_bytes())
    imported = dict.fromkeys(name for node in ast.walk(tree) for name in _imported(node))
    said = json.dumps(_said(tree), default=repr)
    return hashlib.sha256(said.encode()).hexdigest(), tuple(imported)


def _imported(node: ast.AST) -> list[str]:
    """The modules that one statement imports; of a name that is no module, its package."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom) or not node.module or node.level:
        return []
    parts = [f"{node.module}.{alias.name}" for alias in node.names]
    return [part if file_of(part) else node.module for part in parts]


def _said(node: Any) -> Any:
    """The syntax as nested lists: no places, no docstrings, no empty fields (Pythons differ)."""
    if isinstance(node, list):
        return [_said(part) for part in node]
    if not isinstance(node, ast.AST):
        return node
    fields = {name: value for name, value in ast.iter_fields(node) if value not in (None, [])}
    body = fields.get("body")
    if (
        isinstance(body, list)
        and body
        and isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    ):
        documented = isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)
        fields["body"] = body[1:] if documented and isinstance(body[0].value.value, str) else body
    return [type(node).__name__, *([name, _said(value)] for name, value in fields.items())]
