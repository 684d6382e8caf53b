"""Rows hold their level where nothing is to find, and each test detects a case made for it."""

import pytest

from efface.metrics.intervals import clopper_pearson
from efface.report.tests import TESTS
from research.benchmarks.null_pages import KINDS, REASONS, REQUEST, drawn, ks_distance
from research.benchmarks.null_pages_show import APART, OF_ROWS, best, level
from research.tables import read_record

RECORD = read_record("null_pages")
EXACT = {key for found in RECORD["power"]["models"].values() for key, hit in found.items() if hit}
DETECTING = [test for test in TESTS if test.key not in EXACT | {*REASONS}]


@pytest.mark.parametrize("test", DETECTING, ids=lambda test: f"{test.key}-{test.multiclass}")
def test_every_test_of_the_report_detects_an_obvious_case_or_it_is_said_why_not(test):
    for kind in KINDS if test.multiclass is False else ("multiclass",):
        found = best(RECORD["power"], test, kind)
        assert found, kind
        hits, judged, _ = found[2][-1]
        assert hits > 0.8 * judged


def test_no_row_of_a_whole_report_is_without_a_line():
    simulated = {key for case in RECORD["power"]["cases"] for key in case["rows"]}
    shown = simulated | EXACT | {*REASONS, *OF_ROWS, "precision", "residual"}
    rows = {key for case in RECORD["pages"]["cases"] for key in case["rows"]}
    assert not {key for key in rows if not {key, key.split(".")[0]} & shown}
    assert {*REASONS} <= {test.key for test in TESTS}


@pytest.mark.parametrize("part", ["arrays", "requests"])
def test_no_row_and_no_page_is_flagged_more_often_than_its_level(part):
    """Each case's interval is at a level that all cases and rows share."""
    cases, apart = RECORD[part]["cases"], {*APART} - {"page"}
    for case in cases:
        for key, (hits, judged, _) in case["rows"].items():
            low, _ = clopper_pearson(hits, judged, level=1 - 0.05 / len(cases) / len(case["rows"]))
            assert key in apart or low <= level(key), (case, key)


def test_a_case_is_the_same_each_time_and_an_obvious_one_is_flagged():
    settings = {**REQUEST, "forget": 20, "draws": 2}
    nothing, again = (drawn(settings, {}, None).statistics for _ in range(2))
    case = {**settings, "case": "memorised: +3 standard deviations"}
    assert nothing == again
    assert drawn(case, {}, None).statistics["rows"]["page"] == [2, 2, 0]


def test_the_distance_without_its_p_is_the_distance():
    from numpy.random import default_rng

    from efface.metrics.equivalence import ks

    draw = default_rng(0)
    ours, theirs = draw.integers(0, 9, 20) * 1.0, draw.integers(0, 9, 31) * 1.0
    assert ks_distance(ours, theirs)[0] == pytest.approx(ks(ours, theirs)[0])
