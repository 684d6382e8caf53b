"""What users install is the wheel, not this folder."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())


def python(executable, *arguments, folder):
    """Run a Python in a folder that holds nothing of ours, and give what it printed."""
    done = subprocess.run(
        [executable, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this checkout, built as a release would be."""
    folder = tmp_path_factory.mktemp("wheel")
    python(sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", ".", ROOT, folder=folder)
    return next(folder.glob("efface-*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_source_and_the_licence(wheel):
    """A template or py.typed that is left behind is missed by users alone."""
    held = set(zipfile.ZipFile(wheel).namelist())
    source = {
        str(path.relative_to(ROOT / "src"))
        for path in (ROOT / "src" / "efface").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert not source - held
    assert any(name.endswith("licenses/LICENSE") for name in held)
    assert not [name for name in held if not name.startswith("efface")]


@pytest.mark.slow
def test_the_wheel_works_where_this_checkout_is_not(wheel, tmp_path):
    """The import and the command line, from the installed files alone."""
    python(sys.executable, "-m", "venv", "--without-pip", "venv", folder=tmp_path)
    clean = tmp_path / "venv" / "bin" / "python"
    site = python(clean, "-c", "import site; print(site.getsitepackages()[0])", folder=tmp_path)
    site = Path(site.strip())
    python(
        sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, wheel,
        folder=tmp_path,
    )  # fmt: skip
    ours = next(Path(p) for p in sys.path if Path(p, "torch").is_dir())
    (site / "dependencies.pth").write_text(f"{ours}\n")
    where = python(clean, "-I", "-c", "import efface; print(efface.__file__)", folder=tmp_path)
    assert Path(where.strip()).is_relative_to(tmp_path)
    assert "forget" in python(clean, "-I", "-m", "efface", "--help", folder=tmp_path)
