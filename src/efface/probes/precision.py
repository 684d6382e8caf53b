"""Does quantising or pruning the weights bring the records back?

A small change of the weights may hide records in full precision and be lost in rounding: see
https://arxiv.org/abs/2410.16454. Whoever deploys a smaller model must probe the smaller model.
The weights are rounded and upcast again, so the copy runs anywhere; activations, biases, and
norms stay as they are, as in weight-only quantisation.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from efface.errors import InputError
from efface.metrics.evaluation import Evaluation, evaluate
from efface.probes.residual import NOT_RUN, Residual
from efface.runtime import Passes
from efface.task import trainable_copy
from efface.types import Records

BITS, SHARES, MAX_BITS = (8, 4), (0.3, 0.5, 0.7), 8

Bits, Shares = Sequence[int], Sequence[float]


class Copy(NamedTuple):
    """A changed copy, by what was done to it, and its evaluation."""

    name: str
    evaluation: Evaluation


def precision(
    model: nn.Module, records: Records, *, bits: Bits = BITS, shares: Shares = SHARES
) -> tuple[Copy, ...]:
    """Evaluations of the model (first), of its quantised and of its pruned copies.

    Any metric may then be read from any of them. Deterministic. Costs ``precision_cost``.
    Raises InputError without weights to change, or for settings out of range.
    """
    changed = copies(model, records, bits=bits, shares=shares)
    return Copy("unchanged", evaluate(model, records)), *changed


def copies(
    model: nn.Module, records: Records, *, bits: Bits = BITS, shares: Shares = SHARES
) -> tuple[Copy, ...]:
    """``precision`` without the model itself, for those who have its evaluation."""
    # one at a time: together they would hold more than the run itself
    made = [(f"int{number}", partial(quantised, bits=number)) for number in bits]
    made += [(f"pruned {100 * share:.0f} %", partial(pruned, share=share)) for share in shares]
    return tuple(Copy(name, evaluate(change(model), records)) for name, change in made)


def precision_cost(records: Records, *, bits: Bits = BITS, shares: Shares = SHARES) -> Passes:
    """The passes of ``precision``: one forward of each copy, and of the model itself."""
    return Passes(forward=len(records) * (1 + len(bits) + len(shares)), backward=0)


def quantised(model: nn.Module, *, bits: int) -> nn.Module:
    """A copy whose weights have so many bits: symmetric, one scale an output, rounded to nearest.

    Weights are the parameters of two or more dimensions; the first is that of the outputs, as in
    linear and convolutional layers. Raises InputError but for 2 to 8 bits.
    """
    if not 1 < bits <= MAX_BITS:
        raise InputError(f"2 to {MAX_BITS} bits", str(bits), "Take 8 or 4.")
    # In a copy, in which tied weights stay tied: each is rounded once.
    student = trainable_copy(model)
    with torch.no_grad():
        for weight in _weights(student):
            weight.copy_(_rounded(weight, bits))
    return student


def pruned(model: nn.Module, *, share: float) -> nn.Module:
    """A copy without the ``share`` of its weights that are nearest to 0, over all layers at once.

    Weights as in ``quantised``. Raises InputError for a share that is not in 0 to 1.
    """
    if not 0 <= share <= 1:
        raise InputError("a share from 0 to 1", str(share), "Take 0.3, 0.5 or 0.7.")
    student = trainable_copy(model)
    weights = _weights(student)
    with torch.no_grad():
        # Over all layers at once: per layer, thin layers would lose what thick ones can spare.
        sizes = np.concatenate([weight.abs().float().cpu().numpy().ravel() for weight in weights])
        count = round(share * len(sizes))
        # In place: an order of all weights would be twice the model's memory.
        sizes.partition(max(0, count - 1))
        threshold = float(sizes[count - 1]) if count else -1.0
        ties = count - int((sizes[:count] < threshold).sum())
        for weight in weights:
            size = weight.abs().float()
            # Of weights at the threshold the first: all of them may be more than the share.
            equal = (size == threshold).flatten().nonzero()[:ties, 0]
            ties -= len(equal)
            smaller = (size < threshold).flatten().index_fill_(0, equal, True)  # noqa: FBT003
            weight.masked_fill_(smaller.view(weight.shape), 0)
    return student


def recovered(plain: Evaluation, copied: Evaluation) -> Residual:
    """Of the records missed by the model itself, those that a copy recognises.

    Reference: the same of a retrained model, or of unseen records of the same classes: rounding and
    pruning change predictions of any record. Raises InputError for other records, or another task.
    """
    # Ids, not counts: two subsets of one size would pass unnoticed.
    if plain.ids != copied.ids or plain.own_loss is not None:
        wanted = "two evaluations of the same records, multiclass"
        came = f"{len(plain)} and {len(copied)} records"
        came += ", of another task" * (plain.own_loss is not None)
        raise InputError(wanted, came, "Take them from one call of precision.")
    return Residual(plain.correct, copied.correct * 1.0, tried=1)


def _weights(model: nn.Module) -> list[nn.Parameter]:
    """The tensors that are quantised in practice, each once however many names it has."""
    # Biases and norms stay in full precision, as in weight-only quantisation.
    found = [w for w in model.parameters() if w.ndim > 1 and w.is_floating_point()]
    if not found:
        raise InputError("a model with weights of two or more dimensions", "none", NOT_RUN)
    return found


def _rounded(weight: Tensor, bits: int) -> Tensor:
    wide, top = weight.float(), 2 ** (bits - 1) - 1
    # Symmetric: zero stays exactly zero, so pruned weights stay pruned.
    scale = wide.flatten(1).abs().amax(1) / top
    scale = torch.where(scale > 0, scale, 1)  # a row of zeros stays so
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(wide, scale, zero, 0, -top, top).to(weight.dtype)
