"""The template for methods of others: it keeps the contract, and is found once it is installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from efface.errors import InputError
from efface.methods import Method
from efface.testing import PROMISES, BrokenPromise, check_method
from efface.types import no_callback

TEMPLATE = Path(__file__).parent.parent / "docs" / "template"


@pytest.fixture
def template(monkeypatch):
    """The module of the template."""
    monkeypatch.syspath_prepend(TEMPLATE)
    import my_method

    return my_method


def test_the_template_keeps_the_contract(template):
    """What a stranger starts from must work as it is."""
    rows = check_method(template.my_method, toy={"learning_rate": 1.0})
    assert [row.promise for row in rows] == list(PROMISES)
    assert {row.outcome for row in rows} == {"kept"}


def test_its_own_test_passes():
    """The step by hand, as a stranger runs it."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "by_hand"]
    done = subprocess.run(
        [*command, str(TEMPLATE)], capture_output=True, text=True, check=False, cwd=TEMPLATE
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def _installed(folder, entry_points, *command):
    """Run a command next to a package with these entry points, as pip would leave it."""
    (folder / "my_method.py").write_text((TEMPLATE / "my_method.py").read_text())
    info = folder / "efface_my_method-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: efface-my-method\nVersion: 0.1.0\n"
    )
    (info / "entry_points.txt").write_text(f"[efface.methods]\n{entry_points}\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    command = [sys.executable, *(command or ("-m", "efface", "methods"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done


def test_an_installed_method_is_listed(tmp_path):
    """By its entry point alone; nothing of efface is changed."""
    assert "my_method" in _installed(tmp_path, "my_method = my_method:my_method").stdout


@pytest.mark.parametrize(
    ("entry_point", "fault"),
    [
        ("ssd = my_method:my_method", "efface has a method of that name"),
        ("other = my_method:my_method", "its function is called 'my_method': one name for both"),
        (
            "my_method = my_method:train_epochs",
            "wanted a function with @register_method, or a Method; got a function",
        ),
        ("my_method = nowhere:my_method", "ModuleNotFoundError: No module named 'nowhere'"),
    ],
)
def test_a_method_that_cannot_join_is_left_out_with_a_word(tmp_path, entry_point, fault):
    """A broken package of others must not end the command."""
    done = _installed(tmp_path, entry_point)
    assert fault in done.stderr
    assert "scrub" in done.stdout


def test_broken_promises_are_all_said_at_once():
    """Who writes a method wants the list, not the first fault."""

    def careless(model, split, *, seed=0, callback=no_callback):  # noqa: ARG001
        len(split.holdout)
        return model

    with pytest.raises(BrokenPromise) as broken:
        check_method(Method(careless), exceptions={"toy": "it does nothing"})
    said = str(broken.value)
    for line in (
        "careless breaks ",
        "strength: wanted strength=1.0; got None",
        "reads: TrapSprung: the method touched holdout: leave it alone, or name it in reads",
    ):
        assert line in said


def test_a_function_that_says_nothing_of_itself_is_refused(template):
    """What it sees and costs cannot be guessed."""
    with pytest.raises(InputError) as error:
        check_method(template._negative_entropy)
    assert str(error.value) == (
        "Wanted a Method, or a function with @register_method. Got _negative_entropy. "
        "Declare what it reads, needs and holds: @register_method(reads=…, needs=…, memory=…)."
    )
    with pytest.raises(InputError) as error:
        check_method(template.my_method, exceptions={"ordre": "a slip"})
    assert "Got ordre. Omit them." in str(error.value)


def test_a_method_joins_also_where_its_module_is_imported_first(tmp_path):
    """Efface is then half imported from within it, and must not import the module again."""
    code = "import my_method; from efface.methods import METHODS; assert 'my_method' in METHODS"
    _installed(tmp_path, "my_method = my_method:my_method", "-W", "error", "-c", code)
