"""Random inputs of a head, labelled by the head itself: nothing of any record is in them."""

import torch
from torch import nn

from efface.adapters import one_label
from efface.errors import InputError
from efface.types import Records

BLOCK = 10_000
"""Draws at once."""

FAR = 20
"""Draws at most, for each that is wanted and each class that there is."""


@torch.no_grad()
def drawn_embeddings(
    head: nn.Linear, samples_per_class: int, *, leaving: tuple[int, ...], seed: int
) -> Records:
    """So many draws of N(0, I) that the head answers with each class that leaves; y is that answer.

    Of a class that it answers rarely there may be fewer. Raises InputError where a class that
    leaves is not one of the head's, all classes leave, or no draw is answered with one that does.
    """
    classes = one_label.outputs(head, torch.zeros(1, head.in_features).to(head.weight)).shape[1]
    _refuse_classes(leaving, classes)
    generator, most = torch.Generator().manual_seed(seed), FAR * samples_per_class * classes
    kept: dict[int, list[torch.Tensor]] = {label: [] for label in leaving}
    lacking, tried = dict.fromkeys(leaving, samples_per_class), 0
    while any(lacking.values()) and tried < most:
        x = torch.randn(min(BLOCK, most - tried), head.in_features, generator=generator)
        x, tried = x.to(head.weight), tried + len(x)
        said = one_label.outputs(head, x).argmax(1)
        for label in leaving:
            own = x[said == label][: lacking[label]]
            kept[label].append(own)
            lacking[label] -= len(own)
    for label in leaving:
        if lacking[label] == samples_per_class:
            raise InputError(
                f"random embeddings that the last layer answers with class {label}",
                f"none among {tried}",
                "Choose a method that reads the records; `efface methods` lists them.",
            )
    counts = torch.tensor([samples_per_class - lacking[label] for label in leaving])
    y = torch.tensor(leaving).repeat_interleave(counts).to(head.weight.device)
    x = torch.cat([own for label in leaving for own in kept[label]])
    return Records(x, y, adapter=one_label)


def _refuse_classes(leaving: tuple[int, ...], classes: int) -> None:
    if not all(0 <= label < classes for label in leaving) or len(set(leaving)) == classes:
        raise InputError(
            f"classes that leave out of 0 to {classes - 1}, and one that stays",
            ", ".join(map(str, leaving)),
            "Give Split(forget, leaving=(class,)).",
        )
