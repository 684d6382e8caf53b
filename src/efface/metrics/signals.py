"""What an attack may read from a model's answers to one record; higher means more like a member.

The loss, the probability of the label and its log-odds rise and fall together, so an attack with
one threshold finds the same with each of them: ``loss_attack`` stands for all three. The signals
here order records in other ways.

Shapes: n records · k classes.
"""

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

from efface.errors import InputError
from efface.metrics.measure import Evaluation


def lead(measured: Evaluation) -> Float[np.ndarray, " n"]:
    """Logit of the label minus the greatest other one: above 0 where the answer is right.

    In units of logits, unbounded. Raises InputError without one label of several classes.
    """
    others = _of_classes(measured).logits.astype(np.float64)
    rows = np.arange(len(measured))
    own = others[rows, measured.y].copy()
    others[rows, measured.y] = -np.inf
    return own - others.max(axis=1)


def confidence(measured: Evaluation) -> Float[np.ndarray, " n"]:
    """Log-odds of the greatest probability, whatever the label: how sure the model is.

    Above -ln(k - 1), unbounded; log-odds do not saturate where the probability rounds to 1. Raises
    InputError without one label of several classes.
    """
    measured = _of_classes(measured)
    return measured.labelled(measured.predicted).margin


def modified_entropy(measured: Evaluation) -> Float[np.ndarray, " n"]:
    """-(1 - p_y) ln p_y - sum over i != y of p_i ln(1 - p_i), in nats; LOWER is more like a member.

    0 for a sure right answer, unbounded for a sure wrong one, where the entropy is 0 as well. Much
    public code takes ln(1 - p_i) at the label too, or p for 1 - p. Song and Mittal, "Systematic
    evaluation of privacy risks of machine learning models", https://arxiv.org/abs/2003.10595.
    Raises InputError without one label of several classes.
    """
    log_p = _of_classes(measured).log_probabilities
    rows, top = np.arange(len(measured)), measured.predicted
    rest = log_p.copy()
    rest[rows, top] = -np.inf
    log_not_p = np.log1p(-np.exp(rest))
    # Only the greatest probability can round to 1: its complement is the sum of the others.
    log_not_p[rows, top] = logsumexp(rest, axis=1)
    terms = np.exp(log_p) * log_not_p
    terms[rows, measured.y] = np.exp(log_not_p[rows, measured.y]) * log_p[rows, measured.y]
    return -terms.sum(axis=1)


def _of_classes(measured: Evaluation) -> Evaluation:
    if measured.own_loss is not None or measured.logits.shape[1] < 2:  # noqa: PLR2004
        raise InputError(
            "answers with one label of several classes",
            "another kind of answer",
            "Use the loss attack: it needs a loss alone.",
        )
    return measured
