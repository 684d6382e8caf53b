"""How far estimated curvature is off its exact value, by the number of probes.

    python -m research.benchmarks.curvature_estimates     # under a minute; research/results/curvature_estimates.json and .md

400 handwritten digits and a small convolutional model that has learned 300 of them; g is the log-probability
of the label. z: how many of its own stated errors an estimate is off.
"""

from typing import Any

import numpy as np
import torch
from scipy import stats

from efface.ranking.curvature import curvature, piecewise_linear_curvature
from efface.testing import digits, trained_model
from research import pages
from research.pages import origin, table
from research.tables import write_record

# each four times the one before: the error should halve
PROBES = (4, 16, 64)


def row(found: Any, exact: Any) -> dict[str, float]:
    """What a table says of one number of probes."""
    off, z = found.ratio / exact.ratio - 1, (found.ratio - exact.ratio) / found.ratio_error
    return {
        "probes": found.probes,
        "ratio_off": float(np.sqrt((off**2).mean())),
        "ratio_low": float(-off.mean()),
        "stated": float(np.median(found.ratio_error / found.ratio)),
        "z_spread": float(np.sqrt((z**2).mean())),
        "within_two_errors": float((np.abs(z) < stats.norm.isf(0.025)).mean()),
        "rank_ratio": float(stats.spearmanr(found.ratio, exact.ratio).statistic),
        "rank_hessian": float(stats.spearmanr(found.hessian_norm, exact.hessian_norm).statistic),
    }


def main() -> None:
    """Estimate, compare, and write record and page."""
    torch.set_num_threads(1)
    model, records = trained_model(), digits()
    exact = piecewise_linear_curvature(model, records)
    rows = [row(curvature(model, records, probes=n), exact) for n in PROBES]
    quartiles = np.quantile(exact.ratio, [0.25, 0.5, 0.75]).tolist()
    found = {"records": len(records), "ratio_quartiles": quartiles, "rows": rows}
    write_record("curvature_estimates", "curvature_estimates", found)


def page(record: dict[str, Any]) -> str:
    """The table from the record."""
    low, _, high = record["ratio_quartiles"]
    rows = [
        (str(r["probes"]), f"{r['ratio_off']:.1%}", f"{r['ratio_low']:.1%}", f"{r['stated']:.1%}",
         f"{r['z_spread']:.2f}", f"{r['within_two_errors']:.1%}", f"{r['rank_ratio']:.2f}", f"{r['rank_hessian']:.3f}")
        for r in record["rows"]
    ]  # fmt: skip
    return pages.page(
        "How far estimated curvature is off",
        f"{origin(record)}: {record['records']} digits, a small convolutional model, g = ln p of the label; half of the "
        f"exact κ lie between {low:.2f} and {high:.2f}. Off: root mean square error, as a share of the exact κ. z: error over its own stated error.",
        table(
            "probes | κ off | κ low on average | stated error | RMS of z | within 1.96 stated errors | rank correlation with exact: κ | ‖∇²g‖",
            rows,
        ),
    )


if __name__ == "__main__":
    main()
