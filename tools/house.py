"""The house in numbers and words: ``python -m tools.house count | words | path | versions``.

``count``     lines of code, docstrings and comments by folder; functions used once; root modules
``words``     words that the project no longer uses, and where; exit code 1 when there are some
``path``      the calls that a Split passes through from ``forget()`` to a method and back
``versions``  installed versions that differ from constraints.txt
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
FOLDERS = ("src", "research", "examples", "tools", "tests")
DEFINITION = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
LAYOUT = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
    tokenize.ENDMARKER,
}  # fmt: skip


def lines_of(path: Path) -> Counter[str]:
    """Lines of one file by kind: code, docstring, comment (whole lines), all."""
    text = path.read_text(encoding="utf-8")
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, *DEFINITION)) and ast.get_docstring(node) is not None:
            first = node.body[0]
            docstrings |= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in LAYOUT:
            code |= set(range(token.start[0], token.end[0] + 1))
    lines = text.splitlines()
    comments = sum(line.lstrip().startswith("#") for line in lines)
    return Counter(
        all=len(lines), code=len(code - docstrings), docstring=len(docstrings), comment=comments
    )


def used_once(folder: str) -> tuple[int, int]:
    """(private functions whose name stands once besides the definition, private functions)."""
    defined: Counter[str] = Counter()
    uses: Counter[str] = Counter()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, DEFINITION[:2]) and re.match(r"_[^_]", node.name):
                defined[node.name] += 1
            elif isinstance(node, ast.Name):
                uses[node.id] += 1
            elif isinstance(node, ast.Attribute):
                uses[node.attr] += 1
    return sum(uses[name] <= times for name, times in defined.items()), sum(defined.values())


def count() -> int:
    """Print the table."""
    print(f"{'':24}{'files':>7}{'lines':>9}{'code':>9}{'docstring':>11}{'comments':>10}")
    for folder in FOLDERS:
        rows: dict[str, list[Counter[str]]] = {}
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).parts
            deep = folder == "src" and len(parts) > 3
            rows.setdefault("/".join(parts[:3]) if deep else folder, []).append(lines_of(path))
        if folder == "src":
            rows = {f"{name} (root)" if name == "src" else name: r for name, r in rows.items()}
            rows["src"] = [one for each in rows.values() for one in each]
        for name, found in rows.items():
            whole = sum(found, Counter())
            share = f"{100 * whole['comment'] / max(1, whole['all']):.1f} %"
            print(
                f"{name:24}{len(found):7}{whole['all']:9}{whole['code']:9}"
                f"{whole['docstring']:11}{share:>10}"
            )
    once, functions = used_once("src")
    print(f"private functions of src used once: {once} of {functions}")
    print(f"modules and packages at the root: {sum(1 for _ in _root_modules())}")
    return 0


def _root_modules() -> Iterator[Path]:
    for path in (ROOT / "src" / "efface").iterdir():
        if (path.suffix == ".py" or (path / "__init__.py").is_file()) and path.stem[0] != "_":
            yield path


# The worst of the old vocabulary, and the term that took its place.
BANNED = {
    r"\b(student_of|teacher_of|adapter_of|records_per_step|carry_on|open_table)\b": "renamed",
    r"\bfalse alarms?\b": "FPR",
    r"(?<!sklearn\.)\bpipelines?\b": "shadow runs",
    r"\boff for more than chance\b": "significant after Holm correction",
    r"\bby heart\b": "memorised",
    r"\b(whole|broken) numbers?\b": "integers / non-integer floats",
    r"\bforgotten too far\b": "over-forgetting",
    r"\b(many|one) labels?\b(?! each)": "multilabel / multiclass",
    r"\bstands? out\b": "significantly different",
    r"\bnot told from\b": "inconclusive",
    r"\blike unseen\b": "equivalent to unseen",
    r"\bleaving classes\b": "forget_classes",
    r"\bthe dice\b|\banswers by chance\b": "non-deterministic outputs",
    r"\bleave away\b": "omit",
    r"\banew\b": "again / from scratch",
    r"\bwhat moved\b": "change of the weights",
    r"\bwhole story\b": "complete example",
    r"\bone class of several\b": "multiclass",
}

# Records and old entries keep their words.
SPARED = (
    "LOG.md",
    "src/efface/methods/_base.py",
    "CHANGELOG.md",
    "tools/house.py",
    "research/results/",
    "constraints.txt",
)


def words() -> int:
    """Print each banned word with its place and the term to use."""
    listed = subprocess.run(
        ["git", "ls-files", "*.py", "*.md", "*.jinja", "*.toml", "Makefile"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    hits = 0
    for name in listed:
        if name.startswith(SPARED) or not (ROOT / name).is_file():
            continue
        for row, line in enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), 1):
            for pattern, term in BANNED.items():
                if found := re.search(pattern, line, re.IGNORECASE):
                    hits += 1
                    print(f"{name}:{row}: {found[0]!r}: write {term!r}")
    return int(hits > 0)


def path() -> int:
    """Run one request on the contract's toy problem and print the calls that take a Split."""
    sys.path.insert(0, str(ROOT / "src"))
    from efface import Split, forget
    from efface.testing import toy_split, trained_model

    calls: list[str] = []

    def trace(frame: Any, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and "/efface/" in code.co_filename and code.co_name[0] != "<":
            given = frame.f_locals.values()  # at the call these are the arguments
            if any(isinstance(one, Split) for one in given):
                calls.append(f"{Path(code.co_filename).stem}.{code.co_qualname}")

    model, split = trained_model(), toy_split()
    sys.setprofile(trace)
    try:
        forget(model, split, method="jit", settings={"steps": 1})
    finally:
        sys.setprofile(None)
    seen = list(dict.fromkeys(calls))
    print("\n".join(seen))
    print(f"{len(seen)} functions take a Split, {len(calls)} calls")
    return 0


def versions() -> int:
    """Print what is installed in another version than the tested one."""
    tested = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line
    )
    here = {one.metadata["Name"].lower(): one.version for one in distributions()}
    for name, version in tested.items():
        now = here.get(name.lower(), "not installed")
        if now.split("+")[0] != version:
            print(f"{name}: tested {version}, here {now}")
    return 0


if __name__ == "__main__":
    sys.exit({"count": count, "words": words, "path": path, "versions": versions}[sys.argv[1]]())
