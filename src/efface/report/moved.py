"""What moved: weights, buffers, and the answers on inputs that are nobody's (tier T0)."""

from typing import Any

import torch
from torch import Tensor, nn

from efface.metrics.intervals import clopper_pearson
from efface.metrics.measure import as_it_is
from efface.report.facts import Facts, NotRun
from efface.report.nearby import synthetic
from efface.report.rows import LOOK, PLAIN, Row
from efface.task import predict, task_of

SYNTHETIC = 256


def drift_rows(facts: Facts) -> list[Row]:
    """How far the answers moved on inputs that are nobody's."""
    inputs = synthetic(facts.forget.records, n=SYNTHETIC, seed=facts.seed)
    task = task_of(inputs)
    with as_it_is(facts.old), as_it_is(facts.new):
        old, new = (predict(model, inputs).double() for model in (facts.old, facts.new))
    apart = task.divergence(old, new)
    same = round(float(task.accuracy(new, task.predict(old)).sum()))
    about = f"{SYNTHETIC} noise inputs; at tier T0 the only sign of what happened elsewhere."
    shared = {"section": "moved", "tier": "T0", "note": about, "verdict": "described"}
    return [
        Row(
            key="drift.divergence",
            name="Divergence of the answers on synthetic inputs, KL(old, new)",
            after=float(apart.mean()),
            unit="nats",
            **shared,
        ),
        Row(
            key="drift.agreement",
            name="Synthetic inputs answered as before",
            after=same / SYNTHETIC,
            interval=clopper_pearson(same, SYNTHETIC),
            **shared,
        ),
    ]


def tensors(old: nn.Module, new: nn.Module) -> list[dict[str, Any]]:
    """For each weight and buffer: how far it moved, relative to its own length."""
    if _shapes(old) != _shapes(new):
        raise NotRun("the new model has other tensors than the old one")
    found: list[dict[str, Any]] = []
    for kind, before, after in (
        ("weight", dict(old.named_parameters()), dict(new.named_parameters())),
        ("buffer", dict(old.named_buffers()), dict(new.named_buffers())),
    ):
        for name, tensor in before.items():
            moved, size = (
                _length(after[name].detach().cpu() - tensor.detach().cpu()),
                _length(tensor),
            )
            found.append(
                {
                    "name": name,
                    "kind": kind,
                    "size": tensor.numel(),
                    "length": size,
                    "moved": moved,
                    "relative": moved / size if size else float(moved > 0),
                    "identical": torch.equal(after[name].cpu(), tensor.cpu()),
                }
            )
    return found


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    every = [*model.named_parameters(), *model.named_buffers()]
    return {name: tuple(tensor.shape) for name, tensor in every}


def _length(tensor: Tensor) -> float:
    return float(tensor.detach().cpu().double().norm())


def same_net(old: nn.Module, new: nn.Module) -> bool:
    """Whether both have the same tensors by name and shape: only then is there a way between."""
    one, other = (
        {name: tensor.shape for name, tensor in (*net.named_parameters(), *net.named_buffers())}
        for net in (old, new)
    )
    return one == other


def moved_rows(facts: Facts) -> list[Row]:
    """How far the weights went, which went farthest, whether the buffers stood still."""
    if not same_net(facts.old, facts.new):
        raise NotRun("the two models do not have the same tensors")
    found = tensors(facts.old, facts.new)
    weights = [t for t in found if t["kind"] == "weight"]
    rows = [_movement_row(weights)] if weights else []
    buffers = [t for t in found if t["kind"] == "buffer"]
    changed = [str(t["name"]) for t in buffers if not t["identical"]]
    return [
        *rows,
        Row(
            key="moved.buffers",
            name="Buffers that are not bit-identical",
            section="moved",
            tier="T0",
            after=float(len(changed)),
            target=0.0,
            unit="count",
            verdict="stood still" if not changed else "changed",
            status=LOOK if changed else PLAIN,
            note=f"Of {len(buffers)}. {', '.join(changed[:5])}".strip(),
        ),
    ]


def _what_moved(weights: list[dict]) -> str:
    """Nothing, or the last layer alone: what lies before it then answers as it did, to the bit."""
    layers = list(dict.fromkeys(_layer(t) for t in weights))
    moved = {_layer(t) for t in weights if not t["identical"]}
    if not moved:
        return "nothing moved"
    return "only the last layer moved" if len(layers) > 1 and moved == {layers[-1]} else "described"


def _layer(tensor: dict) -> str:
    return tensor["name"].rpartition(".")[0]


def _movement_row(weights: list[dict]) -> Row:
    moved, size = (sum(t[part] ** 2 for t in weights) ** 0.5 for part in ("moved", "length"))
    farthest = max(weights, key=lambda t: t["relative"])
    still = sum(t["identical"] for t in weights)
    verdict = _what_moved(weights)
    return Row(
        key="moved.weights",
        name="Movement of all weights, relative to their length (L2)",
        section="moved",
        tier="T0",
        after=moved / size if size else 0.0,
        unit="ratio",
        verdict=verdict,
        status=PLAIN if verdict == "described" else LOOK,
        p=0.0 if verdict == "nothing moved" else None,
        note=f"{still} of {len(weights)} tensors did not move. Farthest: {farthest['name']}, "
        f"{farthest['relative']:.3g}. How far weights moved says nothing about what is forgotten.",
    )
