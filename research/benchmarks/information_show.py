"""research/results/information.md and .svg, from the committed records of information.py."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from efface.metrics.lira import u_lira
from research import pages
from research.benchmarks.information import GROUPED, NEIGHBOURS, primary
from research.benchmarks.information_models import SETTINGS
from research.benchmarks.information_read import EXPOSED_AT, Found, group_rows
from research.leave_out import Removal, calibrated_threshold, least_informative_first
from research.pages import interval, origin, percent, table

SETTING_LABELS = {
    "cifar10": "CIFAR-10, 8,000 images, quarter VGG11",
    "digits": "digits, 1,198 images, small model",
}
TRUTHS = ("memorisation", "gain", "answer gain")
TOP = 0.05


def rank_correlation(one: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """Spearman's with a 95 % interval over records (Bonett and Wright 2000)."""
    rho = float(stats.spearmanr(one, other).statistic)
    z, error = np.arctanh(rho), np.sqrt((1 + rho**2 / 2) / (len(one) - 3))
    return rho, float(np.tanh(z - 1.96 * error)), float(np.tanh(z + 1.96 * error))


def by_record(found: Found) -> str:
    """One line a quantity: its rank correlation with what omitting a record changes."""
    exposed, rows = found.exposed(), []
    for key in found.quantities():
        values = found.columns[key]
        if not np.ptp(values):
            rows.append((label(key), "one value for all", *[""] * 4))
            continue
        truths = (found.truth[truth].astype(np.float64) for truth in TRUTHS)
        shown = [_interval(*rank_correlation(values, truth)) for truth in truths]
        auc = stats.mannwhitneyu(values[exposed], values[~exposed]).statistic
        auc /= exposed.sum() * (~exposed).sum()
        top = np.argsort(-values, kind="stable")[: round(TOP * len(values))]
        rows.append((label(key), *shown, f"{auc:.3f}", f"{percent(exposed[top].mean(), 0)} %"))
    head = "more of … should mean more information | with memorisation | with gain | with the predictions' KL | exposed records: AUC | among the top 5 %"
    return table(head, rows)


def label(key: str) -> str:
    """What a column is called in the tables."""
    first, _, rest = key.partition(" ")
    of = rest.replace("_", " ")
    labels = {
        "copies": f"1 − α zero-shot, copies at σ {rest}",
        "features": f"1 − α in features, {rest}",
        "inputs": f"1 − α in inputs, {rest}",
        "gradient": f"‖∇g‖, g {of}",
        "hessian": f"‖∇²g‖, g {of}",
        "ratio": f"κ, g {of}",
        "margin": "− margin (log-odds of the label)",
        "input": "‖∇ loss‖ by the input",
    }
    neighbours = f"{NEIGHBOURS} neighbours by the prediction"
    text = labels.get(first, key)
    return text.replace("answers", neighbours) if first in {"features", "inputs"} else text


def by_group(found: Found) -> str:
    """Rank correlation over groups of a quantity's mean and the effect of removal."""
    groups, rows = group_rows(found), []
    effects = [
        [found.removal(key, part, "log_p").difference for key in groups]
        for part in ("own", "unseen")
    ]
    columns = {**found.columns, "gain by halves": found.truth["gain"]}
    for key in [*found.quantities(), "gain by halves"]:
        means = [columns[key][np.array(some)].mean() for some in groups.values()]
        if np.ptp(means):
            shown = [_interval(*_over_groups(means, effect)) for effect in effects]
            rows.append((label(key) if key in found.columns else key, *shown))
    return table("mean of | removal on its own records | removal on unseen records", rows)


def _over_groups(one: list[float], other: list[float]) -> tuple[float, float, float]:
    """Spearman's with a 95 % interval from resampled groups."""
    pairs, rng = np.array([one, other]), np.random.default_rng(0)
    # draws of equal values have no rank correlation, and are dropped below
    draws = [rng.integers(0, len(one), len(one)) for _ in range(2_000)]
    with np.errstate(invalid="ignore"):
        found = [
            stats.spearmanr(*pairs[:, rows]).statistic
            for rows in draws
            if np.ptp(pairs[:, rows], axis=1).all()
        ]
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return float(stats.spearmanr(one, other).statistic), float(low), float(high)


