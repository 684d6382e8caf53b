"""GKT scaled down: forget and retain accuracy over its rounds, from an untrained student and a port's.

    EFFACE_DATA=… python -m research.benchmarks.gkt_curve STORE     # research/results/gkt_curve.json, .md and .svg

The class request of every_method.py. Published: 4,000 rounds of 256 inputs, 11.3 million images;
here 400 rounds of 64, 281,600. In the port of JiT's comparison the student's convolutions alone
were drawn anew and its linear layers kept the teacher's weights: the second curve.
"""

import json
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
from research.benchmarks.every_method import scored
from research.recipes import fresh
from research.reduce import columns_of, evidence_half
from research.tables import write_record
from research.trained import model_of, parts_of, recipe_of

ROUNDS, PER_STEP, EVERY, LOOKED_AT = 400, 64, 20, 500


def made(store: str) -> tuple[nn.Module, Records, Records, Any]:
    """The base model, the records that go, unseen records, and how an untrained net is made."""
    request = scored("class")
    record = read(store, request.base)
    settings = json.loads((record.folder / "record.json").read_text())["description"]["settings"]
    records, test = parts_of(settings, Path(store) / "shared")
    unseen = test.take(torch.as_tensor(evidence_half(test)).nonzero()[:, 0])
    going = records.take((records.y == request.forget_classes[0]).nonzero()[:, 0])

    def untrained(seed: int) -> nn.Module:
        return fresh(recipe_of(settings), settings["num_classes"], seed=seed)

    return model_of(settings, record.folder), going, unseen, untrained


def accuracies(model: nn.Module, unseen: Records, forget_classes: int) -> dict[str, float]:
    """Of unseen records of the class and of the others, a share of them."""
    found = {}
    for name, rows in (
        ("forget", unseen.y == forget_classes),
        ("retain", unseen.y != forget_classes),
    ):
        measured = evaluate(model, unseen.take(rows.nonzero()[:LOOKED_AT, 0]))
        found[name] = float((measured.predicted == measured.y).mean())
    return found


def curve(model: nn.Module, split: Split, unseen: Records) -> dict[str, Any]:
    """A point every so many rounds; the last is the result itself."""
    (forget_classes,), points, steps = split.forget_classes, [], 0
    began = time.perf_counter()

    def callback(student: nn.Module, loss: float) -> Action:  # noqa: ARG001
        nonlocal steps
        steps += 1
        if steps % (10 * EVERY) == 0:
            mode = student.training
            points.append({"steps": steps, **accuracies(student.eval(), unseen, forget_classes)})
            student.train(mode)
        return Action.CONTINUE

    student = gkt(model, split, rounds=ROUNDS, batch_size=PER_STEP, callback=callback)
    last = {"steps": steps, **accuracies(student, unseen, forget_classes)}
    return {"points": points, "last": last, "seconds": time.perf_counter() - began}


def half_fresh(untrained: Any, model: nn.Module) -> Any:
    """The port's student: convolutions anew, everything else the teacher's."""

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
        "records_per_step": PER_STEP,
        "images": ROUNDS * 11 * PER_STEP,
        "given": accuracies(model, unseen, split.forget_classes[0]),
        "retrained": target,
        "fresh": curve(model, split, unseen),
        "port": curve(model, port, unseen),
    }
    write_record("gkt_curve", "gkt_curve STORE", found, indent=None)


NAMES = {"fresh": "untrained student", "port": "convolutions alone anew (port)"}


def figure(record: dict[str, Any]) -> Figure:
    """Accuracy over the rounds of both students."""
    chart, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for (form, said), colour in zip(NAMES.items(), ("C0", "C1"), strict=True):
        rounds = [0.1 * p["steps"] for p in record[form]["points"]]
        for part, style in (("retain", "-"), ("forget", "--")):
            values = [100 * p[part] for p in record[form]["points"]]
            axes.plot(rounds, values, style, color=colour, label=f"{said}: {part}")
    axes.axhline(100 * record["given"]["retain"], color="0.6", linewidth=0.8)
    axes.text(
        25, 100 * record["given"]["retain"] + 1, "given model, classes that stay", color="0.4"
    )
    axes.set(
        xlabel="rounds in which inputs passed the gate",
        ylabel="accuracy on unseen records, %",
        ylim=(-2, 75),
    )
    axes.legend(fontsize=8)
    return chart


def page(record: dict[str, Any]) -> str:
    """The table from the record alone."""
    rows = "\n".join(
        f"| {said} | {100 * record[form]['last']['retain']:.1f} | {100 * record[form]['last']['forget']:.1f} | "
        f"{100 * max((p['retain'] for p in record[form]['points']), default=0):.1f} | {record[form]['last']['steps']} | "
        f"{record[form]['seconds'] / 60:.1f} |"
        for form, said in NAMES.items()
    )
    given, target = record["given"], record["retrained"]
    return (
        "# GKT, scaled down\n\n"
        f"`{record['command']}`, {record['date']}: the class request of [every method](every_method.md), "
        f"{record['rounds']} rounds of {record['records_per_step']} inputs, {record['images']:,} images where the "
        "published setting has 4,000 rounds of 256, 11,264,000. Accuracy on unseen records in %, up to "
        f"{LOOKED_AT:,} of a part. Given model {100 * given['retain']:.1f} / {100 * given['forget']:.1f}, retrained "
        f"{100 * target['retain']:.1f} / {100 * target['forget']:.1f} (classes that stay / that leaves).\n\n"
        "| student | stay | leaves | best of the curve, stay | steps of the student | minutes |\n|---|---|---|---|---|---|\n"
        f"{rows}\n\n![accuracy over the rounds](gkt_curve.svg)\n"
    )


if __name__ == "__main__":
    main(sys.argv[1])
