"""The figures of the page, as SVG that takes its colours from the page."""

import numpy as np
from matplotlib.axes import Axes

from efface.ranking.found import Inspection
from efface.report.figures import INKS, MINUS, blank, svg_of

DRAWN = 2000
"""Points in the scatter: more make the page slow and show no more."""

JITTER = 0.3
"""Of a step between two shares: points of one share would hide one another."""

LINES = {
    "content": ("noisy copies", "-", 2.2),
    "content_by_label": ("neighbours, by label", "--", 1.6),
    "content_by_answer": ("neighbours, by answer", ":", 1.9),
}
"""Name, line and width of each α."""


def scatter(found: Inspection) -> dict[str, str]:
    """Information content against margin: dark triangles are high information, light rings low."""
    rows = _spread(found)
    copies = found.record["settings"]["copies"]
    draws = np.random.default_rng(0).uniform(-JITTER, JITTER, len(found)) / copies
    figure, (axes,) = blank(6.4, 4.0)
    for high, marker, face, edge, name in (
        (False, "o", "none", INKS["soft"], "low information"),
        (True, "^", INKS["ink"], INKS["ink"], "high information"),
    ):
        of = rows[found.high[rows] == high]
        label = f"{name}, n = {int((found.high == high).sum())}"
        axes.scatter(
            found["margin"][of],
            found.content[of] + draws[of],
            s=14,
            marker=marker,
            facecolors=face,
            edgecolors=edge,
            linewidths=0.7,
            alpha=0.75,
            label=label,
        )
    axes.axhline(found.threshold, color=INKS["new"], lw=1, ls="--")
    axes.axvline(0, color=INKS["line"], lw=0.8, zorder=0)
    axes.set_xlabel("margin of the label, ln p/(1 − p)")
    _share(axes, "information content α\n(share of noisy copies that keep the answer)")
    _legend(axes)
    every = len(rows) == len(found)
    told = f"All {len(rows)} records" if every else f"{len(rows)} of {len(found)}, even by rank"
    caption = (
        f"{told}. Left of 0 the label has less than half of the probability. The dashed line is "
        f"τ = {found.threshold:g}. α comes in steps of 1/{copies}: points are moved up or down by "
        f"up to {JITTER:g} of a step, so that they do not hide one another."
    )
    return {"svg": svg_of(figure, "scatter", "Information content and margin"), "caption": caption}


def curve(found: Inspection) -> dict[str, str]:
    """Share of the records that each τ would leave alone, for each α."""
    figure, (axes,) = blank(6.4, 3.2)
    for name, alpha in found.contents.items():
        label, line, width = LINES.get(name, (f"noisy copies, σ {name[11:]}", "-.", 1.2))
        taus = np.concatenate([[0.0], np.unique(alpha), [1.0]])
        shares = [(alpha >= tau).mean() for tau in taus]
        axes.step(taus, shares, where="pre", color=INKS["ink"], ls=line, lw=width, label=label)
    axes.axvline(found.threshold, color=INKS["new"], lw=1, ls="--")
    axes.set_xlabel("threshold τ")
    axes.set_xlim(-0.02, 1.02)
    _share(axes, "share left alone (α ≥ τ)")
    _legend(axes)
    caption = (
        f"Of {len(found)} records, how many each τ would call low in information. The upright line "
        f"is the τ in use, {found.threshold:g}."
    )
    return {"svg": svg_of(figure, "curve", "Thresholds"), "caption": caption.replace("-", MINUS)}


def _spread(found: Inspection) -> np.ndarray:
    """Rows of up to so many records, evenly by rank, so that both ends are there."""
    places = np.linspace(0, len(found) - 1, min(len(found), DRAWN)).round().astype(np.int64)
    return found.by_rank[places]


def _share(axes: Axes, label: str) -> None:
    axes.set_ylabel(label, color=INKS["ink"], fontsize=9.5)
    axes.set_ylim(-0.03, 1.05)


def _legend(axes: Axes) -> None:
    axes.legend(
        frameon=False,
        fontsize=9,
        labelcolor=INKS["ink"],
        loc="upper center",
        bbox_to_anchor=(0.5, -0.14),
        ncols=2,
    )
