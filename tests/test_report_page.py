"""The page: says what was done and what is known, hides nothing, needs nothing else."""

import copy
import csv
import html
import json
import os
import re
import subprocess
from dataclasses import replace

import pytest
import torch

from efface.errors import Outcome
from efface.report import Status, Verdict, collect
from efface.report.figures import MAX_BARS, MINUS, figures
from efface.report.html import linked
from efface.report.runner import attack_coverage
from efface.report.tests import TESTS
from efface.report.text import SENTENCES, formatted, headline, unknown
from efface.types import Records, Split
from tests.browsers import FLAGS, RULER, opened

MANIFEST = {"schema": 2, "versions": {"efface": "9.9.9"}, "method": "neighbourhood", "seed": 5}
MANIFEST |= {"settings": {"strength": 0.7}, "guard": {"failed": None, "drift": float("nan")}}
MANIFEST |= {"seconds": {"method": 1.25}, "command": "efface forget MODEL --data DATA"}
MANIFEST |= {"date": "2026-11-30T18:02:11+00:00", "note": "DSR-7", "weights": {"old": "a" * 64}}
MANIFEST |= {"arguments": {"old": "my/model", "data": "my/data"}, "data": {"digest": "d" * 64}}
MANIFEST |= {"request": {"named": "--ids ids.csv"}}
FORBIDDEN = ("certified", "verified", "guaranteed", "erased", "compliant")
ATTACKS = ["membership inference", "attribute inference", "exfiltration", "regurgitation"]
ATTACKS += ["model inversion", "reconstruction"]
PROMISED = """efface 9.9.9|neighbourhood, strength 0.7|method 1.2|What tier T2 can show|
Date 2026-11-30 18:02:11 UTC|Case DSR-7|my/model: aaaaaaaaaaaaaaaa|my/data: dddddddddddddddd|
Records asked for --ids ids.csv|Records found 40|Who may publish what|(black box)|(white box)|
Opinion 28/2024 of the European Data Protection Board|What is not known|The old model: every copy|
The method is approximate. Nothing here is a promise|assumes an honest operator|
What must still be deleted elsewhere|exclude.csv, the list for the next training run: nobody|
not after further fine-tuning, merging or quantisation"""
FIGURES = ["logit_margin", "entropy", "tensors", "classes"]


@pytest.fixture(scope="module")
def parts(digits):
    """Forget, holdout, retain."""
    return [digits.take(rows) for rows in (range(40), range(300, 400), range(40, 300))]


def biased(net, scale):
    student = copy.deepcopy(net)
    student[-1].bias.data += torch.linspace(-scale, scale, 10)
    return student


@pytest.fixture(scope="module")
def report(tiny_net, parts):
    """Tier T2."""
    names = [f"digit {c}" for c in range(10)]
    return collect(tiny_net, biased(tiny_net, 1), Split(*parts), classes=names)


def text_of(page):
    """The words of the page without its styles, figures and tags."""
    bare = re.sub(r"<(style|svg).*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", bare)).split())


def first_part(page):
    return page.partition("Appendix: for auditing")[0]


def numbers_in(value):
    """Every number in a JSON value."""
    if isinstance(value, (dict, list)):
        parts = value.values() if isinstance(value, dict) else value
        return [n for part in parts for n in numbers_in(part)]
    return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else []


def test_every_row_is_on_the_page_with_its_numbers(report):
    text = text_of(report.to_html(MANIFEST))
    for row in report.rows:
        assert row.name in text
        assert row.note in text
        if row.status is not Status.NOT_RUN:
            assert row.verdict.words in text
            for value in (row.before, row.after, row.reference, *(row.interval or ())):
                assert " ".join(formatted(value, row.unit).split()) in text


def test_every_number_in_a_table_is_in_the_json(report):
    cells = re.findall(r'<td class="n[^"]*"[^>]*>([^<]*)</td>', report.to_html(MANIFEST))
    numbers = numbers_in(report.to_json())
    known = {formatted(float(n), unit) for n in numbers for unit in ("share", "nats", "count")}
    parts = {part for cell in cells for part in html.unescape(cell).split(" to ")}
    words = {"unchanged", "few", "as unseen", "above 0.5", "T0", "T1", "T2", "T3", "T4", "–"}
    assert len(parts) > 60
    assert not parts - known - set(map(str, numbers)) - words


