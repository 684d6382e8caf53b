"""Defects of published code next to the correct form, on the class request of every_method.py.

    EFFACE_DATA=… python -m research.benchmarks.defects STORE     # research/results/defects.json and .md

A row differs from the first of its table in the defect that it names. GKT's is in gkt_curve.py, a curve for each form.
"""

import sys
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from efface.grid import Job, run
from efface.methods.boundary import boundary_shrink
from efface.types import Callback, Split
from research import pages
from research.benchmarks.every_method import read, scored
from research.pages import origin, percent, table, triple
from research.tables import write_record


def clamped_as_pixels(
    model: nn.Module, split: Split, *, seed: int, callback: Callback, **settings: Any
) -> nn.Module:
    """Boundary shrink as in a port: normalised inputs are clamped to 0..1, as if they were pixels."""
    # the port's bounds: those of pixels, whatever the normalisation
    forget = replace(split.forget, low=torch.tensor(0.0), high=torch.tensor(1.0))
    return boundary_shrink(
        model, replace(split, forget=forget), seed=seed, callback=callback, **settings
    )


@dataclass(frozen=True, eq=False)
class Form:
    """One row: a method, or a function of this file, with its settings."""

    method: str
    label: str
    settings: dict[str, Any] = field(default_factory=dict)
    retain: bool = False

    @property
    def job(self) -> Job:
        """On the class request, without a guard."""
        own = globals().get(self.method)
        named = own is None or own is boundary_shrink
        method = self.method if named else f"research.benchmarks.defects:{self.method}"
        how = {"retain": self.retain, "guard": False, **self.settings}
        return scored("class").unlearned(method, **how)


def _ssd(label: str, alpha: float, lambda_: float) -> Form:
    settings = {"selection_weighting": alpha, "dampening": lambda_}
    return Form("ssd", label, settings, retain=True)


FORMS = {
    "UNSIR: the noise of one class is 3 inputs": (
        Form("unsir", "all 32 noise inputs", retain=True),
        Form("unsir", "the loop over channels: 3", {"noise_records": 3}, retain=True),
    ),
    "EMMN: 3 of 4 inputs, train mode, no repair": (
        Form("emmn", "all, eval mode, repair"),
        Form("emmn", "3 inputs of a class", {"noise_per_class": 3}),
        Form(
            "emmn",
            "3 inputs, train mode, no repair (the comparison's form)",
            {"noise_per_class": 3, "training_mode": True, "repair_epochs": 0},
        ),
    ),
    "SSD: settings that were never passed on": (
        Form("ssd", "α 10, λ 1 (the authors', ResNet18)", retain=True),
        _ssd("α 10, λ 4, set for VGG", 10.0, 4.0),
        _ssd("α 1, λ 1, what ran", 1.0, 1.0),
    ),
    "BDSH: the attack and its labels": (
        Form(
            "boundary_shrink", "in the model's own space, the runner-up where no prediction flips"
        ),
        Form(
            "boundary_shrink",
            "its own label where no prediction flips",
            {"reinforce_unflipped": True},
        ),
        Form(
            "clamped_as_pixels",
            "inputs clamped to 0..1 although normalised (the step shrinks with the range)",
        ),
        Form("clamped_as_pixels", "both", {"reinforce_unflipped": True}),
    ),
}


def scores(form: Form, store: str) -> dict[str, Any]:
    """Columns, gap, and what the method measured."""
    found = read(store, form.job).statistics
    known, calibration = found["accuracy"]["forget"], found["calibration"]
    about = {"said": form.label, "method": form.method, "settings": form.settings}
    about |= {"id": form.job.id, "known": known, "calibration": calibration}
    return {**about, **scored("class").scores(form.job, store)}


def page(record: dict[str, Any]) -> str:
    """The page."""
    parts = [
        (
            f"{origin(record)}: the class request of [every method](every_method.md), one "
            f"model, published settings. D_r / D_f / MIA and the gap to the retrained model ({triple(record['retrained'])}) in %; "
            "forget: accuracy on the forget records themselves. One model and one request: a few points of gap are "
            "noise, and a defect may come out nearer by them. GKT: [its curves](gkt_curve.md)."
        )
    ]
    for name, forms in record["forms"].items():
        rows = []
        for row in forms:
            measured = [
                f"{k} {v:.3g}" for k, v in row["calibration"].items() if isinstance(v, float)
            ]
            scores = (triple(row["columns"]), percent(row["known"] or 0), percent(row["gap"]))
            rows.append((row["said"], *scores, ", ".join(measured)))
        parts += [
            f"## {name}",
            table("form | D_r / D_f / MIA | forget | gap | measured by the method", rows),
        ]
    return pages.page("Defects of published code, and what they do", *parts)


def main(store: str) -> None:
    """Make the cells, the record and the page."""
    run([form.job for forms in FORMS.values() for form in forms], store, processes=1)
    target = scored("class").reference(store)
    forms = {name: [scores(form, store) for form in some] for name, some in FORMS.items()}
    write_record("defects", "defects STORE", {"retrained": target, "forms": forms})


if __name__ == "__main__":
    main(sys.argv[1])
