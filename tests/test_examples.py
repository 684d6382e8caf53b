"""The example scripts, one a kind of user, on the demo's model and data."""

import subprocess
import sys

import pytest

from examples.demo import write_demo


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_demo(tmp_path_factory.mktemp("demo"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "text"),
    [
        (("own_checkpoint", "audit"), "Membership inference on the loss"),
        (("compare_methods",), "neighbourhood  seed 1  1.00 before  0.00 after"),
    ],
)
def test_the_examples_run_on_the_demo(folder, names, text):
    for name in names:
        command = [sys.executable, "-m", f"examples.{name}", str(folder)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert text in done.stdout
