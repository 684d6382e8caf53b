"""GKT scaled down: forget and retain accuracy over its rounds, from an untrained student and a port's.

    EFFACE_DATA=… python -m research.benchmarks.gkt_curve STORE     # research/results/gkt_curve.json, .md and .svg

The class request of every_method.py. Published: 4,000 rounds of 256 inputs, 11.3 million images;
here 400 rounds of 64, 281,600. In the port of JiT's comparison the student's convolutions alone
were drawn again and its linear layers kept the teacher's weights: the second curve.
"""

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import nn

from efface.grid import read
from efface.methods.zero_shot import gkt
from efface.metrics.evaluation import evaluate
from efface.types import Action, Records, Split
from research import pages
from research.benchmarks.every_method import scored
from research.pages import origin, percent, table
from research.recipes import fresh
from research.reduce import columns_of, evidence_half
from research.tables import write_record
from research.trained import model_of, parts_of, recipe_of

ROUNDS, BATCH, EVERY, SCORED = 400, 64, 20, 500
# one step of the generator and ten of the student, as published
STEPS_A_ROUND = 11


def made(store: str) -> tuple[nn.Module, Records, Records, Any]:
    """The base model, the forget records, unseen records, and a factory of untrained models."""
    request = scored("class")
    settings = request.base.settings
    records, test = parts_of(settings, Path(store) / "shared")
    unseen = test.take(torch.as_tensor(evidence_half(test)).nonzero()[:, 0])
    going = records.take((records.y == request.forget_classes[0]).nonzero()[:, 0])

    def untrained(seed: int) -> nn.Module:
        return fresh(recipe_of(settings), settings["num_classes"], seed=seed)

    return model_of(settings, read(store, request.base).folder), going, unseen, untrained


def accuracies(model: nn.Module, unseen: Records, forget_class: int) -> dict[str, float]:
    """Of unseen records of the forgotten class and of the others: 0 to 1."""
    parts = {"forget": unseen.y == forget_class, "retain": unseen.y != forget_class}
    found = {}
    for name, rows in parts.items():
        measured = evaluate(model, unseen.take(rows.nonzero()[:SCORED, 0]))
        found[name] = float((measured.predicted == measured.y).mean())
    return found


def curve(model: nn.Module, split: Split, unseen: Records) -> dict[str, Any]:
    """A point every so many rounds; the last is the result itself."""
    (forget_class,), points, steps = split.forget_classes, [], 0
    began = time.perf_counter()

    def callback(student: nn.Module, loss: float) -> Action:  # noqa: ARG001
        nonlocal steps
        steps += 1
        if steps % (10 * EVERY) == 0:
            # gkt trains in training mode: measuring must leave it as it was
            mode = student.training
            points.append({"steps": steps, **accuracies(student.eval(), unseen, forget_class)})
            student.train(mode)
        return Action.CONTINUE

    student = gkt(model, split, rounds=ROUNDS, batch_size=BATCH, callback=callback)
    last = {"steps": steps, **accuracies(student, unseen, forget_class)}
    return {"points": points, "last": last, "seconds": time.perf_counter() - began}


def half_fresh(untrained: Any, model: nn.Module) -> Any:
    """The port's student: convolutions drawn again, everything else the teacher's."""

    def student(seed: int) -> nn.Module:
        net = untrained(seed)
        with torch.no_grad():
            for own, theirs in zip(net.modules(), model.modules(), strict=True):
                if isinstance(own, nn.Linear):
                    own.load_state_dict(theirs.state_dict())
        return net

    return student


def main(store: str) -> None:
    """Both curves, the page and the figure."""
    torch.set_num_threads(1)
    model, going, unseen, untrained = made(store)
    split = Split(going, forget_classes=scored("class").forget_classes, fresh=untrained)
    port = replace(split, fresh=half_fresh(untrained, model))
    target = columns_of(read(store, scored("class").retrained).statistics, forget_classes=True)
    found = {
        "rounds": ROUNDS,
        "batch_size": BATCH,
        "images": ROUNDS * STEPS_A_ROUND * BATCH,
        "given": accuracies(model, unseen, split.forget_classes[0]),
        "retrained": target,
        "fresh": curve(model, split, unseen),
        "port": curve(model, port, unseen),
    }
    write_record("gkt_curve", "gkt_curve STORE", found, indent=None)


NAMES = {"fresh": "untrained student", "port": "convolutions alone drawn again (port)"}


def figure(record: dict[str, Any]) -> Figure:
    """Accuracy over the rounds of both students."""
    chart, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for (form, name), colour in zip(NAMES.items(), ("C0", "C1"), strict=True):
        rounds = [0.1 * p["steps"] for p in record[form]["points"]]
        for part, style in (("retain", "-"), ("forget", "--")):
            values = [100 * p[part] for p in record[form]["points"]]
            axes.plot(rounds, values, style, color=colour, label=f"{name}: {part}")
    axes.axhline(100 * record["given"]["retain"], color="0.6", linewidth=0.8)
    axes.text(25, 100 * record["given"]["retain"] + 1, "given model, retained classes", color="0.4")
    axes.set(xlabel="rounds in which inputs passed the gate", ylim=(-2, 75))
    axes.set_ylabel("accuracy on unseen records, %")
    axes.legend(fontsize=8)
    return chart


def page(record: dict[str, Any]) -> str:
    """The table from the record alone."""
    rows = []
    for form, label in NAMES.items():
        found, last = record[form], record[form]["last"]
        best = max((point["retain"] for point in found["points"]), default=0)
        shares = [percent(share) for share in (last["retain"], last["forget"], best)]
        rows.append((label, *shares, str(last["steps"]), f"{found['seconds'] / 60:.1f}"))
    given, target = (
        f"{percent(record[name]['retain'])} / {percent(record[name]['forget'])}"
        for name in ("given", "retrained")
    )
    inputs = record["images"] // (record["rounds"] * STEPS_A_ROUND)
    return pages.page(
        "GKT, scaled down",
        f"{origin(record)}: the class request of [every method](every_method.md), "
        f"{record['rounds']} rounds of {inputs} inputs, {record['images']:,} images where the "
        "published setting has 4,000 rounds of 256, 11,264,000. Accuracy on unseen records in %, up to "
        f"{SCORED:,} of a part. Given model {given}, retrained {target} (retained classes / forgotten class).",
        table(
            "student | retained | forgotten | best of the curve, retained | steps of the student | minutes",
            rows,
        ),
        "![accuracy over the rounds](gkt_curve.svg)",
    )


if __name__ == "__main__":
    main(sys.argv[1])