def test_the_first_part_has_request_run_results_controls_power_and_limits(report):
    """In words, before any of the engineer's tables; the numbers are those of the rows."""
    text = text_of(first_part(report.to_html(MANIFEST)))
    attack, power = report.row("attack.loss"), report.row("power.auc")
    ends = " to ".join(f"{end:.3g}" for end in attack.interval)
    result = f"{attack.verdict.words} : {attack.name}, {attack.after:.3g} ({ends}), reference 0.5"
    assert result in text.replace(" ,", ",")
    for name in ("positive", "negative"):
        words = report.row(f"control.{name}").verdict.words
        assert f"{name.capitalize()} control : {words}" in text
    assert f"{power.name} : {power.after:.3g}" in text
    assert not [words for words in PROMISED.replace("\n", "").split("|") if words not in text]


def test_every_finding_links_to_its_row(report):
    """Each link of the page has its target; a name of a row in a sentence is a link."""
    page = report.to_html(MANIFEST)
    links = set(re.findall(r'href="#([^"]+)"', page))
    assert links <= set(re.findall(r' id="([^"]+)"', page))
    marks = (Status.FLAGGED, Status.INCONCLUSIVE)
    behind = {row.key for row in report.rows if row.status in marks}
    behind |= {*report.attacks[0].rows, *report.attacks[0].controls, "holdout.accuracy"}
    assert {f"row-{key}" for key in behind} <= links
    assert linked("<i> a row b", {"a row": "x", "a": "y"}) == '&lt;i&gt; <a href="#x">a row</a> b'


def test_what_had_too_few_records_is_one_line(tiny_net, parts):
    report = collect(tiny_net, biased(tiny_net, 1), Split(parts[0].take(range(1)), *parts[1:]))
    few = [row for row in report.rows if row.verdict is Verdict.TOO_FEW_RECORDS]
    marked = report.to_html().partition('id="flagged"')[2].partition("</ul>")[0]
    assert len(few) > 5
    assert marked.count(Verdict.TOO_FEW_RECORDS.words) == 1
    assert not [row.key for row in few if f"#row-{row.key}" not in marked]


def test_the_page_names_the_records_that_are_better_known_than_before(report):
    page = report.to_html(MANIFEST)
    risen = [one["id"] for one in report.records if one["logit_margin_change"] > 0]
    assert risen
    named = page.partition("The logit margin rose most for ")[2].partition("</p>")[0]
    assert sum(name in named for name in risen) == min(10, len(risen))
    assert not [name for name in risen if name in str(report)]


def test_no_word_promises_more_than_was_measured(report):
    for one in (report, replace(report, outcome=Outcome.NOT_MET)):
        page = text_of(one.to_html(MANIFEST)).lower()
        assert not [word for word in FORBIDDEN if word in page]


def test_the_page_needs_nothing_else_and_is_the_same_each_time(report):
    """No script, no address but those that name a format, and a policy that lets nothing load."""
    page = report.to_html(MANIFEST)
    addresses = set(re.findall(r"https?://[^\"'\s<>]+", page))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "<script" not in page
    needed = "default-src 'none'", 'name="viewport"', "@media print", "color-scheme:dark"
    assert all(text in page for text in needed)
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    svgs = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(svgs) == 4
    assert not [colour for svg in svgs for colour in re.findall(r"#[0-9a-fA-F]{6}\b", svg)]
    assert page == report.to_html(MANIFEST)


