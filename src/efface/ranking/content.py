"""Information content α: the share of a record's neighbourhood that has the record's class.

α(x) = #{z in B_r(x): c(z) = c(x)} / |B_r(x)| (https://arxiv.org/abs/2402.01401). **High α is low
information**: the neighbours say the same, so the record taught the model little that the others
did not. Two neighbourhoods: ``information_content`` counts other records (``neighbours.Balls``);
``noise_stability`` counts noisy copies of the record itself and needs no other data (zero-shot).
``calibrate_sigma`` chooses the noise. Shapes: n records · m balls · s noise scales.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from efface.errors import InputError
from efface.methods._perturb import add_noise
from efface.metrics.evaluation import Evaluation
from efface.metrics.refusals import need_numbers
from efface.ranking.neighbours import Balls
from efface.runtime import map_chunks
from efface.task import device_of, frozen_teacher, multiclass, outputs, task_of
from efface.types import Records

COPIES = 16

Sigmas = Sequence[float]

# τ: records with an information content of at least this are called low in information.
TAU = 0.9

# Share of noisy copies that should keep the prediction, by default: a convention.  A share near 1
# separates no records, nor does one near chance; how much it matters in between:
# research/results/information.md.
STABILITY = 0.75

# The first σ of the search, how many powers of 2 it goes up or down, how fine it ends (2 %).
START, DOUBLINGS, BISECTIONS = 0.05, 12, 6

# Of the search: records in its sample, noisy copies a share is taken over, copies of a record.
SAMPLE, ANSWERS, MAX_COPIES = 512, 1000, 64

# A stability farther than this from the target counts as not reached.
TOLERANCE = 0.05

_STREAM = 0xBA11  # keeps these draws apart from those of methods and probes under the same seed


def information_content(balls: Balls, classes: Int[np.ndarray, " n"]) -> Float[np.ndarray, " m"]:
    """α of each ball's centre: 1/|B| (alone in its class) to 1; **high α is low information**.

    ``classes`` (n,): of all points the balls were made among, **the labels or the model's
    predictions: say which**. They differ where labels are wrong. By label, a mislabelled record
    among records of its true class has the lowest α of all. By prediction it does too if the model
    memorised the wrong label; if not, its α is high, as if the record had taught nothing.

    The centre is in its own ball, so α is never 0; α is 1 for a record that is alone there, which
    means nothing: check ``balls.sizes``. Chance level: the class's share of all points. Reference:
    none; a property of data, not of unlearning. Raises InputError unless there is one class a
    point.
    """
    need_numbers(classes=classes)
    if len(classes) != balls.among:
        wanted = f"classes of all {balls.among} points that the balls were made among"
        remedy = "Give a label, or a prediction of the model, for each point."
        raise InputError(wanted, str(len(classes)), remedy)
    # Balls differ in size: sums over runs of one flat array.
    same = classes[balls.rows] == np.repeat(classes[balls.of], balls.sizes)
    return np.add.reduceat(same, balls.starts[:-1], dtype=np.int64) / balls.sizes


def is_low(alpha: Float[np.ndarray, " m"], tau: float) -> Bool[np.ndarray, " m"]:
    """Whether a record is low in information: α ≥ τ.

    The source gives no τ: docs/information.md has the rule. Raises InputError for a τ outside
    (0, 1] or an α that is not finite.
    """
    need_numbers(alpha=alpha)
    if not 0 < tau <= 1:
        raise InputError("a tau above 0 and at most 1", str(tau), "It is a share of a ball.")
    return alpha >= tau


def require_multiclass(task: str) -> None:
    """Raises InputError unless ``task``, the name of a ``Task``, is multiclass."""
    if task != multiclass.name:
        remedy = "Information content, curvature and gradients are of one class's probability, and "
        remedy += "regression and multilabel records have no such class."
        raise InputError("multiclass records", task, remedy)


def require_records(records: Records) -> None:
    """Raises InputError without records, or unless they are multiclass."""
    if not len(records):
        raise InputError("at least one record", "none", "Give the records to rank.")
    require_multiclass(task_of(records).name)


class Stability(NamedTuple):
    """How often the predictions for n records survive noise of s scales.

    ``share`` (s, n): zero-shot α, 0 to 1; a row for each of ``sigmas``. ``evaluation``: of the
    records themselves, from the same passes.
    """

    sigmas: tuple[float, ...]
    share: Float[np.ndarray, "s n"]
    evaluation: Evaluation


def noise_stability(
    model: nn.Module, records: Records, sigmas: Sigmas, *, copies: int = COPIES, seed: int = 0
) -> Stability:
    """Zero-shot α: the share of noisy copies that the model gives the same class as the record.

    0 to 1 in steps of 1/``copies``; the record itself is not counted. **High is low information**.
    Noise of σ times the data's range, clipped to its bounds; a record draws the same noise in any
    batch and for every σ, so rows differ by σ alone. Standard error at most 1 / (2 √copies): 0.125
    for 16. No chance level; all are 1 where σ is small or the model predicts one class only. It is
    about the prediction, right or wrong. Cost: forward passes of the record and of each copy at
    each σ. Raises InputError unless each record has one class, for a σ of 0 or less, and for
    outputs that are not finite.
    """
    require_records(records)
    if not len(sigmas) or not all(0 < sigma < np.inf for sigma in sigmas):
        came = ", ".join(str(sigma) for sigma in sigmas) or "none"
        raise InputError("every sigma above 0", came, "Give it as a share of the data's range.")
    if copies < 1:
        raise InputError("one copy or more", str(copies), "16 give a standard error below 0.13.")
    teacher, device = frozen_teacher(model), device_of(model)

    def part(rows: Tensor) -> tuple[Tensor, Tensor]:
        batch = records.take(rows).to(device)
        plain = outputs(teacher, batch).float()
        same = torch.zeros(len(sigmas), len(batch), device=device)
        # The same draw for every σ, so that rows differ by σ alone.
        for number in range(copies):
            for place, sigma in enumerate(sigmas):
                x = add_noise(batch, sigma, seed=seed, step=_STREAM + number).x
                predicted = outputs(teacher, replace(batch, x=x)).float().argmax(1)
                same[place] += predicted == plain.argmax(1)
        return plain.cpu(), same.T.cpu()

    with torch.no_grad():
        found = list(map_chunks(part, torch.arange(len(records)), 256))
    logits, same = (torch.cat(some).numpy() for some in zip(*found, strict=True))
    need_numbers(**{"the model's outputs": logits})
    evaluation = Evaluation(logits, records.y.cpu().numpy(), records.ids)
    return Stability(tuple(sigmas), same.T.astype(np.float64) / copies, evaluation)


class Noise(NamedTuple):
    """``sigma`` over the range of the data, and the mean ``stability`` there."""

    sigma: float
    stability: float

    def reached(self, target: float) -> bool:
        """Whether the stability is about the target."""
        return abs(self.stability - target) <= TOLERANCE


def spread_rows(count: int, size: int) -> list[int]:
    """At most ``size`` rows, evenly spread over ``count``."""
    rows = np.linspace(0, count - 1, min(size, count)).round()
    return np.unique(rows).astype(np.int64).tolist()


def calibrate_sigma(model: nn.Module, records: Records, target: float, *, seed: int) -> Noise:
    """σ at which about ``target`` (0 to 1) of the noisy copies of a sample keep the prediction.

    Doubles or halves σ until the target is passed, then bisects. Where it is never passed (a model
    that predicts one class only, a target of 1 or below chance) it is ``START``: check ``reached``.
    Costs at most 19 shares of 1,000 copies, or of 64 a record.
    """
    sample = records.take(spread_rows(len(records), SAMPLE))
    # As many copies as bring the mean's standard error to 1.6 points, however few records.
    copies = min(MAX_COPIES, max(2, -(-ANSWERS // len(sample))))

    def stability(sigma: float) -> float:
        found = noise_stability(model, sample, (sigma,), copies=copies, seed=seed)
        return float(found.share.mean())

    first = stability(START)
    # More noise where too many keep the prediction, less where too few do.
    stable, low, high = first > target, START, START
    for _ in range(DOUBLINGS):
        low, high = (high, 2 * high) if stable else (low / 2, low)
        if (stability(high if stable else low) > target) != stable:
            break
    else:
        return Noise(START, first)
    # Scales are compared by ratio, so the middle is the geometric one.
    for _ in range(BISECTIONS):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if stability(middle) > target else (low, middle)
    sigma = (low * high) ** 0.5
    return Noise(sigma, stability(sigma))
