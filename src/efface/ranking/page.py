"""The folder of a ranking: two tables of the same rows, a manifest, and one self-contained page.

``write`` makes the four files; ``render`` the page from inspect.html.jinja, with two SVG figures
and a gallery of the records at either end. Its imports are heavy: ``run`` does not import it.
"""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from matplotlib.axes import Axes
from PIL import Image
from pyarrow import csv, parquet

from efface.display import csv_cell
from efface.io.features import Spec
from efface.io.images import Preprocessing
from efface.ranking.ranking import Ranking
from efface.ranking.storage import Source
from efface.report import jsonable
from efface.report.figures import INKS, blank, svg_of
from efface.report.html import environment, flatten
from efface.types import Records

# Rows of a group in the parquet file, which a reader may load alone.
GROUP_ROWS = 65_536

# Records at either end; columns of a table, pixels of an image that a record is shown by.
GALLERY, MAX_VALUES, MAX_SIDE = 24, 12, 96

# Points in the scatter plot: more make the page slow and show no more.
POINTS = 2000

# Of a step between two shares: points of one share would hide one another.
JITTER = 0.3

# Name, line style and width of each α.
LINES = {
    "content": ("noisy copies", "-", 2.2),
    "content_by_label": ("neighbours, by label", "--", 1.6),
    "content_by_prediction": ("neighbours, by prediction", ":", 1.9),
}


def write(folder: Path, ranking: Ranking, source: Source) -> None:
    """``records.csv``, ``records.parquet``, ``manifest.json`` and ``inspect.html``.

    Plain writes into an existing folder: the caller makes it appear whole or not at all.
    """
    cells = {"id": pa.array(ranking.ids, pa.string())}
    for name, values in ranking.columns.items():
        named = ranking.classes and name in {"label", "prediction"}
        cells[name] = pa.array(np.array(ranking.classes, object)[values] if named else values)
    parquet.write_table(pa.table(cells), folder / "records.parquet", row_group_size=GROUP_ROWS)
    # parquet holds the texts as they are, a CSV is opened by spreadsheets
    texts = {name: part for name, part in cells.items() if pa.types.is_string(part.type)}
    cells |= {name: pa.array(map(csv_cell, part.to_pylist())) for name, part in texts.items()}
    csv.write_csv(pa.table(cells), folder / "records.csv")
    # allow_nan=False: NaN is not JSON, and jsonable has replaced it.
    text = json.dumps(jsonable(ranking.manifest), indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "manifest.json").write_text(f"{text}\n", "utf-8", errors="backslashreplace")
    (folder / "inspect.html").write_text(
        render(ranking, source), "utf-8", errors="backslashreplace"
    )


