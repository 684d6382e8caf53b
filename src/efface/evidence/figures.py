"""The figures of the page, as SVG that takes its colours from the page."""

import io
import re
import warnings
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from efface.evidence.rows import Evidence

INKS = {
    "ink": "#010203",
    "soft": "#040506",
    "line": "#070809",
    "old": "#0a0b0c",
    "new": "#0d0e0f",
    "unseen": "#101112",
}
"""Stand-ins, each replaced by the page's own colour of this name: figures follow light and dark."""

STYLES: dict[str, dict[str, Any]] = {
    "unseen": {"facecolor": INKS["unseen"], "edgecolor": INKS["soft"], "fill": True, "lw": 0.5},
    "forget_before": {"edgecolor": INKS["old"], "linestyle": (0, (4, 2)), "fill": False, "lw": 1.6},
    "forget_after": {"edgecolor": INKS["new"], "linestyle": "-", "fill": False, "lw": 2.2},
}
LABELS = {
    "unseen": "unseen records",
    "forget_before": "forget, before",
    "forget_after": "forget, after",
}
AXES = {"margin": "logit margin of the label", "entropy": "entropy of the answer in nats"}
FEW = 30
MOST_BARS = 24


def figures(evidence: Evidence) -> dict[str, dict[str, str]]:
    """Each figure by name: ``svg`` (empty when there is nothing to draw) and ``caption``."""
    return {
        "margin": _distribution(evidence, "margin"),
        "entropy": _distribution(evidence, "entropy"),
        "classes": _classes(evidence),
        "tensors": _tensors(evidence),
    }


def _distribution(evidence: Evidence, what: str) -> dict[str, str]:
    """Shares of records over the values; single lines where the forget records are few."""
    drawn = evidence.arrays.get(what)
    if not drawn:
        return {"svg": "", "caption": "Nothing could be measured."}
    figure, axes = _blank(6.4, 3.1)
    own = evidence.mislabelled and what == "margin"
    labels = [n for n in STYLES if n in drawn["counts"]]
    for name in labels:
        label = f"{LABELS[name]} (n = {drawn['n'][name]})"
        if name != "unseen" and drawn["n"][name] <= FEW:
            _ticks(axes, evidence, what, name, label)
        else:
            shares = [c / max(1, drawn["n"][name]) for c in drawn["counts"][name]]
            axes.stairs(shares, drawn["edges"], label=label, **STYLES[name])
    axes.set_xlabel("logit margin of the model's own answer" if own else AXES[what])
    axes.set_ylabel("share of records")
    axes.set_ylim(bottom=0)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False, fontsize=8)
    means = ", ".join(f"{LABELS[n]} {drawn['mean'][n]:.3g}" for n in labels)
    return {"svg": _svg(figure, what), "caption": f"Means: {means}."}


def _ticks(axes: Axes, evidence: Evidence, what: str, name: str, label: str) -> None:
    """Few records stand as lines, each at its own value."""
    side = name.removeprefix("forget_")
    values = evidence.arrays[what].get("values", {}).get(name) or [
        r[f"{what}_{side}"] for r in evidence.records
    ]
    span = (0.0, 0.5) if name == "forget_before" else (0.5, 1.0)
    style = {k: STYLES[name][k] for k in ("linestyle", "lw")}
    for row, value in enumerate(values):
        axes.axvline(
            value,
            *span,
            color=STYLES[name]["edgecolor"],
            label=label if not row else None,
            **style,
        )


def _classes(evidence: Evidence) -> dict[str, str]:
    """Change of accuracy of each class on the holdout, in points; the worst classes when many."""
    known = [c for c in evidence.per_class if "holdout_after" in c]
    if not known:
        return {"svg": "", "caption": "Needs a holdout and a new model."}
    change = {c["class"]: 100 * (c["holdout_after"] - c["holdout_before"]) for c in known}
    shown = sorted(known, key=lambda c: change[c["class"]])[:MOST_BARS]
    shown.sort(key=lambda c: -c["class"])
    names = [f"{c['name']}{' (leaves)' * c['leaving']}, n = {c['holdout_n']}" for c in shown]
    return _bars(
        "classes",
        names,
        [change[c["class"]] for c in shown],
        "change of accuracy on the holdout, points",
        _left_out(len(known) - len(shown), "classes that changed least for the worse"),
        leaving=[c["leaving"] for c in shown],
    )


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
    name: str,
    names: list[str],
    values: list[float],
    axis: str,
    caption: str,
    leaving: list[bool] | None = None,
) -> dict[str, str]:
    """Horizontal bars, the value written at each end."""
    figure, axes = _blank(6.4, 0.9 + 0.24 * len(names))
    bars = axes.barh(range(len(names)), values, color=INKS["unseen"], edgecolor=INKS["new"], lw=1)
    for bar, leaves in zip(bars, leaving or [False] * len(names), strict=True):
        bar.set_hatch("////" if leaves else "")
    texts = [f"{value:+.1f}" if name == "classes" else f"{value:.3g}" for value in values]
    axes.bar_label(bars, texts, padding=3, fontsize=8, color=INKS["ink"])
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.axvline(0, color=INKS["soft"], lw=0.8)
    axes.margins(x=0.15, y=0.02)
    axes.set_xlabel(axis)
    return {"svg": _svg(figure, name), "caption": caption}


def _blank(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INKS["line"])
    axes.tick_params(colors=INKS["soft"], labelcolor=INKS["ink"], labelsize=8)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=INKS["ink"], fontsize=9)
    return figure, axes


def _svg(figure: Figure, name: str) -> str:
    """One <svg> element: text as text, the page's colours, ids that no other figure has."""
    for legend in (axes.get_legend() for axes in figure.axes):
        for text in legend.get_texts() if legend else ():
            text.set_color(INKS["ink"])
    sink = io.StringIO()
    with warnings.catch_warnings(), rc_context(_SETTINGS):
        warnings.simplefilter("ignore")  # a name in a script that the measuring font lacks
        figure.savefig(sink, format="svg", transparent=True, metadata={"Date": None})
    svg = sink.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r'<svg[^>]*viewBox="([^"]+)"[^>]*>', _opening(name), svg, count=1)
    for ink, colour in INKS.items():
        svg = svg.replace(colour, f"var(--{ink})")
    return svg


def _opening(name: str) -> str:
    title = {"margin": "Margins", "entropy": "Entropies", "classes": "Classes"}.get(name, "Tensors")
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
