"""Methods: a table of functions, with what each may see of a split, needs and costs."""

from efface.methods.jit import jit
from efface.methods.jit_paper import jit_paper
from efface.methods.jit_reference import jit_reference
from efface.methods.neighbourhood import neighbourhood
from efface.methods.parts.entry import Cost, Entry

METHODS: dict[str, Entry] = {
    "jit": Entry(
        jit,
        sees=frozenset({"model", "forget", "forget labels", "holdout", "leaving"}),
        cost=Cost(
            "steps * ((1 + perturbations) * batch + 2 * max(batch, 32) + 224)"
            " + 22 * min(forget, 512) + 128 * perturbations + 1750 + holdout",
            "steps * (batch + max(batch, 32))",
            at_most=True,
        ),
        copies=4,
        graphs=3,
    ),
    "jit_paper": Entry(
        jit_paper,
        sees=frozenset({"model", "forget"}),
        cost=Cost("(1 + perturbations) * forget", "(1 + perturbations) * forget"),
        copies=6,
        graphs=27,
        records_per_step=1,
    ),
    "jit_reference": Entry(
        jit_reference,
        sees=frozenset({"model", "forget"}),
        cost=Cost("(1 + perturbations) * forget", "forget"),
        copies=5,
        graphs=2,
    ),
    "neighbourhood": Entry(
        neighbourhood,
        sees=frozenset({"model", "forget", "forget labels", "holdout", "leaving"}),
        cost=Cost(
            "6 * steps * batch + (steps // 20 + 3) * min(forget, 512)"
            " + 16 * min(forget, 1000) + 4000 + holdout",
            "3 * steps * batch",
            at_most=True,
        ),
        copies=6,
        graphs=4,
    ),
}
"""Every method by its name; what the tests promise of all, they promise of each entry here."""
