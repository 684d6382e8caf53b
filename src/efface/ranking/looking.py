"""The inspection itself: read, measure shard by shard, put together, rank."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import nn

from efface.errors import InputError
from efface.hazards import Finding, doctor, refuse_hazards
from efface.io.checkpoint import some_of
from efface.io.features import FeatureSpec
from efface.io.preprocessing import Preprocessing
from efface.manifest import SCHEMA, state_digest, versions
from efface.ranking.balls import Balls, nearest, nearest_roughly
from efface.ranking.content import information_content
from efface.ranking.curvature_exact import is_piecewise_linear
from efface.ranking.found import HOLDS, Inspection, groups, ranks
from efface.ranking.keeping import Keeper, joined, joined_apart
from efface.ranking.reading import Reader, sample_of
from efface.ranking.settings import Settings
from efface.ranking.shards import CURVATURE, Bench, why_no_features
from efface.ranking.sigma import Noise, sigma_keeping
from efface.task import predict as asked_outputs
from efface.types import Records

SHARD = 1024
NUMBERS = 64_000_000
"""Records, and numbers in their inputs, that are read at once."""

SAMPLE = 512
"""Records, spread over all, that σ is found on and that the model is tried with."""

EXACT = 100_000
"""Records up to which all pairs are compared; more need FAISS."""

NO_MATTER = ("frozen", "no weights", "quantised")
"""What ``doctor`` finds that matters only where a model is to change."""

Counted = Callable[[str, int], AbstractContextManager[Callable[..., None]]]
"""``with counted(title, total) as told``: ``told(what)`` after each shard."""


@contextmanager
def quietly(title: str, total: int) -> Iterator[Callable[..., None]]:  # noqa: ARG001
    """Show nothing."""
    yield lambda *_, **__: None


@dataclass(frozen=True, eq=False)
class Job:
    """Whose records are looked at, and how.

    ``predict``: the rows that are named, None for all; a named record that cannot be read is refused,
    of all those are left out.
    """

    model: nn.Module
    reader: Reader
    settings: Settings
    predict: tuple[int, ...] | None = None
    classes: tuple[str, ...] | None = None
    preprocessing: Preprocessing | FeatureSpec | None = None

    def rows(self, *, balls: bool) -> Sequence[int]:
        """Those that must be read: for balls all."""
        every = range(len(self.reader.ids))
        return every if balls or self.asked is None else self.asked


def looked(job: Job, keeper: Keeper, counted: Counted = quietly) -> Inspection:
    """Measure what ``keeper`` does not hold yet, and make one account of it all."""
    sample = sample_of(job.reader, SAMPLE)
    if not len(sample):
        raise InputError("records that can be read", "none", "Look at the data.")
    findings = _hazards(job, sample)
    why = _why_no_balls(job, sample)
    noise = _noise(job, keeper, sample)
    bench = _bench(job, sample, noise, balls=not why)
    findings += _not_reached(job, noise)
    parts, lost = _measured(job, bench, keeper, counted, _size(sample))
    predict = [part for part in parts if keeper.get(part, "asked").any()]
    if not predict:
        raise InputError("at least one record to inspect", "none", "Name others.")
    around, balls = _balls(job, keeper, parts) if bench.balls else ({}, {"left out": why})
    columns = _in_order(_columns(job, bench, keeper, parts, predict) | around)
    columns["rank"] = ranks(columns["content"], columns["margin"])
    columns["group"] = groups(columns["content"], job.settings.threshold)
    mask, rows = joined(keeper, parts, "asked"), joined(keeper, parts, "rows")
    counts = {"inspected": int(mask.sum()), "among": len(rows), "in_the_data": len(job.reader.ids)}
    return Inspection(
        ids=tuple(job.reader.ids[row] for row in rows[mask]),
        columns=columns,
        rows=rows[mask],
        threshold=job.settings.threshold,
        classes=job.classes,
        preprocessing=job.preprocessing,
        record={
            **_account(job, bench, noise),
            "counts": counts,
            "balls": balls,
            "left_out": [job.reader.ids[row] for row in lost],
            "findings": [asdict(finding) for finding in findings],
        },
    )


def _account(job: Job, bench: Bench, noise: Noise) -> dict[str, Any]:
    """What the numbers were made with."""
    given = bool(job.settings.sigma)
    return {
        "schema": SCHEMA,
        "job": "inspect",
        "holds": HOLDS,
        "versions": versions(),
        "settings": asdict(job.settings),
        "sigma": list(bench.sigmas),
        "sigma_given": given,
        "share_wanted": None if given else job.settings.kept,
        "share_kept": None if given else noise.kept,
        "curvature_exact": bench.exact if job.settings.curvature else None,
        "weights": state_digest(job.model.state_dict()),
    }


def _bench(job: Job, sample: Records, noise: Noise, *, balls: bool) -> Bench:
    """What the shards are measured with."""
    return Bench(
        job.model,
        job.settings,
        job.settings.sigma or (noise.sigma,),
        balls=balls,
        outputs=asked_outputs(job.model, sample.take([0])).shape[1],
        exact=bool(job.settings.curvature) and is_piecewise_linear(job.model, sample),
    )


def _hazards(job: Job, sample: Records) -> list[Finding]:
    """What would make every number wrong; on records spread over the data, not on those named."""
    found = doctor(job.model, job.preprocessing, sample, classes=job.classes)
    kept = [finding for finding in found if finding.name not in NO_MATTER]
    refuse_hazards(kept)
    return kept


def _why_no_balls(job: Job, sample: Records) -> str:
    if not job.settings.neighbours:
        return "no neighbours were asked for"
    if len(sample) <= job.settings.neighbours:
        return f"{len(sample)} records are too few for {job.settings.neighbours} neighbours"
    return why_no_features(job.model, sample)


def _noise(job: Job, keeper: Keeper, sample: Records) -> Noise:
    """The σ that is found and the share it keeps; kept, since finding it takes a while."""
    if job.settings.sigma:
        return Noise(job.settings.sigma[0], float("nan"))
    if "sigma" not in keeper:
        found = sigma_keeping(job.model, sample, job.settings.kept, seed=job.settings.seed)
        keeper.put("sigma", {"sigma": np.array(found)})
    return Noise(*(float(one) for one in keeper.get("sigma", "sigma")))


def _not_reached(job: Job, noise: Noise) -> list[Finding]:
    """A warning where no noise does what σ is found for."""
    if job.settings.sigma or noise.reached(job.settings.kept):
        return []
    text = (
        f"No noise was found at which {job.settings.kept:.0%} of the copies keep the answer; at "
        f"the σ taken, {noise.sigma:.3g}, {noise.kept:.0%} do. Give --sigma, or another share."
    )
    return [Finding("sigma", "warn", text)]


def _size(sample: Records) -> int:
    """Records in a shard."""
    return max(1, min(SHARD, NUMBERS // max(1, sample.x[0].numel())))


def _measured(
    job: Job, bench: Bench, keeper: Keeper, counted: Counted, size: int
) -> tuple[list[str], list[int]]:
    """Names of the shards, all of them kept now; and the rows that could not be read."""
    rows = job.rows(balls=bench.balls)
    shards = {f"{at // size:06d}": rows[at : at + size] for at in range(0, len(rows), size)}
    missing = {name: part for name, part in shards.items() if name not in keeper}
    named = None if job.asked is None else set(job.asked)
    with counted("inspect", len(missing)) as told:
        for name, part in missing.items():
            records, kept = job.reader.read(part)
            if named is not None:
                _refuse_unread(job, [row for row in set(part) - set(kept) if row in named])
            keeper.put(name, bench.of(records, kept, [named is None or r in named for r in kept]))
            told(f"{part[-1] + 1} of {len(job.reader.ids)}")
    read = set(joined(keeper, list(shards), "rows").tolist())
    return list(shards), [row for row in rows if row not in read]


def _refuse_unread(job: Job, rows: list[int]) -> None:
    if rows:
        raise InputError(
            "records that can be read and have a label",
            f"{len(rows)} that cannot or have none: {some_of(job.reader.ids[row] for row in rows)}",
            "Mend them, or leave their ids out.",
        )


def _columns(
    job: Job, bench: Bench, keeper: Keeper, parts: list[str], predict: list[str]
) -> dict[str, np.ndarray]:
    """Of the records that are asked about, in the order of the data."""
    mask = joined(keeper, parts, "asked")
    found = {name: joined(keeper, parts, name)[mask] for name in ("label", "answer")}
    found |= {name: joined(keeper, predict, name) for name in ("margin", "loss", "entropy")}
    kept = joined(keeper, predict, "kept")
    names = ["content", *(f"content_at_{sigma:g}" for sigma in bench.sigmas[1:])]
    found |= dict(zip(names, kept.T, strict=True))
    later = ["gradient_norm", *(CURVATURE if job.settings.curvature else ())]
    return found | {name: joined(keeper, predict, name) for name in later}


def _in_order(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every α beside the others."""
    first = ["label", "answer", "margin", "loss", "entropy"]
    contents = [name for name in columns if name.startswith("content")]
    rest = [name for name in columns if name not in {*first, *contents}]
    return {name: columns[name] for name in (*first, *contents, *rest)}


