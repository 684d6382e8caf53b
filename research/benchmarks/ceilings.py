"""What an attacker per record would see of a method that does all that its information allows, simulated.

    python -m research.benchmarks.ceilings    # research/results/ceilings.json, .md and .svg; a minute

On the log-odds of the 32 shadow runs of per_record.py. A method that knows a score s of each forget
record gives it the log-odds

    Q(Φ(a z(s) + b ε)),   ε ~ N(0, 1),

Q the quantiles of the log-odds of the targets that this run's model never saw, z(s) the normal score
of the record among the forget records. a = 1, b = 0 ranks; a = 0, b = 1 draws; a = b = 0 gives all
the unseen median. The never-seen records keep what the untouched model has, as if utility cost
nothing. a and b are the best of a grid on one half of the targets and are scored on the other half, so
the figure is what a well-tuned method of this kind reaches, not a bound on every conceivable one.
"""

from itertools import product
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import norm, rankdata, spearmanr

from efface.metrics.lira import PerRecord, u_lira
from research import pages
from research.pages import interval, origin, percent, table
from research.tables import read_record, write_record

SEED = 0
WEIGHTS = [
    *product((0.0, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0), (0.0, 0.2, 0.4, 0.6, 0.7, 0.85, 1.0))
]
REFERENCES = (1, 2, 4, 8)
CORRELATIONS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

Score = np.ndarray  # (runs, targets); read only where the target was trained on


def normal_scores(values: np.ndarray) -> np.ndarray:
    """Φ⁻¹ of the mid-ranks."""
    return norm.ppf((rankdata(values) - 0.5) / len(values))


def placed(odds: np.ndarray, member: np.ndarray, score: Score, a: float, b: float) -> np.ndarray:
    """The untouched log-odds, those of forget records replaced; one draw of ε a run and target."""
    noise, new = np.random.default_rng(SEED).standard_normal(odds.shape), odds.copy()
    for run, going in enumerate(member):
        level = a * normal_scores(score[run, going]) + b * noise[run, going]
        new[run, going] = np.quantile(odds[run, ~going], norm.cdf(level))
    return new


def ceiling(odds: np.ndarray, member: np.ndarray, score: Score) -> dict[str, Any]:
    """The attack where the weights (a, b) of each half of the targets were chosen on the other half."""
    every = {weights: placed(odds, member, score, *weights) for weights in WEIGHTS}
    half, new, chosen = np.arange(odds.shape[1]) % 2 == 1, odds.copy(), []
    for scored in (half, ~half):
        aucs = {w: u_lira(x[:, ~scored], member[:, ~scored]).attack.auc for w, x in every.items()}
        # nearest to 1/2: below it a record is found by being too unlikely
        chosen.append(min(aucs, key=lambda weights: abs(aucs[weights] - 0.5)))
        new[:, scored] = every[chosen[-1]][:, scored]
    return {"weights": chosen, **measured(u_lira(new, member))}


def measured(found: PerRecord) -> dict[str, Any]:
    """AUC and TPR at 1 % FPR."""
    rate = found.attack.rates[0]
    return {"auc": found.attack.auc, "interval": [*found.attack.auc_interval], "tpr": rate.tpr}


def reference_models(odds: np.ndarray, member: np.ndarray, k: int) -> Score:
    """Mean log-odds in the next k runs that never saw the target: models of equal accuracy."""
    score = np.zeros(odds.shape)
    for run, target in np.ndindex(*odds.shape):
        others = (run + np.arange(1, len(odds))) % len(odds)
        score[run, target] = odds[others[~member[others, target]][:k], target].mean()
    return score


def imagined(truth: np.ndarray, correlation: float, shape: tuple[int, ...], *, own: bool) -> Score:
    """A score with this correlation to the normal scores of ``truth``; an error ``own`` to each run."""
    draw = np.random.default_rng([SEED, int(100 * correlation)])
    error = draw.standard_normal(shape if own else (1, shape[1]))
    return (
        correlation * normal_scores(truth) + np.sqrt(1 - correlation**2) * error + np.zeros(shape)
    )


