"""Attacks per record, with shadow models (tier T4)."""

from efface.evidence.facts import Facts, NotRun
from efface.evidence.rows import Row, count


def shadow_rows(facts: Facts) -> list[Row]:
    """Not run yet: says what was read, so that nobody takes the folder for a test."""
    given = facts.shadows
    if given is None:
        raise NotRun("no shadow models were given")
    ours = given.of(facts.split.forget.ids)
    without = (~ours.member).sum(axis=0)
    raise NotRun(
        f"{count(len(ours), 'shadow model')} were read ({without.min()} to {without.max()} of them "
        "were trained without a forget record), but this version of efface has no attack that "
        "uses them"
    )
