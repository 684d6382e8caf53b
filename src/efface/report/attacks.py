"""What the EDPB's Opinion 28/2024 names: tested, not tested or not applicable, and why.

Opinion of 17 December 2024 on certain data protection aspects of AI models: models are to be tested
against attribute and membership inference, exfiltration, regurgitation of training data, model
inversion and reconstruction.
"""

from collections.abc import Sequence

from efface.report.rows import LOOK, NOT_RUN, PLAIN, RED, Named, Row

TESTED, NOT_TESTED, NOT_APPLICABLE = "tested", "not tested", "not applicable"
NO_TEXT = ("multiclass", "multilabel")
"""Kinds of outputs in which no record can be repeated: a few numbers, one for each class."""
_WORST = (RED, LOOK, PLAIN)


def named_attacks(rows: Sequence[Row], *, kind: str, new: bool) -> tuple[Named, ...]:
    """Every attack of the opinion, in its order; ``kind``: what the model's outputs mean.

    ``new``: whether there is a new model at all.
    """
    return (
        _membership(rows, new=new),
        Named(
            "attribute inference",
            NOT_TESTED,
            why="no test here infers what is unknown of a person from what is known and from the "
            "model's answers",
        ),
        Named(
            "exfiltration",
            NOT_TESTED,
            why="no attempt was made to draw training data out of the model, or out of the place "
            "where the model and its data are kept",
        ),
        _regurgitation(kind),
        Named(
            "model inversion",
            NOT_TESTED,
            why="no attempt was made to build typical inputs of a class or of a person from the "
            "model",
        ),
        Named(
            "reconstruction",
            NOT_TESTED,
            why="no attempt was made to rebuild the records from the weights, nor from the old and "
            "the new model side by side, which is easier",
        ),
    )


def _membership(rows: Sequence[Row], *, new: bool) -> Named:
    """Every attack among the rows; the controls and the power are those of the loss attack."""
    name = "membership inference"
    attacks = [row for row in rows if row.key.startswith("attack.") or row.section == "shadow"]
    if not new:
        return Named(name, NOT_TESTED, why="there is no new model")
    ran = [row for row in attacks if row.status != NOT_RUN]
    if not ran:
        why = attacks[0].note if attacks else "no such test is known for these outputs"
        return Named(name, NOT_TESTED, why=why)
    controls = [row for row in rows if row.key.startswith("control.")]
    found = {row.status for row in (*ran, *controls)}
    return Named(
        name,
        TESTED,
        status=next((status for status in _WORST if status in found), PLAIN),
        rows=tuple(row.key for row in ran),
        controls=tuple(row.key for row in controls),
        power=tuple(row.key for row in rows if row.key.startswith("power.")),
    )


def _regurgitation(kind: str) -> Named:
    name = "regurgitation"
    if kind in NO_TEXT:
        why = "the model answers with one number for each class; no record can be repeated in that"
        return Named(name, NOT_APPLICABLE, why=why)
    return Named(name, NOT_TESTED, why="no test here looks for records in the model's own outputs")
