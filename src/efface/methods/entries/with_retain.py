"""Methods that need records that stay, or are made to have them."""

from efface.methods.amnesiac import amnesiac
from efface.methods.assd import assd
from efface.methods.bad_teacher import bad_teacher
from efface.methods.finetune import finetune
from efface.methods.l1_sparse import l1_sparse
from efface.methods.lfssd import lfssd
from efface.methods.neggrad_plus import neggrad_plus
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

WITH_RETAIN: dict[str, Entry] = {
    "retrain": Entry(
        retrain,
        sees=frozenset({"model", "retain", "retain labels", "fresh", "train"}),
        needs=frozenset({"retain", "fresh", "train"}),
        cost=Cost("recipe * retain", "recipe * retain"),
        copies=5,
        graphs=2,
        fresh_start=True,
        exact=True,
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
    "ssd": Entry(
        ssd,
        one_step=True,
        sees=_FORGET_LABELLED | _RETAIN_LABELLED,
        needs=frozenset({"retain"}),
        cost=Cost("(1 + with_forget) * forget + retain", "(1 + with_forget) * forget + retain"),
        copies=6,
        graphs=2,
    ),
    "lfssd": Entry(
        lfssd,
        one_step=True,
        sees=frozenset({"model", "forget", "retain"}),
        needs=frozenset({"retain"}),
        cost=Cost("(1 + with_forget) * forget + retain", "(1 + with_forget) * forget + retain"),
        copies=6,
        graphs=2,
    ),
    "assd": Entry(
        assd,
        one_step=True,
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
        sees=frozenset({"model", "forget_classes"}) | _RETAIN_LABELLED,
        needs=frozenset({"retain", "forget_classes"}),
        cost=Cost(
            "noise_records * (noise_steps + copies) + 2 * retain",
            "noise_records * (noise_steps + copies) + 2 * retain",
            at_most=True,
        ),
        copies=6,
        graphs=2,
    ),
}
"""By name: what each sees, needs and costs."""
