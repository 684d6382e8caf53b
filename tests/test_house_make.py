"""The two commands that a stranger types, and the one that a machine runs."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAKEFILE = (ROOT / "Makefile").read_text()

needs_make = pytest.mark.skipif(not shutil.which("make"), reason="NOT RUN: there is no make")


def make(*arguments):
    """Run make with nothing set from outside."""
    clean = {k: v for k, v in os.environ.items() if k not in {"PYTHON", "MAKEFLAGS", "MAKELEVEL"}}
    return subprocess.run(
        ["make", *arguments], cwd=ROOT, env=clean, capture_output=True, text=True, check=False
    )


@needs_make
def test_an_old_python_is_refused_in_one_line_before_anything_is_installed(tmp_path):
    """The alternative is a screen of pip's resolver after a download of gigabytes."""
    old = tmp_path / "python3.10"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.10.13 && exit\nexit 1\n')
    old.chmod(0o755)
    done = make("demo", f"VENV={tmp_path / 'venv'}", f"PYTHON={old}")
    assert done.returncode != 0
    assert done.stdout == ""
    assert re.fullmatch(
        rf"Makefile:\d+: \*\*\* efface needs Python 3\.11 or newer; {re.escape(str(old))} gives: "
        r"Python 3\.10\.13\. Name one with PYTHON=python3\.12\.  Stop\.\n",
        done.stderr,
    )
    assert not (tmp_path / "venv").exists()


@needs_make
def test_a_second_run_installs_nothing(tmp_path):
    """After the first run both commands work without a network."""
    (tmp_path / "bin").mkdir()
    for name in ("bin/python", ".core", ".test"):
        (tmp_path / name).touch()
    for target in ("demo", "test"):
        done = make("-n", target, f"VENV={tmp_path}")
        assert done.returncode == 0, done.stderr
        assert "pip install" not in done.stdout


@needs_make
def test_a_first_run_says_how_much_it_will_install_and_the_demo_takes_the_core_only(tmp_path):
    """Six gigabytes are worth a word beforehand."""
    done = make("-n", "demo", f"VENV={tmp_path / 'venv'}")
    said, installed = done.stdout.index("about 6 GB"), done.stdout.index("pip install")
    assert said < installed
    assert ".[test]" not in done.stdout


@needs_make
def test_help_lists_every_target():
    """The first thing that a stranger types is make."""
    targets = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE).group(1).split()
    told = make().stdout
    assert all(f"make {target}" in told for target in targets if target != "help")


def test_the_machine_runs_what_a_person_runs():
    """A check of its own would drift from what is typed by hand."""
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)
    assert [line for line in script.read_text().splitlines() if line.startswith("make")] == [
        "make demo",
        'make test 2>&1 | tee "$log"',
    ]
