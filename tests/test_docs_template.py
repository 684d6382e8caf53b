"""The template for methods of others: it keeps the contract, and is found once it is installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from efface.errors import InputError
from efface.methods import Method
from efface.testing import PROMISES, BrokenPromise, Case, check_method
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


def run_python(*arguments, path=(), **options):
    """A Python of its own that finds the modules of these folders."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, path), *sys.path])}
    command, pipes = [sys.executable, *arguments], {"capture_output": True, "text": True}
    return subprocess.run(command, check=False, env=environment, **pipes, **options)


def test_its_own_test_passes():
    """The step by hand, as a stranger runs it."""
    own = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "by_hand", str(TEMPLATE)]
    done = run_python(*own, cwd=TEMPLATE)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def install(folder, *entry_points):
    """A package with these entry points, as pip would leave it."""
    (folder / "my_method.py").write_text((TEMPLATE / "my_method.py").read_text())
    info = folder / "efface_my_method-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: efface-my-method\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("\n".join(["[efface.methods]", *entry_points, ""]))


# efface is then half imported from within the module, and must not ask for it again
HALF = ("-W", "error", "-c", "import my_method; import efface; efface.METHODS['my_method']")


@pytest.mark.parametrize("arguments", [("-m", "efface", "methods", "my_method"), HALF])
def test_an_installed_method_joins_by_its_entry_point_alone(tmp_path, arguments):
    install(tmp_path, "my_method = my_method:my_method")
    done = run_python(*arguments, path=[tmp_path])
    assert done.returncode == 0, done.stderr


WANTED = "a function with @register_method, or a Method"
FAULTS = {
    "ssd = my_method:my_method": "efface has a method of that name",
    "other = my_method:my_method": "its function is called 'my_method': one name for both",
    "my_method = my_method:train_epochs": f"wanted {WANTED}; got a function",
    "third = nowhere:my_method": "ModuleNotFoundError: No module named 'nowhere'",
}


def test_a_method_that_cannot_join_is_omitted_with_a_word(tmp_path):
    """A broken package of others must not end the command."""
    install(tmp_path, *FAULTS)
    done = run_python("-m", "efface", "methods", path=[tmp_path])
    assert done.returncode == 0, done.stderr
    assert not [fault for fault in FAULTS.values() if fault not in done.stderr]
    assert "scrub" in done.stdout


def test_broken_promises_are_all_said_at_once():
    """Who writes a method wants the list, not the first fault."""

    def careless(model, split, *, seed=0, callback=no_callback):  # noqa: ARG001
        split.forget.x.add_(1)
        len(split.holdout or ())
        return model

    with pytest.raises(BrokenPromise) as broken:
        check_method(Method(careless, frozenset({"forget"})), exceptions={"toy": "it does nothing"})
    lines = ["careless breaks ", "strength: wanted strength=1.0; got None"]
    lines += ["untouched: wanted the given records as they were; got ['x']"]
    lines += ["reads: TrapSprung: the method touched holdout: leave it alone, or name it in reads"]
    assert not [line for line in lines if line not in str(broken.value)]


def test_a_strength_that_does_nothing_breaks_its_promise(template):
    """With a learning rate it kept all others."""

    def deaf(model, split, *, strength=1.0, learning_rate=0.01, seed=0, callback=no_callback):  # noqa: ARG001
        how = {"learning_rate": learning_rate, "epochs": 1, "seed": seed, "callback": callback}
        return template.my_method(model, split, **how)

    wanted = "wanted other weights at strength 0.5 than at 1; got the same bits"
    with pytest.raises(BrokenPromise, match=wanted):
        PROMISES["strength"](Case(Method(deaf, frozenset({"forget"}))))


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
