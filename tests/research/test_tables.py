"""Every committed page is what its committed records make, byte for byte."""

import json

import pytest

from research import tables
from research.tables import PAGES, RESULTS, build

SLOW = {"information"}  # resamples groups for a minute
NAMES = [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in PAGES]


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_built_from_its_records_alone(name):
    text = (RESULTS / f"{name}.md").read_text()
    assert build(name) == text
    assert "Records made at commit " in text


def test_every_committed_page_has_its_records():
    pages = {path.relative_to(RESULTS).with_suffix("").as_posix() for path in RESULTS.rglob("*.md")}
    assert pages == {*PAGES}


def test_what_was_measured_is_written_with_its_origin_and_page(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    cells = json.loads((RESULTS / "kinds.json").read_text())["cells"]
    tables.write_record("kinds", "kinds", {"seed": 0, "forget": 20, "cells": cells})
    record = json.loads((tmp_path / "kinds.json").read_text())
    assert record["command"] == "python -m research.benchmarks.kinds"
    assert set(record) == {"command", "date", "commit", "versions", "seed", "forget", "cells"}
    page = (tmp_path / "kinds.md").read_text()
    assert f"Records made at commit {record['commit']} by `{record['command']}`; table" in page
    assert page == build("kinds")
    assert not tables.rebuild("kinds")
