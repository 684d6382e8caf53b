"""The door: public names, and a command line that opens without loading torch."""

import subprocess
import sys
from types import ModuleType

import efface


def run(code):
    """Run code in a Python of its own, as a user's first import does."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_public_names_are_exactly_those_listed():
    """What is importable by accident is depended on by accident; ruff keeps the list sorted."""
    listed = getattr(efface, "__all__", [])
    assert len(listed) == len(set(listed))
    for name in listed:
        assert getattr(efface, name) is not None
    accidental = {
        name
        for name, value in vars(efface).items()
        if not name.startswith("_") and not isinstance(value, ModuleType) and name not in listed
    }
    assert not accidental


def test_a_star_import_brings_the_listed_names_and_nothing_else():
    """The list is what `from efface import *` and an editor's completion show."""
    listed = sorted(getattr(efface, "__all__", []))
    code = "from efface import *; print(sorted(n for n in dir() if n != '__version__'))"
    brought = eval(run(code))  # noqa: S307  # our own list, printed by our own line
    assert set(listed) <= {*brought, "__version__"}


def test_help_does_not_load_torch():
    """Torch alone takes seconds to import; help must come at once."""
    code = """
import sys
from efface.cli import main
sys.argv = ["efface", "--help"]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
heavy = {"torch", "torchvision", "datasets", "sklearn", "matplotlib"} & set(sys.modules)
assert not heavy, heavy
"""
    assert "forget" in run(code)
