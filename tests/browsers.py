"""A page in a browser: what it made of it, what it complained about, what it requested."""

import json
import os
import shutil
import subprocess

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
FLAGS += ["--enable-logging=stderr", "--host-resolver-rules=MAP * ~NOTFOUND"]
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
    """The first browser that is installed; without one the test says it is skipped."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        pytest.skip("NOT RUN: no Chromium here; install one to see the page opened")
    return found


def opened(browser, path, tmp_path, *flags):
    """(what the browser made of the page, its console lines, the addresses that it requested)."""
    log = tmp_path / "net.json"
    own = (f"--user-data-dir={tmp_path / 'profile'}", f"--log-net-log={log}")
    command = [browser, *FLAGS, *own, *flags, "--dump-dom", path.as_uri()]
    env = {**os.environ, "HOME": str(tmp_path)}
    how = {"capture_output": True, "text": True, "timeout": 120}
    run = subprocess.run(command, env=env, check=True, **how)
    console = [line for line in run.stderr.splitlines() if ":CONSOLE" in line]
    return run.stdout, console, requested(log.read_text("utf-8"))


def requested(log):
    """Addresses that the page requested; what the browser requests on its own has no origin."""
    found = set()
    for line in log.splitlines():
        if '"initiator"' in line and '"url"' in line:
            params = json.loads(line.strip().rstrip(",]"))["params"]
            if params["initiator"] != "not an origin":
                found.add(params["url"])
    return sorted(url for url in found if not url.startswith(("file:", "data:")))
