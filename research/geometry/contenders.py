"""The methods compared on one record of two features: all that need neither retain nor holdout."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from efface.errors import EffaceError
from efface.methods import BUILT_IN
from efface.methods.jit_forms import jit_paper_loss
from efface.task import trainable_copy
from efface.types import Records, Split
from efface.unlearn import Result, forget
from research.geometry.blobs import Family, blobs, parted

# Seeds of a holdout begin here: records that no model of a family was trained on.
UNSEEN = 7_000_000

# Methods that take seconds for one record are run with only this many seeds.
SLOW = {"l2ul": 5}


@dataclass(frozen=True)
class Contender:
    """A method with its settings, by the name of its row.

    ``holdout``: it is given 220 records that were never trained on; ``guarded``: it is run as
    ``efface forget`` runs it, under the guard; ``seeds``: at most so many; ``step``: not a method
    but one plain step of this length on equation 1 of ``jit_paper``, below 0 up and not down.
    """

    name: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    holdout: bool = False
    guarded: bool = False
    seeds: int | None = None
    step: float | None = None


GREEDY = "mislabel, η 0.1"
TOY = "jit_paper, Adam η 0.1"
KNOWN = "jit, with a holdout"
GUARDED = "jit, under the guard"

# Next to the defaults: jit with a holdout; the setting of the toy example in the paper's slides;
# and the paper's greedy baseline, which continues until the record is misclassified.
OWN = (
    Contender(GUARDED, "jit", guarded=True),
    Contender(KNOWN, "jit", holdout=True),
    Contender(TOY, "jit_paper", {"adam": True, "learning_rate": 0.1}),
    Contender(GREEDY, "mislabel", {"learning_rate": 0.1, "epochs": 1000}),
)


# A step down is the paper's; its figure of the sigmoid is made by one up (docs/geometry.md).
STEPS = tuple(
    Contender(f"equation 1, one step {way}, η {rate:g}", "jit_paper", step=sign * rate)
    for way, sign in (("down", 1), ("up", -1))
    for rate in (0.001, 0.01, 0.1)
)


def contenders() -> tuple[Contender, ...]:
    """Each built-in method that needs no data but the forget records, at its defaults.

    Then OWN and STEPS. Methods that need a class to forget are among them: they refuse.
    """
    apart = {"retain", "holdout", "train"}
    names = [name for name, entry in BUILT_IN.items() if not entry.needs & apart]
    plain = [Contender(name, name, seeds=SLOW.get(name)) for name in names if name != "baseline"]
    return (*plain, *OWN, *STEPS)


def searched() -> tuple[Contender, ...]:
    """jit_paper over a grid of noise scales and steps, for the best setting in hindsight."""
    return tuple(
        Contender(
            f"jit_paper, Adam η {rate:g}, σ {sigma:g}",
            "jit_paper",
            {"adam": True, "learning_rate": rate, "sigma": sigma},
        )
        for sigma in (0.25, 1.0, 4.0)
        for rate in (0.001, 0.003, 0.01, 0.03, 0.1)
    )


def _forgotten(contender: Contender, family: Family, split: Split) -> Result:
    how = {"method": contender.method, "settings": contender.settings, "seed": family.seed}
    return forget(family.untouched, split, **how)


def run(contender: Contender, family: Family, point: str) -> nn.Module | str:
    """The student, or why there is none: the text of the method's error or of the guard's."""
    record, _ = parted(family.records, point)
    if contender.step is not None:
        return _stepped(family, record, contender.step)
    holdout = blobs(UNSEEN + family.seed) if contender.holdout else None
    split = Split(record, holdout=holdout)
    how: dict[str, Any] = {"seed": family.seed, **contender.settings}
    try:
        if contender.guarded:
            return _forgotten(contender, family, split).model
        student = BUILT_IN[contender.method].function(family.untouched, split, **how)
    except EffaceError as error:
        return str(error)
    # without the guard weights can be NaN; the guard then says why there is no model
    if all(bool(weight.isfinite().all()) for weight in student.parameters()):
        return student
    try:
        _forgotten(contender, family, split)
    except EffaceError as error:
        return str(error)
    return "Weights that are not finite."


def _stepped(family: Family, record: Records, step: float) -> nn.Module:
    """One plain step along equation 1."""
    student = trainable_copy(family.untouched)
    weights = list(student.parameters())
    total = jit_paper_loss(student, record, seed=family.seed).sum()
    with torch.no_grad():
        for weight, slope in zip(weights, torch.autograd.grad(total, weights), strict=True):
            weight.sub_(step * slope)
    return student


def flips(student: nn.Module, family: Family, point: str) -> bool:
    """Whether the point is no longer predicted as its class."""
    record, _ = parted(family.records, point)
    with torch.no_grad():
        return int(student(record.x).argmax()) != int(record.y)
