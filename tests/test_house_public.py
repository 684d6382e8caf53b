"""The door: public names, and what is loaded when."""

import subprocess
import sys
from types import ModuleType

import pytest

import efface

HEAVY = "accelerate datasets jinja2 matplotlib pandas PIL pyarrow scipy sklearn torchvision"


def run(code):
    """Run code in a Python of its own, as a user's first import does."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_public_names_are_exactly_those_listed():
    """What is importable by accident is depended on by accident."""
    listed = efface.__all__
    assert len(listed) == len(set(listed))
    assert all(not isinstance(getattr(efface, name), ModuleType) for name in listed)
    accidental = {
        name
        for name, value in vars(efface).items()
        if not name.startswith("_") and not isinstance(value, ModuleType) and name not in listed
    }
    assert not accidental


def test_no_module_hides_a_function_of_its_name():
    """After any order of imports ``efface.inspect`` is the function and not a module."""
    code = """
import pkgutil, efface
for found in pkgutil.walk_packages(efface.__path__, "efface."):
    if not found.name.endswith("__main__"):
        __import__(found.name)
modules = [n for n in efface.__all__ if type(getattr(efface, n)).__name__ == "module"]
assert not modules, modules
"""
    run(code)


def test_a_star_import_brings_the_listed_names_and_nothing_else():
    code = "from efface import *; print(sorted(n for n in dir() if n != '__version__'))"
    brought = eval(run(code))  # noqa: S307  # our own list, printed by our own line
    assert {*brought, "__version__"} >= set(efface.__all__)


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import efface.cli; efface.cli.main(['--help'])", f"torch {HEAVY}"),
        ("from efface import forget, score, Split, Records", HEAVY),
    ],
)
def test_what_takes_seconds_to_import_is_loaded_when_it_is_used(code, absent):
    """``efface --help`` without torch; ``from efface import forget`` with little else."""
    tail = (
        f"import sys; heavy = set({absent!r}.split()) & set(sys.modules); assert not heavy, heavy"
    )
    run(f"try:\n    {code}\nexcept SystemExit as end:\n    assert not end.code\n{tail}")
