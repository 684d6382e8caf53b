"""Does the new model answer at all, and the same when asked again (tier T0)?"""

from efface.adapters import asked
from efface.evidence.facts import Facts
from efface.evidence.nearby import synthetic
from efface.evidence.rows import LOOK, PLAIN, Row
from efface.scores.measure import as_it_is

INPUTS = 256
SPREAD = 1e-4
"""Outputs that differ by less than this share of their size are one answer for all inputs."""


def repeated_rows(facts: Facts) -> list[Row]:
    """How far the outputs of two runs on the same inputs are apart: 0 for a model without dice."""
    inputs = synthetic(facts.forget.records, n=INPUTS, seed=facts.seed)
    with as_it_is(facts.new):
        first, second = (asked(facts.new, inputs).double() for _ in range(2))
    apart = float((first - second).abs().max())
    return [
        Row(
            key="sanity.repeated",
            name="The same inputs asked twice: greatest difference of an output",
            section="moved",
            tier="T0",
            after=apart,
            target=0.0,
            unit="logits",
            verdict="answers by chance" if apart else "the same",
            status=LOOK if apart else PLAIN,
            note=f"{INPUTS} noise inputs. Answers that change hide what the weights hold."
            * bool(apart),
            p=0.0 if apart else None,
        )
    ]


def constant_rows(facts: Facts) -> list[Row]:
    """Whether the outputs depend on the input: their spread over inputs, beside the old model's."""
    inputs = synthetic(facts.forget.records, n=INPUTS, seed=facts.seed)
    with as_it_is(facts.old), as_it_is(facts.new):
        old, new = (asked(model, inputs).double() for model in (facts.old, facts.new))
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
