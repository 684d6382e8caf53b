"""Evidence for any pair of models, whoever made the second."""

import time
from collections.abc import Sequence
from dataclasses import asdict

import torch
from torch import nn

from efface.errors import InputError
from efface.halves import split_holdout, unseen_in
from efface.hazards import doctor, refuse_hazards
from efface.io.features import FeatureSpec
from efface.io.preprocessing import Preprocessing
from efface.io.shadows import Shadows
from efface.metrics.measure import as_it_is
from efface.prepare import prepared, refuse_kinds
from efface.record import SCHEMA, state_digest, versions
from efface.report import collect
from efface.request import Result
from efface.settings import check_ranges
from efface.task import device_of, outputs
from efface.types import Records, Split


def score(
    old: nn.Module,
    new: nn.Module,
    split: Split,
    *,
    retrained: Sequence[nn.Module] = (),
    shadows: Shadows | None = None,
    exact: bool = False,
    mislabelled: bool = False,
    classes: tuple[str, ...] | None = None,
    preprocessing: Preprocessing | FeatureSpec | None = None,
    seed: int = 0,
) -> Result:
    """Say what ``new`` still shows of ``split.forget``, which ``old`` was trained on.

    Args:
        old: the model before; like all others it comes out as it went in.
        new: the model after, of any origin; it answers with as many numbers a record.
        split: as for ``efface.forget``. Only the second half of the holdout is used, by a seeded
            hash: the first is left to the method and the guard that may have made ``new``.
        retrained: models trained without the forget records, by the recipe of ``old``, each with
            its own seed; two or more give a floor.
        shadows: what shadow models leave, see ``efface.io.shadows.read_shadows``.
        exact: ``new`` was itself trained anew without the forget records.
        mislabelled: the labels of the forget records are wrong.
        classes: names of the classes, for the report.
        preprocessing: how images or rows of a ``datasets.Dataset`` become inputs.
        seed: of everything drawn at random; that of ``efface.forget`` if it made ``new``.

    Raises:
        InputError: the models or the records do not fit together.
        Hazard: ``old`` and the data do not fit.
    """
    if not isinstance(split, Split):
        raise InputError("a Split", type(split).__name__, "Give Split(forget=records).")
    check_ranges({"seed": seed})
    began = time.perf_counter()
    split, counts = prepared(split, preprocessing)
    refuse_kinds(old, split, mislabelled=mislabelled)
    _refuse_other_widths(old, {"NEW": new, **_numbered(retrained)}, split.forget)
    if shadows is not None:
        shadows.of(split.forget.ids)
    theirs, ours = split_holdout(split, seed=seed)
    names = {"classes": classes, "mislabelled": mislabelled}
    findings = doctor(old, preprocessing, split.forget, holdout=theirs.holdout, **names)
    refuse_hazards(findings)
    beside = {"retrained": retrained, "shadows": shadows, "exact": exact}
    beside["left_out"] = counts.get("forget_records_in_retain", 0)
    evidence = collect(old, new, ours, seed=seed, **names, **beside)
    record = {
        "schema": SCHEMA,
        "job": "score",
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "seed": seed,
        "request": counts,
        "halves": {"left to others": unseen_in(theirs), "evidence": unseen_in(ours)},
        "findings": [asdict(finding) for finding in findings],
        "weights": {
            "old": state_digest(old.state_dict()),
            "new": state_digest(new.state_dict()),
            **_digests(retrained),
        },
        "outcome": evidence.outcome,
        "seconds": time.perf_counter() - began,
    }
    return Result(new, evidence, record, findings)


def _numbered(models: Sequence[nn.Module]) -> dict[str, nn.Module]:
    return {f"retrained model {place}": model for place, model in enumerate(models, start=1)}


def _digests(retrained: Sequence[nn.Module]) -> dict[str, list[str]]:
    found = [state_digest(model.state_dict()) for model in retrained]
    return {"retrained": found} if found else {}


def _refuse_other_widths(old: nn.Module, others: dict[str, nn.Module], records: Records) -> None:
    """Answers of different lengths cannot be laid side by side."""
    wanted = _width(old, records)
    for name, model in others.items():
        if (came := _width(model, records)) != wanted:
            raise InputError(
                f"{wanted} numbers a record, as the old model answers",
                f"{came} from {name}",
                "Give models of one task, with the same classes in the same order.",
            )


def _width(model: nn.Module, records: Records) -> int:
    with as_it_is(model), torch.no_grad():
        return outputs(model, records.take([0]).to(device_of(model))).shape[1]