def main() -> None:
    """Every kind of information."""
    arrays = read_record("per_record.npz")
    odds, member = arrays["baseline"].astype(np.float64), arrays["unlearned"]
    truth = np.nanmean(np.where(member, np.nan, odds), axis=0)
    nothing = np.random.default_rng(SEED + 1).standard_normal(odds.shape)
    scores = {"nothing (a score of noise)": nothing, "own log-odds": odds}
    scores |= {f"{k} reference": reference_models(odds, member, k) for k in REFERENCES}
    found: dict[str, Any] = {}
    for name, score in scores.items():
        rank = np.mean([spearmanr(score[run, m], truth[m])[0] for run, m in enumerate(member)])
        found[name] = {"rank": float(rank), **ceiling(odds, member, score)}
    for own, rho in product((True, False), CORRELATIONS):
        score = imagined(truth, rho, odds.shape, own=own)
        name = f"imagined {'own' if own else 'shared'} {rho}"
        found[name] = {"rank": rho, **ceiling(odds, member, score)}
    found["one reference, taken whole"] = measured(
        u_lira(np.where(member, scores["1 reference"], odds), member)
    )
    made = {
        name: measured(u_lira(arrays[name].astype(float), member))
        for name in arrays
        if name != "unlearned"
    }
    write_record("ceilings", "ceilings", {"seed": SEED, "ceilings": found, "methods": made})


def page(record: dict[str, Any]) -> str:
    """The tables from the record."""
    known = {name: row for name, row in record["ceilings"].items() if "imagined" not in name}
    rows = ([name, *_score(row), *attacked(row)] for name, row in known.items())
    errors = (
        [
            f"{rho}",
            *(
                attacked(record["ceilings"][f"imagined {own} {rho}"])[0]
                for own in ("own", "shared")
            ),
        ]
        for rho in CORRELATIONS
    )
    made = ([f"`{name}`", *attacked(row)] for name, row in record["methods"].items())
    return pages.page(
        "What an attacker per record would see of the best use of what a method knows",
        f"{origin(record)}, on the log-odds of [per_record](per_record.md): U-LiRA of 400 records in 32 shadow runs, chance and "
        "reference 0.5. A method that knows a score of each forget record gives it the log-odds at place Φ(a z + b ε) among those of "
        "records never seen, z the normal score of its rank; a, b are chosen on one half of the records and scored on the other. Utility "
        "is as if it cost nothing. Rank: Spearman correlation with the record's mean log-odds in the models that never saw it.",
        table("known of each forget record | rank | a, b (each half) | AUC | TPR at 1 % FPR", rows),
        "## An imagined score",
        "Of a given correlation with the normal scores of that mean; its error is drawn for each model, or is the same in all models: what "
        "is always wrong about a record in the same way gives the record away, however well it is ranked.",
        table(
            "correlation | AUC, an error of each model's own | AUC, one error in all models", errors
        ),
        "![AUC over the correlation of the score](ceilings.svg)",
        "## What methods reach on the same runs",
        table("method | AUC | TPR at 1 % FPR", made),
    )


def _score(row: dict[str, Any]) -> list[str]:
    weights = [f"{a}, {b}" for a, b in row.get("weights", ())]
    return [f"{row['rank']:.2f}" if "rank" in row else "–", "; ".join(weights) or "–"]


def attacked(row: dict[str, Any]) -> list[str]:
    """AUC with its interval and TPR, as cells of a table."""
    found = interval(row["auc"], *row["interval"])
    return [found, "not resolvable" if row["tpr"] is None else f"{percent(row['tpr'])} %"]


def figure(record: dict[str, Any]) -> Figure:
    """AUC over the correlation of the score, with what is known and what methods reach."""
    chart, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    labels = {"own": "an error of each model's own", "shared": "one error in all models"}
    for own, label in labels.items():
        values = [record["ceilings"][f"imagined {own} {rho}"]["auc"] for rho in CORRELATIONS]
        axes.plot(CORRELATIONS, values, "o-", markersize=3, label=label)
    for name in ("own log-odds", *(f"{k} reference" for k in REFERENCES)):
        row = record["ceilings"][name]
        axes.plot(row["rank"], row["auc"], "k^", markersize=5)
        place = {"xy": (row["rank"], row["auc"]), "xytext": (0, 7), "fontsize": 8, "ha": "center"}
        axes.annotate(name.split(" ref")[0], **place, textcoords="offset points")
    axes.text(0.62, 0.505, "that many\nreference models", fontsize=8, ha="center")
    for name in ("baseline", "jit"):
        auc = record["methods"][name]["auc"]
        axes.axhline(auc, color="0.7", linewidth=0.8)
        axes.text(0.2, auc + 0.005, name, color="0.4", fontsize=8)
    axes.axhline(0.5, color="0.3", linewidth=0.8, linestyle=":")
    axes.set(
        xlabel="rank correlation of the score with the record's unseen log-odds",
        ylabel="AUC of U-LiRA",
    )
    axes.legend(fontsize=8)
    return chart


if __name__ == "__main__":
    main()
