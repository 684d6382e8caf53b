"""Does the new model answer at all, and the same when asked again (tier T0)?"""

from torch import nn

from efface.metrics.measure import as_it_is
from efface.report.facts import Facts
from efface.report.nearby import synthetic
from efface.report.rows import LOOK, PLAIN, Row
from efface.task import predict
from efface.types import Records

INPUTS = 256
SPREAD = 1e-4
"""Outputs that differ by less than this share of their spread over inputs are the same."""


def repeated_rows(facts: Facts) -> list[Row]:
    """How far the outputs of two runs on the same inputs are apart: about 0 without dice.

    A machine whose sums are not the same twice stays far below ``SPREAD``; an old model that has
    dice itself makes no finding of the new one's.
    """
    inputs = synthetic(facts.forget.records, n=INPUTS, seed=facts.seed)
    before, after = (_apart(model, inputs) for model in (facts.old, facts.new))
    dice = after > SPREAD
    return [
        Row(
            key="sanity.repeated",
            name="The same inputs asked twice: greatest difference, in spreads of the outputs",
            section="moved",
            tier="T0",
            before=before,
            after=after,
            target=before,
            unit="ratio",
            verdict="answers by chance" if dice else "the same",
            status=LOOK if dice else PLAIN,
            note=f"{INPUTS} noise inputs. Answers that change hide what the weights hold." * dice,
            p=0.0 if dice and before <= SPREAD else None,
        )
    ]


def _apart(model: nn.Module, inputs: Records) -> float:
    with as_it_is(model):
        first, second = (predict(model, inputs).double() for _ in range(2))
    spread = float(first.std(0).mean())
    apart = float((first - second).abs().max())
    return apart / spread if spread else float(apart > 0)


def constant_rows(facts: Facts) -> list[Row]:
    """Whether the outputs depend on the input: their spread over inputs, beside the old model's."""
    inputs = synthetic(facts.forget.records, n=INPUTS, seed=facts.seed)
    with as_it_is(facts.old), as_it_is(facts.new):
        old, new = (predict(model, inputs).double() for model in (facts.old, facts.new))
    before, after = (float(said.std(0).mean()) for said in (old, new))
    same = after <= SPREAD * before
    return [
        Row(
            key="sanity.constant",
            name="Spread of the outputs over noise inputs",
            section="moved",
            tier="T0",
            before=before,
            after=after,
            unit="logits",
            verdict="one answer for all" if same else "described",
            status=LOOK if same else PLAIN,
            note=f"{INPUTS} inputs; near 0 when the model answers all alike.",
            p=0.0 if same else None,
        )
    ]
