"""The set-up that a stranger types, the wheel, shared fixtures, words that are never written."""

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

from efface.methods import BUILT_IN
from efface.types import Records

ROOT = Path(__file__).parent.parent
PIPES = {"capture_output": True, "text": True}
MAKEFILE = (ROOT / "Makefile").read_text()
needs_make = pytest.mark.skipif(not shutil.which("make"), reason="NOT RUN: there is no make")


def make(*arguments):
    """Run make with nothing set from outside."""
    ours = {"PYTHON", "VENV", "CONSTRAINTS", "MAKEFLAGS", "MAKELEVEL"}  # of a make that runs this
    clean = {name: value for name, value in os.environ.items() if name not in ours}
    return subprocess.run(["make", *arguments], cwd=ROOT, env=clean, check=False, **PIPES)


def python(executable, *arguments, folder):
    """Run a Python in a folder that holds nothing of ours, and give what it printed."""
    done = subprocess.run([executable, *arguments], cwd=folder, check=False, **PIPES)
    assert done.returncode == 0, done.stderr
    return done.stdout


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
    """After the first run the commands work without a network."""
    (tmp_path / "bin").mkdir()
    for name in ("bin/python", ".core", ".test"):
        (tmp_path / name).touch()
    for target in ("demo", "test", "check", "docs"):
        done = make("-n", target, f"VENV={tmp_path}")
        assert done.returncode == 0, done.stderr
        assert "pip install" not in done.stdout


@needs_make
def test_a_first_run_installs_the_tested_versions_and_the_demo_takes_the_core_only(tmp_path):
    """Six gigabytes are worth a word beforehand; untested versions break a fresh clone."""
    done = make("-n", "demo", f"VENV={tmp_path / 'venv'}")
    assert done.stdout.index("about 6 GB") < done.stdout.index("pip install")
    assert "-c constraints.txt -e ." in done.stdout
    assert ".[test" not in done.stdout
    newest = make("-n", "test-newest", f"VENV={tmp_path / 'venv'}").stdout
    assert "pip install" in newest
    assert "-c constraints.txt" not in newest


