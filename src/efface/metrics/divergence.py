"""How far two models' probabilities differ record by record, and how margins differ over models.

Shapes: n records · k classes · u unlearned models · r retrained models. The rows of both sides are
the same records in the same order.
"""

import math

import numpy as np
from jaxtyping import Float, Int64
from scipy import stats
from scipy.special import rel_entr, xlogy

from efface.errors import InputError
from efface.metrics.refusals import (
    need_at_least,
    need_classes,
    need_probabilities,
    need_same_classes,
    need_same_records,
)

# Nats: the largest Jensen-Shannon divergence, of two certain predictions that differ.
JENSEN_SHANNON_BOUND = math.log(2)

# Of KLoM: where margins are clipped, and what an empty bin counts as.
CLIP, FLOOR = 100.0, 1e-5

Ours = Float[np.ndarray, "n k"]
Theirs = Float[np.ndarray, "m j"]
Classes = Int64[np.ndarray, " _"]
Unlearned = Float[np.ndarray, "u n"]
Retrained = Float[np.ndarray, "r m"]


def jensen_shannon_each(ours: Ours, theirs: Theirs) -> Float[np.ndarray, " n"]:
    """Jensen-Shannon divergence of each record's two predictions, in nats.

    Range 0 (the same) to ln 2 (no class in common). Raises InputError when a row is no probability
    distribution or the two do not pair up.
    """
    need_probabilities(ours=ours, theirs=theirs)
    middle = (ours + theirs) / 2
    apart = (rel_entr(ours, middle) + rel_entr(theirs, middle)).sum(axis=1) / 2
    # Rounding may leave the range by an ulp, and a root of it would be nan.
    return np.clip(apart, 0, JENSEN_SHANNON_BOUND)


def jensen_shannon(ours: Ours, theirs: Theirs) -> float:
    """Mean Jensen-Shannon divergence to another model, in nats; the other is a retrained one.

    Range 0 to ln 2; no chance level. Reference: the divergence of two retrained models, not 0.
    Raises InputError as ``jensen_shannon_each``.
    """
    return float(jensen_shannon_each(ours, theirs).mean())


def zrf(ours: Ours, untrained: Theirs) -> float:
    """Zero retrain forgetting on forget records: 1 - mean Jensen-Shannon divergence in bits.

    ``untrained``: probabilities of a model with random weights. Range 0 to 1, 1 predicts as that
    model does; no chance level. Reference: the retrained model's value; 1 is an untrained model,
    which is not one that was never shown the records. Bits, so that it has the range that the paper
    states (Chundawat et al. 2023, https://arxiv.org/abs/2205.08096); in nats it is
    1 - ``jensen_shannon``, never below 0.307. Raises InputError as ``jensen_shannon_each``.
    """
    return 1 - jensen_shannon(ours, untrained) / JENSEN_SHANNON_BOUND


def zrf_legacy(ours: Ours, untrained: Theirs) -> float:
    """The number that published tables call ZRF; for comparison with them alone.

    As in https://github.com/vikram2000b/bad-teaching-unlearning and its heirs, it departs from the
    paper: the divergences are reversed, KL(middle || prediction), and are divided by records and
    classes, so it lies near 1 whatever the model does and has no lower bound: two certain
    predictions that differ, over 100 classes, give 0.98. Reference: the retrained model's value of
    the same form. Raises InputError also for a probability of 0, where theirs is infinite or nan.
    """
    need_probabilities(ours=ours, untrained=untrained)
    if zeros := int((ours == 0).sum() + (untrained == 0).sum()):
        remedy = "This form of ZRF has no value then; use zrf."
        raise InputError("probabilities above 0", f"{zeros} of 0", remedy)
    # The published code has the arguments of KL reversed, so rel_entr does not serve.
    middle = (ours + untrained) / 2
    reversed_ = xlogy(middle, middle) - (xlogy(middle, ours) + xlogy(middle, untrained)) / 2
    return 1 - float(reversed_.mean())


def activation_distance(ours: Ours, theirs: Theirs) -> float:
    """Mean Euclidean distance of two models' probabilities; the other is a retrained one.

    Range 0 to the root of 2; no chance level. Reference: the distance of two retrained models, not
    0. Golatkar et al. 2021 and Chundawat et al. 2023 (https://arxiv.org/abs/2205.08096). The mean
    of the distances: a root of the mean square, which some code takes, is larger. Raises InputError
    as ``jensen_shannon_each``.
    """
    need_probabilities(ours=ours, theirs=theirs)
    return float(np.linalg.norm(ours - theirs, axis=1).mean())


