"""The holdout in two: what method and guard have seen, the evidence does not use."""

from dataclasses import replace

from efface.types import Split, record_key


def split_holdout(split: Split, *, seed: int) -> tuple[Split, Split]:
    """The holdout cut in two by a seeded hash: the method's and guard's half, the evidence's."""
    if split.holdout is None:
        return split, split
    order = sorted(
        range(len(split.holdout)),
        key=lambda row: record_key(f"{seed}/holdout/{split.holdout.ids[row]}"),
    )
    middle = len(order) // 2
    first, second = (split.holdout.take(sorted(half)) for half in (order[:middle], order[middle:]))
    return replace(split, holdout=first), replace(split, holdout=second)


def unseen_in(split: Split) -> int:
    """How many records of the holdout there are."""
    return 0 if split.holdout is None else len(split.holdout)
