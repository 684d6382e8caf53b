"""Memorisation, estimated from models trained on random subsets: https://arxiv.org/abs/2008.03703.

mem(i) = P[h(x_i) = y_i | S] - P[h(x_i) = y_i | S without i]: how much likelier models are to answer
a record with its label when they were trained on it.
"""

import numpy as np
from jaxtyping import Bool, Float, Shaped

from efface.errors import InputError
from efface.ranking.gain import Difference, difference


def memorisation(correct: Shaped[np.ndarray, "s n"], member: Bool[np.ndarray, "s n"]) -> Difference:
    """Share of right answers with the record less that without it.

    ``correct``: whether each of s models answers each of n records with its label. Range -1 to 1; 0
    for a record that others explain, 1 for one that nothing but itself explains; below 0 is noise.
    Its standard error is some 0.09 with 32 models on each side, and 0 where all agree: that is too
    sure. What is estimated is memorisation in subsets of the size that the models were trained on.
    Raises InputError for values other than 0 and 1, and as ``efface.ranking.gain.difference``.
    """
    if not np.isin(correct, (0, 1)).all():
        raise InputError(
            "0 or 1 for each answer",
            "other values",
            "Give whether the model answers with the label.",
        )
    return difference(np.asarray(correct, np.float64), member, what="answers")


def correct_from(margin: Float[np.ndarray, "s n"]) -> Bool[np.ndarray, "s n"]:
    """Whether the label has the greatest logit, from the margin over the greatest other one."""
    return margin > 0
