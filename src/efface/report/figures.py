"""The figures of the page, as SVG that takes its colours from the page."""

import io
import re
import warnings
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from efface.report.report import Report

# Placeholders, replaced by the page's CSS colours of these names: they follow light and dark.
INKS = {"ink": "#010203", "soft": "#040506", "line": "#070809", "old": "#0a0b0c"}
INKS |= {"new": "#0d0e0f", "fill": "#101112"}
# Label, edge colour and hatch of each lane of a distribution, from the top.
LANES = {
    "forget_before": ("forget before", "old", "////"),
    "forget_after": ("forget after", "new", ""),
    "unseen": ("unseen", "soft", "||||"),
    "forget_retrained": ("retrained", "ink", "...."),
}
AXES = {"logit_margin": "logit margin of the label", "entropy": "entropy of the output in nats"}
# More bars than this are unreadable at the width of the page.
MAX_BARS = 24
MINUS = "\N{MINUS SIGN}"


def figures(report: Report) -> dict[str, dict[str, str]]:
    """Each figure by name: ``svg`` (empty when there is nothing to draw) and ``caption``."""
    distributions = {name: _distribution(report, name) for name in AXES}
    return distributions | {"classes": _classes(report), "tensors": _tensors(report)}


def _distribution(report: Report, what: str) -> dict[str, str]:
    """One lane for each kind of record over the same values, each lane to its own height."""
    drawn = report.arrays.get(what)
    if not drawn:
        return {"svg": "", "caption": "Nothing could be measured."}
    names = [name for name in LANES if name in drawn["counts"]]
    figure, lanes = blank(5.2, 0.6 + 0.85 * len(names), rows=len(names))
    for axes, name in zip(lanes, names, strict=True):
        _lane(axes, drawn, name)
        axes.tick_params(labelbottom=name == names[-1])
    label = AXES[what]
    if report.mislabelled and what == "logit_margin":
        label = "logit margin of the predicted class"
    elif report.arrays.get("kind", "multiclass") != "multiclass":
        label = "minus the loss: higher is better known"
    lanes[-1].set_xlabel(label)
    caption = _described(drawn, names)
    if "unseen" in names and report.arrays.get("kind", "multiclass") == "multiclass":
        caption += (
            " Unseen: the report's part of the holdout, each record once; the reference of a "
        )
        caption += "row weights them by class as the forget records are."
    return {"svg": svg_of(figure, what, label), "caption": caption}


def _described(drawn: dict[str, Any], names: list[str]) -> str:
    """Means, and the height of the tallest bar where there are bars."""
    means = ", ".join(f"{LANES[n][0]} {drawn['mean'][n]:.3g}" for n in names)
    binned = [n for n in names if drawn["n"][n] and n not in drawn["values"]]
    heights = {n: 100 * max(drawn["counts"][n]) / drawn["n"][n] for n in binned}
    peaks = ", ".join(f"{LANES[n][0]} {h:.0f}\N{NO-BREAK SPACE}%" for n, h in heights.items())
    tallest = f" Share of records in the tallest bar: {peaks}." if peaks else ""
    return f"Means: {means}.{tallest}".replace("-", MINUS)


