"""Attacks per record on a whole unlearning pipeline: U-LiRA, and RULI's three states.

A population attack has one threshold; here each target is judged by what the same pipeline does to
it elsewhere. They read log-odds, never whether the answer is right: of two sure right answers one
can still be a member's. Every value is judged from other pipelines (``leave_out``).

Shapes: p pipelines · t targets. ``log_odds`` is ``Evaluation.margin`` of the unlearned models.
``unlearned``: where the target was trained on and unlearned; elsewhere it was never trained on,
while the same unlearning ran on another forget set. Who is where must be drawn at random.
"""

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import softmax

from efface.metrics.leave_out import gaussian, kernel
from efface.metrics.pooled import PerRecord, pooled
from efface.metrics.shadows import enough, same_shape, sound

LEAST = 3
"""Pipelines a target needs on each side: one is left out, and two have a spread."""

FLOOR = 0.5
"""Least standard deviation, as a share of the one that all targets have together."""

UNLEARNED, OUT, INSIDE = 0, 1, 2
NONE = -1


def u_lira(
    log_odds: Float[np.ndarray, "p t"],
    unlearned: Bool[np.ndarray, "p t"],
    *,
    floor: float = FLOOR,
    one_sd: bool = False,
    level: float = 0.95,
) -> PerRecord:
    """Which targets were unlearned and which never seen, by Gaussians per target: ``PerRecord``.

    Target and chance: area and accuracy 0.5, what retraining gives. ``one_sd``: both sides of a
    target share one deviation; finds more where unlearning moves targets and less where it only
    spreads them. Hayes et al., "Inexact unlearning needs more careful evaluations to avoid a false
    sense of privacy", https://arxiv.org/abs/2403.01218. Raises InputError for nan or inf (naming
    the pipelines) and for targets with fewer than three pipelines on a side.
    """
    values, groups = _prepared(log_odds, unlearned, np.zeros(unlearned.shape, bool))
    found = gaussian(values, groups, 2, floor=floor, one_sd=one_sd)
    return pooled(found[UNLEARNED] - found[OUT], unlearned, level=level)


def ruli_privacy(
    log_odds: Float[np.ndarray, "p t"],
    unlearned: Bool[np.ndarray, "p t"],
    *,
    inside: Bool[np.ndarray, "p t"] | None = None,
    bandwidth: float | None = None,
    floor: float = FLOOR,
    level: float = 0.95,
) -> PerRecord:
    """The same by kernel densities: the privacy ratio U / (U + out), out in unlearned models.

    ``inside``: where the target was trained on and kept; it is not judged there. ``bandwidth`` in
    units of log-odds: None for Scott's rule; RULI's code takes 1 whatever the spread. Naderloui et
    al., USENIX Security 2025, https://arxiv.org/abs/2506.13009. Target, chance and errors as
    ``u_lira``.
    """
    kept = np.zeros(unlearned.shape, bool) if inside is None else inside
    values, groups = _prepared(log_odds, unlearned, kept)
    found = kernel(values, groups, 2, floor=floor, bandwidth=bandwidth)
    ratios = np.where(kept, np.nan, found[UNLEARNED] - found[OUT])
    return pooled(ratios, unlearned, level=level)


def ruli_efficacy(
    log_odds: Float[np.ndarray, "p t"],
    unlearned: Bool[np.ndarray, "p t"],
    retrained: Float[np.ndarray, "q t"],
    *,
    out: Bool[np.ndarray, "q t"] | None = None,
    bandwidth: float | None = None,
    floor: float = FLOOR,
    level: float = 0.95,
) -> PerRecord:
    """Unlearned against q models trained without the target: the ratio U / (U + retrained).

    Target and chance: area and accuracy 0.5, which say that the target's log-odds are those of
    retraining. Above: whoever knows both kinds of model can tell which he has; the unlearned ones
    may well know LESS, so this is no leak of membership by itself. ``out``: where a retrained
    model is without the target; everywhere if None. The rows of the result are the unlearned
    pipelines, then the retrained models. The rest as ``ruli_privacy``.
    """
    without = np.ones(retrained.shape, bool) if out is None else out
    same_shape(unlearned=unlearned[0], retrained=retrained[0])
    member = np.concatenate([unlearned, np.zeros(retrained.shape, bool)])
    ignored = np.concatenate([~unlearned, ~without])
    values, groups = _prepared(np.concatenate([log_odds, retrained]), member, ignored)
    found = kernel(values, groups, 2, floor=floor, bandwidth=bandwidth)
    ratios = np.where(ignored, np.nan, found[UNLEARNED] - found[OUT])
    return pooled(ratios, member, level=level)


def ruli_states(
    log_odds: Float[np.ndarray, "p t"],
    unlearned: Bool[np.ndarray, "p t"],
    inside: Bool[np.ndarray, "p t"],
    *,
    bandwidth: float | None = None,
    floor: float = FLOOR,
) -> Float[np.ndarray, "p t 3"]:
    """Probabilities that a target was unlearned, out or inside, in this order, at even odds.

    0 to 1, together 1; chance 1/3 each. Target: unlearned and out alike, both apart from inside.
    Errors as ``u_lira``, for all three.
    """
    values, groups = _prepared(log_odds, unlearned, inside)
    enough(inside, LEAST, "pipelines with the target kept")
    found = kernel(values, np.where(inside, INSIDE, groups), 3, floor=floor, bandwidth=bandwidth)
    return np.moveaxis(softmax(found, axis=0), 0, -1)


def _prepared(
    log_odds: Float[np.ndarray, "p t"], unlearned: np.ndarray, ignored: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    same_shape(log_odds=log_odds, unlearned=unlearned, ignored=ignored)
    values = sound(log_odds, "log-odds")
    groups = np.where(ignored, NONE, np.where(unlearned, UNLEARNED, OUT))
    enough(groups == UNLEARNED, LEAST, "pipelines with the target unlearned")
    enough(groups == OUT, LEAST, "pipelines without the target")
    return values, groups
