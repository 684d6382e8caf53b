"""LiRA: was this record trained on, by the log-odds that shadow models with and without it give.

Carlini et al., "Membership inference attacks from first principles",
https://arxiv.org/abs/2112.03570. Shapes: s shadow models · n records. Log-odds are
ln p - ln(1 - p) of the label, ``Evaluation.margin``: by log-sum-exp, so that sure answers keep apart.
"""

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from efface.metrics.shadows import Moments, enough, moments, with_judged

MODELS_FOR_OWN_VARIANCE = 64
"""With fewer shadow models all records share one variance, as the paper advises."""

FLOOR = 1e-3
"""Least standard deviation of a record, as a share of that of all records together."""


def lira_online(
    log_odds: Float[np.ndarray, " n"],
    shadow: Float[np.ndarray, "s n"],
    member: Bool[np.ndarray, "s n"],
) -> Float[np.ndarray, " n"]:
    """Log-likelihood ratio ln N(x; in) - ln N(x; out) of each record, x its log-odds.

    ``member``: where a shadow model was trained on the record. In nats, unbounded; higher means
    trained on; 0 is even odds. Target: what the retrained model's records score, so an area of 0.5
    against records never seen (``signal_attack``). Carlini's code shares the variance of all
    values, the differences between records included; here it is that around each record's own mean.
    Raises InputError for nan or inf (naming the models) and for records with fewer than two shadow
    models on a side.
    """
    judged, shadow = with_judged(log_odds, shadow, member, what="log-odds")
    total = np.zeros(len(judged))
    for sign, chosen, side in ((1, member, "in"), (-1, ~member, "out")):
        enough(chosen, 2, f"shadow models {side}")
        found = moments(shadow, chosen)
        total += sign * stats.norm.logpdf(judged, found.mean, _spread(found, len(shadow)))
    return total


def lira_offline(
    log_odds: Float[np.ndarray, " n"],
    shadow: Float[np.ndarray, "s n"],
    member: Bool[np.ndarray, "s n"],
) -> Float[np.ndarray, " n"]:
    """-ln P(out > x) of each record: how rare so high log-odds are in models without the record.

    In nats, from 0; higher means trained on; exponential with mean 1 for records that were never
    seen. Target and errors as ``lira_online``; only the models without the record are read. One
    side is looked at: Carlini's code takes -ln N(x; out), which calls forgotten records members.
    """
    judged, shadow = with_judged(log_odds, shadow, member, what="log-odds")
    enough(~member, 2, "shadow models out")
    found = moments(shadow, ~member)
    return -stats.norm.logsf(judged, found.mean, _spread(found, len(shadow)))


def _spread(found: Moments, models: int) -> Float[np.ndarray, "..."]:
    return found.shared_spread() if models < MODELS_FOR_OWN_VARIANCE else found.spread(FLOOR)
