"""Every block of README.md and docs/ runs and prints what the page says it prints.

``python`` blocks of a page run in order in one namespace, ``console`` and ``sh`` blocks command by
command, in a folder that holds ``demo/`` as ``make demo`` leaves it. What is printed is compared
with the lines below a command or with the ``text`` block that follows: words must be equal, ``…``
stands for anything, seconds are free; a decimal number may be off by 0.02 and a percentage by 2, or
any number by what ``<!-- tolerance: 0.05 -->`` above the block says. ``<!-- exit: 3 -->`` names
another exit code than 0; ``<!-- not run: reason -->`` spares the block below it.
"""

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).parent.parent
FOLDERS = ("*.md", "docs/**/*.md", "research/results/**/*.md")
PAGES = sorted({page for pattern in FOLDERS for page in ROOT.glob(pattern)})
SHELL = {"console", "sh"}
READ = {"json": json.loads, "toml": tomllib.loads, "text": str, "csv": str}
NUMBER = re.compile(r"(?<![\w./\-])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?!\.?\w)")
SETUP = re.compile(r"git clone \S+|cd \S+|make [a-z-]+|(\.venv/bin/)?pip install .+")
WIDTH = "100"  # of the terminal that the pages show


@dataclass
class Block:
    """One fenced block of a page, with the comments that stand right above it."""

    language: str
    text: str
    line: int
    notes: str

    def note(self, name):
        """What ``<!-- name: value -->`` above the block says; None without it."""
        found = re.search(rf"<!--\s*{name}:\s*(.*?)\s*-->", self.notes, re.DOTALL)
        return found and found.group(1)

    def tolerance(self):
        """By how much numbers may differ; None for the usual."""
        return self.note("tolerance") and float(self.note("tolerance"))


def blocks_of(text):
    """The fenced blocks of a page, in order."""
    found, notes = [], ""
    for token in MarkdownIt().parse(text):
        if token.type == "html_block":
            notes += token.content
        elif token.type == "fence":
            found.append(Block(token.info.strip(), token.content, token.map[0] + 1, notes))
            notes = ""
        elif token.type == "inline":
            notes = ""
    return found


def differences(expected, printed, tolerance=None):
    """Why a printed text is not the expected one; an empty string when it is."""
    expected, printed = _plain(expected), _plain(printed)
    match = re.fullmatch(_pattern(expected), printed, re.DOTALL)
    if not match:
        return f"expected:\n{expected}\nprinted:\n{printed}"
    pairs = zip(NUMBER.finditer(expected), match.groups(), strict=True)
    far = [(w[0], c) for w, c in pairs if not _close(w[0], c, expected[w.end() :], tolerance)]
    return "; ".join(f"expected {wanted}, printed {came}" for wanted, came in far)


def _plain(text):
    """The text without what depends on the width of its columns, and with one minus sign."""
    text = text.replace("\N{MINUS SIGN}", "-")
    return re.sub(r"\s+", " ", re.sub(r"([─━═-])\1+", r"\1", text)).strip()


def _pattern(expected):
    """A regular expression with one group for each number."""
    literal = [re.escape(part).replace("…", ".*?") for part in re.split(NUMBER.pattern, expected)]
    return r"([-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?)".join(literal)


def _close(wanted, came, after, tolerance):
    """Whether two numbers agree, given the text that follows them."""
    if re.match(r"\s?(s|seconds)\b", after):
        return True
    if tolerance is None:
        percent, whole = re.match(r"\s?%", after), wanted.lstrip("-+").isdigit()
        tolerance = 2 if percent else 0 if whole else 0.02
    a, b = (float(number) for number in (wanted, came))
    return abs(a - b) <= tolerance + 1e-9


def commands_of(block):
    """Each command of a shell block with the lines that the page shows below it."""
    lines = block.text.replace("\\\n", " ").splitlines()
    if block.language == "sh":
        return [(line, "") for line in lines if line and not line.startswith("#")]
    starts = [row for row, line in enumerate(lines) if line.startswith("$ ")]
    assert starts[:1] == [0], f"line {block.line}: a console block starts with '$ '"
    return [(lines[a][2:], "\n".join(lines[a + 1 : b])) for a, b in pairwise([*starts, len(lines)])]


