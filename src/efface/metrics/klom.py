"""KLoM: does a record's margin scatter over unlearned models as it does over retrained ones?

Shapes: u unlearned models · r retrained models · n records.
"""

import numpy as np
from jaxtyping import Float
from scipy import stats

from efface.errors import InputError
from efface.metrics.refusals import need_numbers, need_same_records

CLIP = 100.0
FLOOR = 1e-5


def klom_each(
    unlearned: Float[np.ndarray, "u n"], retrained: Float[np.ndarray, "r m"], *, bins: int = 20
) -> Float[np.ndarray, " n"]:
    """KL divergence of margins for each record, in nats: unlearned against retrained models.

    ``unlearned``, ``retrained``: logit margins (``Evaluation.margin``), one row a model. Histograms
    of ``bins`` equal bins over the joint range, margins clipped to 100; an empty bin of the
    retrained models counts as 1e-5. Range 0 to ln(1e5) = 11.5; no chance level. Target: ``klom``
    of one half of the retrained models against the other (``klom_floor``): with few models it is
    far above 0. Georgiev et al. 2024, https://arxiv.org/abs/2410.23232. Their code drops each
    record's greatest margin, which falls beyond its last bin; here it is in the last bin. Raises
    InputError for fewer than two models on a side, or records that do not pair up.
    """
    need_numbers(unlearned=unlearned, retrained=retrained)
    need_same_records(unlearned=unlearned, retrained=retrained)
    if min(len(unlearned), len(retrained)) < 2 or bins < 2:  # noqa: PLR2004
        raise InputError(
            "at least two unlearned and two retrained models, and two bins",
            f"{len(unlearned)} and {len(retrained)}, {bins} bins",
            "Repeat both with other seeds; the field takes 100 of each.",
        )
    pairs = zip(unlearned.T.clip(-CLIP, CLIP), retrained.T.clip(-CLIP, CLIP), strict=True)
    return np.array([_divergence(ours, theirs, bins) for ours, theirs in pairs])


def _divergence(ours: Float[np.ndarray, " u"], theirs: Float[np.ndarray, " r"], bins: int) -> float:
    low, high = min(ours.min(), theirs.min()), max(ours.max(), theirs.max())
    if low == high:
        return 0.0
    p, q = (np.histogram(side, bins, (low, high))[0] / len(side) for side in (ours, theirs))
    return float(stats.entropy(p, np.where(p > 0, np.maximum(q, FLOOR), q)))


def klom(
    unlearned: Float[np.ndarray, "u n"], retrained: Float[np.ndarray, "r m"], *, bins: int = 20
) -> float:
    """The 95th percentile over records of ``klom_each``, in nats: the field's number.

    Range, target and errors as there. Give the forget, the retained and the unseen records each
    their own number.
    """
    return float(np.quantile(klom_each(unlearned, retrained, bins=bins), 0.95))


def klom_floor(retrained: Float[np.ndarray, "r n"], *, bins: int = 20) -> float:
    """``klom`` between the two halves of the retrained models: what seeds alone do.

    Range as ``klom``. Each half has fewer models than ``klom`` had, so this floor is a little too
    high: compare with ``klom`` of as many models. Raises InputError for fewer than four models.
    """
    if len(retrained) < 4:  # noqa: PLR2004
        raise InputError(
            "at least four retrained models",
            str(len(retrained)),
            "Retrain with other seeds, or say that the floor is not known.",
        )
    half = len(retrained) // 2
    return klom(retrained[:half], retrained[half : 2 * half], bins=bins)
