"""How deep the default reaches: training, rounding, pruning, embeddings and other views against it.

    EFFACE_DATA=… python -m research.benchmarks.depth STORE cells     # goes on where stopped
    EFFACE_DATA=… python -m research.benchmarks.depth STORE records   # research/results/depth.json, .md and .svg

Two requests to one base model of goals.py, next to two models retrained from fresh weights, nothing
done, and methods of others that need nothing that stays, as published. Each model is attacked in the
same way with what neither method nor guard saw; the retrained ones say what an attack finds where
there is nothing to be found.
"""

import sys
from collections.abc import Iterator
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from efface.grid import Job, is_done, read, run
from efface.methods import METHODS
from research import pages
from research.benchmarks.depth_attacks import BATCH, DRAWS, EPOCHS, RATE, SEED, VIEWS
from research.benchmarks.every_method import COLLAPSE
from research.benchmarks.goals import FIRST, OURS, Goal, goals
from research.jobs import training
from research.pages import origin, table
from research.tables import write_record

# Of each kind of request `jit` and those nearest to retraining as published that do not collapse (goals).
PEERS = {
    "random": ("jit", "amun", "boundary_shrink", "boundary_expand"),
    "class": ("jit", "delete", "mislabel", "synthetic_embeddings", "boundary_shrink"),
}
COLOURS = ("C0", "C1", "C2", "C4", "C5", "C9", "C6")
RETRAINED = ("retrained", "retrained, other seed")
NOTHING = "nothing done"


def requests() -> Iterator[tuple[Goal, dict[str, Job]]]:
    """The random request and the class of the first base, with the models that are attacked."""
    for goal in goals(0):
        if goal.kind not in PEERS:
            continue
        how: dict[str, Any] = {"first": FIRST, "excluded": goal.forget, "keep_weights": True}
        how["forget_classes"] = goal.forget_classes
        # two of the three retrained models of goals.py, here with their weights
        seeds = (1510, 1511)
        models = {
            name: training("cifar10-vgg-quarter", "cifar10", seed=seed, **how)
            for name, seed in zip(RETRAINED, seeds, strict=True)
        }
        models |= {NOTHING: goal.base, OURS: goal.made(OURS, holdout=True, keep_weights=True)}
        for name in PEERS[goal.kind]:
            seen = {"holdout": "holdout" in METHODS[name].reads, "guard": False}
            models[f"`{name}`"] = goal.made(name, **seen, keep_weights=True)
        yield goal, models


def attack_on(goal: Goal, model: Job) -> Job:
    """The job that attacks a model."""
    settings = {"forget": goal.forget, "forget_classes": goal.forget_classes}
    needs = {"base": goal.base, "model": model}
    return Job("research.benchmarks.depth_attacks:attacked", settings, needs=needs, kind="attacked")


def main(store: str, what: str) -> None:
    """Make the models and attack them, or write the record of the requests that are done."""
    parts = []
    for goal, models in requests():
        attacks = {name: attack_on(goal, model) for name, model in models.items()}
        if what == "cells":
            run([*models.values(), *attacks.values()], store, processes=1)
        elif all(is_done(store, attack.id) for attack in attacks.values()):
            found = {name: read(store, attack).statistics for name, attack in attacks.items()}
            ids = {name: job.id for name, job in models.items()}
            about = {"kind": goal.kind, "request": goal.name, "base_seed": goal.seed, "ids": ids}
            parts.append({**about, "models": found})
    if what == "records":
        settings = {"rate": RATE, "epochs": EPOCHS, "batch": BATCH, "draws": DRAWS, "seed": SEED}
        found = {"settings": settings, "requests": parts}
        write_record("depth", "depth STORE cells and records", found, indent=None)


def scalars(found: dict[str, Any]) -> dict[str, float]:
    """One number of each attack on a model."""
    values = {
        "relearning: mean accuracy on the other half": np.mean(found["relearning"]["other"]),
        "relearning: mean accuracy on these records": np.mean(found["relearning"]["these"]),
        "linear probe of embeddings, AUC": found["probe"][0],
        "linear attack on all outputs, AUC": found["outputs"][0],
        "own log-odds less those of views, AUC": found["dent"][0],
    }
    for name, both in found["copies"].items():
        values[f"{name}: forget accuracy"] = both["accuracy"][0]
        values[f"{name}: mean log-odds"] = both["log_odds"][0]
    for name, both in found["views"].items():
        for what, label in (("accuracy", "accuracy"), ("log_odds", "log-odds")):
            values[f"{name}: {label}, forget − unseen"] = both[what][0] - both[what][1]
    return {name: float(value) for name, value in values.items()}


def collapsed(models: dict[str, Any], name: str) -> bool:
    """More than 10 points of unseen accuracy lost: no method to be compared with."""
    lost = models[NOTHING]["unseen_accuracy"] - models[name]["unseen_accuracy"]
    return lost > COLLAPSE


def verdict(values: dict[str, float], peers: list[str]) -> tuple[str, str]:
    """Ours next to the best of the peers by the distance to the mean of the retrained models.

    ``no worse``: at most as far as the best, or as the two retrained ones lie apart.
    """
    first, second = (values[name] for name in RETRAINED)
    middle, apart = (first + second) / 2, abs(first - second)
    away = {name: abs(values[name] - middle) for name in (OURS, *peers)}
    best = min(peers, key=lambda name: away[name])
    fit = away[OURS] <= max(away[best], apart)
    return ("no worse" if fit else "**worse**"), best