def run_command(command, folder):
    """Run one line of a page as its reader would; give its exit code and what it printed."""
    command = command.split("  #")[0].strip()
    if SETUP.fullmatch(command):
        if command.startswith("make "):
            assert re.search(rf"^{command[5:]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return 0, ""
    assert command.startswith(".venv/bin/"), f"a reader could not run this as it stands: {command}"
    program, *arguments = shlex.split(command.removeprefix(".venv/bin/"))
    line = [Path(sys.executable).with_name(program), *arguments]
    shown = {**os.environ, "COLUMNS": WIDTH, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}
    done = subprocess.run(line, cwd=folder, env=shown, text=True, check=False, **pipes)
    return done.returncode, done.stdout


def run_shell(block, folder):
    """Run the commands of one block, comparing what stands below them; give all they printed."""
    everything = ""
    for command, expected in commands_of(block):
        code, printed = run_command(command, folder)
        assert code == int(block.note("exit") or 0), f"{command}\n{printed}"
        everything += printed
        if expected:
            wrong = differences(expected, printed, block.tolerance())
            assert not wrong, f"line {block.line}: {command}: {wrong}"
    return everything


def run_block(block, page, folder, namespace):
    """Run one block of whatever kind; give what it printed."""
    if block.language == "python":
        printed = io.StringIO()
        code = compile("\n" * block.line + block.text, str(page), "exec")
        with contextlib.redirect_stdout(printed):
            exec(code, namespace)  # noqa: S102  # our own page
        return printed.getvalue()
    if block.language in SHELL:
        return run_shell(block, folder)
    assert block.language in READ, f"line {block.line}: say what this block is: {block.language!r}"
    READ[block.language](block.text)
    return ""


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """The folder that ``make demo`` leaves: a model, its data and a list of ids."""
    from examples.demo import write_demo

    folder = tmp_path_factory.mktemp("page") / "demo"
    write_demo(folder)
    return folder


@pytest.mark.filterwarnings("ignore:::lightning")  # about itself, and about workers
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_of_a_page_does_what_the_page_says(page, tmp_path, monkeypatch, request):
    """A first example that fails is the last that a newcomer tries."""
    blocks = blocks_of(page.read_text())
    if any("demo/" in block.text for block in blocks if block.language in {"python", *SHELL}):
        shutil.copytree(request.getfixturevalue("demo"), tmp_path / "demo")
    monkeypatch.chdir(tmp_path)
    namespace, printed, compared = {"__name__": "__main__"}, "", True
    for block in blocks:
        assert "not run" not in block.notes or block.note("not run"), f"line {block.line}: why?"
        if block.note("not run"):
            printed, compared = "", True
        elif block.language == "text" and not compared:
            wrong = differences(block.text, printed, block.tolerance())
            assert not wrong, f"line {block.line}: {wrong}"
            compared = True
        else:
            printed = run_block(block, page, tmp_path, namespace)
            compared = block.language not in {"python", *SHELL}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(page):
    """A page that points at nothing was written before the thing it describes was moved."""
    inline = [t for t in MarkdownIt().parse(page.read_text()) if t.type == "inline"]
    links = [t.attrs.get("href") or t.attrs.get("src") for i in inline for t in i.children]
    files = [link.split("#")[0] for link in links if link and ":" not in link]
    missing = [name for name in files if name and not (page.parent / name).exists()]
    assert not missing


@pytest.mark.parametrize(
    ("expected", "printed", "agree"),
    [
        ("accuracy 0.91", "accuracy 0.90", True),
        ("accuracy 0.91", "accuracy 0.88", False),
        ("gap \N{MINUS SIGN}0.01", "gap 0.005", True),
        ("91 % kept", "90 % kept", True),
        ("91.0% kept", "88.4% kept", False),
        ("20 records", "21 records", False),
        ("took 12.3 s", "took 4 s", True),
        ("digit-0007 left", "digit-0008 left", False),
        ("│ a │ 0.50 │\n├──┼──┤", "│ a  │ 0.51 │\n├───┼───┤", True),
        ("wrote … in 3 s", "wrote a, b in 5 s", True),
        ("forget 0.10", "retain 0.10", False),
        ("0.10 and more", "0.10", False),
    ],
)
def test_numbers_agree_within_their_tolerance_and_words_exactly(expected, printed, agree):
    """The comparison must be able to fail, and must not fail on another machine's speed."""
    assert (not differences(expected, printed)) is agree


def test_a_tolerance_holds_for_all_numbers_of_the_block_right_below_it():
    """A page that shows counts of a training may say how far they wander."""
    assert not differences("17 of 20 at 0.5", "19 of 20 at 0.9", tolerance=2)
    assert differences("17 of 20", "20 of 20", tolerance=2)
    page = "<!-- tolerance: 0.3 -->\n\n```text\na\n```\n\nwords\n\n```python\nb\n```\n"
    first, second = blocks_of(page)
    assert (first.tolerance(), second.tolerance()) == (0.3, None)
    assert (first.language, second.language, second.line) == ("text", "python", 9)


def test_a_command_that_a_reader_could_not_run_is_refused(tmp_path):
    """``efface`` alone is not on the path after ``make demo``."""
    for command in ("efface forget demo/model", "make coffee"):
        with pytest.raises(AssertionError, match=r"could not run this|coffee"):
            run_command(command, tmp_path)
    assert run_command("make demo  # set up and tell the story", tmp_path) == (0, "")
