"""What each quantity that ranks records costs: passes a record, and seconds.

    python -m research.benchmarks.information_costs     # a few minutes; research/results/information_costs.json and .md

1,000 random images of 3 x 32 x 32 through an untrained quarter VGG11, one thread: costs depend on sizes
alone. Passes three times: as declared, as a hook on every copy of the model counts them, and as work
(floating-point operations over those of one forward pass), since hooks do not see derivatives of
derivatives. Seconds are the processor's own, so that other processes do not count.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from efface.methods._head import embed
from efface.metrics.evaluation import evaluate
from efface.nets import vgg_quarter
from efface.ranking.content import noise_stability
from efface.ranking.curvature import curvature, input_gradient_norm, piecewise_linear_curvature
from efface.ranking.neighbours import nearest
from efface.runtime import PassCounter, Passes
from efface.types import Records
from research import pages
from research.gradients import (
    curvature_cost,
    error_norm,
    loss_curvature,
    noise_stability_cost,
    passes_each_way,
    piecewise_linear_cost,
    weight_gradient_norm,
)
from research.pages import origin, table
from research.tables import write_record

RECORDS, COUNTED, ALL, CLASSES, FEATURES = 1_000, 64, 50_000, 10, 128


def one_pass(records: Records) -> Passes:
    """A forward pass of each record."""
    return Passes(forward=len(records), backward=0)


Form = tuple[str, Callable[..., Any], Callable[[Records], Passes]]
FORMS: list[Form] = [
    ("margin, and length of the error (`measure`, `error_norm`)", lambda m, r: error_norm((s := evaluate(m, r)).probabilities, s.y), one_pass),
    ("embeddings (`embed`)", embed, one_pass),
    ("zero-shot α, 16 copies (`noise_stability`)", lambda m, r: noise_stability(m, r, (0.1,)), noise_stability_cost),
    ("slope by the input (`input_gradient_norm`)", input_gradient_norm, passes_each_way),
    ("loss curvature of RUM (`loss_curvature`)", lambda m, r: loss_curvature(m, r, step=1.0), lambda r: passes_each_way(r, 2)),
    ("slope by the weights (`weight_gradient_norm`)", weight_gradient_norm, passes_each_way),
    ("κ, exact (`piecewise_linear_curvature`)", piecewise_linear_curvature, lambda r: piecewise_linear_cost(r, classes=CLASSES)),
    ("κ, 16 probes (`curvature`)", curvature, curvature_cost),
]  # fmt: skip


def images(count: int) -> Records:
    """Noise in the range of normalised photographs."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(count, 3, 32, 32, generator=generator) * 4 - 2
    return Records(x, torch.arange(count) % CLASSES)


def seconds(work: Callable[[], object]) -> float:
    """Of the processor, for one call."""
    began = time.process_time()
    work()
    return time.process_time() - began


def costs(model: torch.nn.Module, form: Form) -> dict[str, Any]:
    """One row."""
    name, function, cost = form
    # passes are exact for any number of records; 64 keep the exact curvature short
    few, counted = images(COUNTED), PassCounter(model)
    with FlopCounterMode(display=False) as one, torch.no_grad():
        model(few.x)
    with FlopCounterMode(display=False) as all_of_it:
        function(model, few)
    function(counted.model, few)
    declared, seen, some = cost(few), counted.passes, images(RECORDS)
    return {
        "name": name,
        "declared": [declared.forward / COUNTED, declared.backward / COUNTED],
        "hooks": [seen.forward / COUNTED, seen.backward / COUNTED],
        "work": all_of_it.get_total_flops() / one.get_total_flops(),
        "seconds": seconds(lambda: function(model, some)),
    }


def balls() -> float:
    """Seconds for the 20 nearest of 1,000 records among 50,000 random feature vectors, exact."""
    draw = np.random.default_rng(0)
    points = draw.standard_normal((ALL, FEATURES)).astype(np.float32)
    return seconds(lambda: nearest(points, of=np.arange(RECORDS)))


def main() -> None:
    """Count, time, and write record and page."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = vgg_quarter(CLASSES).eval()
    rows = [costs(model, form) for form in FORMS]
    found = {"records": RECORDS, "rows": rows, "balls_seconds": balls()}
    write_record("information_costs", "information_costs", found)


def page(record: dict[str, Any]) -> str:
    """The table from the record."""
    rows = []
    for row in record["rows"]:
        passes = (", ".join(f"{n:.4g}" for n in row[kind]) for kind in ("declared", "hooks"))
        rows.append((row["name"], *passes, f"{row['work']:.4g}", *_times(row["seconds"])))
    name = f"the 20 nearest among {ALL:,}, {FEATURES} features, exact (`nearest`)"
    rows.append((name, "0, 0", "0, 0", "none", *_times(record["balls_seconds"])))
    return pages.page(
        "What each quantity costs",
        f"{origin(record)}: {RECORDS:,} random images through a quarter VGG11, one thread. Passes a record, "
        "forward and backward: as declared, as a hook counts them, and the work in floating-point operations over those of one forward pass. "
        "Hooks do not see derivatives of derivatives; a backward pass to the weights as well is twice the work of one to the input. "
        f"Seconds of the processor; for {ALL:,} images {ALL // RECORDS} times as many.",
        table(
            f"quantity | declared | hooks | work | seconds for {RECORDS:,} | minutes for {ALL:,}",
            rows,
        ),
        f"`piecewise_linear_curvature` first tests on eight records whether it may: three passes forward and two back each, here a share of {COUNTED} records. "
        f"The last row queries {RECORDS:,} records among all {ALL:,}; exact search grows with the product.",
    )


def _times(seconds: float) -> tuple[str, str]:
    return f"{seconds:.1f}", f"{seconds * ALL / RECORDS / 60:.1f}"


if __name__ == "__main__":
    main()