def _interval(value: float, low: float, high: float) -> str:
    return interval(value, low, high, form=".2f").replace("-", "−")


def groups_table(found: Found) -> str:
    """Each group: what its removal did, and what an attacker sees of its records."""
    lines = []
    order = sorted(found.groups, key=lambda key: found.removal(key, "own").difference)
    for key in order:
        rows, accuracy = found.groups[key], found.record["removals"][key]["accuracy"]
        own, unseen = (found.removal(key, part) for part in ("own", "unseen"))
        attack = u_lira(found.odds[:, rows], found.member[:, rows]).attack
        rate = next(rate for rate in attack.rates if rate.fpr == EXPOSED_AT)
        found_rate = "–" if rate.tpr is None else f"{percent(rate.tpr, 0)} %"
        change = f"{found.removal(key, 'own', 'log_p').difference:.2f}"
        cells = [key, str(len(rows)), _both(accuracy["own"]), *_changes(own), change]
        cells += [_both(accuracy["unseen"]), *_changes(unseen)]
        cells += [interval(attack.auc, *attack.auc_interval), found_rate]
        lines.append([cell.replace("-", "−") if cell.startswith("-") else cell for cell in cells])
    head = "group | records | right with / without | mean p: change | seed noise, mean and maximum |  | Δ ln p | unseen: right with / without | mean p: change | seed noise |  | U-LiRA AUC | TPR at 1 % FPR"
    return table(head, lines)


def _changes(one: Removal) -> tuple[str, str, str]:
    return f"{one.difference:.3f}", f"{one.noise:.3f}, {one.most:.3f}", _verdict(one)


def _both(pair: list[float]) -> str:
    return " / ".join(map(percent, pair))


def _verdict(found: Removal) -> str:
    if found.within_noise:
        return "within"
    return "shows" if found.shows else "inconclusive"


def threshold_lines(found: Found) -> list[str]:
    """What the rule says of τ, for the groups cut by zero-shot information content."""
    alpha, margin = 1 - primary(found.columns)["copies"], -found.columns["margin"]
    order = least_informative_first(alpha, margin)
    removals, rows = {}, []
    for size in sorted({*found.setting.nested, found.setting.group}):
        tail = "" if size == found.setting.group else f" {size}"
        ends = (f"copies low{tail}", f"random{tail or ' 0'}", f"copies high{tail}")
        some = [found.removal(end, "own") for end in ends]
        removals[size] = dict(zip(("low", "random", "high"), some, strict=True))
        last = f"{alpha[order[size - 1]]:.3f}, {margin[order[size - 1]]:.1f}"
        rows.append((str(size), last, *(f"{o.difference:.3f}, {_verdict(o)}" for o in some)))
    chosen = calibrated_threshold(alpha, margin, removals)
    text = "no τ: no size whose low group is within the noise while the others show."
    if chosen.value is not None:
        text = (
            f"τ = {chosen.value:.3f} with a margin of {chosen.tie_break:.1f} or more where α is just that: "
            f"{chosen.records} of {len(alpha)} records ({(alpha >= chosen.value).sum()} have an α of at least τ)."
        )
    head = "removed | α and margin of the last record, low group | low | random | high"
    return [table(head, rows), f"By the rule (`calibrated_threshold`): {text}"]


def reliability(found: Found) -> float:
    """Rank correlation of the gain from one half of the models with that from the other."""
    return float(stats.spearmanr(found.truth["gain 0"], found.truth["gain 1"]).statistic)