def _balls(
    job: Job, keeper: Keeper, parts: list[str]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """α over the data, by label and by the model's answer; and how the balls were found."""
    label, answer = (joined(keeper, parts, name) for name in ("label", "answer"))
    facts = {"neighbours": job.settings.neighbours, "among": len(label), "space": "features"}
    if "balls" not in keeper:
        points = joined_apart(keeper, parts, "features")
        balls = _found_near(points, np.flatnonzero(joined(keeper, parts, "asked")), job.settings)
        found = {
            f"content_by_{name}": information_content(balls, classes)
            for name, classes in (("label", label), ("answer", answer))
        }
        recall = np.nan if balls.recall is None else balls.recall
        keeper.put("balls", {**found, "recall": np.array(recall), "radius": balls.radius})
    names = ("content_by_label", "content_by_answer")
    recall = float(keeper.get("balls", "recall"))
    facts |= {"exact": bool(np.isnan(recall)), "recall": None if np.isnan(recall) else recall}
    return {name: keeper.get("balls", name) for name in names}, facts


def _found_near(points: np.ndarray, predict: np.ndarray, settings: Settings) -> Balls:
    """All pairs, or FAISS where they are too many."""
    if len(points) <= EXACT:
        return nearest(points, neighbours=settings.neighbours, of=predict)
    return nearest_roughly(points, neighbours=settings.neighbours, of=predict, seed=settings.seed)
