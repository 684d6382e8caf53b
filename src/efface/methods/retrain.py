"""Train from scratch without the records, the reference of all others: docs/methods.md.

    θ' = train(fresh(seed), D_r, seed)

Every weight is drawn again and the user's own recipe runs on the retained records; with an empty
forget set this is the recipe itself, bit for bit. (The code of JiT and SSD resets the last linear
layer alone under this name, so all other weights keep what they learned from the forget records.)
"""

from typing import Any

import torch
from torch import nn

from efface.methods._base import register_method
from efface.task import device_of
from efface.types import Callback, Split, no_callback


@register_method(needs={"retain labels", "fresh", "train"}, fresh_start=True, exact=True)
def retrain(
    model: nn.Module,
    split: Split,
    *,
    seed: int = 0,
    callback: Callback = no_callback,  # noqa: ARG001
) -> nn.Module:
    """An untrained model trained by the user's recipe on the retained records.

    Reads no weight of the model and no forget record.

    Args:
        model: says on which device to train; it is not changed.
        split: ``retain``, ``fresh`` and ``train`` are read.
        seed: of the fresh weights and of the recipe.
        callback: not called: the steps are the recipe's own.

    Raises:
        InputError: ``retain``, ``fresh`` or ``train`` is missing.
    """
    given: Any = split  # no part of it is missing
    # one random stream for both: the recipe may draw from the global state
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        fresh = given.fresh(seed).to(device_of(model))
        student = given.train(fresh, given.retain, seed).eval()
    # the recipe may leave gradients behind
    student.zero_grad(set_to_none=True)
    return student
