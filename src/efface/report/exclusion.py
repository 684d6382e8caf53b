"""A model that was trained anew without the records: the exclusion is what is stated (tier TE)."""

from efface.io.data import content_digests
from efface.report.facts import Facts
from efface.report.rows import PLAIN, RED, Row, count


def exclusion_rows(facts: Facts) -> list[Row]:
    """How many forget records are among those that the new model was trained on, by content."""
    if not facts.exact:
        return []
    gone, stay = facts.split.forget, facts.split.retain
    shared = facts.left_out
    if stay is not None:
        shared += len({*content_digests(gone)} & {*content_digests(stay)})
    return [
        Row(
            key="exclusion",
            name="Forget records among those that the new model was trained on",
            section="exclusion",
            tier="TE",
            after=float(shared),
            target=0.0,
            unit="count",
            verdict="found among them" if shared else "none among them",
            status=RED if shared else PLAIN,
            note="The new model started from untrained weights and was trained on "
            f"{'records not at hand' if stay is None else count(len(stay))}, by the account of "
            "whoever ran it. Looked for by content: a near copy would not be found.",
        )
    ]
