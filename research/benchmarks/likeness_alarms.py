"""How often is a model of the same kind as the retrained ones called unlike them?

``python -m research.benchmarks.likeness_alarms [RETRAINED ...]`` prints, for each number of retrained models,
the shares of the three verdicts over 500 simulated cases of 200 records: models of one kind (levels
that differ from seed to seed; that do not; with heavy tails; with another scale), then a model whose
level is 3 and 5 standard deviations of the seeds off. For comparison, what simpler rules would do: the
percentile alone, a rank at 5 %, and an equivalence test over records instead of models.
"""

import sys
from typing import Any

import numpy as np
from scipy import stats

from efface.metrics.equivalence import compare_with_retrained, tost

CASES, RECORDS, LEVEL = 500, 200, 0.05
KINDS: dict[str, dict[str, Any]] = {
    "levels": {},
    "noise alone": {"deviation": 0.0},
    "heavy tails": {"heavy": True},
    "another scale": {"gain": 0.1},
    "3 deviations off": {"shift": 0.6},
    "5 deviations off": {"shift": 1.0},
}


def models(
    count: int,
    draw: np.random.Generator,
    *,
    deviation: float = 0.2,
    heavy: bool = False,
    gain: float = 0.0,
    shift: float = 0.0,
) -> np.ndarray:
    """One model and ``count`` retrained ones: hard and easy records, a level a seed, noise."""
    size = (count + 1, 1)
    levels = draw.standard_t(3, size) / 3**0.5 if heavy else draw.normal(0, 1, size)
    values = draw.normal(0, 1.5, RECORDS) + draw.normal(0, 0.5, (count + 1, RECORDS))
    values = values * np.exp(draw.normal(0, gain, size)) + deviation * levels
    values[0] += shift
    return values


def over_records(values: np.ndarray, margin: float) -> bool:
    """Whether the records, taken for the sample, show equivalence."""
    ranks = stats.rankdata(values).reshape(values.shape) / values.size
    return tost(ranks[0] - ranks[1:].mean(axis=0), margin=margin) <= LEVEL


def main() -> None:
    """One line a number of retrained models and kind."""
    for count in [int(word) for word in sys.argv[1:]] or [2, 3, 4, 6, 8, 12, 20]:
        for kind, settings in KINDS.items():
            # the same draws for every kind: differences are the kind's alone
            draw = np.random.default_rng(7)
            cases = [models(count, draw, **settings) for _ in range(CASES)]
            found = [compare_with_retrained(values[0], values[1:]) for values in cases]
            verdicts = [one.like_retrained for one in found]
            alike, unlike, inconclusive = (
                np.mean([verdict is wanted for verdict in verdicts])
                for wanted in (True, False, None)
            )
            beyond = np.mean([one.percentile > 1 - LEVEL for one in found])
            rank = np.mean([one.rank_p <= LEVEL for one in found])
            refused = 1 - np.mean(
                [over_records(v, f.margin) for v, f in zip(cases, found, strict=True)]
            )
            print(
                f"{count:2} {kind:17} alike {alike:.3f} unlike {unlike:.3f} inconclusive {inconclusive:.3f} | "
                f"percentile alone {beyond:.3f} rank {rank:.3f} records {refused:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
