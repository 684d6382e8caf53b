"""research/results/information.md and .svg, from the committed records of information.py."""

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from efface.metrics.lira import u_lira
from research.benchmarks.information import GROUPED, NEIGHBOURS, primary
from research.benchmarks.information_models import SETTINGS
from research.benchmarks.information_read import EXPOSED_AT, Found, group_rows
from research.leave_out import Removal, calibrated_threshold, least_informative_first

WORDS = {
    "cifar10": "CIFAR-10, 8,000 images, quarter VGG11",
    "digits": "digits, 1,198 images, small net",
}
TRUTHS = ("memorisation", "gain", "answer gain")
TOP = 0.05


def rank_correlation(one: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """Spearman's with a 95 % interval over records (Bonett and Wright 2000)."""
    rho = float(stats.spearmanr(one, other).statistic)
    z, spread = np.arctanh(rho), np.sqrt((1 + rho**2 / 2) / (len(one) - 3))
    return rho, float(np.tanh(z - 1.96 * spread)), float(np.tanh(z + 1.96 * spread))


def by_record(found: Found) -> list[str]:
    """One line a quantity: its rank correlation with what leaving a record out changes."""
    exposed = found.exposed()
    lines = [
        "| more of … should mean more information | with memorisation | with gain | with the answers' KL | exposed records: area | among the top 5 % |",
        "|---|---|---|---|---|---|",
    ]
    for key in found.quantities():
        values = found.columns[key]
        if not np.ptp(values):
            lines.append(f"| {said(key)} | one value for all | | | | |")
            continue
        shown = [
            _interval(*rank_correlation(values, found.truth[truth].astype(np.float64)))
            for truth in TRUTHS
        ]
        area = stats.mannwhitneyu(values[exposed], values[~exposed]).statistic
        area /= exposed.sum() * (~exposed).sum()
        top = np.argsort(-values, kind="stable")[: round(TOP * len(values))]
        lines.append(
            f"| {said(key)} | {' | '.join(shown)} | {area:.3f} | {100 * exposed[top].mean():.0f} % |"
        )
    return lines


def said(key: str) -> str:
    """A column in words."""
    first, _, rest = key.partition(" ")
    names = {
        "copies": f"1 − α zero-shot, copies at σ {rest}",
        "features": f"1 − α in features, {rest}",
        "inputs": f"1 − α in inputs, {rest}",
        "gradient": f"‖∇g‖, g {rest.replace('_', ' ')}",
        "hessian": f"‖∇²g‖, g {rest.replace('_', ' ')}",
        "ratio": f"κ, g {rest.replace('_', ' ')}",
        "margin": "− margin (log-odds of the label)",
        "input": "‖∇ loss‖ by the input",
    }
    text = names.get(first, key)
    return (
        text.replace("answers", f"{NEIGHBOURS} neighbours by the answer")
        if "features" in text or "inputs" in text
        else text
    )


def by_group(found: Found) -> list[str]:
    """Rank correlation over groups of a quantity's mean and the effect of removal."""
    rows = group_rows(found)
    effects = {
        "on its own records": [found.removal(key, "own", "log_p").difference for key in rows],
        "on unseen records": [found.removal(key, "unseen", "log_p").difference for key in rows],
    }
    lines = [
        f"| mean of | {' | '.join(f'removal {where}' for where in effects)} |",
        "|---|---|---|",
    ]
    columns = {**found.columns, "gain by halves": found.truth["gain"]}
    for key in [*found.quantities(), "gain by halves"]:
        means = [columns[key][np.array(some)].mean() for some in rows.values()]
        if np.ptp(means):
            shown = [_interval(*_over_groups(means, effect)) for effect in effects.values()]
            lines.append(f"| {said(key) if key in found.columns else key} | {' | '.join(shown)} |")
    return lines


def _over_groups(one: list[float], other: list[float]) -> tuple[float, float, float]:
    """Spearman's with a 95 % interval from resampled groups."""
    pairs, rng = np.array([one, other]), np.random.default_rng(0)
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
    return f"{value:.2f} ({low:.2f} to {high:.2f})".replace("-", "−")


def groups_table(found: Found) -> list[str]:
    """Each group: what its removal did, and what an attacker sees of its records."""
    lines = [
        "| group | records | right with / without | mean p: change | seed noise, mean and most | | Δ ln p | unseen: right with / without | mean p: change | seed noise | | U-LiRA area | at 1 % |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    order = sorted(found.groups, key=lambda key: found.removal(key, "own").difference)
    for key in order:
        rows, accuracy = found.groups[key], found.record["removals"][key]["accuracy"]
        own, unseen = (found.removal(key, part) for part in ("own", "unseen"))
        attack = u_lira(found.odds[:, rows], found.member[:, rows]).attack
        low, high = attack.auc_interval
        rate = next(rate for rate in attack.rates if rate.fpr == EXPOSED_AT)
        cells = [
            key, str(len(rows)), _both(accuracy["own"]), f"{own.difference:.3f}", f"{own.noise:.3f}, {own.most:.3f}", _verdict(own),
            f"{found.removal(key, 'own', 'log_p').difference:.2f}", _both(accuracy["unseen"]), f"{unseen.difference:.3f}",
            f"{unseen.noise:.3f}, {unseen.most:.3f}", _verdict(unseen), f"{attack.auc:.3f} ({low:.3f} to {high:.3f})",
            "–" if rate.tpr is None else f"{100 * rate.tpr:.0f} %",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |".replace("| -", "| −"))
    return lines


def _both(pair: list[float]) -> str:
    return f"{100 * pair[0]:.1f} / {100 * pair[1]:.1f}"


def _verdict(found: Removal) -> str:
    if found.within_noise:
        return "within"
    return "shows" if found.shows else "cannot be told"


def threshold_lines(found: Found) -> list[str]:
    """What the rule says of τ, for the groups cut by zero-shot information content."""
    alpha, margin = 1 - primary(found.columns)["copies"], -found.columns["margin"]
    order = least_informative_first(alpha, margin)
    removals = {}
    for size in sorted({*found.setting.nested, found.setting.group}):
        tail = "" if size == found.setting.group else f" {size}"
        ends = (f"copies low{tail}", f"random{tail or ' 0'}", f"copies high{tail}")
        some = (found.removal(end, "own") for end in ends)
        removals[size] = dict(zip(("low", "random", "high"), some, strict=True))
    chosen = calibrated_threshold(alpha, margin, removals)
    lines = [
        "| removed | α and margin of the last record, low group | low | random | high |",
        "|---|---|---|---|---|",
    ]
    for size, some in removals.items():
        last = order[size - 1]
        cells = [f"{one.difference:.3f}, {_verdict(one)}" for one in some.values()]
        lines.append(f"| {size} | {alpha[last]:.3f}, {margin[last]:.1f} | {' | '.join(cells)} |")
    text = "no τ: no size whose low group is within the noise while the others show."
    if chosen.value is not None:
        text = (
            f"τ = {chosen.value:.3f} with a margin of {chosen.tie_break:.1f} or more where α is just that: "
            f"{chosen.records} of {len(alpha)} records ({(alpha >= chosen.value).sum()} have an α of at least τ)."
        )
    return [*lines, "", f"By the rule (`calibrated_threshold`): {text}"]


def reliability(found: Found) -> float:
    """Rank correlation of the gain from one half of the models with that from the other."""
    return float(stats.spearmanr(found.truth["gain 0"], found.truth["gain 1"]).statistic)


def section(found: Found) -> list[str]:
    """All tables of one setting."""
    setting, exposed = found.setting, found.exposed()
    record, rows = found.record, group_rows(found)
    return [
        f"## {WORDS[found.name]}", "",
        (f"`{record['command']}`, {record['date']}. {setting.halves} models on random halves, {setting.whole} on all records, {setting.again} without each group; "
         f"quantities of one model on all records (seed 0 of those). Gain from one half of the models ranks records as from the other: {reliability(found):.2f}. "
         f"Mean memorisation {found.truth['memorisation'].mean():.2f}, mean gain {found.truth['gain'].mean():.2f} nats, answers' KL {found.truth['answer gain'].mean():.2f} "
         f"(floor {found.truth['answer floor'].mean():.2f}). Exposed: found by U-LiRA at 1 % false alarms in more than half of the models trained on them: {exposed.sum()} of {len(exposed)} records ({100 * exposed.mean():.1f} %)."), "",
        "### Record by record", "", *by_record(found), "",
        "### Group by group", "",
        f"{len(rows)} groups of {setting.group}. Effect: ln p(y|x) of models with the group less that of models without it.", "",
        *by_group(found), "",
        *groups_table(found), "",
        "### A threshold?", "",
        f"Groups cut by zero-shot information content, ties by the margin ({100 * (primary(found.columns)['copies'] == 0).mean():.0f} % of the records have α = 1); change of the mean p(y|x) on the group's own records.", "",
        *threshold_lines(found), "",
    ]  # fmt: skip


def page(*_: object) -> str:
    """The whole page."""
    every = [Found(name) for name in SETTINGS]
    head = [
        "# Which records matter", "",
        ("Built from the records in `information`. Spearman's rank correlation; per record its interval counts records, over groups it is "
         "resampled groups; noise of the models that the truth is estimated by lowers all of them. All quantities are turned so that more should mean more information. "
         f"Groups: the lowest, middle and highest by {', '.join(GROUPED)} and by the gain itself (from half of the models on halves), and random ones. Removal: the mean of p(y|x) over the records, models with the group less models "
         "without it; seed noise: by how much two models of one kind are apart in that mean, pooled over the groups of one size since a group has few models. Within: the change is at most the mean of these; shows: above their greatest. "
         "Groups overlap, and most were cut by the quantities that they are correlated with: their intervals are too narrow."), "",
        "![scatter and groups](information.svg)", "",
    ]  # fmt: skip
    return "\n".join(head + [line for found in every for line in section(found)])


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
        left.boxplot(
            some,
            positions=levels,
            widths=0.03,
            showfliers=False,
            manage_ticks=False,
            medianprops={"color": "black"},
        )
        left.plot(levels, [values.mean() for values in some], "D", color="0.3", markersize=3)
        left.set(
            xlabel="zero-shot information content α",
            ylabel="memorisation",
            title=f"{found.name}: n = {len(alpha)} records",
            xlim=(levels.min() - 0.05, 1.05),
        )
        marks = {"low": "v", "middle": "s", "high": "^", "random": "o"}
        for key, rows in group_rows(found).items():
            kind = next(kind for kind in marks if kind in key)
            right.plot(
                alpha[rows].mean(),
                found.removal(key, "own").difference,
                marks[kind],
                color="0.2",
                fillstyle="none" if kind == "random" else "full",
                markersize=5,
            )
        for kind, mark in marks.items():
            right.plot(
                [],
                [],
                mark,
                color="0.2",
                fillstyle="none" if kind == "random" else "full",
                label=kind,
            )
        right.set(
            xlabel="mean α of the group",
            ylabel="change of mean p(y|x) when removed",
            title=f"n = {len(group_rows(found))} groups of {found.setting.group}",
        )
        right.legend(frameon=False)
    return drawn
