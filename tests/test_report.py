"""The page: says what was done and what can be said, hides nothing, needs nothing else."""

import copy
import html
import json
import re
from dataclasses import replace

import pytest
import torch

from efface.report import Row, collect, render, write
from efface.report.report import headline, shown
from efface.types import Records, Split

RECORD = {
    "schema": 1,
    "versions": {"efface": "9.9.9"},
    "method": "neighbourhood",
    "settings": {"strength": 0.7, "steps": 40},
    "seed": 5,
    "guard": {"failed": None, "budgets": {"utility": 0.02}, "drift": float("nan")},
    "seconds": {"method": 1.25, "settle": 0.0},
    "command": "efface forget MODEL --data DATA --ids ids.csv --out OUT",
}
FORBIDDEN = ("certified", "verified", "guaranteed", "erased", "compliant")


@pytest.fixture(scope="module")
def evidence(tiny_net, digits):
    """The tiny net, its last layer moved a little; tier T2."""
    student = copy.deepcopy(tiny_net)
    with torch.no_grad():
        student[-1].bias += torch.linspace(-1, 1, 10)
    parts = [digits.take(r) for r in (range(40), range(300, 400), range(40, 300))]
    return collect(tiny_net, student, Split(*parts), classes=[f"digit {c}" for c in range(10)])


def _text(page):
    """The words of the page without its styles, figures and tags."""
    bare = re.sub(r"<(style|svg).*?</\1>", " ", page, flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]+>", " ", bare))


def _numbers(value):
    """Every number in a JSON value."""
    if isinstance(value, dict):
        return [n for part in value.values() for n in _numbers(part)]
    if isinstance(value, list):
        return [n for part in value for n in _numbers(part)]
    return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else []


def test_every_test_stands_on_the_page_with_its_numbers(evidence):
    """Whoever reads the page alone must miss no row of evidence.json."""
    text = " ".join(_text(render(evidence, RECORD)).split())
    for row in evidence.rows:
        assert row.name in text
        assert row.note in text
        if row.status != "not run":
            assert row.verdict in text
            for value in (row.before, row.after, row.target, *(row.interval or ())):
                assert " ".join(shown(value, row.unit).split()) in text


def test_every_number_in_a_table_stands_in_the_json(evidence):
    """The page shows nothing that a program could not check."""
    page = render(evidence, RECORD)
    cells = re.findall(r'<td class="n[^"]*"[^>]*>([^<]*)</td>', page)
    known = {
        shown(float(number), unit)
        for number in _numbers(evidence.as_json())
        for unit in ("share", "nats", "count")
    }
    known |= {str(number) for number in _numbers(evidence.as_json())}
    parts = {part for cell in cells for part in html.unescape(cell).split(" to ")}
    words = {"as before", "few", "like unseen", "above 0.5", "T0", "T1", "T2", "T3", "T4", "–"}
    assert len(parts) > 60
    assert not parts - known - words


def test_the_top_says_what_was_asked_and_done_and_what_the_tier_can_say(evidence):
    """In words for a reader who knows no statistics; the limits stand there too."""
    text = " ".join(_text(render(evidence, RECORD)).split())
    for words in (
        "efface 9.9.9",
        "neighbourhood, strength 0.7",
        "What tier T2 can say",
        "The method is approximate.",
        "assumes an honest operator",
        "ends with the next fine-tuning",
        "Keep exclude.csv",
        "The old model still knows the records",
        "The ids of the forget records stand here",
        RECORD["command"],
    ):
        assert words in text


def test_no_word_promises_more_than_was_measured(evidence):
    """The method is approximate: these words are kept for what is not."""
    for outcome in ("done", "not met"):
        page = _text(render(replace(evidence, outcome=outcome), RECORD)).lower()
        assert not [word for word in FORBIDDEN if word in page]


def test_the_page_needs_nothing_else(evidence):
    """No script, no address but those that name a format, and a policy that lets nothing load."""
    page = render(evidence, RECORD)
    addresses = set(re.findall(r"https?://[^\"'\s<>]+", page))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "<script" not in page
    assert "default-src 'none'" in page
    assert page.count("<svg") == 4
    assert 'name="viewport"' in page
    assert "@media print" in page
    assert "prefers-color-scheme:dark" in page


def test_no_two_elements_share_an_id(evidence):
    """Figures refer to their parts by id: a shared one would draw the wrong part."""
    ids = re.findall(r' id="([^"]+)"', render(evidence, RECORD))
    assert len(ids) == len(set(ids))


