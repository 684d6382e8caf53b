"""Linear CKA, layer by layer: how alike are two models' activations on the same records?

Centred kernel alignment with linear kernels, https://arxiv.org/abs/1905.00414:

    CKA(X, Y) = ‖Yᵀ X‖²_F / (‖Xᵀ X‖_F ‖Yᵀ Y‖_F)      X, Y: (n, d), columns centred

It is invariant to rotation and scale. Activations of an image or a sequence are first averaged over
positions, so that a layer has as many columns as channels, and sums are kept, not records.
"""

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.errors import InputError
from efface.runtime import Passes
from efface.task import device_of, frozen_teacher, outputs, task_of
from efface.types import Records

BATCH_SIZE = 256


class Alignment(NamedTuple):
    """By layer how alike two models are on the records: 0 (nothing in common) to 1 (the same).

    ``values``: nan for a layer that is constant over the records. Reference: the alignment of two
    retrained models, which is below 1. Near 1 with the original where that of the retrained model
    is lower: the layer was hardly touched. With fewer records than a layer has columns values are
    too high. No chance level.
    """

    layers: tuple[str, ...]
    values: Float[np.ndarray, " l"]


def cka(model: nn.Module, other: nn.Module, records: Records) -> Alignment:
    """Linear CKA of each layer that holds weights and is in both, on the same records.

    Layers that are called more than once are read at their last call; one that does not output
    a row a record is omitted. Memory does not grow with the records. Costs ``cka_cost``.
    Raises InputError for fewer than two records, or models that share no layer's name.
    """
    if len(records) < 2:  # noqa: PLR2004
        raise InputError("two records or more", str(len(records)), "Give more records.")
    device, task = device_of(model), task_of(records)
    # The hooks are on frozen copies; the given models get none.
    seen, theirs = _Hooked(model), _Hooked(other)
    # In the order of the first model, whatever the second one's is.
    layers = [name for name in seen.names if name in theirs.names]
    if not layers:
        wanted = "two models with layers of the same names"
        came = f"{', '.join(seen.names[:3]) or 'none'} and {', '.join(theirs.names[:3]) or 'none'}"
        raise InputError(wanted, came, "Compare models of one architecture.")
    sums: dict[str, _Sums] = {name: _Sums() for name in layers}
    for rows in torch.arange(len(records)).split(BATCH_SIZE):
        # The task of all records: of a few values alone it could not be inferred.
        batch = replace(records.take(rows), task=task).to(device)
        ours, others = seen.activations(batch), theirs.activations(batch.to(device_of(other)))
        for name, found in sums.items():
            if name in ours and name in others:
                found.add(ours[name], others[name])
    known = [name for name in layers if sums[name].n]
    return Alignment(tuple(known), np.array([sums[name].alignment for name in known]))


def cka_cost(records: Records) -> Passes:
    """The passes of ``cka``, both models together: one forward of each record in each."""
    return Passes(forward=2 * len(records), backward=0)


class _Hooked:
    """A frozen model, whose layers with weights have hooks."""

    def __init__(self, model: nn.Module) -> None:
        self.teacher, self._found = frozen_teacher(model), dict[str, Tensor]()
        self.names: list[str] = []
        for name, layer in self.teacher.named_modules():
            if list(layer.parameters(recurse=False)):
                self.names.append(name)
                layer.register_forward_hook(partial(self._keep, name))

    def activations(self, batch: Records) -> dict[str, Tensor]:
        """By layer one row a record, double precision, on the CPU."""
        self._found.clear()
        with torch.no_grad():
            outputs(self.teacher, batch)
        # A layer that merges records (a loss, a pooling over the batch) has other rows.
        return {name: rows for name, rows in self._found.items() if len(rows) == len(batch)}

    def _keep(self, name: str, _: nn.Module, __: Any, answer: Any) -> None:
        """Averaged over the positions of an image (n, d, …) or of a sequence (n, positions, d)."""
        if isinstance(answer, Tensor) and answer.ndim > 1:
            # At once: the next layer may work in place.
            flat = answer.mean(1) if answer.ndim == 3 else answer  # noqa: PLR2004
            self._found[name] = flat.reshape(*flat.shape[:2], -1).mean(2).cpu().double()


class _Sums:
    """Sums of products of two layers' columns, from which the centred ones follow."""

    def __init__(self) -> None:
        self.n = 0
        self._sums: tuple[Tensor, ...] = ()

    def add(self, x: Float[Tensor, "n d"], y: Float[Tensor, "n e"]) -> None:
        """One more batch; rows are shifted by the first batch's mean: it keeps the sums small."""
        if not self.n:
            self._about = x.mean(0), y.mean(0)
        x, y = x - self._about[0], y - self._about[1]
        # Products of sums are enough to centre at the end: no second pass over the records.
        made = (x.sum(0), y.sum(0), y.T @ x, x.T @ x, y.T @ y)
        self._sums = tuple(map(torch.add, self._sums, made)) if self.n else made
        self.n += len(x)

    @property
    def alignment(self) -> float:
        """CKA of all that was added."""
        x, y, *products = self._sums
        pairs = zip(products, ((y, x), (x, x), (y, y)), strict=True)
        norms = (float((p - torch.outer(*two) / self.n).norm()) for p, two in pairs)
        crossed, ours, theirs = norms
        return crossed**2 / (ours * theirs) if ours and theirs else float("nan")
