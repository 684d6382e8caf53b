"""RMIA: was this record trained on, by how its probability rose compared with other people's.

Zarifzadeh et al., "Low-cost high-power membership inference attacks", ICML 2024,
https://arxiv.org/abs/2312.03262. A few reference models give most of its power.
Shapes: r reference models · n records · z population records, which no model was trained on.
Probabilities come as their logarithms, ln p of the label (minus the loss), so that none is 0.

For one judged model the score rises with ln p - ln p(x) alone: ``gamma`` and the population put it
on a scale that can be compared between models, but do not change the order of records beyond ties.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import logsumexp

from efface.errors import InputError
from efface.metrics.membership import signal_attack
from efface.metrics.shadows import enough, same_shape, sound, with_judged

GRID = tuple(round(0.1 * step, 1) for step in range(11))


def rmia_online(
    log_p: Float[np.ndarray, " n"],
    reference: Float[np.ndarray, "r n"],
    member: Bool[np.ndarray, "r n"],
    *,
    population: Float[np.ndarray, " z"],
    population_reference: Float[np.ndarray, "r z"],
    gamma: float = 2.0,
) -> Float[np.ndarray, " n"]:
    """Share of population records z with (p(x)/mean p(x)) / (p(z)/mean p(z)) > ``gamma``.

    ``member``: where a reference model was trained on the record; mean p(x) weighs those with and
    those without it equally, mean p(z) all of them. Range 0 to 1, higher means trained on; no
    chance level of its own: feed it to ``signal_attack``. Target: what the retrained model's
    records score, so an area of 0.5 against records never seen. ``gamma``: 2 in the paper, 1 in its
    code. Raises InputError for nan or inf (naming the models), for records without a reference
    model on a side, without population, and for a ``gamma`` that is not above 0.
    """
    judged, reference = with_judged(log_p, reference, member, what="log-probabilities")
    enough(member, 1, "reference models in")
    enough(~member, 1, "reference models out")
    sides = [_log_mean(reference, member), _log_mean(reference, ~member)]
    expected = np.logaddexp(*sides) - math.log(2)
    unseen, references = _population(population, population_reference, len(reference))
    theirs = unseen - _log_mean(references, np.ones(references.shape, bool))
    return _share_beaten(judged - expected, theirs, gamma)


def rmia_offline(
    log_p: Float[np.ndarray, " n"],
    reference: Float[np.ndarray, "r n"],
    member: Bool[np.ndarray, "r n"],
    *,
    population: Float[np.ndarray, " z"],
    population_reference: Float[np.ndarray, "r z"],
    a: float,
    gamma: float = 2.0,
) -> Float[np.ndarray, " n"]:
    """``rmia_online`` from reference models without the record: p(x) = ((1 + a) p_out + 1 - a) / 2.

    ``a``, 0 to 1, says how far p_out stands for models with the record too: 1 takes it as it is.
    It belongs to the data and the net; ``tuned_a`` finds it on a model whose members are known,
    never on the judged one. Range, target and errors as ``rmia_online``; only models without the
    record are read, so none with it are needed.
    """
    if not 0 <= a <= 1:
        raise InputError("a from 0 to 1", str(a), "Find it with tuned_a on a reference model.")
    judged, reference = with_judged(log_p, reference, member, what="log-probabilities")
    enough(~member, 1, "reference models out")
    unseen, references = _population(population, population_reference, len(reference))
    ours = judged - _lifted(_log_mean(reference, ~member), a)
    theirs = unseen - _lifted(_log_mean(references, np.ones(references.shape, bool)), a)
    return _share_beaten(ours, theirs, gamma)


def tuned_a(
    log_p: Float[np.ndarray, " n"],
    reference: Float[np.ndarray, "r n"],
    member: Bool[np.ndarray, "r n"],
    *,
    known: Bool[np.ndarray, " n"],
    population: Float[np.ndarray, " z"],
    population_reference: Float[np.ndarray, "r z"],
    grid: Sequence[float] = GRID,
) -> float:
    """The ``a`` of the grid with the greatest area on a model whose members are ``known``.

    That model is a reference model set aside, ``log_p`` its answers; it stands neither among
    ``reference`` nor is it the judged one. The least such ``a`` when several are equal.
    """
    others = {"population": population, "population_reference": population_reference}
    areas = []
    for a in grid:
        found = rmia_offline(log_p, reference, member, a=a, **others)
        areas.append(signal_attack(found[known], found[~known]).auc)
    return grid[int(np.argmax(areas))]


def _lifted(log_out: Float[np.ndarray, " n"], a: float) -> Float[np.ndarray, " n"]:
    return np.log(((1 + a) * np.exp(log_out) + 1 - a) / 2) if a < 1 else log_out


def _log_mean(log_p: Float[np.ndarray, "r n"], chosen: np.ndarray) -> Float[np.ndarray, " n"]:
    """Logarithm of the mean probability over the models that are chosen for each record."""
    kept = np.where(chosen, log_p, -np.inf)
    return logsumexp(kept, axis=0) - np.log(chosen.sum(axis=0))


def _share_beaten(
    ours: Float[np.ndarray, " n"], theirs: Float[np.ndarray, " z"], gamma: float
) -> Float[np.ndarray, " n"]:
    if gamma <= 0:
        raise InputError("gamma above 0", str(gamma), "The paper takes 2.")
    beaten = np.searchsorted(np.sort(theirs), ours - math.log(gamma), side="left")
    return beaten / len(theirs)


def _population(
    population: Float[np.ndarray, " z"], reference: Float[np.ndarray, "r z"], models: int
) -> tuple[Float[np.ndarray, " z"], Float[np.ndarray, "r z"]]:
    if not len(population):
        raise InputError("population records", "none", "Give records that no model was trained on.")
    same_shape(population_reference=reference, wanted=np.empty((models, len(population))))
    judged = sound(population[None], "log-probabilities of the population in the judged model")
    return judged[0], sound(reference, "log-probabilities of the population")
