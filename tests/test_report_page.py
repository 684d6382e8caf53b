"""The page in a browser: it opens without a complaint, shows its figures, asks for nothing."""

import copy
import json
import os
import re
import shutil
import subprocess

import pytest
import torch

from efface.report import collect, render
from efface.types import Split

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
FIGURES = ("margin", "entropy", "classes", "tensors")
RULER = """<script>addEventListener("load", () => {
  const sizes = [...document.querySelectorAll("svg[data-figure]")].map(s => {
    const box = s.getBoundingClientRect();
    return [s.dataset.figure, box.width, box.height, s.querySelectorAll("path").length]});
  const root = document.documentElement;
  document.body.dataset.ruler = JSON.stringify(
    {sizes, wide: root.scrollWidth, window: innerWidth});
})</script></body>"""


@pytest.fixture(scope="module")
def browser():
    """The first browser at hand; without one the test says it is skipped."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        pytest.skip("NOT RUN: no Chromium here; install one to see the page opened")
    return found


@pytest.fixture(scope="module")
def page(tiny_net, digits, tmp_path_factory):
    """A whole report: tier T2, ids and classes that try to be more than text."""
    student = copy.deepcopy(tiny_net)
    with torch.no_grad():
        student[-1].bias += torch.linspace(-1, 1, 10)
    parts = [digits.take(r) for r in (range(40), range(300, 400), range(40, 300))]
    names = ["<img src=x>", "$y_{", *map(str, range(2, 10))]
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render(collect(tiny_net, student, Split(*parts), classes=names), {}), "utf-8")
    return path


def _opened(browser, path, tmp_path, *flags):
    """(what the browser made of the page, its console lines, the addresses that it asked for)."""
    log = tmp_path / "net.json"
    run = subprocess.run(
        [
            browser,
            *FLAGS,
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--log-net-log={log}",
            *flags,
            "--dump-dom",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    console = [line for line in run.stderr.splitlines() if ":CONSOLE" in line]
    return run.stdout, console, _asked_for(log.read_text("utf-8"))


def _asked_for(log):
    """Addresses that the page asked for; what the browser asks on its own has no origin."""
    found = set()
    for line in log.splitlines():
        if '"initiator"' in line and '"url"' in line:
            params = json.loads(line.strip().rstrip(",]"))["params"]
            own = params["initiator"] == "not an origin"
            found |= {params["url"]} if not own else set()
    return sorted(url for url in found if not url.startswith(("file:", "data:")))


def test_the_page_opens_without_a_complaint_or_a_request(browser, page, tmp_path):
    """No console line, no address asked for, every figure there."""
    shown, console, asked = _opened(browser, page, tmp_path)
    assert console == []
    assert asked == []
    assert [name for name in FIGURES if f'data-figure="{name}"' in shown] == list(FIGURES)
    assert "Record by record" in shown


def test_a_bad_page_would_be_noticed(browser, tmp_path):
    """The control of the test above: a script that fails and a picture from elsewhere are seen."""
    path = tmp_path / "bad.html"
    path.write_text("<script>nothing()</script><img src='http://picture.invalid/a.png'>", "utf-8")
    _, console, asked = _opened(browser, path, tmp_path)
    assert any("nothing is not defined" in line for line in console)
    assert "http://picture.invalid/a.png" in asked


@pytest.mark.parametrize("width", [500, 1200])
def test_the_figures_have_a_size_and_nothing_sticks_out(browser, page, tmp_path, width):
    """A copy with a ruler in it: each figure is drawn, and the page is no wider than the window."""
    policy = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
    copied = tmp_path / "copy.html"
    text, removed = policy.subn("", page.read_text("utf-8"))
    copied.write_text(text.replace("</body>", RULER), "utf-8")
    assert removed == 1
    shown, console, _ = _opened(browser, copied, tmp_path, f"--window-size={width},1000")
    assert console == []
    found = re.search(r'data-ruler="([^"]+)"', shown)
    measured = json.loads(found[1].replace("&quot;", '"'))
    assert [name for name, *_ in measured["sizes"]] == list(FIGURES)
    for _, wide, tall, paths in measured["sizes"]:
        assert wide > 300
        assert tall > 100
        assert paths > 5
    assert measured["wide"] <= measured["window"]


def test_ids_and_names_that_look_like_tags_stay_text(browser, page, tmp_path):
    """What the browser built holds no picture."""
    shown, _, _ = _opened(browser, page, tmp_path)
    assert "<img" not in shown
    assert "&lt;img src=x&gt;" in shown