def _lane(axes: Axes, drawn: dict[str, Any], name: str) -> None:
    """Bars; few records stand as lines, each at its own value."""
    (shown, edge, hatch), n, edges = LANES[name], drawn["n"][name], drawn["edges"]
    if values := drawn["values"].get(name):
        axes.vlines(values, 0, 1, color=INKS[edge], lw=2)
    else:
        shares = [count / max(1, n) for count in drawn["counts"][name]]
        colours = {"facecolor": INKS["fill"], "edgecolor": INKS[edge], "hatch": hatch}
        axes.stairs(shares, edges, fill=True, lw=1.2, **colours)
    # Values at the very edge would be drawn on the frame.
    room = 0.02 * (edges[-1] - edges[0])
    axes.set_xlim(edges[0] - room, edges[-1] + room)
    axes.set_ylim(bottom=0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    style = {"rotation": 0, "ha": "right", "va": "center", "color": INKS["ink"], "fontsize": 9.5}
    axes.set_ylabel(f"{shown}\nn = {n}", **style)


def _classes(report: Report) -> dict[str, str]:
    """Change of holdout accuracy of each class that is not forgotten, in points, the worst on top.

    Where there are too many to draw, those that changed most in either direction; a class that did
    not change is counted in the caption and takes no bar from one that did.
    """
    known = [c for c in report.per_class if "holdout_after" in c]
    if not known:
        return {"svg": "", "caption": "Needs a holdout and a new model."}
    kept = [c for c in known if not c["forget_class"]]
    changed = sorted((c for c in kept if _change(c)), key=lambda c: -abs(_change(c)))
    shown = sorted(changed[:MAX_BARS], key=lambda c: (-_change(c), -c["class"]))
    total = sum(not c["forget_class"] for c in report.per_class)
    rest = []
    if omitted := [_change(c) for c in changed[MAX_BARS:]]:
        rose, most = sum(c > 0 for c in omitted), max(map(abs, omitted))
        rest += [f"{len(omitted) - rose} that fell and {rose} that rose, by {most:.1f} at most"]
    unchanged = len(kept) - len(changed)
    rest += [f"{unchanged} that did not change"] * (unchanged > 0 and bool(shown))
    rest += [f"{total - len(kept)} without holdout records"] * (total > len(kept))
    caption = f"Drawn: {len(shown)} of {total}" if shown else f"Changed: 0 of {total}"
    caption += " other classes." if len(known) > len(kept) else " classes."
    caption += f" Not drawn: {', '.join(rest)}." * bool(rest)
    gone = [f"{c['name']} {_signed(_change(c))}" for c in known if c["forget_class"]]
    caption += f" Forget classes: {', '.join(gone)} points." * bool(gone)
    bars = [(f"{c['name']}, n = {c['holdout_n']}", _change(c)) for c in shown]
    axis = "change of accuracy on the holdout, points"
    return _bars("classes", bars, [_signed(value) for _, value in bars], axis, caption)


def _change(entry: dict[str, Any]) -> float:
    """Points of holdout accuracy that a class gained."""
    return 100 * (entry["holdout_after"] - entry["holdout_before"])


def _tensors(report: Report) -> dict[str, str]:
    """The tensors with the largest change, in percent of their own norm."""
    if not report.tensors:
        return {"svg": "", "caption": "Needs a new model."}
    drawn = [t for t in report.tensors if t["kind"] == "weight" or not t["identical"]]
    shown = sorted(drawn, key=lambda t: -t["relative"])[:MAX_BARS][::-1]
    omitted = len(drawn) - len(shown)
    caption = f"Not drawn: {omitted} tensors with a smaller change." * (omitted > 0)
    bars = [(t["name"], 100 * t["relative"]) for t in shown]
    axis = "change in % of the tensor's L2 norm"
    return _bars("tensors", bars, [f"{value:.3g}" for _, value in bars], axis, caption)


def _bars(
    name: str, bars: list[tuple[str, float]], texts: list[str], axis: str, caption: str
) -> dict[str, str]:
    """Horizontal bars from the bottom, the value written at each end."""
    if not bars:
        return {"svg": "", "caption": caption or "Nothing to draw."}
    names, values = zip(*bars, strict=True)
    figure, (axes,) = blank(5.2, 0.8 + 0.25 * len(names))
    drawn = axes.barh(range(len(names)), values, color=INKS["fill"], edgecolor=INKS["new"], lw=1)
    axes.bar_label(drawn, texts, padding=3, fontsize=9, color=INKS["ink"])
    # Names come from the data: a dollar sign must not start a formula.
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.axvline(0, color=INKS["soft"], lw=0.8)
    axes.margins(x=0.18, y=0.02)
    axes.set_xlabel(axis)
    return {"svg": svg_of(figure, name, axis), "caption": caption}


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", MINUS)


def blank(width: float, height: float, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """Axes one under another, in the page's colours."""
    figure = Figure(figsize=(width, height), layout="constrained")
    every = [figure.add_subplot(rows, 1, row + 1) for row in range(rows)]
    for axes in every:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(INKS["line"])
        axes.tick_params(colors=INKS["soft"], labelcolor=INKS["ink"], labelsize=9)
        axes.xaxis.label.set(color=INKS["ink"], fontsize=9.5)
    return figure, every


def svg_of(figure: Figure, name: str, title: str) -> str:
    """One <svg> element: text as text, the page's colours, ids that no other figure has."""
    # A fixed salt and no date: the same report gives the same bytes.
    settings = {"svg.fonttype": "none", "svg.hashsalt": "efface", "font.family": "sans-serif"}
    settings["hatch.color"] = INKS["new"]
    sink = io.StringIO()
    with warnings.catch_warnings(), rc_context(settings):
        warnings.simplefilter("ignore")  # a name in a script that the measuring font lacks
        figure.savefig(sink, format="svg", transparent=True, metadata={"Date": None})
    svg = "<svg" + sink.getvalue().partition("<svg")[2]
    svg = re.sub(r"font-family: [^;]*;", "font-family: inherit;", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # matplotlib numbers its clip paths from 1 in each figure: two on one page would collide.
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    opening = rf'<svg viewBox="\1" role="img" aria-label="{title}" data-figure="{name}" '
    opening += 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    svg = re.sub(r'<svg[^>]*viewBox="([^"]+)"[^>]*>', opening, svg, count=1)
    for ink, colour in INKS.items():
        svg = svg.replace(colour, f"var(--{ink})")
    return svg