def render(ranking: Ranking, source: Source) -> str:
    """One HTML page that loads nothing else; each number on it stands in the tables too."""
    # At most half at either end: no record is shown twice.
    order, ends = ranking.by_rank, min(GALLERY, (len(ranking) + 1) // 2)
    manifest = jsonable(ranking.manifest)
    template = environment("efface.ranking").get_template("inspect.html.jinja")
    most, least = order[:ends], order[::-1][: len(ranking) - ends][:GALLERY]
    limits = {"jitter": JITTER, "max_points": POINTS, "max_values": MAX_VALUES}
    figures = {"scatter": _scatter(ranking), "curve": _curve(ranking)}
    cards = {"most": _cards(ranking, source, most), "least": _cards(ranking, source, least)}
    parts = {"manifest": manifest, "settings": flatten(manifest), "figures": figures}
    return template.render(ranking=ranking, **parts, **cards, **limits)


def _cards(ranking: Ranking, source: Source, places: np.ndarray) -> list[dict[str, Any]]:
    """What the gallery shows of the records at these places, next to their columns."""
    # Read in the order of the data, shown in the order of the places.
    rows = [int(row) for row in ranking.rows[places]]
    if not rows:
        return []
    records, readable = source.read(sorted(rows))
    images = dict(zip(readable, pictures(records, ranking.preprocessing), strict=True))
    return [
        {"place": int(place), "picture": images[row], "values": source.values(row)}
        for place, row in zip(places, rows, strict=True)
    ]


def pictures(records: Records, how: Spec | None) -> list[str | None]:
    """A PNG of each record as a data URL, None where records are not images."""
    if records.x.ndim != 4 or records.x.shape[1] not in {1, 3}:  # noqa: PLR2004  # (n, c, h, w)
        return [None] * len(records)
    x = records.x.detach().cpu()
    if isinstance(how, Preprocessing):
        pixels = how.pixels(x)
    else:  # unknown preprocessing: the data's own range becomes black to white
        low = x.min() if records.low is None else records.low.cpu()
        high = x.max() if records.high is None else records.high.cpu()
        unit = (x - low) / (high - low).clamp_min(1e-12)
        pixels = unit.mul(255).round().clamp(0, 255).to(torch.uint8)
    return [_data_url(image) for image in pixels.permute(0, 2, 3, 1).numpy()]


def _data_url(pixels: np.ndarray) -> str:
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    sink = io.BytesIO()
    image.save(sink, "PNG")
    return "data:image/png;base64," + base64.b64encode(sink.getvalue()).decode()


def _scatter(ranking: Ranking) -> str:
    """Information content against logit margin: dark triangles are high, light rings low."""
    # Evenly by rank, so that both ends are there however many records there are.
    places = np.linspace(0, len(ranking) - 1, min(len(ranking), POINTS)).round().astype(np.int64)
    rows, copies = ranking.by_rank[places], ranking.manifest["settings"]["copies"]
    jitter = np.random.default_rng(0).uniform(-JITTER, JITTER, len(ranking)) / copies
    x, y = ranking["logit_margin"], ranking.content + jitter
    figure, (axes,) = blank(6.4, 4.0)
    for high, marker, face, edge, name in (
        (False, "o", "none", INKS["soft"], "low information"),
        (True, "^", INKS["ink"], INKS["ink"], "high information"),
    ):
        of = rows[ranking.high[rows] == high]
        label = f"{name}, n = {int((ranking.high == high).sum())}"
        style = {"s": 14, "marker": marker, "linewidths": 0.7, "alpha": 0.75, "label": label}
        colors = {"facecolors": face, "edgecolors": edge}
        axes.scatter(x[of], y[of], **style, **colors)
    axes.axhline(ranking.threshold, color=INKS["new"], lw=1, ls="--")
    axes.axvline(0, color=INKS["line"], lw=0.8, zorder=0)
    axes.set_xlabel("logit margin of the label, ln p/(1 − p)")
    _finish(axes, "information content α\n(share of noisy copies with the same prediction)")
    return svg_of(figure, "scatter", "Information content and logit margin")


def _curve(ranking: Ranking) -> str:
    """Share of the records with α ≥ τ as a function of τ, for each α."""
    contents = {n: alpha for n, alpha in ranking.columns.items() if n.startswith("content")}
    figure, (axes,) = blank(6.4, 3.2)
    for name, alpha in contents.items():
        label, line, width = LINES.get(name, (f"noisy copies, σ {name[11:]}", "-.", 1.2))
        # The ends too, so that the curve spans the axis whatever values α takes.
        taus = np.concatenate([[0.0], np.unique(alpha), [1.0]])
        shares = [(alpha >= tau).mean() for tau in taus]
        axes.step(taus, shares, where="pre", color=INKS["ink"], ls=line, lw=width, label=label)
    axes.axvline(ranking.threshold, color=INKS["new"], lw=1, ls="--")
    axes.set_xlabel("threshold τ")
    axes.set_xlim(-0.02, 1.02)
    _finish(axes, "share low in information (α ≥ τ)")
    return svg_of(figure, "curve", "Thresholds")


def _finish(axes: Axes, label: str) -> None:
    """The y axis of a share, and the legend below."""
    axes.set_ylabel(label, color=INKS["ink"], fontsize=9.5)
    axes.set_ylim(-0.03, 1.05)
    style = {"frameon": False, "fontsize": 9, "labelcolor": INKS["ink"], "ncols": 2}
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), **style)
