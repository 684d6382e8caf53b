"""Information content α: the share of a record's ball that has the record's class.

α(x) = #{z in B_r(x): c(z) = c(x)} / |B_r(x)| (https://arxiv.org/abs/2402.01401). Where all around
a record are of its class the record told the model little that the others did not.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from efface.errors import InputError
from efface.metrics.refusals import need_numbers
from efface.ranking.balls import Balls


def information_content(balls: Balls, classes: Int[np.ndarray, " n"]) -> Float[np.ndarray, " m"]:
    """α of each ball's record: 1/|B| (alone in its class) to 1; **high α is low information**.

    ``classes`` (n,): of all the points that the balls were made among, **the labels or the model's
    answers: say which you took**. They part where labels are wrong. By label a mislabelled record
    among records of its true class has the lowest α of all. By the answers of a model that learned
    the wrong label by heart it has so too; by those of a model that did not, α is high, as if the
    record had told nothing.

    The record is in its own ball, so α is never 0, and α is 1 for a record that is alone there,
    where it says nothing: look at ``balls.sizes``. Chance level: the share that the record's class
    has of all points. Target: none; a property of data, not of unlearning. Raises InputError unless
    there is one class a point.
    """
    need_numbers(classes=classes)
    if len(classes) != balls.among:
        raise InputError(
            f"classes of all {balls.among} points that the balls were made among",
            str(len(classes)),
            "Give one label, or one answer of the model, for each point.",
        )
    same = classes[balls.rows] == np.repeat(classes[balls.of], balls.sizes)
    return np.add.reduceat(same, balls.starts[:-1], dtype=np.int64) / balls.sizes


def is_low(alpha: Float[np.ndarray, " m"], tau: float) -> Bool[np.ndarray, " m"]:
    """Whether a record is of low information: α ≥ τ.

    The source gives no τ: docs/information.md has the rule. Raises InputError for a τ outside
    (0, 1] or an α that is not finite.
    """
    need_numbers(alpha=alpha)
    if not 0 < tau <= 1:
        raise InputError("a tau above 0 and at most 1", str(tau), "It is a share of a ball.")
    return alpha >= tau
