"""The documentation as a site: it builds strictly, its links lead somewhere, nothing leaves."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import efface
from efface.methods import BUILT_IN

ROOT = Path(__file__).parent.parent
# what a browser fetches without a click: the attribute by element
FETCHED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}


class Page(HTMLParser):
    """The ids of a page, what it links to, and what a browser fetches to show it."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.fetched = set(), [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.ids |= {attributes.get("id"), attributes.get("name")}
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        # rel=canonical and the like are not fetched
        shown = attributes.get("rel") in {None, "stylesheet", "icon", "preload", "preconnect"}
        if shown and attributes.get(FETCHED.get(tag)):
            self.fetched.append(attributes[FETCHED[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site, built as ``make docs`` builds it; a warning is an error there."""
    folder = tmp_path_factory.mktemp("site")
    path = os.pathsep.join([str(ROOT / "src"), *sys.path])
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": path}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False, **pipes)
    assert done.returncode == 0, done.stdout
    return folder


@pytest.fixture(scope="module")
def pages(site):
    """Every page by its path."""
    return {path: Page(path) for path in site.rglob("*.html")}


def test_every_link_of_the_site_leads_to_a_page_and_a_heading_of_it(site, pages):
    """Anchors change with headings, and nobody clicks on all of them."""
    wrong = []
    for path, page in pages.items():
        for link in page.links + page.fetched:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            root = site if parts.path.startswith("/") else path.parent
            target = (root / unquote(parts.path).lstrip("/")).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            anchor = unquote(parts.fragment)
            headings = pages[target].ids if target in pages else {anchor}
            if not target.exists() or (anchor and anchor not in headings):
                wrong.append(f"{path.relative_to(site)}: {link}")
    assert not wrong


def test_no_page_fetches_anything_from_elsewhere(site, pages):
    """Who reads about erasure is nobody else's business, and trains have no network."""
    outside = {url for page in pages.values() for url in page.fetched if "//" in url[:8]}
    for sheet in site.rglob("*.css"):
        outside |= set(re.findall(r"(?:url\(|@import )['\"]?(?:https?:)?//\S+", sheet.read_text()))
    assert not outside


def test_lists_and_tables_are_not_left_as_text(pages):
    """Python-Markdown wants empty lines that GitHub does not, or a list is a paragraph."""
    raw = re.compile(r"<p>[^<]*(?:\n- |\n\d\. |\|---)")
    assert not {path.name for path in pages if raw.search(path.read_text(encoding="utf-8"))}


def test_the_commands_are_called_by_their_name(site):
    text = re.sub(r"<[^>]*>", "", (site / "cli.html").read_text(encoding="utf-8"))
    assert "efface forget --data" in text
    assert "mkdocs --data" not in text


def test_every_method_is_in_the_table_and_every_public_name_on_the_page_of_names(site, pages):
    """What is not there is not found."""
    table = (site / "choosing.html").read_text(encoding="utf-8").split("All methods", 1)[1]
    rows = re.findall(r'<td><a href="methods.html#(\w+)">', table)
    assert set(rows) == set(BUILT_IN)
    names = {one.rsplit(".", 1)[1] for one in pages[site / "api.html"].ids if one and "." in one}
    assert set(efface.__all__) - {"__version__"} <= names
