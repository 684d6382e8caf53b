"""``efface.inspect``: rank records by how much the model memorised them.

``inspect`` takes records in memory; the command makes a ``Run`` of its own with a ``TableSource``
and a ``FolderStore``. A run measures shard by shard what its store does not hold yet, then joins
the shards, counts balls over all of them, and ranks.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from torch import nn

from efface.errors import InputError, abbreviate
from efface.hazards import UNCHANGEABLE, Diagnosis, Finding, doctor
from efface.io.data import as_records
from efface.io.features import Spec
from efface.manifest import SCHEMA, refuse_changed, state_digest, tensor_digests, versions
from efface.methods._head import embed
from efface.metrics.evaluation import evaluate
from efface.ranking import content as zero_shot
from efface.ranking import curvature as curves
from efface.ranking import neighbours as near
from efface.ranking.ranking import PRIVACY, Ranking
from efface.ranking.storage import MemorySource, Source, Store, join_embeddings
from efface.runtime import check_model, isolated
from efface.task import check_layout, output_width, shared_view, task_of
from efface.types import Records

# Records, and numbers in their inputs, that are read at once.
SHARD, SHARD_NUMBERS = 1024, 64_000_000

# Records, spread over all, that σ is calibrated on and that hazards are looked for in.
SAMPLE = 512

# Records up to which all pairs are compared; more need FAISS.
MAX_EXACT = 100_000

# Functions of the outputs that have a curvature.
CURVED = {of.__name__: of for of in (curves.probability, curves.log_probability, curves.loss)}

# Columns, and what of a ``Curvature`` they are.
CURVATURE = {"curvature": "ratio", "curvature_gradient": "gradient_norm"}
CURVATURE |= {"curvature_hessian": "hessian_norm", "curvature_error": "ratio_error"}

# ``with progress(title, total) as done``: ``done(note)`` after each shard.
Progress = Callable[[str, int], AbstractContextManager[Callable[..., None]]]


def no_progress(title: str, total: int) -> AbstractContextManager[Callable[..., None]]:  # noqa: ARG001
    """Show nothing."""
    return nullcontext(lambda *_, **__: None)


@dataclass(frozen=True)
class Settings:
    """How records are measured, as ``inspect`` describes it; raises InputError out of range.

    ``sigma``: none to calibrate it. ``probes``: random vectors of an estimated curvature.
    """

    sigma: tuple[float, ...] = ()
    expected_accuracy: float | None = None
    copies: int = zero_shot.COPIES
    neighbours: int = near.NEIGHBOURS
    threshold: float = zero_shot.TAU
    curvature: str | None = None
    seed: int = 0
    probes: int = 64

    def __post_init__(self) -> None:
        """Each range once, in the words of its error."""
        accuracy = self.expected_accuracy
        curved = f"curvature of {', '.join(CURVED)} (logits of a ReLU network have none)"
        checks = {
            "sigma above 0": all(0 < value < math.inf for value in self.sigma),
            "sigma without duplicates": len(set(self.sigma)) == len(self.sigma),
            "expected_accuracy above 0 and below 1": accuracy is None or 0 < accuracy < 1,
            "threshold above 0 and at most 1": 0 < self.threshold <= 1,
            curved: self.curvature in {None, *CURVED},
        }
        for name, least in (("copies", 1), ("neighbours", 0), ("probes", 2), ("seed", 0)):
            good = isinstance(getattr(self, name), int) and getattr(self, name) >= least
            checks[f"{name} of {least} or more, an integer"] = good
        for wanted, good in checks.items():
            if not good:
                name = wanted.split()[0]
                raise InputError(wanted, repr(getattr(self, name)), f"Change {name}.")

    @property
    def stability(self) -> float:
        """The share of noisy copies that should keep the prediction."""
        return zero_shot.STABILITY if self.expected_accuracy is None else self.expected_accuracy


@isolated
def inspect(
    model: nn.Module,
    records: Any,
    *,
    rows: Sequence[int] | None = None,
    sigma: float | Sequence[float] = (),
    expected_accuracy: float | None = None,
    copies: int = zero_shot.COPIES,
    neighbours: int = near.NEIGHBOURS,
    threshold: float = zero_shot.TAU,
    curvature: str | None = None,
    classes: tuple[str, ...] | None = None,
    preprocessing: Spec | None = None,
    accept: Sequence[str] = (),
    seed: int = 0,
    progress: Progress = no_progress,
) -> Ranking:
    """Rank records by how much the model memorised them, the most informative first.

    What the numbers are, and what they are not: docs/information.md.

    Args:
        model: as for ``efface.forget``; it is not changed.
        records: multiclass; as for ``efface.forget``.
        rows: positions of the records to rank, all by default. The others serve the balls: they
            are neighbours by the embeddings that go into the last layer.
        sigma: noise scale as a share of the data's range; the first of several ranks. By default
            calibrated on the model: where ``expected_accuracy`` of the noisy copies keep the
            prediction.
        expected_accuracy: the model's accuracy on unseen data (0 to 1), the share of copies that
            should keep the prediction; 0.75 by default.
        copies: noisy copies of each record.
        neighbours: other records in a ball; 0 for no balls.
        threshold: τ; an information content of at least τ is called low information.
        curvature: of ``probability``, ``log_probability`` or ``loss``; far more expensive than the
            rest, so omitted by default.
        classes: names of the classes.
        preprocessing: how images or rows of a ``datasets.Dataset`` become inputs.
        accept: names of findings that shall warn instead of refusing, see docs/findings.md.
        seed: of all random draws.
        progress: how the shards are shown, such as ``efface.terminal.show_count``.

    Raises:
        InputError: a number out of range, records that are not multiclass, rows that do not exist.
        Hazard: the model and the records do not fit.
        MissingExtra: more than 100,000 records have balls, and FAISS is not installed.
    """
    # Refused before anything is measured, as the command does from the table alone.
    given = as_records(records, preprocessing, classes)
    zero_shot.require_multiclass(task_of(given).name)
    sigmas = (sigma,) if isinstance(sigma, float | int) else tuple(sigma)
    settings = Settings(sigmas, expected_accuracy, copies, neighbours, threshold, curvature, seed)
    chosen = None if rows is None else tuple(sorted({int(row) for row in rows}))
    if chosen is not None and not (chosen and chosen[0] >= 0 and chosen[-1] < len(given)):
        came = f"{chosen[0]} to {chosen[-1]}" if chosen else "none"
        raise InputError(f"rows from 0 to {len(given) - 1}", came, "Name records by position.")
    about = (chosen, classes, preprocessing, tuple(accept))
    return Run(model, MemorySource(given), settings, *about).ranking(progress)


@dataclass(frozen=True, eq=False)
class Run:
    """Measures what ``store`` does not hold yet; ``ranking`` makes one table of it all.

    ``rows``: the named records, None for all. A named record that cannot be read is refused; of all
    records those are omitted.
    """

    model: nn.Module
    source: Source
    settings: Settings
    rows: tuple[int, ...] | None = None
    classes: tuple[str, ...] | None = None
    preprocessing: Spec | None = None
    accept: tuple[str, ...] = ()
    store: Store = field(default_factory=dict)
    given: tuple[nn.Module, dict[str, str]] = field(init=False)

    def __post_init__(self) -> None:
        """Refuse a model that cannot be copied; measure modules of its own, not the given ones."""
        check_model(self.model)
        object.__setattr__(self, "given", (self.model, tensor_digests(self.model)))
        object.__setattr__(self, "model", shared_view(self.model))

    def ranking(self, progress: Progress = no_progress) -> Ranking:
        """Measure, join, rank. Raises EffaceError where the given model was changed."""
        ranking = self._ranking(progress)
        refuse_changed(*self.given)
        return ranking

    def _ranking(self, progress: Progress) -> Ranking:
        check_layout(self.model, self.sample)
        found, settings, ids = self._diagnosis(), self.settings, self.source.ids
        parts, omitted = self._measure(progress)
        rows, named = self._join(parts, "rows"), self._join(parts, "named")
        if not named.any():
            raise InputError("at least one record to rank", "none", "Name others.")
        # Shards without a named record have no measurements, only what balls are made of.
        some = [part for part in parts if self.store[part]["named"].any()]
        balls, by_class = self._balls(parts)
        columns = {name: self._join(parts, name)[named] for name in ("label", "prediction")}
        columns |= {name: self._join(some, name) for name in ("logit_margin", "loss", "entropy")}
        contents = ["content", *(f"content_at_{sigma:g}" for sigma in self.sigmas[1:])]
        columns |= dict(zip(contents, self._join(some, "stability").T, strict=True)) | by_class
        derivatives = ["gradient_norm", *(CURVATURE if settings.curvature else ())]
        columns |= {name: self._join(some, name) for name in derivatives}
        # Sorted by content, ties by logit margin, then by place; the inverse of that order ranks.
        columns["rank"] = np.lexsort((columns["logit_margin"], columns["content"])).argsort() + 1
        low = zero_shot.is_low(columns["content"], settings.threshold)
        columns["group"] = np.where(low, "low", "high")
        manifest = {
            **self._provenance(),
            "counts": {"ranked": int(named.sum()), "among": len(rows), "in_the_data": len(ids)},
            "balls": balls,
            "omitted": [ids[row] for row in omitted],
            "findings": [asdict(finding) for finding in found.findings],
            "accuracy": {part: asdict(one) for part, one in found.accuracy.items()},
        }
        ranked = tuple(ids[row] for row in rows[named])
        about = (settings.threshold, manifest, self.classes, self.preprocessing)
        return Ranking(ranked, columns, rows[named], *about)

    @cached_property
    def sample(self) -> Records:
        """Readable records spread over all, not over those named."""
        # Over all rows: those named may be exactly the odd ones.
        sample = self.source.read(zero_shot.spread_rows(len(self.source.ids), SAMPLE))[0]
        if not len(sample):
            raise InputError("records that can be read", "none", "Look at the data.")
        return sample

    @cached_property
    def noise(self) -> zero_shot.Noise:
        """The σ that ranks; a calibrated one is stored, since finding it takes a while."""
        settings = self.settings
        if settings.sigma:
            return zero_shot.Noise(settings.sigma[0], float("nan"))
        # A resumed run must not search again: another σ would make unlike shards.
        if "sigma" not in self.store:
            target, seed = settings.stability, settings.seed
            found = zero_shot.calibrate_sigma(self.model, self.sample, target, seed=seed)
            self.store["sigma"] = {"sigma": np.array(found)}
        return zero_shot.Noise(*self.store["sigma"]["sigma"].tolist())

    @property
    def sigmas(self) -> tuple[float, ...]:
        """All noise scales."""
        return self.settings.sigma or (self.noise.sigma,)

    @cached_property
    def no_balls(self) -> str:
        """Why there are no balls over the data; empty where there are."""
        neighbours, sample = self.settings.neighbours, self.sample
        if not neighbours:
            return "no neighbours were requested"
        if len(sample) <= neighbours:
            return f"{len(sample)} records are too few for {neighbours} neighbours"
        # Tried on two records: whether the head can be read shows in one pass.
        try:
            embed(self.model, sample.take(range(min(2, len(sample)))))
        except InputError as error:
            return f"balls need {error.wanted}, and here is {error.came}"
        return ""

    @cached_property
    def exact(self) -> bool:
        """Whether curvature has the exact form of ReLU networks."""
        return bool(self.settings.curvature) and curves.is_piecewise_linear(self.model, self.sample)

    def _diagnosis(self) -> Diagnosis:
        """What would spoil every number, and a warning where calibration failed."""
        how: dict[str, Any] = {"classes": self.classes, "accept": self.accept}
        found = doctor(self.model, self.preprocessing, self.sample, **how)
        # Nothing is trained here, so a frozen or quantised model is welcome.
        kept = [one for one in found.findings if one.name not in {*UNCHANGEABLE, "unused-weights"}]
        replace(found, findings=tuple(kept)).refuse()
        target = self.settings.stability
        if not self.settings.sigma and not self.noise.reached(target):
            text = f"No noise scale was found at which {target:.0%} of the copies keep the "
            text += f"prediction; at the σ used, {self.noise.sigma:.3g}, "
            text += f"{self.noise.stability:.0%} do. Give --sigma, or another share."
            kept.append(Finding("sigma", "warn", text))
        return replace(found, findings=tuple(kept))

    def _measure(self, progress: Progress) -> tuple[list[str], list[int]]:
        """Names of the shards, all of them stored now; and the rows that could not be read."""
        ids, named = self.source.ids, None if self.rows is None else set(self.rows)
        rows = range(len(ids)) if named is None or not self.no_balls else sorted(named)
        # Large inputs make smaller shards, so that memory is bounded by numbers, not records.
        size = max(1, min(SHARD, SHARD_NUMBERS // max(1, self.sample.x[0].numel())))
        shards = {f"{at // size:06d}": rows[at : at + size] for at in range(0, len(rows), size)}
        # Names are positions, so a resumed run finds the shards of an earlier one.
        missing = {name: part for name, part in shards.items() if name not in self.store}
        with progress("inspect", len(missing)) as done:
            for name, part in missing.items():
                records, readable = self.source.read(part)
                lost = [ids[r] for r in sorted((named or set()) & set(part) - set(readable))]
                if lost:
                    wanted = "records that can be read and have a label"
                    came = f"{len(lost)} that cannot or have none: {abbreviate(lost)}"
                    raise InputError(wanted, came, "Repair them, or omit their ids.")
                mask = np.array([named is None or row in named for row in readable], bool)
                place = {"rows": np.asarray(readable, np.int64), "named": mask}
                self.store[name] = place | self.measure_shard(records, mask)
                done(f"{part[-1] + 1} of {len(ids)}")
        read = set(self._join(list(shards), "rows").tolist())
        return list(shards), [row for row in rows if row not in read]

    def measure_shard(self, records: Records, named: np.ndarray) -> dict[str, np.ndarray]:
        """Of all records what balls are made of; of the named ones (a mask) everything else."""
        outputs = output_width(self.model, self.sample)
        pairs = zip(records.ids, records.y.tolist(), strict=True)
        wrong = [name for name, y in pairs if not 0 <= y < outputs]
        if wrong:
            wanted = f"labels from 0 to {outputs - 1}, one for each of the model's outputs"
            came = f"another one for {abbreviate(wrong)}"
            raise InputError(wanted, came, "Correct these labels, or omit their ids.")
        found = {"label": records.y.cpu().numpy()}
        # Without balls the predictions of the others are never read.
        prediction = np.zeros(len(records), np.int64)
        if not self.no_balls:
            found["embeddings"] = embed(self.model, records).x.float().cpu().numpy()
            others = records.take(np.flatnonzero(~named).tolist())
            prediction[~named] = evaluate(self.model, others).predicted
        if named.any():
            own = records.take(np.flatnonzero(named).tolist())
            prediction[named], around = self._around(own)
            found |= around
        return {**found, "prediction": prediction}

    def _around(self, records: Records) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The predicted classes, and what each record's input neighbourhood looks like."""
        model, settings = self.model, self.settings
        copies, seed, probes = settings.copies, settings.seed, settings.probes
        noisy = zero_shot.noise_stability(model, records, self.sigmas, copies=copies, seed=seed)
        plain, found = noisy.evaluation, {"stability": noisy.share.T}
        found |= {name: getattr(plain, name) for name in ("logit_margin", "loss", "entropy")}
        found["gradient_norm"] = curves.input_gradient_norm(model, records)
        if settings.curvature is not None:
            of = CURVED[settings.curvature]
            if self.exact:
                bent = curves.piecewise_linear_curvature(model, records, of=of)
            else:
                bent = curves.curvature(model, records, of=of, probes=probes, seed=seed)
            found |= {column: getattr(bent, name) for column, name in CURVATURE.items()}
        return plain.predicted, found

    def _balls(self, parts: list[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """How the balls over the data were found; α by label and by prediction."""
        if self.no_balls:
            return {"omitted": self.no_balls}, {}
        store, of = self.store, np.flatnonzero(self._join(parts, "named"))
        classes = {name: self._join(parts, name) for name in ("label", "prediction")}
        if "balls" not in store:
            points, to = join_embeddings(store, parts), {"neighbours": self.settings.neighbours}
            if len(points) <= MAX_EXACT:
                balls = near.nearest(points, of=of, **to)
            else:
                balls = near.nearest_approximate(points, of=of, seed=self.settings.seed, **to)
            # nan stands for exact: an array file holds no None.
            recall = np.array(np.nan if balls.recall is None else balls.recall)
            contents = {n: zero_shot.information_content(balls, c) for n, c in classes.items()}
            alpha = {f"content_by_{name}": values for name, values in contents.items()}
            store["balls"] = {**alpha, "recall": recall}
        found, among = dict(store["balls"]), len(classes["label"])
        recall = float(found.pop("recall"))
        facts = {"neighbours": self.settings.neighbours, "among": among, "space": "embeddings"}
        exact = math.isnan(recall)
        return {**facts, "exact": exact, "recall": None if exact else recall}, found

    def _join(self, parts: list[str], array: str) -> np.ndarray:
        """One array of all parts, one part after another."""
        return np.concatenate([self.store[part][array] for part in parts])

    def _provenance(self) -> dict[str, Any]:
        """What the numbers were made with."""
        settings, calibrated = self.settings, not self.settings.sigma
        return {
            "schema": SCHEMA,
            "job": "inspect",
            "privacy": PRIVACY,
            "versions": versions(),
            "settings": asdict(settings),
            "sigma": list(self.sigmas),
            "sigma_given": not calibrated,
            "stability_target": settings.stability if calibrated else None,
            "stability": self.noise.stability if calibrated else None,
            "curvature_exact": self.exact if settings.curvature else None,
            "weights": state_digest(self.model.state_dict()),
        }