def section(found: Found) -> list[str]:
    """All tables of one setting."""
    setting, exposed, rows = found.setting, found.exposed(), group_rows(found)
    means = {name: f"{found.truth[name].mean():.2f}" for name in (*TRUTHS, "answer floor")}
    ties = percent((primary(found.columns)["copies"] == 0).mean(), 0)
    return [
        f"## {SETTING_LABELS[found.name]}",
        (
            f"{origin(found.record)}. {setting.halves} models on random halves, {setting.whole} on all records, {setting.again} without each group; "
            f"quantities of one model on all records (seed 0 of those). Gain from one half of the models ranks records as from the other: {reliability(found):.2f}. "
            f"Mean memorisation {means['memorisation']}, mean gain {means['gain']} nats, predictions' KL {means['answer gain']} "
            f"(floor {means['answer floor']}). Exposed: found by U-LiRA at 1 % FPR in more than half of the models trained on them: {exposed.sum()} of {len(exposed)} records ({percent(exposed.mean())} %)."
        ),
        "### Record by record",
        by_record(found),
        "### Group by group",
        f"{len(rows)} groups of {setting.group}. Effect: ln p(y|x) of models with the group minus that of models without it.",
        by_group(found),
        groups_table(found),
        "### A threshold?",
        f"Groups cut by zero-shot information content, ties by the margin ({ties} % of the records have α = 1); change of the mean p(y|x) on the group's own records.",
        *threshold_lines(found),
    ]


def page(*_: object) -> str:
    """The whole page."""
    return pages.page(
        "Which records matter",
        "Built from the records in `information`. Spearman's rank correlation; per record its interval counts records, over groups it is "
        "resampled groups; noise of the models that the truth is estimated by lowers all of them. All quantities are oriented so that more should mean more information. "
        f"Groups: the lowest, middle and highest by {', '.join(GROUPED)} and by the gain itself (from half of the models on halves), and random ones. Removal: the mean of p(y|x) over the records, models with the group minus models "
        "without it; seed noise: how far two models of one kind differ in that mean, pooled over the groups of one size since a group has few models. Within: the change is at most the mean of these; shows: above their maximum. "
        "Groups overlap, and most were cut by the quantities that they are correlated with: their intervals are too narrow.",
        "![scatter and groups](information.svg)",
        *(part for name in SETTINGS for part in section(Found(name))),
    )


def figure(*_: object) -> Figure:
    """Memorisation against zero-shot content, and groups' effect against their mean content."""
    every = [Found(name) for name in SETTINGS]
    drawn = Figure(figsize=(8.4, 3.4 * len(every)), layout="constrained")
    axes = drawn.subplots(len(every), 2, squeeze=False)
    for (left, right), found in zip(axes, every, strict=True):
        alpha = 1 - primary(found.columns)["copies"]
        levels = np.unique(np.round(alpha, 6))
        memory = found.truth["memorisation"]
        some = [memory[np.round(alpha, 6) == level] for level in levels]
        looks: dict[str, Any] = {"medianprops": {"color": "black"}, "widths": 0.03}
        left.boxplot(some, positions=levels, showfliers=False, manage_ticks=False, **looks)
        left.plot(levels, [values.mean() for values in some], "D", color="0.3", markersize=3)
        left.set(xlabel="zero-shot information content α", ylabel="memorisation")
        left.set(xlim=(levels.min() - 0.05, 1.05), title=f"{found.name}: n = {len(alpha)} records")
        marks = {"low": "v", "middle": "s", "high": "^", "random": "o"}
        fills = {kind: "none" if kind == "random" else "full" for kind in marks}
        groups = group_rows(found)
        for key, rows in groups.items():
            kind = next(kind for kind in marks if kind in key)
            looks = {"color": "0.2", "fillstyle": fills[kind], "markersize": 5}
            change = found.removal(key, "own").difference
            right.plot(alpha[rows].mean(), change, marks[kind], **looks)
        for kind, mark in marks.items():
            right.plot([], [], mark, color="0.2", fillstyle=fills[kind], label=kind)
        right.set(xlabel="mean α of the group", ylabel="change of mean p(y|x) when removed")
        right.set_title(f"n = {len(groups)} groups of {found.setting.group}")
        right.legend(frameon=False)
    return drawn
