"""Records drawn from a larger set, and two sets made one."""

from dataclasses import replace

import torch

from efface.types import Records, Task, record_key


def sampled(records: Records, count: int, *, seed: int) -> Records:
    """So many of the records; which ones depends on their ids and the seed, not on their order."""
    keys = [record_key(f"{seed} {identity}") for identity in records.ids]
    drawn = sorted(range(len(records)), key=keys.__getitem__)[:count]
    return records.take(sorted(drawn))


def sampled_of_each_class(
    records: Records, count: int, *, seed: int, forget_classes: tuple[int, ...] = ()
) -> Records:
    """So many records of each class, all where there are fewer; none of the classes that go."""
    classes = [one for one in records.y.unique().tolist() if one not in forget_classes]
    rows = [(records.y == one).nonzero()[:, 0].cpu() for one in classes]
    ids = {i for own in rows for i in sampled(records.take(own), count, seed=seed).ids}
    return records.take([row for row, identity in enumerate(records.ids) if identity in ids])


def together(first: Records, second: Records) -> Records:
    """Both, one after the other, on one device; ids say which of the two a record is of."""
    second = second.to(first.x.device)
    ids = (*(f"first {one}" for one in first.ids), *(f"second {one}" for one in second.ids))
    x, y = torch.cat([first.x, second.x]), torch.cat([first.y, second.y])
    return replace(first, x=x, y=y, ids=ids)


def without_labels(records: Records, task: Task, *, mark: int = 0) -> Records:
    """The records with ``mark`` in the place of each label: for what reads none."""
    marks = torch.full((len(records),), mark, device=records.x.device)
    return replace(records, y=marks, task=task)


def repeated(records: Records, copies: int) -> Records:
    """Each record so many times, with ids of their own."""
    rows = torch.arange(len(records)).repeat(copies)
    ids = tuple(f"{copy} {one}" for copy in range(copies) for one in records.ids)
    return replace(records, x=records.x[rows], y=records.y[rows], ids=ids)
