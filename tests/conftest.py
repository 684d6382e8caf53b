"""What every test shares: shapes checked at run time, one torch thread, a tiny net, a command."""

import ast
import os
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import _import_hook, install_import_hook


class _OuterFunctions(_import_hook.JaxtypingTransformer):
    """Checks the shapes of a function, and not those of the functions inside it."""

    def visit_FunctionDef(self, node):  # noqa: N802  # ast's name
        # a nested function is wrapped again at each call of the outer one: a third of all time
        nested = any(isinstance(parent, ast.FunctionDef) for parent in self._parents)
        return node if nested else super().visit_FunctionDef(node)


_import_hook.JaxtypingTransformer = _OuterFunctions
install_import_hook("efface", "beartype.beartype")  # before the first import of efface

torch.set_num_threads(1)

ROOT = Path(__file__).parent.parent
pytest_plugins = ["tests.browsers"]
paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
os.environ["PYTHONPATH"] = os.pathsep.join(paths)  # for the processes that tests start


@pytest.fixture(scope="session")
def efface_data():
    """The folder of real data that EFFACE_DATA names; without it the test says it is skipped."""
    folder = os.environ.get("EFFACE_DATA")
    if not folder:
        pytest.skip("NOT RUN: it reads real images or texts; name their folder in EFFACE_DATA")
    return Path(folder)


@pytest.fixture(scope="session")
def digits():
    """400 handwritten digits, 1 x 8 x 8, normalised; the classes are nearly balanced."""
    from efface.testing import digits

    return digits()


@pytest.fixture(scope="session")
def tiny_net():
    """A convolutional net with BatchNorm, in eval mode, that has learned the first 300 digits.

    The last 100 digits were never seen in training. One net serves all tests: copy it before you
    change it or its mode; a test that did not fails.
    """
    from efface.testing import trained_model

    return trained_model()


@pytest.fixture(autouse=True)
def _tiny_net_kept(request):
    """The test that changes the shared net fails, and no test after it."""
    if "tiny_net" not in request.fixturenames:
        yield
        return
    net = request.getfixturevalue("tiny_net")
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    yield
    changed = [name for name, tensor in net.state_dict().items() if not before[name].equal(tensor)]
    changed += ["train mode"] * net.training
    net.eval().load_state_dict(before)
    assert not changed, f"the test changed the shared net: {changed}"


@pytest.fixture(scope="session")
def tables(tmp_path_factory):
    """A folder with four real tables as files, nets that know the first half of each, and ids."""
    from scikit_tables import tables_in

    folder = tmp_path_factory.mktemp("tables")
    tables_in(folder)
    return folder


@pytest.fixture
def in_tables(tables, monkeypatch):
    """Run the command there, in this process; gives back its exit code."""
    return _command_in(tables, monkeypatch)


@pytest.fixture(scope="session")
def random_state_kept():
    """A context that fails when its block moved a global random state."""

    def state():
        # Python's own is moved by the shape checks of the tests.
        kind, keys, *rest = np.random.get_state()  # noqa: NPY002  # the global one is watched
        drawn = torch.random.get_rng_state().numpy().tobytes()
        return {"numpy": (kind, keys.tobytes(), *rest), "torch": drawn}

    @contextmanager
    def kept():
        before = state()
        yield
        moved = [name for name, now in state().items() if now != before[name]]
        assert not moved, f"the global random state moved: {moved}"

    return kept


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model, data and two ids; the net is small and was shown each digit twice."""
    from kills import prepared

    from efface.nets import conv_small

    folder = tmp_path_factory.mktemp("place")
    source = "def narrow(num_classes=10):\n    return conv_small(num_classes, width=8)\n"
    (folder / "tests_nets.py").write_text(f"from efface.nets import conv_small\n{source}")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = conv_small(width=8)
    return prepared(folder, 2, net, architecture="efface.nets:conv_quarter")


@pytest.fixture
def efface(place, monkeypatch):
    """Run the command in this process; gives back its exit code."""
    return _command_in(place, monkeypatch)


@pytest.fixture
def command_in(monkeypatch):
    """A function that gives a runner of an app in a folder, in this process."""
    return lambda folder, app, name: _command_in(folder, monkeypatch, app, name)


@pytest.fixture
def train_command(place, command_in):
    """Run ``python -m research.train`` in this process; gives back its exit code."""
    from research.train import app

    return command_in(place, app, "python -m research.train")


def _command_in(folder, monkeypatch, app=None, name="efface"):
    """The command run in a folder whose modules it may import."""
    from efface.cli import exits, main

    def start(arguments):
        with exits():
            app(arguments, exit_on_error=False)

    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        try:
            (start if app else main)(list(arguments))
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return run
