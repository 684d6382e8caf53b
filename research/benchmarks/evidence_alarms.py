"""How often the evidence flags a model that was truly retrained: 200 draws, about two minutes.

    .venv/bin/python -m research.benchmarks.evidence_alarms

The net and the draws are those of tests/bumps.py, with other seeds.
"""

import runpy
from collections import Counter
from pathlib import Path

import torch

from efface.report import Status, Verdict, collect, significant_rows

BUMPS = Path(__file__).parents[2] / "tests" / "bumps.py"
APART = ("control.", "attack.loss_tpr", "weights.", "buffers.")


def main() -> None:
    """Print for each judged row how often it was flagged, and the sum."""
    torch.set_num_threads(1)
    bumps = runpy.run_path(str(BUMPS))
    judged, flagged, alarmed = Counter(), Counter(), Counter()
    for seed in range(100, 300):
        net, split = bumps["drawn"](seed)
        evidence = collect(net, bumps["weighted"](net, range(50), 0), split)
        alarmed += Counter(
            tier for tier in ("T0", "T1", "T2") if significant_rows(evidence.rows, tier=tier)
        )
        for row in evidence.rows:
            if row.status is not Status.NOT_RUN and row.verdict is not Verdict.DESCRIPTIVE:
                judged[row.key] += 1
                flagged[row.key] += row.status is not Status.NOT_FLAGGED
    for key in judged:
        print(f"{key:28s} {flagged[key]:4d} of {judged[key]}")
    print("draws with a flagged row, by tier:", dict(alarmed))
    counted = [key for key in judged if not key.startswith(APART)]
    print(f"without {', '.join(APART)}: {total(flagged, counted)} of {total(judged, counted)}")


def total(counts: Counter, keys: list[str]) -> int:
    """Sum of these counts."""
    return sum(counts[key] for key in keys)


if __name__ == "__main__":
    main()
