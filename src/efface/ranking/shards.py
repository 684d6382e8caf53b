"""One shard of records measured: arrays that no other shard has a part in."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from efface.errors import InputError
from efface.io.checkpoint import some_of
from efface.methods.parts.head import features_of
from efface.metrics.measure import Evaluation, evaluate
from efface.ranking.copies import nearby
from efface.ranking.curvature import curvature, log_probability, loss, probability
from efface.ranking.curvature_exact import piecewise_linear_curvature
from efface.ranking.keeping import Arrays
from efface.ranking.settings import Settings
from efface.ranking.slopes import input_gradient_norm
from efface.types import Records

OF = {"probability": probability, "log_probability": log_probability, "loss": loss}
"""What a curvature may be of."""

CURVATURE = ("curvature", "curvature_gradient", "curvature_hessian", "curvature_error")
"""κ, its two parts, and its standard error."""


@dataclass(frozen=True, eq=False)
class Bench:
    """What every shard is measured with; ``exact``: curvature by the form for nets of ReLUs."""

    model: nn.Module
    settings: Settings
    sigmas: tuple[float, ...]
    balls: bool
    outputs: int
    exact: bool = False

    def of(self, records: Records, rows: Sequence[int], asked: Sequence[bool]) -> Arrays:
        """Of all records what balls are made of, of those asked about all the rest.

        ``rows`` and ``asked``: the number of each record, and whether it is asked about.
        """
        _refuse_labels(records, self.outputs)
        chosen = np.asarray(asked, bool)
        found: dict[str, np.ndarray] = {"rows": np.asarray(rows, np.int64), "asked": chosen}
        if self.balls:
            others = records.take(np.flatnonzero(~chosen).tolist())
            answer = np.empty(len(records), np.int64)
            answer[~chosen] = evaluate(self.model, others).predicted
            found["features"] = features_of(self.model, records).x.float().cpu().numpy()
        else:
            answer = np.zeros(len(records), np.int64)
        own = records.take(np.flatnonzero(chosen).tolist())
        plain, around = self._around(own)
        answer[chosen] = plain.predicted
        return {**found, "label": records.y.cpu().numpy(), "answer": answer, **around}

    def _around(self, records: Records) -> tuple[Evaluation, Arrays]:
        """The records that are asked about, and what lies around each in its input."""
        if not len(records):
            return evaluate(self.model, records), {}
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
        return seen, {**found, **self._curvature(records)}

    def _curvature(self, records: Records) -> Arrays:
        """κ and its parts, exact where the net allows."""
        settings = self.settings
        if settings.curvature is None:
            return {}
        of = OF[settings.curvature]
        if self.exact:
            found = piecewise_linear_curvature(self.model, records, of=of)
        else:
            how = {"probes": settings.probes, "seed": settings.seed}
            found = curvature(self.model, records, of=of, **how)
        parts = (found.ratio, found.gradient_norm, found.hessian_norm, found.ratio_error)
        return dict(zip(CURVATURE, parts, strict=True))


def _refuse_labels(records: Records, outputs: int) -> None:
    """Raises InputError for a label that the model has no output for."""
    wrong = [
        name
        for name, y in zip(records.ids, records.y.tolist(), strict=True)
        if not 0 <= y < outputs
    ]
    if wrong:
        raise InputError(
            f"labels from 0 to {outputs - 1}, one for each of the model's outputs",
            f"another one for {some_of(wrong)}",
            "Mend these labels, or leave their ids out.",
        )


def why_no_features(model: nn.Module, sample: Records) -> str:
    """Why what goes into the last layer cannot be read; empty where it can."""
    try:
        features_of(model, sample.take(range(min(2, len(sample)))))
    except InputError as error:
        return f"balls need {error.wanted}, and here is {error.came}"
    return ""
