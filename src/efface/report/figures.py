"""The figures of the page, as SVG that takes its colours from the page."""

import io
import re
import warnings
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from efface.report.rows import Evidence

INKS = {
    "ink": "#010203",
    "soft": "#040506",
    "line": "#070809",
    "old": "#0a0b0c",
    "new": "#0d0e0f",
    "fill": "#101112",
}
"""Stand-ins, each replaced by the page's own colour of this name: figures follow light and dark."""

LANES = {
    "forget_before": {"label": "forget before", "edge": "old", "hatch": "////"},
    "forget_after": {"label": "forget after", "edge": "new", "hatch": ""},
    "unseen": {"label": "unseen", "edge": "soft", "hatch": "||||"},
}
"""The lanes of a distribution, downwards: told apart by place, then by hatch, last by colour."""

TITLES = {
    "margin": "Margins",
    "entropy": "Entropies",
    "classes": "Classes",
    "tensors": "Tensors",
}
AXES = {"margin": "logit margin of the label", "entropy": "entropy of the answer in nats"}
LOSS = "minus the loss: higher is better known"
MOST_BARS = 24
MINUS = "\N{MINUS SIGN}"


def figures(evidence: Evidence) -> dict[str, dict[str, str]]:
    """Each figure by name: ``svg`` (empty when there is nothing to draw) and ``caption``."""
    return {
        "margin": _distribution(evidence, "margin"),
        "entropy": _distribution(evidence, "entropy"),
        "classes": _classes(evidence),
        "tensors": _tensors(evidence),
    }


def _distribution(evidence: Evidence, what: str) -> dict[str, str]:
    """One lane for each kind of record over the same values, each lane to its own height."""
    drawn = evidence.arrays.get(what)
    if not drawn:
        return {"svg": "", "caption": "Nothing could be measured."}
    names = [name for name in LANES if name in drawn["counts"]]
    figure, lanes = blank(5.2, 0.6 + 0.85 * len(names), rows=len(names))
    for axes, name in zip(lanes, names, strict=True):
        _lane(axes, drawn, name)
    own = evidence.mislabelled and what == "margin"
    label = AXES[what] if evidence.arrays.get("kind", "multiclass") == "multiclass" else LOSS
    lanes[-1].set_xlabel("logit margin of the model's own answer" if own else label)
    for axes in lanes[:-1]:
        axes.tick_params(labelbottom=False)
    return {"svg": svg_of(figure, what, TITLES[what]), "caption": _described(drawn, names)}


def _described(drawn: dict[str, Any], names: list[str]) -> str:
    """Means, and how tall the tallest bar is where there are bars."""
    means = ", ".join(f"{LANES[n]['label']} {drawn['mean'][n]:.3g}" for n in names)
    tallest = {n: max(drawn["counts"][n]) / drawn["n"][n] for n in names if drawn["n"][n]}
    peaks = [
        f"{LANES[n]['label']} {100 * share:.0f}\N{NO-BREAK SPACE}%"
        for n, share in tallest.items()
        if n not in drawn["values"]
    ]
    text = f" Share of records in the tallest bar: {', '.join(peaks)}." if peaks else ""
    return f"Means: {means}.{text}".replace("-", MINUS)


