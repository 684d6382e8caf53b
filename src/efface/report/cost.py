"""What the tests of a tier cost before they start: records that go forward through a model."""

import numpy as np

from efface.report.depth import COPIES, MOST
from efface.report.forgotten import MOST_UNSEEN
from efface.report.moved import SYNTHETIC
from efface.report.nearby import VIEWERS, VIEWS
from efface.report.sanity import INPUTS
from efface.task import task_of
from efface.types import Records, Split

IMAGES = 4
"""Dimensions of a batch of images: the views are made of these alone."""


def forward_passes(
    split: Split,
    *,
    mislabelled: bool = False,
    method_saw: tuple[str, ...] = (),
    probes: bool = True,
) -> int:
    """Forward passes of ``collect`` on this split: each record once through each model, and views.

    The views are of at most 500 forget and 500 unseen records, as are the probes on the features;
    rounded and pruned copies are asked about at most 500. Each model is asked about four sets of
    noise inputs. Exact where every test runs; no backward pass is made.
    """
    given = [part for part in (split.forget, split.holdout, split.retain) if part]
    once = 2 * sum(len(part) for part in given)
    noise = 2 * SYNTHETIC + 4 * INPUTS + 2 * INPUTS
    if not probes:
        return once + noise
    viewed = 2 * VIEWS * len([kind for kind in VIEWERS if kind not in method_saw])
    probed = _probed(split, mislabelled=mislabelled)
    return once + viewed * _viewed(split, mislabelled=mislabelled) + noise + probed


def _probed(split: Split, *, mislabelled: bool) -> int:
    """The copies of both models and those as they are, and what a linear probe reads."""
    if task_of(split.forget).name != "multiclass":
        return 0
    some = min(len(split.forget), MOST)
    copies = 2 * some * (1 + COPIES)
    if mislabelled or not split.holdout:
        return copies
    return copies + 2 * (some + min(len(split.holdout), MOST))


def _viewed(split: Split, *, mislabelled: bool) -> int:
    """Records whose views are looked at."""
    forget = split.forget
    if forget.x.ndim != IMAGES or task_of(forget).name != "multiclass":
        return 0
    unseen = 0 if mislabelled else _of_the_same_classes(forget, split.holdout)
    return min(len(forget), MOST_UNSEEN) + min(unseen, MOST_UNSEEN)


def _of_the_same_classes(forget: Records, holdout: Records | None) -> int:
    if not holdout:
        return 0
    return int(np.isin(holdout.y.cpu().numpy(), forget.y.cpu().numpy()).sum())
