"""Grids over a checkpoint: each job loads it, unlearns records, and stores the results.

Separate from ``efface.grid``, so that other jobs do not depend on all of efface.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from efface.errors import NotMet
from efface.grid import Job, JobOutput
from efface.io.data import load_data
from efface.io.models import load_model
from efface.types import Split
from efface.unlearn import forget


def forget_job(
    model: str | Path,
    data: str,
    ids: Iterable[str],
    *,
    holdout: str | None = None,
    retain: str | None = None,
    load: Mapping[str, Any] = MappingProxyType({}),
    keep_weights: bool = False,
    **request: Any,
) -> Job:
    """The job that makes the checkpoint ``model`` forget the records of ``data`` with these ids.

    Args:
        model: as ``efface.load_model`` takes it; ``load`` holds what else that takes.
        data: as ``efface.load_data`` takes it; ``holdout`` and ``retain`` likewise.
        ids: of the forget records.
        holdout: records that were never trained on.
        retain: records that were trained on and stay.
        load: settings of ``load_model``: architecture, mean, std, size.
        keep_weights: write the new weights next to the numbers.
        **request: what ``efface.forget`` takes: method, settings, guard, seed, ….
    """
    paths = {"model": str(model), "data": data, "holdout": holdout, "retain": retain}
    # Changed files make another job: their contents count, not their names alone.
    files = sorted(f for f in [Path(model), *Path(model).rglob("*")] if f.is_file())
    digests = {"model": hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()}
    digests |= {n: load_data(p).digest for n, p in paths.items() if p and n != "model"}
    given = {"paths": paths, "digests": digests, "ids": list(ids), "load": dict(load)}
    settings = {**given, "request": request, "keep_weights": keep_weights}
    kind = f"{request.get('method', 'default method')} on {Path(model).name}"
    return Job("efface.forget_jobs:forget_checkpoint", settings, kind=kind)


def forget_checkpoint(settings: dict[str, Any], needs: object, shared: Path) -> JobOutput:  # noqa: ARG001
    """Load what ``forget_job`` described, forget, and return the report's rows and the manifest."""
    paths = settings["paths"]
    loaded = load_model(paths["model"], **settings["load"])
    parts = {
        n: load_data(p, classes=loaded.classes).records(None, loaded.preprocessing)
        for n, p in paths.items()
        if p and n != "model"
    }
    data = parts["data"]
    rows = [data.ids.index(identity) for identity in settings["ids"]]
    split = Split(data.take(rows), parts.get("holdout"), parts.get("retain"))
    # a request that cannot be met is a result: the guard's account of it is what a grid compares
    try:
        result = forget(loaded.model, split, stored=loaded.stored, **settings["request"])
    except NotMet as error:
        result = error.result
    weights = result.model.state_dict() if settings["keep_weights"] else None
    report = result.report.to_json() if result.report else None
    return JobOutput({"manifest": result.manifest.to_json(), "report": report}, weights=weights)
