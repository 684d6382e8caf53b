"""The page of a ranking: its pictures, its words, and what a browser makes of it."""

import base64
import dataclasses
import io
import re
from html import escape

import numpy as np
import pytest
import torch
from PIL import Image

import efface
from efface.io.images import Preprocessing
from efface.ranking.page import pictures, render
from efface.ranking.storage import MemorySource
from efface.types import Records
from tests.browsers import RULER, opened


def _pixels(address):
    head, _, text = address.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


@pytest.fixture(scope="module")
def found(tiny_net, digits):
    """Of 40 digits, all of which are shown; an id and a class that try to be more than text."""
    some = digits.take(range(40))
    ids = ("<script>x</script>", *some.ids[1:])
    names = ("<img src=x>", "$y_{", *map(str, range(2, 10)))
    records = dataclasses.replace(some, ids=ids)
    return efface.inspect(tiny_net, records, sigma=(0.3, 0.5), classes=names), MemorySource(records)


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_show_the_very_pixels(channels):
    """The preprocessing undone: bytes in, the same bytes out."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, channels, 6, 5), np.uint8)
    how = Preprocessing((0.4, 0.5, 0.6)[:channels], (0.2, 0.3, 0.25)[:channels])
    records = Records(how.normalise(torch.from_numpy(pixels)), torch.zeros(4, dtype=torch.int64))
    for shown, own in zip(pictures(records, how), pixels, strict=True):
        assert np.array_equal(_pixels(shown), own[0] if channels == 1 else own.transpose(1, 2, 0))


def test_large_pictures_are_made_smaller_and_numbers_are_no_pictures():
    """The page holds some fifty of them."""
    large = Records(torch.rand(1, 3, 200, 400), torch.zeros(1, dtype=torch.int64))
    (shown,) = pictures(large, None)
    assert _pixels(shown).shape == (48, 96, 3)
    table = Records(torch.rand(2, 7), torch.zeros(2, dtype=torch.int64))
    assert pictures(table, None) == [None, None]


def test_the_page_shows_both_ends_and_every_threshold(found):
    """The first card is rank 1, the first of the least is the last; the table is counted."""
    ranking, source = found
    page = render(ranking, source)
    most, least = page.index("The most informative"), page.index("The least informative")
    cards = re.findall(r"<b>(digit-\d+|&lt;script&gt;x&lt;/script&gt;)</b>", page[most:])
    order = [escape(ranking.ids[row]) for row in ranking.by_rank]
    assert cards == [*order[:20], *order[::-1][:20]]
    assert page[most:least].count("data:image/png") == 20
    for one in ranking.thresholds():
        assert f'<td class="n">{one.low}</td>' in page
    for sentence in (
        "Who must not see this.",
        "only as far as <code>docs/information.md</code> shows it",
        "Low information does not mean private",
    ):
        assert sentence in page
    assert "<code>content_at_0.5</code>" in page


def test_the_page_opens_without_a_complaint_or_a_request(browser, found, tmp_path):
    """No console line, no address asked for; ids and names that look like tags stay text."""
    path = tmp_path / "inspect.html"
    path.write_text(render(*found), "utf-8")
    shown, console, asked = opened(browser, path, tmp_path)
    assert (console, asked) == ([], [])
    assert "&lt;script&gt;x&lt;/script&gt;" in shown
    assert '<img src="x">' not in shown


@pytest.mark.parametrize("width", [500, 1200])
def test_the_figures_have_a_size_and_nothing_sticks_out(browser, found, tmp_path, width):
    """A copy with a ruler in it."""
    policy = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
    path = tmp_path / "copy.html"
    text, removed = policy.subn("", render(*found))
    path.write_text(text.replace("</body>", RULER), "utf-8")
    assert removed == 1
    shown, console, _ = opened(browser, path, tmp_path, f"--window-size={width},1000")
    assert console == []
    measured = re.search(r'data-ruler="([^"]+)"', shown)[1].replace("&quot;", '"')
    for name in ("scatter", "curve"):
        width, height = re.search(rf'\["{name}",([\d.]+),([\d.]+),', measured).groups()
        assert (float(width) > 300, float(height) > 100) == (True, True)
    wide, window = re.search(r'"wide":(\d+),"window":(\d+)', measured).groups()
    assert int(wide) <= int(window)
