"""Classes that must not be answered: those that leave, and wrong labels."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from efface.errors import InputError
from efface.task import task_of
from efface.types import Records, Split

Hidden = Callable[[Float[Tensor, " m k"], Records], Bool[Tensor, " m k"]]
"""``hidden(answer, batch)``: which outputs of each record must not be answered."""


def hiding(split: Split, *, mislabelled: bool) -> Hidden:
    """The classes that leave, and each record's own label where that is wrong; else none.

    Raises InputError where something is hidden and the outputs are not one label.
    """
    kind = task_of(split.forget).name
    if (split.forget_classes or mislabelled) and kind != "multiclass":
        raise InputError(
            "one label of several, where a class leaves or labels are wrong",
            kind,
            "Name the records alone, without forget_classes and mislabelled.",
        )

    def hidden(answer: Tensor, batch: Records) -> Tensor:
        found = torch.zeros_like(answer, dtype=torch.bool)
        found[:, list(split.forget_classes)] = True
        if mislabelled:
            found.scatter_(1, batch.y[:, None], value=True)
        return found

    return hidden


def lowered(
    answer: Float[Tensor, " m k"], gone: Bool[Tensor, " m k"], *, wrong: bool = False
) -> Float[Tensor, " m k"]:
    """Outputs in which what is hidden is as low as the lowest of the others.

    A ``wrong`` label is as low as their mean: nothing is known against it of an unseen record. If
    one other is left it is as far below that as it is above or below it now.
    """
    others = (~gone).sum(1, keepdim=True)
    level = answer.masked_fill(gone, torch.inf).amin(1, keepdim=True)
    if wrong:
        level = answer.masked_fill(gone, 0).sum(1, keepdim=True) / others.clamp_min(1)
    level = torch.where(others == 1, level - (answer - level).abs(), level)
    return torch.where(gone & (others > 0), level, answer)
