"""``efface score``: read a pair of models and what lies beside it, measure, write."""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from efface.asked import Asked, Gathered, gathered
from efface.command import summary
from efface.errors import InputError
from efface.io.atomic import atomic_folder, claim, refuse_nonempty, refuse_overlap
from efface.io.models import LoadedModel
from efface.io.shadows import Shadows, read_shadows
from efface.manifest import state_digest
from efface.unlearn import Result, score


def refuse_lacking(needed: Mapping[str, Any]) -> NoReturn:
    """Refuse a command that lacks what it cannot do without. Raises InputError."""
    lacking = [name for name, value in needed.items() if value is None]
    raise InputError(
        "efface score OLD NEW --data DATA … --out DIR, or efface score --replay RUN",
        f"no {' and no '.join(lacking)}",
        "Name both models, the data and a folder for the evidence.",
    )


def run_score(asked: Asked, *, new: Path, out: Path) -> None:
    """Measure, write the folder whole or not at all, show what came of it."""
    refuse_overlap(out, asked.read())
    refuse_nonempty(out)
    with claim(out):
        result = measured(asked, read(asked, new))
        result.manifest.command = shlex.join(["efface", *sys.argv[1:]])
        with atomic_folder(out) as scratch:
            result.save(scratch)
    summary(result, out)


@dataclass(frozen=True, eq=False)
class Read:
    """What the arguments name: both models, those to lay beside, and the records."""

    old: LoadedModel
    new: LoadedModel
    retrained: tuple[LoadedModel, ...]
    shadows: Shadows | None
    found: Gathered

    def digests(self) -> dict[str, Any]:
        """Of the data and of the shadow models' arrays."""
        return self.found.digests | ({"shadow": self.shadows.digest} if self.shadows else {})

    def weights(self) -> dict[str, Any]:
        """Digests of all weights, as the record has them."""
        old, new, *again = (
            state_digest(loaded.model.state_dict())
            for loaded in (self.old, self.new, *self.retrained)
        )
        return {"old": old, "new": new} | ({"retrained": again} if again else {})


def read(asked: Asked, made: Path) -> Read:
    """Load it all; refuses models that would misread what the others read rightly."""
    old, new = asked.flags.model(asked.old), asked.flags.model(made)
    again = tuple(asked.flags.model(path) for path in asked.retrained)
    for name, model in zip(("NEW", *map(str, asked.retrained)), (new, *again), strict=True):
        _refuse_other_inputs(old, model, name)
    shadows = None if asked.shadow is None else read_shadows(asked.shadow)
    return Read(old, new, again, shadows, gathered(asked, old))


def measured(asked: Asked, given: Read) -> Result:
    """The evidence that the arguments ask for, and its record."""
    old, found = given.old, given.found
    result = score(
        old.model,
        given.new.model,
        found.split,
        retrained=[loaded.model for loaded in given.retrained],
        shadows=given.shadows,
        mislabelled=asked.mislabelled,
        classes=old.classes or found.table.classes,
        preprocessing=old.preprocessing,
        seed=asked.seed,
    )
    manifest = result.manifest
    manifest.request["named"] = asked.named()
    found.told(manifest.request)
    manifest.arguments, manifest.omitted = asked.as_json(), found.left_out
    manifest.data = {"digest": found.table.digest, "architecture": old.architecture}
    manifest.digests = given.digests()
    return result


def _refuse_other_inputs(old: LoadedModel, other: LoadedModel, name: str) -> None:
    """One measurement feeds all models alike; classes in another order would be misread."""
    if other.preprocessing != old.preprocessing:
        raise InputError(
            "models that take their inputs alike",
            f"{name}, whose preprocessing is not that of OLD",
            "Give models of one task; in Python efface.score takes any two modules.",
        )
    if old.classes and other.classes and old.classes != other.classes:
        raise InputError(
            "models with the same classes in the same order",
            f"{name}, whose classes are not those of OLD",
            "Give models of one task.",
        )
