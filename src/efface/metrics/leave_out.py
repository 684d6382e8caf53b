"""Likelihoods of each value under what the other pipelines say of its record, group by group.

A value must not stand in the sample that judges it. But to leave out that value alone is not
enough: its own group is then judged from one value fewer than the others, so that it looks less
likely under the truth. Without any leak, with 3 of 32 pipelines in a group, the area under the
curve is 0.45 instead of 0.5, and small leaks do not show. So each group gives up one value: its own
one, or a partner of the same rank. All groups are then judged from the same sizes, and without a
leak the values of all groups are exchangeable.

Shapes: p pipelines · t targets · k groups, numbered from 0; -1 is no group.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from efface.metrics.shadows import Moments, moments

Table = Float[np.ndarray, "p t"]
Groups = Int[np.ndarray, "p t"]


def gaussian(
    values: Table, groups: Groups, k: int, *, floor: float, one_sd: bool
) -> Float[np.ndarray, "k p t"]:
    """Log-densities of each value under a Gaussian of each group, with one value each left out.

    The standard deviation of a record is at least ``floor`` times that which records share;
    ``one_sd``: one for all groups of a record.
    """
    fitted = [
        moments(values, groups == group).without(_lost(values, groups, group)) for group in range(k)
    ]
    spreads = [_together(fitted).spread(floor)] * k if one_sd else [m.spread(floor) for m in fitted]
    return np.stack(
        [
            stats.norm.logpdf(values, found.mean, spread)
            for found, spread in zip(fitted, spreads, strict=True)
        ]
    )


def _together(fitted: list[Moments]) -> Moments:
    """The squares around each group's own mean, as those of one sample with fewer free ones."""
    free = np.sum([found.count - 1 for found in fitted], axis=0)
    squares = np.sum([found.squares for found in fitted], axis=0)
    return Moments(free + 1, fitted[0].mean, squares)


def kernel(
    values: Table, groups: Groups, k: int, *, floor: float, bandwidth: float | None
) -> Float[np.ndarray, "k p t"]:
    """The same under a Gaussian kernel density of each group.

    ``bandwidth`` in units of log-odds; None: Scott's rule for each record and group, standard
    deviation (with ``floor``) times n ** -1/5, as in scipy.
    """
    return np.stack(
        [_kernel(values, groups, group, floor, bandwidth) for group in range(k)],
    )


def _kernel(
    values: Table, groups: Groups, group: int, floor: float, bandwidth: float | None
) -> Table:
    chosen, lost = groups == group, partners(groups, group)
    fitted = moments(values, chosen).without(np.take_along_axis(values, lost, axis=0))
    scott = fitted.spread(floor) * fitted.count**-0.2
    width = scott if bandwidth is None else np.full(values.shape, bandwidth)
    sums = [
        _log_sums(values[:, part], chosen[:, part], lost[:, part], width[:, part])
        for part in _parts(values.shape[1])
    ]
    scale = np.log(width * np.sqrt(2 * np.pi) * fitted.count)
    return np.concatenate(sums, axis=1) - scale


def _log_sums(values: Table, chosen: np.ndarray, lost: np.ndarray, width: Table) -> Table:
    """Logarithm of the sum of the kernels of the chosen values that are not lost.

    Relative to the nearest one: its kernel is the greatest, so that the sum cannot become 0.
    """
    nearest, total = np.full(values.shape, np.inf), np.zeros(values.shape)
    for row in range(len(values)):
        far = np.abs(values - values[row])
        far[(lost == row) | ~chosen[row]] = np.inf
        np.minimum(nearest, far, out=nearest)
    for row in range(len(values)):
        # Of the squares the difference, or far-off values would round to one another.
        beyond = (values - values[row]) ** 2 - nearest**2
        beyond[(lost == row) | ~chosen[row]] = np.inf
        total += np.exp(-beyond / (2 * width**2))
    return np.log(total) - (nearest / width) ** 2 / 2


def _parts(targets: int, size: int = 256) -> list[slice]:
    """So many targets at a time as the processor's own memory holds."""
    return [slice(start, start + size) for start in range(0, targets, size)]


def _lost(values: Table, groups: Groups, group: int) -> Table:
    return np.take_along_axis(values, partners(groups, group), axis=0)


def partners(groups: Groups, group: int) -> Int[np.ndarray, "p t"]:
    """Which pipeline of ``group`` is left out when each value is judged: itself, or its partner.

    The partner has the same rank in its group, counted round; the order of pipelines says nothing.
    """
    chosen = groups == group
    rank = np.zeros(groups.shape, np.int64)
    for label in np.unique(groups):
        own = groups == label
        rank = np.where(own, own.cumsum(axis=0) - 1, rank)
    members = np.argsort(~chosen, axis=0, kind="stable")
    return np.take_along_axis(members, rank % chosen.sum(axis=0), axis=0)
