"""``efface.inspect``: which of these records told the model most."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from efface.errors import InputError
from efface.io.dataset import records_of
from efface.io.features import FeatureSpec
from efface.io.preprocessing import Preprocessing
from efface.ranking import keeping
from efface.ranking.found import Inspection
from efface.ranking.looking import Counted, Job, looked, quietly
from efface.ranking.reading import InMemory, refuse_other_kinds
from efface.ranking.settings import Settings
from efface.ranking.sigma import TAU
from efface.task import task_of


def inspect(
    model: nn.Module,
    records: Any,
    *,
    rows: Sequence[int] | None = None,
    sigma: float | Sequence[float] = (),
    expected_accuracy: float | None = None,
    copies: int = 16,
    neighbours: int = 20,
    threshold: float = TAU,
    curvature: str | None = None,
    classes: tuple[str, ...] | None = None,
    preprocessing: Preprocessing | FeatureSpec | None = None,
    seed: int = 0,
    counted: Counted = quietly,
) -> Inspection:
    """Say of each record how much it may have told the model, the most informative ranked first.

    What the numbers are, and what they are not, stands in docs/information.md.

    Args:
        model: as for ``efface.forget``; it comes out as it went in.
        records: one class of several each; as for ``efface.forget``.
        rows: the records to inspect, by their places; all when not given. The others are there for
            the balls: neighbours in what goes into the last layer.
        sigma: of the noise, as a share of the data's range; the first of several ranks. Found from
            the model when not given: where ``expected_accuracy`` of the noisy copies keep the
            answer.
        expected_accuracy: the model's accuracy on unseen data (0 to 1): as many copies keep
            the answer, three quarters when not given.
        copies: noisy ones of each record.
        neighbours: others in a ball; 0 for no balls.
        threshold: τ, an information content of at least that is called low information.
        curvature: of ``probability``, ``log_probability`` or ``loss``; it costs far more than all
            else, so it is left out when not given.
        classes: names of the classes.
        preprocessing: how images or rows of a ``datasets.Dataset`` become inputs.
        seed: of everything drawn at random.
        counted: how the shards are shown, such as ``efface.terminal.show_count``.

    Raises:
        InputError: a number out of its range, records of another kind, a row that is not there.
        Hazard: the model and the records do not fit.
        MissingExtra: more than 100,000 records have balls, and FAISS is not installed.
    """
    given = records_of(records, preprocessing)
    refuse_other_kinds(task_of(given).name)
    settings = Settings(
        sigma=(sigma,) if isinstance(sigma, float | int) else tuple(sigma),
        expected_accuracy=expected_accuracy,
        copies=copies,
        neighbours=neighbours,
        threshold=threshold,
        curvature=curvature,
        seed=seed,
    )
    job = Job(
        model,
        InMemory(given),
        settings,
        asked=None if rows is None else _places(rows, len(given)),
        classes=classes,
        preprocessing=preprocessing,
    )
    return looked(job, keeping.InMemory(), counted)


def _places(rows: Sequence[int], count: int) -> tuple[int, ...]:
    """In the order of the data, each once."""
    found = tuple(sorted({int(row) for row in rows}))
    if not found or found[0] < 0 or found[-1] >= count:
        came = f"{found[0]} to {found[-1]}" if found else "none"
        raise InputError(f"rows from 0 to {count - 1}", came, "Name records by their places.")
    return found
