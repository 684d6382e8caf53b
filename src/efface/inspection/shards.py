"""One shard of records measured: arrays that no other shard has a part in."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from efface.errors import InputError
from efface.information.copies import kept_share, nearby
from efface.information.curvature import curvature, log_probability, loss, probability
from efface.information.slopes import input_gradient_norm
from efface.inspection.keeping import Arrays
from efface.inspection.settings import Settings
from efface.methods.parts.head import features_of
from efface.scores.measure import Measured, measure
from efface.types import Records

START, DOUBLINGS, HALVINGS = 0.05, 12, 6
"""σ from which one is looked for, how far, in powers of 2; how fine: within 2 %."""

OF = {"probability": probability, "log_probability": log_probability, "loss": loss}
"""What a curvature may be of."""

CURVATURE = ("curvature", "curvature_gradient", "curvature_hessian", "curvature_error")
"""κ, its two parts, and its standard error."""


@dataclass(frozen=True, eq=False)
class Bench:
    """What every shard is measured with."""

    model: nn.Module
    settings: Settings
    sigmas: tuple[float, ...]
    balls: bool

    def of(self, records: Records, rows: Sequence[int], asked: Sequence[bool]) -> Arrays:
        """Of all records what balls are made of, of those asked about all the rest.

        ``rows`` and ``asked``: the number of each record, and whether it is asked about.
        """
        chosen = np.asarray(asked, bool)
        found: dict[str, np.ndarray] = {"rows": np.asarray(rows, np.int64), "asked": chosen}
        if self.balls:
            others = records.take(np.flatnonzero(~chosen).tolist())
            answer = np.empty(len(records), np.int64)
            answer[~chosen] = measure(self.model, others).predicted
            found["features"] = features_of(self.model, records).x.float().cpu().numpy()
        else:
            answer = np.zeros(len(records), np.int64)
        own = records.take(np.flatnonzero(chosen).tolist())
        plain, around = self._around(own)
        answer[chosen] = plain.predicted
        return {**found, "label": records.y.cpu().numpy(), "answer": answer, **around}

    def _around(self, records: Records) -> tuple[Measured, Arrays]:
        """The records that are asked about, and what lies around each in its input."""
        if not len(records):
            return measure(self.model, records), {}
        settings = self.settings
        near = nearby(
            self.model,
            records,
            sigmas=self.sigmas,
            copies=settings.copies,
            seed=settings.seed,
        )
        seen = near.plain
        found = {
            "kept": near.kept.T,
            "margin": seen.margin,
            "loss": seen.loss,
            "entropy": seen.entropy,
            "gradient_norm": input_gradient_norm(self.model, records),
        }
        return seen, found | _curvature(self.model, records, settings)


def _curvature(model: nn.Module, records: Records, settings: Settings) -> Arrays:
    if settings.curvature is None:
        return {}
    found = curvature(
        model, records, of=OF[settings.curvature], probes=settings.probes, seed=settings.seed
    )
    parts = (found.ratio, found.gradient_norm, found.hessian_norm, found.ratio_error)
    return dict(zip(CURVATURE, parts, strict=True))


def sigma_keeping(model: nn.Module, sample: Records, wanted: float, *, seed: int) -> float:
    """σ at which about ``wanted`` (0 to 1) of the noisy copies of a sample keep the answer.

    Doubles or halves until the share is passed, then narrows down. Where it is never passed (a
    model that answers everything alike) it is ``START``: look at the share that comes of it.
    """
    copies = max(2, -(-1000 // len(sample)))

    def kept(sigma: float) -> float:
        return float(kept_share(model, sample, sigma=sigma, copies=copies, seed=seed).mean())

    enough = kept(START) > wanted
    low = high = START
    for _ in range(DOUBLINGS):
        low, high = (high, 2 * high) if enough else (low / 2, low)
        if (kept(high if enough else low) > wanted) != enough:
            break
    else:
        return START
    for _ in range(HALVINGS):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if kept(middle) > wanted else (low, middle)
    return (low * high) ** 0.5


def why_no_features(model: nn.Module, sample: Records) -> str:
    """Why what goes into the last layer cannot be read; empty where it can."""
    try:
        features_of(model, sample.take(range(min(2, len(sample)))))
    except InputError as error:
        return f"balls need {error.wanted}, and here is {error.came}"
    return ""