def judged(part: dict[str, Any]) -> Iterator[tuple[str, dict[str, float], str, str]]:
    """Of each attack its name, the value of each model, the verdict and the best peer."""
    models = part["models"]
    each = {name: scalars(found) for name, found in models.items()}
    peers = [n for n in models if n.startswith("`") and not collapsed(models, n)]
    for name in each[OURS]:
        values = {model: found[name] for model, found in each.items()}
        yield name, values, *verdict(values, peers)


def _one_by_one(part: dict[str, Any]) -> Iterator[str]:
    """In how many attacks ours is no worse than each of the peers alone."""
    values = [one for _, one, _, _ in judged(part)]
    for name in values[0]:
        if name.startswith("`") and not collapsed(part["models"], name):
            fit = sum(verdict(one, [name])[0] == "no worse" for one in values)
            yield f"no worse than {name} in {fit}"


def page(record: dict[str, Any]) -> str:
    """A table for each request, and what fails."""
    parts: list[str] = []
    for part in record["requests"]:
        names, rows = list(part["models"]), list(judged(part))
        worse = [name for name, _, said, _ in rows if said != "no worse"]
        lost = [n for n in names if n.startswith("`") and collapsed(part["models"], n)]
        head = " | ".join(["attack", *names, "ours", "best of the others"])
        unseen = [f"{100 * part['models'][n]['unseen_accuracy']:.1f} %" for n in names]
        cells = [["unseen accuracy", *unseen, "", ""]]
        cells += [[n, *(f"{v:.3f}" for v in values.values()), s, b] for n, values, s, b in rows]
        said = f"No worse than the best of the others in {len(rows) - len(worse)} of {len(rows)}."
        if worse:
            said += f" Worse: {'; '.join(worse)}."
        said += f" One by one: {', '.join(_one_by_one(part))}."
        if lost:
            said += f" Collapsed (more than 10 points of unseen accuracy lost) and not compared with: {', '.join(lost)}."
        parts += [f"## {part['kind'].capitalize()} ({part['request']})", said, table(head, cells)]
    made = record["settings"]
    return pages.page(
        "Attacks on the default, next to retraining",
        f"{origin(record)}. The base model of seed {record['requests'][0]['base_seed']} of [goals](../benchmarks/goals.py): a quarter VGG11 on "
        "10,000 images of CIFAR-10. One model of each method, two retrained: a difference as large as that of the two is noise. The default "
        "ran under the guard with half of the test images as its holdout, the others as published and without a guard, with that holdout where "
        "they read one. Unseen records are the other half; of the class request those of that class. What counts is the distance to the mean of the two "
        "retrained models, not a small value: no worse is at most as far as the best of the others, or as the two retrained ones lie apart.",
        f"Relearning: Adam at {made['rate']:g} on half of the forget records, {made['epochs']} epochs in batches of {made['batch']}, accuracy averaged over "
        f"the curve. Linear probe and attack: fitted on half of forget and unseen records, scored on the rest; AUC, reference 0.5. Views: {made['draws']} draws "
        "each. Own log-odds less those of views: is a record less sure, or surer, than its mirrored and shifted views say? Copies: int8 and int4 weights, "
        "or so many of the smallest weights set to 0.",
        "![Where it fails: relearning, views, smaller copies](depth.svg)",
        *parts,
    )


def figure(record: dict[str, Any]) -> Figure:
    """Relearning, views and smaller copies, a row a request."""
    parts = record["requests"]
    chart, axes = plt.subplots(
        len(parts), 3, figsize=(13.5, 3.6 * len(parts)), layout="constrained", squeeze=False
    )
    for row, part in zip(axes, parts, strict=True):
        models = part["models"]
        names = [n for n in models if not n.startswith("`") or not collapsed(models, n)]
        for name in names:
            found, look = models[name], _look(name)
            curve = found["relearning"]
            row[0].plot(curve["at"], curve["other"], **look)
            views = [found["views"][v]["log_odds"] for v in VIEWS]
            row[1].plot(range(len(VIEWS)), [a - b for a, b in views], marker="o", **look)
            small = [copy["log_odds"][0] for copy in found["copies"].values()]
            row[2].plot(range(len(small)), small, marker="o", **look)
        request = f"{part['kind']} ({part['request']})"
        row[0].set(xlabel="steps on one half", ylabel="accuracy on the other half", title=request)
        row[1].set(ylabel="mean log-odds, forget − unseen", title="other views")
        row[1].axhline(0, color="0.7", linewidth=0.8)
        short = ["as it is", "mirrored", "shifted", "persp. 0.3", "persp. 0.6"]
        row[1].set_xticks(range(len(VIEWS)), short, fontsize=8)
        row[2].set(ylabel="mean log-odds, forget", title="smaller copies")
        labels = [name.replace(" ", "\n", 1) for name in models[OURS]["copies"]]
        row[2].set_xticks(range(len(labels)), labels, fontsize=8)
        row[2].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.02, 1))
    return chart


def _look(name: str) -> dict[str, Any]:
    """Retrained models grey, ours black, nothing done red, each of the others a colour of its own."""
    look: dict[str, Any] = {"label": name.strip("`"), "markersize": 4, "linewidth": 1.2}
    if name in RETRAINED:
        return look | {"color": "0.6", "linestyle": "--", "linewidth": 2.5}
    if name == OURS:
        return look | {"color": "black", "linewidth": 2.2, "linestyle": "-"}
    others = sorted({one for some in PEERS.values() for one in some})
    colours = {NOTHING: "C3"} | dict(zip(others, COLOURS, strict=True))
    return look | {"color": colours[name.strip("`")], "linestyle": "-"}


if __name__ == "__main__":
    main(*sys.argv[1:])