def test_the_figures_take_the_colours_of_the_page(evidence):
    """A colour of its own would be lost in the dark or in print."""
    svgs = re.findall(r"<svg.*?</svg>", render(evidence, RECORD), flags=re.DOTALL)
    assert not [c for svg in svgs for c in re.findall(r"#[0-9a-fA-F]{6}\b", svg)]


def test_the_same_evidence_gives_the_same_page(evidence):
    """Byte for byte: a page can be made again from its JSON's run and compared."""
    assert render(evidence, RECORD) == render(evidence, RECORD)


def test_ids_and_class_names_are_text_and_nothing_else(tiny_net, digits):
    """An id comes from the data: it must not become part of the page, nor of a formula."""
    few = digits.take(range(3))
    nasty = ("<script>alert(1)</script>", "$\\frac{", "日本 & 'x'")
    forget = Records(few.x, few.y, nasty)
    names = ["$x_{$", "<b>bold</b>", "三", *map(str, range(3, 10))]
    found = collect(tiny_net, tiny_net, Split(forget, digits.take(range(300, 400))), classes=names)
    page = render(found, {"method": "<i>m</i>", "command": "</code><script>"})
    assert "<script" not in page
    assert "<b>bold" not in page
    assert "<i>m" not in page
    assert all(identity in _text(page) for identity in nasty)


def test_a_long_list_in_the_record_is_cut(evidence):
    """A keyed hash for each of 5,000 records would bury the page; manifest.json holds them."""
    text = _text(render(evidence, {"keyed_hashes": [f"h{row}" for row in range(50)]}))
    assert "h9, and 40 more in manifest.json" in text


def test_a_bare_record_is_said_not_to_be_recorded(evidence):
    """The page must come out whatever the run could write down."""
    for record in ({}, {"guard": None, "versions": None, "request": [], "settings": "odd"}):
        assert "Method not recorded" in " ".join(_text(render(evidence, record)).split())


def test_a_long_list_is_cut_and_says_so(tiny_net, digits):
    """200 rows are enough for a page; the count of the rest stands beside them."""
    found = collect(tiny_net, tiny_net, Split(digits.take(range(260))))
    page = render(found, {})
    assert page.count('<td class="id">') == 200
    assert "60 more records are left out here; evidence.json holds all." in " ".join(
        _text(page).split()
    )
    assert len(found.as_json()["records"]) == 260


def test_a_crashed_test_is_red_on_the_page(evidence):
    """And says why, in the place where it would have stood."""
    broken = Row("k", "A broken test", "unseen", "T1", status="red", verdict="crashed", note="why")
    page = render(replace(evidence, rows=(*evidence.rows, broken)), {})
    assert '<tr class="red"><th scope="row">A broken test<span class="note">why</span>' in page
    assert "■ red" in page


def test_a_request_that_was_not_met_says_so_first(tiny_net, digits):
    """With the guard's reason, and without a column for a model that does not exist."""
    split = Split(digits.take(range(20)), digits.take(range(300, 400)))
    found = collect(tiny_net, None, split, outcome="not met")
    page = render(found, {"guard": {"failed": "6 halvings of the step did not help, drift 2"}})
    text = " ".join(_text(page).split())
    assert "The request was not met. There is no new model; the old one stands unchanged." in text
    assert "6 halvings of the step did not help, drift 2" in text
    assert "Answer now" not in text


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("still recognised", "still recognises"),
        ("forgotten too far", "forgotten too far"),
        ("void", "says nothing here"),
        ("too few records to tell", "too few records"),
        ("not recognised", "(weak) membership attack"),
        ("stands out from unseen", "how sure it is"),
        ("crashed", "could not be run"),
    ],
)
def test_the_headline_follows_the_attack(evidence, verdict, words):
    """The sentence that most will read must not be kinder than the row."""
    rows = tuple(
        replace(row, verdict=verdict) if row.key == "attack.loss" else row for row in evidence.rows
    )
    assert words in headline(replace(evidence, rows=rows))[1]


def test_two_files_are_written(evidence, tmp_path):
    """The page beside its two machine-readable twins, both without NaN."""
    write(tmp_path, evidence, RECORD)
    assert {path.name for path in tmp_path.iterdir()} == {
        "evidence.json",
        "report.html",
    }
    assert json.loads((tmp_path / "evidence.json").read_text("utf-8")) == evidence.as_json()
    assert (tmp_path / "report.html").read_text("utf-8") == render(evidence, RECORD)


def test_a_notebook_shows_the_page(evidence):
    """Without a record of the run there is still the evidence."""
    shown = evidence._repr_html_()
    assert evidence.row("forget.accuracy").name in shown
    assert "<style" not in shown
    assert "<script" not in shown
