"""Entropies of the forget records before, after and retrained: a histogram, and what decides.

The paper's figure 4 (https://arxiv.org/abs/2402.01401) compares one unlearned with one retrained
model by a p-value of two samples. Here several retrained models say how far apart retrained models
are, and a model is judged by that variability. The data are scikit-learn's digits, which need no
network; the model is that of the recipe ``digits-conv`` at a quarter of its width. 10 % random
records are forgotten. The picture is ``entropy``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

from efface.methods.jit import jit
from efface.metrics.equivalence import LEVEL, Likeness, compare_with_retrained, likeness
from efface.metrics.evaluation import Evaluation, evaluate
from efface.nets import conv_small
from efface.types import Records, Split, no_progress
from research.geometry.experiment import Counting, save
from research.recipes import RECIPES, train

# Models of each kind, where there are as many seeds; 8 retrained ones estimate the variability.
RETRAINED, ORIGINALS = 10, 3

# Retrained models have seeds of their own, so far from those of the originals.
APART = 1_000

WIDTH, SHARE = 8, 0.1


@dataclass(frozen=True, eq=False)
class Parts:
    """The digits: forget records, retain records, and a third that no model sees."""

    forget: Records
    retain: Records
    holdout: Records

    @property
    def training(self) -> Records:
        """What the original is trained on: retain and forget records."""
        x = torch.cat([self.retain.x, self.forget.x])
        y = torch.cat([self.retain.y, self.forget.y])
        low, high = self.forget.low, self.forget.high
        return Records(x, y, self.retain.ids + self.forget.ids, low=low, high=high)


def parts(seed: int = 0) -> Parts:
    """Every third digit is held out; a tenth of the others is forgotten, drawn by ``seed``."""
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    pixels, labels = data.data, data.target
    every = Records(
        torch.tensor(pixels / 8 - 1, dtype=torch.float32).reshape(-1, 1, 8, 8),
        torch.tensor(labels, dtype=torch.int64),
        low=torch.tensor(-1.0),
        high=torch.tensor(1.0),
    )
    rows = np.arange(len(labels))
    seen = rows[rows % 3 != 0]
    chosen = np.random.default_rng(seed).choice(seen, int(SHARE * len(seen)), replace=False)
    forget, retain = np.sort(chosen), np.setdiff1d(seen, chosen)
    return Parts(*(every.take(own.tolist()) for own in (forget, retain, rows[rows % 3 == 0])))


def trained(records: Records, seed: int) -> nn.Module:
    """The model after the recipe; the global random state is as it was before."""
    # initial weights come from the global generator, which is the caller's
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = conv_small(10, width=WIDTH)
    return train(model, records, RECIPES["digits-conv"], seed=seed)


def experiment(
    out: Path, *, seeds: Sequence[int], progress: Counting = no_progress
) -> dict[str, Any]:
    """Train, forget by ``jit`` with its defaults, retrain; draw the entropies and judge them.

    Raises InputError when there is one seed: a single retrained model shows no variability.
    """
    data = parts()
    originals, others = list(seeds[:ORIGINALS]), list(seeds[:RETRAINED])
    found: dict[str, list[Evaluation]] = {"before": [], "jit": [], "retrained": []}
    with progress("entropy", len(others) + 2 * len(originals)) as advance:
        for seed in others:
            found["retrained"].append(evaluate(trained(data.retain, APART + seed), data.forget))
            advance(f"retrained, seed {seed}")
        for seed in originals:
            given = trained(data.training, seed)
            found["before"].append(evaluate(given, data.forget))
            advance(f"original, seed {seed}")
            split = Split(data.forget, data.holdout)
            found["jit"].append(evaluate(jit(given, split, seed=seed), data.forget))
            advance(f"jit, seed {seed}")
    facts = judged(found)
    save(draw(found, facts), out, "entropy")
    return facts


def judged(found: Mapping[str, Sequence[Evaluation]]) -> dict[str, Any]:
    """Mean entropy, accuracy and verdict of each model; how often a retrained one passes."""
    others = entropies(found["retrained"])
    passed = [
        # each retrained model against the others: how often the rule rejects what it must accept
        compare_with_retrained(others[one], np.delete(others, one, axis=0)).like_retrained
        for one in range(len(others))
        if len(others) > 2  # noqa: PLR2004
    ]
    return {
        "n": len(found["retrained"][0]),
        "retrained_models": len(others),
        "level": LEVEL,
        "retrained": {
            "mean_entropy_nats": [_nats(m) for m in found["retrained"]],
            "forget_accuracy": [float(m.correct.mean()) for m in found["retrained"]],
            "like_the_others": [_said(verdict) for verdict in passed],
        },
        **{
            name: [
                {
                    "mean_entropy_nats": _nats(model),
                    "forget_accuracy": float(model.correct.mean()),
                    **_verdict(likeness(model.entropy, others)),
                }
                for model in found[name]
            ]
            for name in ("before", "jit")
        },
    }


def entropies(models: Sequence[Evaluation]) -> Float[np.ndarray, "s n"]:
    """Nats, one row a model."""
    return np.array([model.entropy for model in models])


def _nats(model: Evaluation) -> float:
    return float(model.entropy.mean())


def _verdict(one: Likeness) -> dict[str, Any]:
    """What decides, and the two-sample p-values that do not."""
    comparison = one.comparison
    return {
        "like_retrained": _said(comparison.like_retrained),
        "ks_mean": comparison.ks_mean,
        "ks_between_retrained": comparison.floor,
        "percentile": comparison.percentile,
        "outlier_p": comparison.outlier_p,
        "tost_p": comparison.tost_p,
        "a12": one.a12,
        "ks_p": one.ks_p,
        "wilcoxon_p": one.wilcoxon_p,
    }


def _said(verdict: bool | None) -> str:
    return {True: "like", False: "unlike", None: "inconclusive"}[verdict]


LANES = {
    "before": ("before", "////", "0.9"),
    "jit": ("after jit", "", "0.6"),
    "retrained": ("retrained", "xx", "1.0"),
}


def draw(found: Mapping[str, Sequence[Evaluation]], facts: Mapping[str, Any]) -> Figure:
    """A lane each; every model of a kind is a line, the bars are their mean."""
    figure = Figure(figsize=(7.5, 6.0), layout="constrained")
    lanes = figure.subplots(3, 1, sharex=True, sharey=True)
    # the axis is logarithmic, and an entropy can be 0
    least = min(float(entropies(models).min()) for models in found.values())
    edges = np.geomspace(max(least, 1e-7), np.log(10), 26)
    for axes, name in zip(lanes, LANES, strict=True):
        _lane(axes, name, entropies(found[name]), edges)
        axes.set_title(_caption(name, facts), fontsize=9, loc="left")
    lanes[-1].set_xlabel("entropy of the answer in nats (logarithmic; at most ln 10 = 2.30)")
    lanes[1].set_ylabel(f"share of the {facts['n']} forget records")
    return figure


def _lane(axes: Axes, name: str, values: np.ndarray, edges: np.ndarray) -> None:
    _, hatch, fill = LANES[name]
    # values below the axis count in its first bar, so that the bars sum to 1
    shares = np.array([np.histogram(np.clip(row, edges[0], None), edges)[0] for row in values])
    shares = shares / values.shape[1]
    axes.stairs(shares.mean(0), edges, fill=True, facecolor=fill, edgecolor="black", hatch=hatch)
    for row in shares:
        axes.stairs(row, edges, color="black", lw=0.5, alpha=0.5)
    axes.axvline(np.median(values), color="black", lw=2, ls="--")
    axes.set_xscale("log")
    axes.margins(x=0.01)


def _caption(name: str, facts: Mapping[str, Any]) -> str:
    models = facts[name]["mean_entropy_nats"] if name == "retrained" else facts[name]
    nats = np.mean(models if name == "retrained" else [one["mean_entropy_nats"] for one in models])
    text = f"{LANES[name][0]}, {len(models)} models; mean {nats:.3f} nats, dashed: median"
    if name == "retrained":
        return text
    verdicts = ", ".join(one["like_retrained"] for one in models)
    return f"{text}; against the retrained: {verdicts}"
