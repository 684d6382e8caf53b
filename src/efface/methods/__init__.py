"""Methods: a table of functions, with what each may see of a split, needs and costs."""

from efface.methods.amnesiac import amnesiac
from efface.methods.assd import assd
from efface.methods.bad_teacher import bad_teacher
from efface.methods.baseline import baseline
from efface.methods.finetune import finetune
from efface.methods.jit import jit
from efface.methods.jit_paper import jit_paper
from efface.methods.jit_reference import jit_reference
from efface.methods.l1_sparse import l1_sparse
from efface.methods.lfssd import lfssd
from efface.methods.mislabel import mislabel
from efface.methods.negative_gradient import negative_gradient
from efface.methods.neggrad_plus import neggrad_plus
from efface.methods.neighbourhood import neighbourhood
from efface.methods.parts.entry import Cost, Entry
from efface.methods.random_labels import random_labels
from efface.methods.retrain import retrain
from efface.methods.salun import salun
from efface.methods.scrub import scrub
from efface.methods.scrub_rewind import scrub_rewind
from efface.methods.ssd import ssd
from efface.methods.unsir import unsir

_FORGET_LABELLED = frozenset({"model", "forget", "forget labels"})
_RETAIN_LABELLED = frozenset({"retain", "retain labels"})

METHODS: dict[str, Entry] = {
    "jit": Entry(
        jit,
        sees=frozenset({"model", "forget", "forget labels", "holdout", "leaving"}),
        cost=Cost(
            "steps * ((1 + perturbations) * batch + 2 * max(batch, 32) + 224)"
            " + 22 * min(forget, 512) + 128 * perturbations + 2000 + holdout",
            "steps * (batch + max(batch, 32))",
            at_most=True,
        ),
        copies=4,
        graphs=3,
        neighbours=32,
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
    "baseline": Entry(baseline, sees=frozenset({"model"}), cost=Cost("0", "0"), copies=1, graphs=0),
    "retrain": Entry(
        retrain,
        sees=frozenset({"model", "retain", "retain labels", "fresh", "train"}),
        needs=frozenset({"retain", "fresh", "train"}),
        cost=Cost("recipe * retain", "recipe * retain"),
        copies=5,
        graphs=2,
        fresh_start=True,
    ),
    "finetune": Entry(
        finetune,
        sees=frozenset({"model", "retain", "retain labels"}),
        needs=frozenset({"retain"}),
        cost=Cost("epochs * retain", "epochs * retain"),
        copies=5,
        graphs=2,
    ),
    "l1_sparse": Entry(
        l1_sparse,
        sees=frozenset({"model", "retain", "retain labels"}),
        needs=frozenset({"retain"}),
        cost=Cost("epochs * retain", "epochs * retain"),
        copies=6,
        graphs=2,
    ),
    "negative_gradient": Entry(
        negative_gradient,
        sees=frozenset({"model", "forget", "forget labels"}),
        cost=Cost("epochs * forget", "epochs * forget"),
        copies=5,
        graphs=2,
    ),
    "neggrad_plus": Entry(
        neggrad_plus,
        sees=frozenset({"model", "forget", "forget labels", "retain", "retain labels"}),
        needs=frozenset({"retain"}),
        cost=Cost(
            "epochs * retain * (1 + (forget_weight > 0))",
            "epochs * retain * (1 + (forget_weight > 0))",
        ),
        copies=5,
        graphs=3,
    ),
    "random_labels": Entry(
        random_labels,
        sees=frozenset({"model", "forget", "retain", "retain labels"}),
        cost=Cost("epochs * (forget + retain)", "epochs * (forget + retain)"),
        copies=5,
        graphs=2,
    ),
    "salun": Entry(
        salun,
        sees=frozenset({"model", "forget", "forget labels", "retain", "retain labels"}),
        cost=Cost("forget + epochs * (forget + retain)", "forget + epochs * (forget + retain)"),
        copies=7,
        graphs=2,
    ),
    "amnesiac": Entry(
        amnesiac,
        sees=frozenset({"model", "forget", "forget labels", "retain", "retain labels"}),
        needs=frozenset({"retain"}),
        cost=Cost("epochs * (forget + retain)", "epochs * (forget + retain)"),
        copies=6,
        graphs=2,
    ),
    "mislabel": Entry(
        mislabel,
        sees=frozenset({"model", "forget", "forget labels"}),
        cost=Cost("(1 + epochs) * forget", "epochs * forget", at_most=True),
        copies=4,
        graphs=2,
    ),
    "ssd": Entry(
        ssd,
        sees=_FORGET_LABELLED | _RETAIN_LABELLED,
        needs=frozenset({"retain"}),
        cost=Cost("(1 + with_forget) * forget + retain", "(1 + with_forget) * forget + retain"),
        copies=6,
        graphs=2,
    ),
    "lfssd": Entry(
        lfssd,
        sees=frozenset({"model", "forget", "retain"}),
        needs=frozenset({"retain"}),
        cost=Cost("(1 + with_forget) * forget + retain", "(1 + with_forget) * forget + retain"),
        copies=6,
        graphs=2,
    ),
    "assd": Entry(
        assd,
        sees=_FORGET_LABELLED | _RETAIN_LABELLED,
        needs=frozenset({"retain"}),
        cost=Cost("forget + retain", "forget + retain"),
        copies=7,
        graphs=2,
    ),
    "scrub": Entry(
        scrub,
        sees=frozenset({"model", "forget"}) | _RETAIN_LABELLED,
        needs=frozenset({"retain"}),
        cost=Cost(
            "2 * (epochs * retain + min(epochs, max_epochs) * forget)",
            "epochs * retain + min(epochs, max_epochs) * forget",
        ),
        copies=6,
        graphs=3,
    ),
    "scrub_rewind": Entry(
        scrub_rewind,
        sees=_FORGET_LABELLED | _RETAIN_LABELLED | {"holdout"},
        needs=frozenset({"retain", "holdout"}),
        cost=Cost(
            "2 * (epochs * retain + min(epochs, max_epochs) * forget) + epochs * forget + holdout",
            "epochs * retain + min(epochs, max_epochs) * forget",
            at_most=True,
        ),
        copies=9,
        graphs=3,
    ),
    "bad_teacher": Entry(
        bad_teacher,
        sees=frozenset({"model", "forget", "retain", "fresh"}),
        needs=frozenset({"retain", "fresh"}),
        cost=Cost(
            "2 * epochs * (forget + round(retained_share * retain))",
            "epochs * (forget + round(retained_share * retain))",
        ),
        copies=7,
        graphs=3,
    ),
    "unsir": Entry(
        unsir,
        sees=frozenset({"model", "leaving"}) | _RETAIN_LABELLED,
        needs=frozenset({"retain", "leaving"}),
        cost=Cost(
            "noise_records * (noise_steps + copies) + 2 * retain",
            "noise_records * (noise_steps + copies) + 2 * retain",
            at_most=True,
        ),
        copies=6,
        graphs=2,
    ),
}
"""Every method by its name; what the tests promise of all, they promise of each entry here."""