def retrain_free_divergence(
    forget: Ours, unseen: Theirs, *, forget_classes: Classes, unseen_classes: Classes
) -> float:
    """RF-JSD, in nats: is the new model's mean prediction of a class the old one's on unseen data?

    ``forget``: the new model's probabilities of forget records; ``unseen``: the *old* model's of
    records never trained on. Jensen-Shannon divergence of the two mean predictions of each class,
    mean over the classes that both have. Range 0 to ln 2; no chance level. Reference: the retrained
    model's value. It needs no retrained model, but a mean hides single records. LoTUS, Spartalis et
    al. 2025, https://arxiv.org/abs/2503.18314; their code reverses the divergences and divides
    twice by the number of classes, so its numbers are smaller. Raises InputError when no class is
    shared, and as ``jensen_shannon_each``.
    """
    need_same_records(0, forget=forget, forget_classes=forget_classes)
    need_same_records(0, unseen=unseen, unseen_classes=unseen_classes)
    need_same_classes(forget=forget, unseen=unseen)
    shared = np.intersect1d(forget_classes, unseen_classes)
    need_classes(len(shared))
    sides = ((forget, forget_classes), (unseen, unseen_classes))
    means = (np.stack([p[y == label].mean(axis=0) for label in shared]) for p, y in sides)
    return jensen_shannon(*means)


def klom_each(
    unlearned: Unlearned, retrained: Retrained, *, bins: int = 20
) -> Float[np.ndarray, " n"]:
    """KL divergence of margins for each record, in nats: unlearned against retrained models.

    ``unlearned``, ``retrained``: ``Evaluation.logit_margin``, one row a model. Histograms
    of ``bins`` equal bins over the joint range, margins clipped to 100; an empty bin of the
    retrained models counts as 1e-5. Range 0 to ln(1e5) = 11.5; no chance level. Reference: ``klom``
    of one half of the retrained models against the other (``klom_floor``): with few models it is
    far above 0. Georgiev et al. 2024, https://arxiv.org/abs/2410.23232. Their code drops each
    record's largest margin, which falls beyond its last bin; here it is in the last bin. Raises
    InputError for fewer than two models on a side, or records that do not pair up.
    """
    need_same_records(unlearned=unlearned, retrained=retrained)
    if min(len(unlearned), len(retrained)) < 2 or bins < 2:  # noqa: PLR2004
        wanted = "at least two unlearned and two retrained models, and two bins"
        came = f"{len(unlearned)} and {len(retrained)}, {bins} bins"
        raise InputError(wanted, came, "Repeat both with other seeds; the field takes 100 of each.")
    pairs = zip(*(side.T.clip(-CLIP, CLIP) for side in (unlearned, retrained)), strict=True)
    return np.array([_divergence(ours, theirs, bins) for ours, theirs in pairs])


def _divergence(ours: Float[np.ndarray, " u"], theirs: Float[np.ndarray, " r"], bins: int) -> float:
    low, high = min(ours.min(), theirs.min()), max(ours.max(), theirs.max())
    if low == high:
        return 0.0
    # The range is closed above, so the largest margin is in the last bin.
    p, q = (np.histogram(side, bins, (low, high))[0] / len(side) for side in (ours, theirs))
    # The floor only where p has mass: elsewhere it would add to the sum that entropy divides by.
    return float(stats.entropy(p, np.where(p > 0, np.maximum(q, FLOOR), q)))


def klom(unlearned: Unlearned, retrained: Retrained, *, bins: int = 20) -> float:
    """The 95th percentile over records of ``klom_each``, in nats: the field's number.

    Range, reference and errors as there. Report the forget, the retained and the unseen records
    each with their own number.
    """
    # A high percentile: a mean would hide the few records that kept their margins.
    return float(np.quantile(klom_each(unlearned, retrained, bins=bins), 0.95))


def klom_floor(retrained: Float[np.ndarray, "r n"], *, bins: int = 20) -> float:
    """``klom`` between the two halves of the retrained models: the effect of seeds alone.

    Range as ``klom``. Each half has fewer models than ``klom`` had, so this floor is a little too
    high: compare with ``klom`` of as many models. Raises InputError for fewer than four models.
    """
    remedy = "Retrain with other seeds, or say that the floor is not known."
    need_at_least(4, "retrained models", len(retrained), remedy)
    # Equal halves: KLoM depends on the number of models.
    half = len(retrained) // 2
    return klom(retrained[:half], retrained[half : 2 * half], bins=bins)
