"""The page and the figure of jit_one_record.py, from its records."""

from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

Row = dict[str, Any]


def _inside(margin: float, bounds: list[float]) -> bool:
    return bounds[0] <= margin <= bounds[2]


def _groups(curves: Row) -> dict[tuple[str, Any], list[Row]]:
    """Rows by method and where they were looked at, in the order of the records."""
    groups: dict[tuple[str, Any], list[Row]] = {}
    for one in curves["rows"]:
        groups.setdefault((one["method"], one.get("at", "")), []).append(one)
    return groups


def _interval(values: list[float]) -> str:
    """Mean of a change in points, 95 % over requests by 10,000 resamples."""
    points = 100 * np.asarray(values)
    drawn = np.random.default_rng(0).choice(points, (10_000, len(points))).mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{points.mean():+.2f} ({low:+.2f} to {high:+.2f})"


def page(curves: Row, row: Row, together: Row) -> str:
    """One record, and 100 in a row."""
    ranges = curves["ranges"]
    lines = ["# One mislabelled record, and 100 requests in a row", "",
             (f"`{curves['command']}`, `row`, `together` and `table`; [figure](jit_one_record.svg). "
              "10,000 images, of which 100 carry a wrong label that the base model learned by heart; the unseen "
              f"range of each record's margin from eight models that never saw the 100 (mean {_mean_unseen(ranges):.1f}). "
              "The form that few records take (docs/methods.md) was chosen on another base model and 12 other records of the "
              "100. Utility: change of accuracy on 5,000 test images that neither method nor guard has seen, in points; "
              "two nets that differ in 100 answers differ by 0.1 to 0.2 by chance alone, so only the mean says "
              "something. Intervals are over requests; all share one set of test images and "
              "two base models, which they leave out."), "",
             "## One record", "",
             "| method | at | requests | margin | in the unseen range | wrong label answered | utility |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for (method, at), some in _groups(curves).items():
        margins = [one["margin"] for one in some]
        inside = sum(_inside(one["margin"], ranges[one["record"]]) for one in some)
        where = f"step {at}" if method == "jit" and isinstance(at, int) else at
        where = f"learning rate {at:g}" if isinstance(at, float) else where
        lines.append(
            f"| {method} | {where} | {len(some)} | {np.mean(margins):.1f} | "
            f"{100 * inside / len(some):.0f} % | {sum(m > 0 for m in margins)} | "
            f"{_interval([one['utility'] for one in some])} |"
        )
    return "\n".join([*lines, "", *_in_a_row(row, together)]) + "\n"


def _mean_unseen(ranges: list[list[float]]) -> float:
    return float(np.mean([middle for _, middle, _ in ranges]))


def _in_a_row(row: Row, together: Row) -> list[str]:
    """The 100, what is left of them at the end, and the same in tens and at once."""
    ranges, (*each, end) = row["ranges"], row["rows"]
    done = sum(one["outcome"] == "done" for one in each)
    inside = sum(_inside(one["margin"], ranges[one["record"]]) for one in each)
    before, after = (np.mean([one[name] for one in each]) for name in ("before", "margin"))
    worst = max(one["lost"] for one in each)
    halvings = sum(one["halvings"] for one in each)
    lines = [
        "## 100 requests in a row", "",
        ("Each under the guard (budget 2 points, on its own half of the test images), each on the model that "
         "the last one left, on base model 1."), "",
        f"- Done: {done} of {len(each)}; the guard halved {halvings} steps.",
        (f"- Lost by one request: {_interval([one['lost'] for one in each])} on average, "
         f"{100 * worst:.2f} at most."),
        (f"- Margin right after its own request: {after:.1f} on average, from {before:.1f}; in the unseen "
         f"range: {inside} of {len(each)}."), "",
        "| at the end | margin | in the unseen range | wrong label answered | utility against the base |",
        "|---|---|---|---|---|",
        _end("nothing done", end["given"], 0.0, ranges),
        _end("100 requests in a row", end["margins"], end["utility"], ranges),
    ]  # fmt: skip
    for one in together["rows"]:
        count = sum(said["outcome"] == "done" for said in one["requests"])
        name = f"{len(one['requests'])} of {one['size']}, {count} done"
        lines.append(_end(name, one["margins"], one["utility"], ranges))
    better = float(np.mean(row["unseen_accuracy"])) - (end["accuracy"] - end["utility"])
    mean = [middle for _, middle, _ in ranges]
    return [*lines, _end("trained without them, mean of eight", mean, better, ranges), ""]


def _end(name: str, margins: list[float], utility: float, ranges: list[list[float]]) -> str:
    inside = sum(_inside(m, bounds) for m, bounds in zip(margins, ranges, strict=True))
    return (
        f"| {name} | {np.mean(margins):.1f} | {inside} of {len(margins)} | "
        f"{sum(m > 0 for m in margins)} | {100 * utility:+.2f} |"
    )


def figure(curves: Row, row: Row, together: Row) -> Figure:
    """Margin against utility, and both along 100 requests."""
    plot, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    _trade(axes[0], curves)
    each = row["rows"][:-1]
    numbers = [one["record"] + 1 for one in each]
    ranges = np.array(row["ranges"])
    axes[1].fill_between(
        numbers, ranges[:, 0], ranges[:, 2], color="0.85", label="unseen range", step="mid"
    )
    for name, color in (("before", "tab:red"), ("margin", "tab:blue")):
        said = "before its request" if name == "before" else "after"
        axes[1].plot(numbers, [one[name] for one in each], ".", color=color, label=said)
    axes[1].axhline(0, color="0.5", linewidth=0.8)
    axes[1].set(xlabel="request", ylabel="margin of the wrong label", ylim=(-40, 16),
                title="100 in a row: margins")  # fmt: skip
    axes[1].legend(frameon=False, fontsize=8, loc="lower left")
    axes[2].plot(numbers, [100 * one["utility"] for one in each], label="in a row")
    axes[2].axhline(0, color="0.5", linewidth=0.8)
    axes[2].axhline(-2, color="tab:red", linestyle="--", label="the budget of one request")
    for one, marker in zip(together["rows"], "sD", strict=True):
        axes[2].plot(100, 100 * one["utility"], marker,
                     label=f"{len(one['requests'])} of {one['size']}")  # fmt: skip
    axes[2].set(xlabel="request", ylabel="utility against the base, points",
                title="100 in a row: utility")  # fmt: skip
    axes[2].legend(frameon=False, fontsize=8)
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