def test_the_tested_set_pins_every_direct_dependency_and_no_local_build():
    """A range in pyproject.toml that nobody pinned would drift on the next clone."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["test"], *extras["docs"]]
    names = {re.split(r"[>=<\[]", one)[0].lower().replace("_", "-") for one in wanted}
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert names <= {name.lower().replace("_", "-") for name in pinned}
    assert all(re.fullmatch(r"[\d.]+(post\d+)?", version) for version in pinned.values())


@needs_make
def test_help_lists_every_target():
    """The first thing that a stranger types is make."""
    targets = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE).group(1).split()
    shown = make().stdout
    assert all(f"make {target}" in shown for target in targets if target != "help")


def test_the_machine_runs_what_a_person_runs():
    """A check of its own would drift from what is typed by hand."""
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)
    assert "for target in demo check test; do" in script.read_text()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this checkout, built as a release would be."""
    folder = tmp_path_factory.mktemp("wheel")
    python(sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", ".", ROOT, folder=folder)
    return next(folder.glob("efface-*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_the_library_and_the_licence_and_nothing_else(wheel):
    """A template or py.typed that is left behind is missed by users alone; research stays here."""
    packed = set(zipfile.ZipFile(wheel).namelist())
    files = [path for path in (ROOT / "src" / "efface").rglob("*") if path.is_file()]
    source = {str(p.relative_to(ROOT / "src")) for p in files if "__pycache__" not in p.parts}
    assert not source - packed
    assert any(name.endswith("licenses/LICENSE") for name in packed)
    assert not [name for name in packed if not name.startswith("efface")]


@pytest.mark.slow
def test_the_wheel_works_where_this_checkout_is_not(wheel, tmp_path):
    """The import and the command line, from the installed files alone."""
    python(sys.executable, "-m", "venv", "--without-pip", "venv", folder=tmp_path)
    clean = tmp_path / "venv" / "bin" / "python"
    where = "import site; print(site.getsitepackages()[0])"
    site = Path(python(clean, "-c", where, folder=tmp_path).strip())
    target = ("--no-deps", "--target", site, wheel)
    python(sys.executable, "-m", "pip", "install", "-q", *target, folder=tmp_path)
    ours = next(Path(p) for p in sys.path if Path(p, "torch").is_dir())
    (site / "dependencies.pth").write_text(f"{ours}\n")
    where = python(clean, "-I", "-c", "import efface; print(efface.__file__)", folder=tmp_path)
    assert Path(where.strip()).is_relative_to(tmp_path)
    assert "forget" in python(clean, "-I", "-m", "efface", "--help", folder=tmp_path)


def test_the_tiny_net_knows_its_digits_and_has_something_left_to_forget(tiny_net, digits):
    """Unlearning tests need a gap between the records trained on and the others."""
    with torch.no_grad():
        right = (tiny_net(digits.x).argmax(1) == digits.y).float()
    assert right[:300].mean() == 1.0
    assert 0.75 < right[300:].mean() < 1.0
    assert digits.low <= digits.x.min() < digits.x.max() <= digits.high


def test_shapes_are_checked_while_tests_run():
    """A mis-shaped tensor stops at the function it entered, not three calls later."""
    with pytest.raises(TypeCheckError, match="parameter 'y'"):
        Records(torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64))


@pytest.mark.parametrize("draw", [np.random.rand, lambda: torch.rand(1)], ids=["numpy", "torch"])
def test_a_draw_from_a_global_generator_is_noticed(draw, random_state_kept, request):
    """The check that law 3 leans on must be able to fail; seeded generators are allowed."""
    with random_state_kept():
        torch.rand(1, generator=torch.Generator().manual_seed(0))
    name = request.node.callspec.id
    with pytest.raises(AssertionError, match=name), random_state_kept():
        draw()


PROMISES = re.compile(r"\b(certified|verified|guaranteed|erased|compliant)\b", re.IGNORECASE)
LAW = 5  # a sentence that names all five words is the law itself
MACHINE = re.compile(
    r"""(?:^|[\s"'`=(:])/(?:home|root|mnt|Users|work)/"""
    r"|pypi\.org|python[h]osted|artifactor[y]|download\.pytorch",
    re.MULTILINE,
)


def tracked(*patterns):
    """The files under version control, so that nobody's scratch is judged."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("NOT RUN: it needs the git checkout to know which files belong to efface")
    command = ["git", "ls-files", "-z", "--", *patterns]
    listed = subprocess.run(command, cwd=ROOT, check=True, **PIPES).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def promises(text):
    """The sentences that use a forbidden word, the law itself left out."""
    sentences = re.split(r"(?<=[.!?:])\s+|\n\s*\n|\|", text)
    found = {sentence: {w.lower() for w in PROMISES.findall(sentence)} for sentence in sentences}
    return [sentence for sentence, words in found.items() if words and len(words) < LAW]


def strings(path):
    """Every string that a Python file holds, docstrings included."""
    nodes = ast.walk(ast.parse(path.read_text()))
    values = [node.value for node in nodes if isinstance(node, ast.Constant)]
    return "\n\n".join(value for value in values if isinstance(value, str))


def test_no_page_and_no_string_promises_more_than_was_shown():
    """One such word in a report is quoted for years; the tiers say what can be said."""
    pages = tracked("*.md", "*.html", "*.jinja", "*.j2", "*.css", "*.js")
    texts = {path: path.read_text() for path in pages}
    texts |= {path: strings(path) for path in tracked("src/*.py")}
    assert not {path.name: found for path, text in texts.items() if (found := promises(text))}
    for word in ("certified", "Verified", "GUARANTEED", "erased", "compliant"):
        assert promises(f"All is well. The records are {word} now.")
    assert not promises("Never write certified, verified, guaranteed, erased, compliant. Good.")
    assert f"({len(BUILT_IN)} of them" in texts[ROOT / "README.md"]  # the methods that it counts


def test_no_file_speaks_of_the_machine_it_was_made_on():
    """Paths and hosts of one machine mean nothing on another, and tell what they should not."""
    found = {}
    for path in tracked():
        if b"\0" in (content := path.read_bytes())[:8000]:
            continue
        if hits := MACHINE.findall(content.decode(errors="replace")):
            found[str(path.relative_to(ROOT))] = hits
    assert not found
    assert MACHINE.search("cd " + "/home" + "/me")
