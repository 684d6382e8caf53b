"""Records sampled from a set, joined, repeated, or without their labels."""

from dataclasses import replace

import torch
from torch import nn

from efface.task import device_of
from efface.types import Records, Split, Task, record_key

# Before the ids of two sets that were joined: both may be numbered from 0.
FORGET, RETAIN = "first ", "second "
# ssd composes its batches by these ids: another prefix would change its results.


def sample(records: Records, count: int, *, seed: int) -> Records:
    """``count`` of the records; which ones depends on ids and seed, not on their order."""
    keys = [record_key(f"{seed} {identity}") for identity in records.ids]
    # the records with the smallest keys: adding others changes few of them
    drawn = sorted(range(len(records)), key=keys.__getitem__)[:count]
    # in the order given: the order of a batch must not follow the draw
    return records.take(sorted(drawn))


def sample_per_class(
    records: Records, count: int, *, seed: int, forget_classes: tuple[int, ...] = ()
) -> Records:
    """``count`` records of each class (all where there are fewer), none of ``forget_classes``."""
    classes = [one for one in records.y.unique().tolist() if one not in forget_classes]
    rows = [(records.y == one).nonzero()[:, 0].cpu() for one in classes]
    ids = {i for own in rows for i in sample(records.take(own), count, seed=seed).ids}
    return records.take([row for row, identity in enumerate(records.ids) if identity in ids])


def join(forget: Records, retain: Records) -> Records:
    """Both sets as one, on the device of the first; ids say which of the two a record is of."""
    retain = retain.to(forget.x.device)
    ids = (*(FORGET + one for one in forget.ids), *(RETAIN + one for one in retain.ids))
    x, y = torch.cat([forget.x, retain.x]), torch.cat([forget.y, retain.y])
    return replace(forget, x=x, y=y, ids=ids)


def without_labels(records: Records, task: Task, *, mark: int = 0) -> Records:
    """The records with ``mark`` in place of each label, which is not looked at."""
    # a new tensor: labels that may not be read are not even copied
    marks = torch.full((len(records),), mark, device=records.x.device)
    return replace(records, y=marks, task=task)


def repeat(records: Records, copies: int) -> Records:
    """The records ``copies`` times, with ids of their own."""
    rows = torch.arange(len(records)).repeat(copies)
    ids = tuple(f"{copy} {one}" for copy in range(copies) for one in records.ids)
    return replace(records, x=records.x[rows], y=records.y[rows], ids=ids)


def untrained(model: nn.Module, split: Split, seed: int) -> nn.Module:
    """``split.fresh(seed)`` on the model's device; the global random state is restored."""
    # the user's function may draw from the global state; it is seeded and then restored
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        fresh = split.fresh(seed)  # type: ignore[misc]  # refused by the decorator when missing
    return fresh.to(device_of(model))
