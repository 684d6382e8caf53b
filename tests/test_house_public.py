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


def test_the_public_names_are_exactly_those_listed():
    """What is importable by accident is depended on by accident."""
    listed = efface.__all__
    assert len(listed) == len(set(listed))
    assert all(not isinstance(getattr(efface, name), ModuleType) for name in listed)
    values = {k: v for k, v in vars(efface).items() if not isinstance(v, ModuleType)}
    assert {name for name in values if name[0] != "_"} <= {*listed}


def test_no_module_hides_a_function_of_its_name_and_a_star_import_brings_them_all():
    """After any order of imports ``efface.inspect`` is the function and not a module."""
    run("""
import pkgutil, efface
for found in pkgutil.walk_packages(efface.__path__, "efface."):
    if not found.name.endswith("__main__"):
        __import__(found.name)
listed = efface.__all__
from efface import *
modules = [n for n in listed if type(globals()[n]).__name__ == "module"]
assert not modules, modules
""")


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import efface.cli; efface.cli.main(['--help'])", f"torch {HEAVY}"),
        ("from efface import forget, score, Split, Records", HEAVY),
    ],
)
def test_what_takes_seconds_to_import_is_loaded_when_it_is_used(code, absent):
    """``efface --help`` without torch; ``from efface import forget`` with little else."""
    loaded = f"set({absent!r}.split()) & set(sys.modules)"
    tail = f"import sys; heavy = {loaded}; assert not heavy, heavy"
    run(f"try:\n    {code}\nexcept SystemExit as end:\n    assert not end.code\n{tail}")
