"""Small files, small functions, few positional arguments: what keeps the house readable."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "src").rglob("*.py"))
ALL = [
    *SOURCES,
    *sorted((ROOT / "tests").rglob("*.py")),
    *sorted((ROOT / "benchmarks").rglob("*.py")),
]
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


def name_of(path):
    """The file as a test id."""
    return str(path.relative_to(ROOT))


def code_lines(function, lines):
    """How many lines of a function say something: no docstring, blank or comment-only line."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    if not body:
        return 0
    spoken = lines[body[0].lineno - 1 : function.end_lineno]
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in spoken)


def positional(function):
    """The arguments that a caller may pass without a name, self and cls left out."""
    names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    return [name for name in names if name not in {"self", "cls"}]


def allowed(function):
    """How many positional arguments: three in public, six where the callers stand above."""
    return 6 if function.name.startswith("_") else 3


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_a_file_is_shorter_than_300_lines(path):
    """A longer file holds two things."""
    assert len(path.read_text().splitlines()) < 300


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_function_has_at_most_40_code_lines_and_few_positional_arguments(path):
    """A reader holds one function in the head; a call with four bare values explains nothing.

    A private function, whose only callers stand above it, may have six.
    """
    text = path.read_text()
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, FUNCTION)]
    long = {f.name: n for f in functions if (n := code_lines(f, text.splitlines())) > 40}
    wide = {f.name: names for f in functions if len(names := positional(f)) > allowed(f)}
    assert not long
    assert not wide


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_the_library_neither_prints_nor_asserts(path):
    """Output belongs to the caller, and an assert is gone under ``python -O``."""
    tree = ast.parse(path.read_text())
    printed = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
    ]
    asserted = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    assert not printed
    assert not asserted


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_the_library_leaves_pythons_own_random_numbers_alone(path):
    """The shape checks of the tests draw from them, so that no test could watch their state."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {name.name for n in nodes if isinstance(n, ast.Import) for name in n.names}
    names |= {n.module for n in nodes if isinstance(n, ast.ImportFrom)}
    assert "random" not in names


def test_the_ruler_counts_what_a_reader_reads():
    """Docstrings, blanks and comments are free; the rest counts, nested functions included."""
    text = (
        'def f(self, a, *, b):\n    """Two\n    lines."""\n\n    # why\n'
        "    def g():\n        return 1\n    return g\n"
    )
    function = ast.parse(text).body[0]
    assert code_lines(function, text.splitlines()) == 3
    assert positional(function) == ["a"]