def _lane(axes: Axes, drawn: dict[str, Any], name: str) -> None:
    """Bars; few records stand as lines, each at its own value."""
    style, edge = LANES[name], INKS[LANES[name]["edge"]]
    if values := drawn["values"].get(name):
        axes.vlines(values, 0, 1, color=edge, lw=2)
    else:
        shares = [count / max(1, drawn["n"][name]) for count in drawn["counts"][name]]
        axes.stairs(
            shares,
            drawn["edges"],
            fill=True,
            facecolor=INKS["fill"],
            edgecolor=edge,
            hatch=style["hatch"],
            lw=1.2,
        )
    low, high = drawn["edges"][0], drawn["edges"][-1]
    axes.set_xlim(low - 0.02 * (high - low), high + 0.02 * (high - low))
    axes.set_ylim(bottom=0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    label = f"{style['label']}\nn = {drawn['n'][name]}"
    axes.set_ylabel(label, rotation=0, ha="right", va="center", color=INKS["ink"], fontsize=9.5)


def _classes(evidence: Evidence) -> dict[str, str]:
    """Change of accuracy of each staying class on the holdout, in points, the worst on top.

    Where there are too many to draw, those that changed most in either direction; a class that did
    not change is counted in the caption and takes no bar from one that did.
    """
    known = [c for c in evidence.per_class if "holdout_after" in c]
    if not known:
        return {"svg": "", "caption": "Needs a holdout and a new model."}
    moved = sorted((c for c in known if _change(c)), key=lambda c: -abs(_change(c)))
    moved = [c for c in moved if not c["forget_classes"]]
    shown = sorted(moved[:MOST_BARS], key=lambda c: (-_change(c), -c["class"]))
    gone = [f"{c['name']} {_signed(_change(c))}" for c in known if c["forget_classes"]]
    return _bars(
        "classes",
        [f"{c['name']}, n = {c['holdout_n']}" for c in shown],
        [_change(c) for c in shown],
        "change of accuracy on the holdout, points",
        _counted(evidence, len(shown), moved[MOST_BARS:])
        + f" Classes that leave: {', '.join(gone)} points." * bool(gone),
    )


def _change(entry: dict[str, Any]) -> float:
    """Points of accuracy that a class of the holdout gained."""
    return 100 * (entry["holdout_after"] - entry["holdout_before"])


def _counted(evidence: Evidence, drawn: int, left_out: list[dict[str, Any]]) -> str:
    """How many of how many classes that stay are drawn, and what became of the others."""
    staying = [c for c in evidence.per_class if not c["forget_classes"]]
    unseen = sum("holdout_after" not in c for c in staying)
    unchanged = len(staying) - unseen - drawn - len(left_out)
    rest = []
    if left_out:
        rose = sum(_change(c) > 0 for c in left_out)
        most = max(abs(_change(c)) for c in left_out)
        rest = [f"{len(left_out) - rose} that fell and {rose} that rose, by {most:.1f} at most"]
    rest += [f"{unchanged} that did not change"] * (unchanged > 0 and drawn > 0)
    rest += [f"{unseen} without records in the holdout"] * (unseen > 0)
    came = f"Drawn: {drawn} of {len(staying)}" if drawn else f"Changed: 0 of {len(staying)}"
    return f"{came} classes that stay." + f" Not drawn: {', '.join(rest)}." * bool(rest)


def _tensors(evidence: Evidence) -> dict[str, str]:
    """The tensors that moved farthest, in percent of their own length."""
    if not evidence.tensors:
        return {"svg": "", "caption": "Needs a new model."}
    weights = [t for t in evidence.tensors if t["kind"] == "weight" or not t["identical"]]
    shown = sorted(weights, key=lambda t: -t["relative"])[:MOST_BARS][::-1]
    return _bars(
        "tensors",
        [t["name"] for t in shown],
        [100 * t["relative"] for t in shown],
        "movement in % of the tensor's length (L2)",
        _left_out(len(weights) - len(shown), "tensors that moved less"),
    )


def _left_out(count: int, what: str) -> str:
    return f"Not drawn: {count} {what}." if count > 0 else ""


def _bars(
    name: str, names: list[str], values: list[float], axis: str, caption: str
) -> dict[str, str]:
    """Horizontal bars, the value written at each end."""
    if not names:
        return {"svg": "", "caption": caption or "Nothing to draw."}
    figure, (axes,) = blank(5.2, 0.8 + 0.25 * len(names))
    bars = axes.barh(range(len(names)), values, color=INKS["fill"], edgecolor=INKS["new"], lw=1)
    texts = [_signed(value) if name == "classes" else f"{value:.3g}" for value in values]
    axes.bar_label(bars, texts, padding=3, fontsize=9, color=INKS["ink"])
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.axvline(0, color=INKS["soft"], lw=0.8)
    axes.margins(x=0.18, y=0.02)
    axes.set_xlabel(axis)
    return {"svg": svg_of(figure, name, TITLES[name]), "caption": caption}


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", MINUS)


def blank(width: float, height: float, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """Axes one under another, in the page's inks."""
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
    sink = io.StringIO()
    with warnings.catch_warnings(), rc_context(_SETTINGS):
        warnings.simplefilter("ignore")  # a name in a script that the measuring font lacks
        figure.savefig(sink, format="svg", transparent=True, metadata={"Date": None})
    svg = sink.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"font-family: [^;]*;", "font-family: inherit;", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r'<svg[^>]*viewBox="([^"]+)"[^>]*>', _opening(name, title), svg, count=1)
    for ink, colour in INKS.items():
        svg = svg.replace(colour, f"var(--{ink})")
    return svg


def _opening(name: str, title: str) -> str:
    return (
        rf'<svg viewBox="\1" role="img" aria-label="{title}" data-figure="{name}" '
        'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )


_SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "efface",
    "font.family": "sans-serif",
    "hatch.color": INKS["new"],
}
