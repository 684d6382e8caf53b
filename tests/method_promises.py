"""What the tests over every method share: a case of each, and what it does not promise.

A method joins by being in METHODS. What it does not promise stands in EXCEPTIONS, with the reason.
"""

import pytest
from torch import nn

from efface.methods import METHODS
from efface.testing import STRENGTHS, Case
from efface.types import Records, Split

# Settings of single methods that let them run in a moment.
QUICK: dict[str, dict] = {
    "synthetic_embeddings": {"samples_per_class": 20},
    "mu_mis": {"recovery": 3.0},
    "amun": {"attack_steps": 10},
    "gkt": {"rounds": 2},
    "l2ul": {"attack_steps": 10, "adversarials": 3, "adversarial_batch_size": 2},
}

_SCRUBBING = {"learning_rate": 0.01, "epochs": 30, "max_epochs": 3, "forget_batch_size": 8}

# Settings that fit a toy problem of 30 records, where a method's own are made for thousands.
TOY: dict[str, dict] = {
    "scrub": _SCRUBBING,
    "scrub_rewind": _SCRUBBING,
    "bad_teacher": {"learning_rate": 1e-3, "epochs": 20},
    "finetune": {"epochs": 30},
    "l1_sparse": {"epochs": 30, "learning_rate": 0.1},
    "neggrad_plus": {"forget_weight": 0.3},
    "jit_paper": {"learning_rate": 0.001},
    "synthetic_embeddings": {"samples_per_class": 100},
    "l2ul": {"attack_steps": 10, "adversarials": 3, "adversarial_batch_size": 2, "steps": 60},
    "gkt": {"rounds": 30, "batch_size": 64},
    "emmn": {"copies": 10, "learning_rate": 1e-3},
}

# Methods that give records another class, and refuse what has none.
CLASSES_ONLY = (
    *("mislabel", "random_labels", "salun", "amnesiac", "unsir"),
    *("boundary_shrink", "boundary_expand", "delete", "mu_mis", "amun", "emmn", "l2ul", "gkt"),
)

# Kinds that a method refuses by name.
REFUSED = {(name, kind) for name in CLASSES_ONLY for kind in ("multilabel", "regression")}

# Promises that a method does not make, each with the reason.
UNKEPT = (
    ("baseline", "toy changes seed identity strength guard trainable", "it changes nothing"),
    ("retrain", "buffers identity strength order guard", "the steps are the user's own recipe"),
    ("retrain", "micro-batches processes", "the same"),
    ("retrain gkt", "region blank", "every weight is drawn from scratch, far from the given one"),
    ("retrain gkt", "trainable", "it trains every weight, and the request refuses anything else"),
    ("gkt", "buffers identity", "the student starts untrained, with buffers of its own"),
    ("gkt", "micro-batches processes", "BatchNorm takes its statistics from whole rounds"),
    ("emmn gkt", "empty blank", "it reads the form of an input and no record"),
    ("jit_paper", "order", "one update a record: the next starts where the last one ended"),
    ("jit_reference", "micro-batches order", "the batch, and the place in it, are the algorithm's"),
    ("jit_reference", "blank", "its own test: the authors' ratio is 0 by 0 there"),
    ("ssd lfssd assd", "identity", "its own tests: α → ∞, λ → ∞"),
    ("ssd lfssd assd", "trainable", "a new adapter is refused"),
    ("source_free_newton synthetic_embeddings", "trainable", "norm and adapter leave out the head"),
    ("synthetic_embeddings", "blank", "its defaults are 1,000 guarded steps"),
    ("scrub scrub_rewind bad_teacher", "empty", "distillation remains, a limit of its own tests"),
    ("unsir", "order", "noise and records that stay are more than one batch"),
)

EXCEPTIONS = {(m, p): why for ms, ps, why in UNKEPT for m in ms.split() for p in ps.split()}

# Promises that a method should keep and does not, with the whole sentence; five at most. Of its
# figures only what rounding may change is free: nothing is forgotten, nothing lost or gained.
EXPECTED_FAILURES = {
    ("unsir", "toy"): r"^wanted less confidence, at most 0\.1 lost, at most 0\.9 of the gap left; "
    r"got at strength 1 confidence (0\.9[89]|1\.00) -> (0\.9[89]|1\.00), -?0\.00\d lost on the "
    r"others, (0\.9[5-9]|1\.0\d) of the gap left\. Settings for 30 records: toy=\{…\}$"
}

# Strengths that the toy problem is tried at first, since the others are known to fail.
FIRST_STRENGTHS: dict[str, tuple[float, ...]] = {
    **dict.fromkeys(("jit_paper", "boundary_shrink", "boundary_expand", "scrub_rewind"), (10.0,)),
    **dict.fromkeys(("jit_reference", "amun", "gkt", "neggrad_plus", "amnesiac"), (3.0,)),
    **dict.fromkeys(("source_free_newton", "scrub"), (0.3,)),
    "l2ul": (5.0,),
}

CASES = {
    name: Case(
        method,
        QUICK.get(name, {}),
        TOY.get(name, {}),
        # of a failure that is expected the first strength is enough
        STRENGTHS[:1] if name == "unsir" else (*FIRST_STRENGTHS.get(name, ()), *STRENGTHS),
    )
    for name, method in METHODS.items()
}


def keeping(promise: str):
    """Parametrizes over the methods that make the promise; exceptions are in the table above."""
    kept = [name for name in METHODS if (name, promise) not in EXCEPTIONS]
    return pytest.mark.parametrize("name", kept)


def split_for(
    name: str, forget: Records, retain: Records, *, model: nn.Module | None = None
) -> Split:
    """The forget records, and of the rest what the method needs, and ``retain`` if it reads it."""
    return CASES[name].split_of(forget, retain, model)
