"""Random inputs of a head, labelled by the head itself: nothing of any record is in them."""

import torch
from torch import nn

from efface.errors import InputError
from efface.task import multiclass
from efface.types import Records

BLOCK = 10_000
"""Draws at once."""

FAR = 20
"""Draws at most, for each that is wanted and each class that there is."""


@torch.no_grad()
def drawn_embeddings(
    head: nn.Linear, samples_per_class: int, *, forget_classes: tuple[int, ...], seed: int
) -> Records:
    """So many draws of N(0, I) that the head answers with each class that leaves; y is that answer.

    Of a class that it answers rarely there may be fewer. Raises InputError where a class that
    leaves is not one of the head's, all classes leave, or no draw is answered with one that does.
    """
    classes = multiclass.outputs(head, torch.zeros(1, head.in_features).to(head.weight)).shape[1]
    _refuse_classes(forget_classes, classes)
    generator, most = torch.Generator().manual_seed(seed), FAR * samples_per_class * classes
    kept: dict[int, list[torch.Tensor]] = {label: [] for label in forget_classes}
    lacking, tried = dict.fromkeys(forget_classes, samples_per_class), 0
    while any(lacking.values()) and tried < most:
        x = torch.randn(min(BLOCK, most - tried), head.in_features, generator=generator)
        x, tried = x.to(head.weight), tried + len(x)
        said = multiclass.outputs(head, x).argmax(1)
        for label in forget_classes:
            own = x[said == label][: lacking[label]]
            kept[label].append(own)
            lacking[label] -= len(own)
    for label in forget_classes:
        if lacking[label] == samples_per_class:
            raise InputError(
                f"random embeddings that the last layer answers with class {label}",
                f"none among {tried}",
                "Choose a method that reads the records; `efface methods` lists them.",
            )
    counts = torch.tensor([samples_per_class - lacking[label] for label in forget_classes])
    y = torch.tensor(forget_classes).repeat_interleave(counts).to(head.weight.device)
    x = torch.cat([own for label in forget_classes for own in kept[label]])
    return Records(x, y, task=multiclass)


def _refuse_classes(forget_classes: tuple[int, ...], classes: int) -> None:
    if (
        not all(0 <= label < classes for label in forget_classes)
        or len(set(forget_classes)) == classes
    ):
        raise InputError(
            f"classes that leave out of 0 to {classes - 1}, and one that stays",
            ", ".join(map(str, forget_classes)),
            "Give Split(forget, forget_classes=(class,)).",
        )