def test_ids_and_class_names_are_text_and_nothing_else(tiny_net, digits, tmp_path):
    """An id comes from the data: it must not become part of the page, nor of a formula."""
    few = digits.take(range(4))
    nasty = ("<script>alert(1)</script>", "$\\frac{", "日本 & 'x'", "=1+1")
    split = Split(Records(few.x, few.y, nasty), digits.take(range(300, 400)))
    names = ["$x_{$", "<b>bold</b>", "三", *map(str, range(3, 10))]
    report = collect(tiny_net, tiny_net, split, classes=names)
    page = report.to_html({"method": "<i>m</i>", "command": "</code><script>"})
    assert not [tag for tag in ("<script", "<b>bold", "<i>m") if tag in page]
    assert all(identity in text_of(page) for identity in nasty)
    report.save(tmp_path)
    with (tmp_path / "records.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [*nasty[:3], "'=1+1"]
    assert [row.keys() for row in rows] == [one.keys() for one in report.records]
    margins = [one["logit_margin_after"] for one in report.records]
    assert [float(row["logit_margin_after"]) for row in rows] == margins


def test_long_lists_are_cut_and_say_so(tiny_net, digits):
    report = collect(tiny_net, tiny_net, Split(digits.take(range(260))))
    page = report.to_html({"keyed_hashes": [f"h{row}" for row in range(50)]})
    assert page.count('<td class="id">') == 200
    assert "60 more records are omitted here; records.csv holds all." in text_of(page)
    assert "h9, and 40 more" in text_of(page)
    assert len(report.to_json()["records"]) == 260


def test_what_a_manifest_lacks_is_called_not_recorded(report):
    odd = {"guard": None, "versions": None, "request": [], "settings": "odd"}
    for manifest in (None, {}, odd):
        assert "Method not recorded" in text_of(report.to_html(manifest))


def test_how_right_the_old_model_was_and_what_seemed_wrong_stand_on_the_first_part(report):
    checked = {"records": {"accuracy": 0.975, "sample": 40, "of": 40}}
    checked["others"] = {"accuracy": 0.5, "sample": 250, "of": 9000}
    found = [{"name": "class-order", "severity": "warn", "text": "Classes <3> and 8 swapped."}]
    found += [{"name": "batchnorm", "severity": "note", "text": "Statistics stay."}]
    page = report.to_html(MANIFEST | {"accuracy": checked, "findings": found})
    shown = text_of(first_part(page))
    right = "97.5 % of 40 records, 50.0 % of 250 of the 9000 other records (before the run)"
    assert f"The old model is right on {right}" in shown
    assert "What seemed wrong before the run: Classes <3> and 8 swapped." in shown
    assert "Statistics stay." not in shown


def test_a_request_that_was_not_met_says_so_first(tiny_net, parts):
    """With the guard's reason, and without a column for a model that does not exist."""
    report = collect(tiny_net, None, Split(*parts[:2]), reason="drift 2 above 1")
    page = report.to_html({"guard": {"failed": "6 halvings of the step did not help, drift 2"}})
    text = text_of(page)
    first = "Not met (tier T1): drift 2 above 1. There is no new model; the old one stands."
    assert first == report.summary == headline(report)[0]
    assert first in text
    assert "6 halvings of the step did not help, drift 2" in text
    assert "Prediction now" not in text
    assert report.attacks[0].why == "there is no new model"
    assert "tested" not in [attack.coverage for attack in report.attacks]


@pytest.mark.parametrize("name", SENTENCES["attack"])
def test_the_headline_follows_the_attack(report, name):
    """The sentence that most will read must not be kinder than the row."""
    verdict = Verdict[name.upper()]
    rows = [replace(r, verdict=verdict) if r.key == "attack.loss" else r for r in report.rows]
    assert headline(replace(report, rows=tuple(rows)))[2] == SENTENCES["attack"][name]


def test_the_appendix_says_how_to_reproduce_it(report):
    manifest = {"seed": 7, "versions": {"efface": "9.9", "torch": "8.8"}, "job": "score"}
    manifest |= {"arguments": {"old": "OLD"}, "weights": {"old": "a" * 64, "new": "b" * 64}}
    page = report.to_html(manifest)
    assert "Seed 7, efface 9.9, torch 8.8. efface score --replay" in text_of(page)
    assert "a" * 16 in first_part(page)
    assert ("What the second model still reveals" in page) > ("exclude.csv" in page)


# Each attack that the EDPB's Opinion 28/2024 names has its answer.


@pytest.mark.parametrize("n", [1, 2, 3])
def test_every_attack_of_the_opinion_has_an_answer_at_every_tier(tiny_net, parts, n):
    """In its order; what was not tested says why, what was tested has rows, controls and power."""
    report = collect(tiny_net, biased(tiny_net, 1), Split(*parts[:n]))
    assert [attack.attack for attack in report.attacks] == ATTACKS
    keys = {row.key for row in report.rows}
    for attack in report.attacks:
        assert bool(attack.why) is (attack.coverage != "tested")
        assert {*attack.rows, *attack.controls, *attack.power} <= keys
        tested = all([attack.rows, attack.controls, attack.power])
        assert tested is (attack.coverage == "tested")
    assert report.attacks[0].coverage == ("tested" if n > 1 else "not tested")


@pytest.mark.parametrize("name", ["DESCRIPTIVE", "CONTROL_FAILED", "DETECTED", "CRASHED"])
@pytest.mark.parametrize("key", ["attack.loss", "attack.entropy", "control.negative"])
def test_the_answer_is_as_bad_as_the_worst_row_behind_it(report, key, name):
    """A failed control is no calm."""
    rows = [replace(row, verdict=Verdict.DESCRIPTIVE) for row in report.rows]
    rows = [replace(row, verdict=Verdict[name]) if row.key == key else row for row in rows]
    coverage = attack_coverage(rows, "multiclass", has_new_model=True)[0]
    assert coverage.status is Verdict[name].status


def test_a_crashed_attack_is_an_error_row_and_an_error_on_both_parts_of_the_page(
    tiny_net, parts, monkeypatch
):
    """A missing line would read as: nothing detected."""

    def broken(_):
        raise ZeroDivisionError("by hand")

    tests = [replace(t, run=broken) if t.key == "attack.loss" else t for t in TESTS]
    monkeypatch.setattr("efface.report.runner.TESTS", tests)
    report = collect(tiny_net, biased(tiny_net, 1), Split(*parts))
    first, _, appendix = report.to_html().partition("Appendix: for auditing")
    row, why = report.row("attack.loss"), "ZeroDivisionError: by hand"
    assert (row.verdict, row.note, report.attacks[0].status) == (Verdict.CRASHED, why, Status.ERROR)
    assert '<tr class="error"><th scope="row">Membership inference ' in first
    assert f"crashed : {row.name} ({why})" in text_of(first)
    anchor = '<tr id="row-attack.loss" class="error">'
    assert f'{anchor}<th scope="row">{row.name}<span class="note">{why}' in appendix
    assert "■ error" in first


@pytest.mark.parametrize("kind", ["multiclass", "multilabel", "regression", "one of my own"])
def test_only_outputs_that_can_hold_no_record_make_regurgitation_not_applicable(report, kind):
    """A model of many values could repeat an input: nobody looked."""
    attacks = attack_coverage(report.rows, kind, has_new_model=True)
    coverage = {one.attack: one.coverage for one in attacks}["regurgitation"]
    assert coverage == ("not applicable" if kind.startswith("multi") else "not tested")


def test_what_is_not_known_shrinks_with_what_is_given(tiny_net, parts):
    """A retrained model is no longer missed once it is there; one alone leaves its floor open."""
    altered = biased(tiny_net, 1)
    bare = unknown(collect(tiny_net, altered, Split(parts[0])))
    report = collect(tiny_net, altered, Split(*parts), retrained=[altered])
    assert sum("requires" in line for line in bare) == 4
    assert "a second one" in " ".join(unknown(report))
    assert report.arrays["entropy"]["n"]["forget_retrained"] == 40
    assert len(unknown(report)) < len(bare)
    assert all(line in text_of(report.to_html()) for line in unknown(report))


# The bars of each class: what changed is drawn, whichever way, and what is not is counted.


def with_classes(report, changes, unseen=0, forgotten=()):
    """The report with classes of 50 unseen records each, changed by so many records."""
    classes = []
    for c, change in enumerate(changes):
        entry = {"class": c, "name": f"c-{c}", "forget_class": c in forgotten, "holdout_n": 0}
        if c < len(changes) - unseen:
            after = 0.5 + change / 50
            entry |= {"holdout_n": 50, "holdout_before": 0.5, "holdout_after": after}
        classes.append(entry)
    return replace(report, per_class=classes)


def bars_of(report):
    """(the classes that have a bar, downwards, and the number at each; the caption)."""
    figure = figures(report)["classes"]
    names = re.findall(r">([^<>]+), n = \d+<", figure["svg"])[::-1]
    values = re.findall(rf">([+{MINUS}]\d+\.\d)<", figure["svg"])[::-1]
    return list(zip(names, values, strict=True)), figure["caption"]


def test_each_class_that_changed_has_its_bar_the_worst_on_top(tiny_net, digits):
    """Against the numbers of the report itself, computed here once more; 3 is forgotten."""
    threes = digits.take((digits.y[:300] == 3).nonzero()[:, 0])
    split = Split(threes, digits.take(range(300, 400)), None, (3,))
    report = collect(tiny_net, biased(tiny_net, -3), split)
    bars, caption = bars_of(report)
    kept = [c for c in report.per_class if not c["forget_class"]]
    change = {c["name"]: 100 * (c["holdout_after"] - c["holdout_before"]) for c in kept}
    numbers = {name: float(value.replace(MINUS, "-")) for name, value in bars}
    assert numbers == {name: round(value, 1) for name, value in change.items() if value}
    assert list(numbers.values()) == sorted(numbers.values())
    assert min(numbers.values()) < 0 < max(numbers.values())
    assert caption.startswith(f"Drawn: {len(bars)} of 9 other classes. Not drawn: ")


def test_two_means_of_the_same_unseen_records_say_why_they_differ(report):
    """On the figure each record counts once, in the row each class as often as it is forgotten."""
    caption = figures(report)["logit_margin"]["caption"]
    assert "Unseen: the report's part of the holdout, each record once" in caption
    note = report.row("forget.logit_margin").note
    assert "weighted by class as the forget records are" in note


MANY = [0] * 43 + [-1] * 12 + [1] * 4 + [-9] * 4 + [7] * 20
ONE = [0] * 30 + [-2] + [0] * 52
CAPTIONS = {
    "Drawn: 24 of 83 classes. Not drawn: 12 that fell and 4 that rose, by 2.0 at most, 43 that did "
    "not change.": (MANY, {}, [f"{MINUS}18.0"] * 4 + ["+14.0"] * 20),
    "Drawn: 1 of 83 classes. Not drawn: 77 that did not change, 5 without holdout records.": (
        ONE,
        {"unseen": 5},
        [f"{MINUS}4.0"],
    ),
    "Changed: 0 of 8 classes. Not drawn: 2 without holdout records.": ([0] * 8, {"unseen": 2}, []),
    "Drawn: 1 of 2 other classes. Not drawn: 1 that did not change. Forget classes: "
    f"c-0 {MINUS}50.0 points.": ([-25, 1, 0], {"forgotten": (0,)}, ["+2.0"]),
}


@pytest.mark.parametrize("caption", CAPTIONS)
def test_what_is_not_drawn_is_counted(report, caption):
    """A class that did not change takes no bar, a forgotten one does not flatten the others."""
    changes, more, values = CAPTIONS[caption]
    drawn, text = bars_of(with_classes(report, changes, **more))
    assert len(drawn) <= MAX_BARS
    assert [value for _, value in drawn] == values
    assert text == caption


# The page in a browser: it opens without a complaint, shows its figures, requests nothing.


@pytest.fixture(scope="module")
def page(tiny_net, parts, tmp_path_factory):
    """A whole page: tier T2, classes that try to be more than text."""
    names = ["<img src=x>", "$y_{", *map(str, range(2, 10))]
    report = collect(tiny_net, biased(tiny_net, 1), Split(*parts), classes=names)
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(report.to_html(), "utf-8")
    return path


def test_the_page_opens_without_a_complaint_or_a_request(browser, page, tmp_path):
    """No console line, no address requested, every figure there, and tags in names stay text."""
    shown, console, urls = opened(browser, page, tmp_path)
    assert (console, urls) == ([], [])
    assert [name for name in FIGURES if f'data-figure="{name}"' in shown] == FIGURES
    assert "<img" not in shown
    assert "&lt;img src=x&gt;" in shown


def test_a_bad_page_would_be_noticed(browser, tmp_path):
    """The control of the test above: a script that fails and an image from elsewhere are seen."""
    path = tmp_path / "bad.html"
    path.write_text("<script>nothing()</script><img src='http://picture.invalid/a.png'>", "utf-8")
    _, console, urls = opened(browser, path, tmp_path)
    assert any("nothing is not defined" in line for line in console)
    assert "http://picture.invalid/a.png" in urls


def test_the_page_prints_on_four_sheets_with_numbers(browser, page, tmp_path):
    """Forty records, every row of tier T2; the whole appendix is left to the screen."""
    printed, own = tmp_path / "page.pdf", f"--user-data-dir={tmp_path / 'profile'}"
    command = [browser, *FLAGS, own, f"--print-to-pdf={printed}", page.as_uri()]
    how = {"env": {**os.environ, "HOME": str(tmp_path)}, "capture_output": True, "timeout": 120}
    subprocess.run(command, check=True, **how)
    assert 1 < len(re.findall(rb"/Type\s*/Page\b", printed.read_bytes())) <= 4
    assert "counter(page)" in page.read_text("utf-8")


@pytest.mark.parametrize("width", [500, 1200])
def test_the_figures_have_a_size_and_nothing_overflows(browser, page, tmp_path, width):
    """A copy with a ruler in it: each figure is drawn, and the page is no wider than the window."""
    policy = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
    copied = tmp_path / "copy.html"
    text, removed = policy.subn("", page.read_text("utf-8"))
    copied.write_text(text.replace("</body>", RULER), "utf-8")
    assert removed == 1
    shown, console, _ = opened(browser, copied, tmp_path, f"--window-size={width},1000")
    assert console == []
    found = re.search(r'data-ruler="([^"]+)"', shown)
    measured = json.loads(found[1].replace("&quot;", '"'))
    assert [name for name, *_ in measured["sizes"]] == FIGURES
    assert all(w > 300 and h > 100 and paths > 5 for _, w, h, paths in measured["sizes"])
    assert measured["wide"] <= measured["window"]
