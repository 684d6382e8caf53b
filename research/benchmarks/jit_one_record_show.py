"""The page and the figure of jit_one_record.py, from its records."""

from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from research import pages
from research.pages import interval, percent, table

Row = dict[str, Any]


def _inside(margin: float, bounds: list[float]) -> bool:
    return bounds[0] <= margin <= bounds[2]


def _groups(curves: Row) -> dict[tuple[str, Any], list[Row]]:
    """Rows by method and step or rate, in the order of the records."""
    groups: dict[tuple[str, Any], list[Row]] = {}
    for one in curves["rows"]:
        groups.setdefault((one["method"], one.get("at", "")), []).append(one)
    return groups


def _interval(values: list[float]) -> str:
    """Mean of a change in points, 95 % over requests by 10,000 resamples."""
    points = 100 * np.asarray(values)
    drawn = np.random.default_rng(0).choice(points, (10_000, len(points))).mean(1)
    return interval(float(points.mean()), *np.quantile(drawn, [0.025, 0.975]), form="+.2f")


def page(curves: Row, row: Row, together: Row) -> str:
    """One record, and 100 in a row."""
    ranges, rows = curves["ranges"], []
    for (method, at), some in _groups(curves).items():
        margins = [one["margin"] for one in some]
        inside = sum(_inside(one["margin"], ranges[one["record"]]) for one in some)
        where = f"step {at}" if method == "jit" and isinstance(at, int) else at
        where = f"learning rate {at:g}" if isinstance(at, float) else where
        shares = (f"{np.mean(margins):.1f}", f"{percent(inside / len(some), 0)} %")
        wrong, utility = str(sum(m > 0 for m in margins)), [one["utility"] for one in some]
        rows.append((method, where, str(len(some)), *shares, wrong, _interval(utility)))
    unseen = np.mean([middle for _, middle, _ in ranges])
    return pages.page(
        "One mislabelled record, and 100 requests in a row",
        f"`{curves['command']}`, `row`, `together` and `table`; [figure](jit_one_record.svg). "
        "10,000 images, of which 100 carry a wrong label that the base model memorised; the unseen "
        f"range of each record's margin from eight models that never saw the 100 (mean {unseen:.1f}). "
        "The form for few records (docs/methods.md) was chosen on another base model and 12 other records of the "
        "100. Utility: change of accuracy on 5,000 test images that neither method nor guard has seen, in points; "
        "two models that differ in 100 predictions differ by 0.1 to 0.2 by chance alone, so only the mean says "
        "something. Intervals are over requests; all share one set of test images and "
        "two base models, whose variation they omit.",
        "## One record",
        table(
            "method | at | requests | margin | in the unseen range | wrong label predicted | utility",
            rows,
        ),
        *_in_a_row(row, together),
    )


def _in_a_row(row: Row, together: Row) -> list[str]:
    """The 100, what is left of them at the end, and the same in tens and at once."""
    ranges, (*each, end) = row["ranges"], row["rows"]
    done = sum(one["outcome"] == "done" for one in each)
    inside = sum(_inside(one["margin"], ranges[one["record"]]) for one in each)
    before, after = (np.mean([one[name] for one in each]) for name in ("before", "margin"))
    lost = [one["lost"] for one in each]
    rows = [
        _end("nothing done", end["given"], 0.0, ranges),
        _end("100 requests in a row", end["margins"], end["utility"], ranges),
    ]
    for one in together["rows"]:
        count = sum(request["outcome"] == "done" for request in one["requests"])
        name = f"{len(one['requests'])} of {one['size']}, {count} done"
        rows.append(_end(name, one["margins"], one["utility"], ranges))
    better = float(np.mean(row["unseen_accuracy"])) - (end["accuracy"] - end["utility"])
    means = [middle for _, middle, _ in ranges]
    rows.append(_end("trained without them, mean of eight", means, better, ranges))
    halvings = sum(one["halvings"] for one in each)
    facts = (
        f"- Done: {done} of {len(each)}; the guard halved {halvings} steps.\n"
        f"- Lost by one request: {_interval(lost)} on average, {100 * max(lost):.2f} at most.\n"
        f"- Margin right after its own request: {after:.1f} on average, from {before:.1f}; in the unseen "
        f"range: {inside} of {len(each)}."
    )
    about = "Each under the guard (budget 2 points, on its own half of the test images), each on the model after the last one, on base model 1."
    head = "at the end | margin | in the unseen range | wrong label predicted | utility against the base"
    return ["## 100 requests in a row", about, facts, table(head, rows)]


def _end(name: str, margins: list[float], utility: float, ranges: list[list[float]]) -> list[str]:
    inside = sum(_inside(m, bounds) for m, bounds in zip(margins, ranges, strict=True))
    wrong = str(sum(m > 0 for m in margins))
    mean = f"{np.mean(margins):.1f}"
    return [name, mean, f"{inside} of {len(margins)}", wrong, f"{100 * utility:+.2f}"]


def figure(curves: Row, row: Row, together: Row) -> Figure:
    """Margin against utility, and both along 100 requests."""
    plot, (trade, margins, utilities) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    _trade(trade, curves)
    each, ranges = row["rows"][:-1], np.array(row["ranges"])
    numbers = [one["record"] + 1 for one in each]
    band = {"color": "0.85", "label": "unseen range", "step": "mid"}
    margins.fill_between(numbers, ranges[:, 0], ranges[:, 2], **band)
    for name, color, label in (
        ("before", "tab:red", "before its request"),
        ("margin", "tab:blue", "after"),
    ):
        margins.plot(numbers, [one[name] for one in each], ".", color=color, label=label)
    margins.set(xlabel="request", ylabel="margin of the wrong label", ylim=(-40, 16))
    margins.set_title("100 in a row: margins")
    utilities.plot(numbers, [100 * one["utility"] for one in each], label="in a row")
    utilities.axhline(-2, color="tab:red", linestyle="--", label="the budget of one request")
    for one, marker in zip(together["rows"], "sD", strict=True):
        label = f"{len(one['requests'])} of {one['size']}"
        utilities.plot(100, 100 * one["utility"], marker, label=label)
    utilities.set(xlabel="request", ylabel="utility against the base, points")
    utilities.set_title("100 in a row: utility")
    for axes, place in ((margins, "lower left"), (utilities, "best")):
        axes.axhline(0, color="0.5", linewidth=0.8)
        axes.legend(frameon=False, fontsize=8, loc=place)
    return plot


def _trade(axis: Any, curves: Row) -> None:
    """Mean margin against mean utility along steps or learning rates."""
    for method in ("jit", "jit_reference", "jit_paper"):
        groups = [
            some for (name, at), some in _groups(curves).items()
            if name == method and not isinstance(at, str)
        ]  # fmt: skip
        margins = [np.mean([one["margin"] for one in some]) for some in groups]
        utilities = [100 * np.mean([one["utility"] for one in some]) for some in groups]
        axis.plot(margins, utilities, marker="o", label=method)
    axis.axvline(0, color="0.5", linewidth=0.8)
    axis.axhline(-0.1, color="tab:red", linestyle="--", label="-0.1 point")
    axis.set(xlabel="margin of the wrong label (left: forgotten)", xlim=(-20, 10), ylim=(-3, 0.5),
             ylabel="utility, points", title="One record: along steps, or learning rates")  # fmt: skip
    axis.legend(frameon=False, fontsize=8)
