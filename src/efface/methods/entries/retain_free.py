"""Methods that work without any record that stays."""

from efface.methods.amun import amun
from efface.methods.baseline import baseline
from efface.methods.boundary_expand import boundary_expand
from efface.methods.boundary_shrink import boundary_shrink
from efface.methods.delete import delete
from efface.methods.emmn import emmn
from efface.methods.gkt import gkt
from efface.methods.jit import jit
from efface.methods.jit_paper import jit_paper
from efface.methods.jit_reference import jit_reference
from efface.methods.l2ul import l2ul
from efface.methods.mislabel import mislabel
from efface.methods.mu_mis import mu_mis
from efface.methods.negative_gradient import negative_gradient
from efface.methods.neighbourhood import neighbourhood
from efface.methods.parts.entry import Cost, Entry
from efface.methods.source_free_newton import source_free_newton
from efface.methods.synthetic_embeddings import synthetic_embeddings

RETAIN_FREE: dict[str, Entry] = {
    "jit": Entry(
        jit,
        sees=frozenset({"model", "forget", "forget labels", "holdout", "forget_classes"}),
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
        batch_size=1,
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
        sees=frozenset({"model", "forget", "forget labels", "holdout", "forget_classes"}),
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
    "negative_gradient": Entry(
        negative_gradient,
        sees=frozenset({"model", "forget", "forget labels"}),
        cost=Cost("epochs * forget", "epochs * forget"),
        copies=5,
        graphs=2,
    ),
    "mislabel": Entry(
        mislabel,
        sees=frozenset({"model", "forget", "forget labels"}),
        cost=Cost("(1 + epochs) * forget", "epochs * forget", at_most=True),
        copies=4,
        graphs=2,
    ),
    "source_free_newton": Entry(
        source_free_newton,
        one_step=True,
        sees=frozenset({"model", "forget", "forget labels"}),
        cost=Cost("forget", "0"),
        copies=3,
        graphs=1,
    ),
    "synthetic_embeddings": Entry(
        synthetic_embeddings,
        sees=frozenset({"model", "forget_classes"}),
        needs=frozenset({"forget_classes"}),
        cost=Cost("0", "0"),
        copies=5,
        graphs=1,
    ),
    "boundary_shrink": Entry(
        boundary_shrink,
        sees=frozenset({"model", "forget", "forget labels"}),
        cost=Cost("(2 + epochs) * forget", "(1 + epochs) * forget"),
        copies=5,
        graphs=2,
    ),
    "boundary_expand": Entry(
        boundary_expand,
        sees=frozenset({"model", "forget"}),
        cost=Cost("1 + epochs * forget", "epochs * forget"),
        copies=5,
        graphs=2,
    ),
    "delete": Entry(
        delete,
        sees=frozenset({"model", "forget", "forget labels"}),
        cost=Cost("(1 + epochs) * forget", "epochs * forget"),
        copies=5,
        graphs=2,
    ),
    "mu_mis": Entry(
        mu_mis,
        sees=frozenset({"model", "forget", "forget labels"}),
        cost=Cost("(1 + 2 * steps) * batch", "(1 + 5 * steps) * batch", at_most=True),
        copies=4,
        graphs=6,
    ),
    "amun": Entry(
        amun,
        sees=frozenset({"model", "forget", "forget labels"}),
        cost=Cost(
            "forget * (attack_steps * (doublings + 1) + 1 + epochs * (1 + with_forget))",
            "forget * (attack_steps * (doublings + 1) + epochs * (1 + with_forget))",
            at_most=True,
        ),
        copies=5,
        graphs=2,
    ),
    "emmn": Entry(
        emmn,
        sees=frozenset({"model", "forget", "forget_classes"}),
        needs=frozenset({"forget_classes"}),
        cost=Cost(
            "1 + noise_per_class * (noise_steps * forget_classes + retained_steps * (classes - forget_classes)"
            " + copies * (impair_epochs * classes + repair_epochs * (classes - forget_classes)))",
            "noise_per_class * (noise_steps * forget_classes + retained_steps * (classes - forget_classes)"
            " + copies * (impair_epochs * classes + repair_epochs * (classes - forget_classes)))",
        ),
        copies=6,
        graphs=2,
        neighbours=128,
    ),
    "l2ul": Entry(
        l2ul,
        sees=frozenset({"model", "forget", "forget labels"}),
        cost=Cost(
            "1 + forget * (adversarials * attack_steps + 1)"
            " + steps * ((1 + adversarials_per_step) * batch + forget)",
            "forget * (adversarials * attack_steps + 1)"
            " + steps * (1 + adversarials_per_step) * batch",
            at_most=True,
        ),
        copies=7,
        graphs=18,
    ),
    "gkt": Entry(
        gkt,
        sees=frozenset({"model", "forget", "forget_classes", "fresh"}),
        needs=frozenset({"forget_classes", "fresh"}),
        cost=Cost(
            "rounds * batch_size * (2 * generator_steps + 1 + student_steps)",
            "rounds * batch_size * (2 * generator_steps + student_steps)",
            at_most=True,
        ),
        copies=7,
        graphs=3,
        fresh_start=True,
        neighbours=256,
    ),
}
"""By name: what each sees, needs and costs."""
