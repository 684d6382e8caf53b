"""What efface never writes: promises about results, and the machine it was made on."""

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
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
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def promises(text):
    """The sentences that use a forbidden word, the law itself left out."""
    sentences = re.split(r"(?<=[.!?:])\s+|\n\s*\n|\|", text)
    found = {sentence: {w.lower() for w in PROMISES.findall(sentence)} for sentence in sentences}
    return [sentence for sentence, words in found.items() if words and len(words) < LAW]


def strings(path):
    """Every string that a Python file holds, docstrings included."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]


def test_no_page_promises_more_than_was_shown():
    """One such word in a report is quoted for years; the tiers say what can be said."""
    pages = tracked("*.md", "*.html", "*.jinja", "*.j2", "*.css", "*.js")
    found = {page.name: said for page in pages if (said := promises(page.read_text()))}
    assert not found


def test_no_string_in_the_library_promises_more_than_was_shown():
    """Messages, docstrings and table heads are read as promises too."""
    found = {
        path.name: said
        for path in tracked("src/*.py")
        if (said := [s for text in strings(path) for s in promises(text)])
    }
    assert not found


@pytest.mark.parametrize("word", ["certified", "Verified", "GUARANTEED", "erased", "compliant"])
def test_a_promise_is_noticed(word):
    """The check must be able to fail."""
    assert promises(f"All is well. The records are {word} now.") == [f"The records are {word} now."]


def test_the_sentence_that_forbids_the_words_may_name_them():
    """Otherwise the law could not be written down."""
    assert not promises("Never write certified, verified, guaranteed, erased, compliant. Good.")


def test_no_file_speaks_of_the_machine_it_was_made_on():
    """Paths and hosts of one machine mean nothing on another, and tell what they should not."""
    found = {}
    for path in tracked():
        if b"\0" in (content := path.read_bytes())[:8000]:
            continue
        if hits := MACHINE.findall(content.decode(errors="replace")):
            found[str(path.relative_to(ROOT))] = hits
    assert not found


@pytest.mark.parametrize("text", ["cd " + "/home" + "/me", '"' + "/root" + '/x"'])
def test_a_machine_path_is_noticed(text):
    """The check must be able to fail."""
    assert MACHINE.search(text)
