"""JiT as the paper prints it, equation 1, one update a record: https://arxiv.org/abs/2402.01401.

    l(x) = 1/N Σ_j ‖f(x) − f(x + ξ_j)‖₂ / ‖ξ_j‖₂,   ξ_j ~ N(0, σ²I)

with gradient through both branches, no clamp, in the unit of the normalised inputs. Of what the
paper leaves open: one pass in a seeded order; eval mode with frozen buffers; SGD, with which its
code runs, or Adam, which its slides name next to a toy. ``squared`` is the form that one printing
of the paper has. As extracted, its algorithm closes both loops before the update, which would make
one update from the last record; this is the evident reading, one update for each.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.methods._base import Count, Memory, NonNegative, Positive, register_method
from efface.methods._perturb import normals
from efface.methods.jit import refuse_no_noise
from efface.task import outputs, trainable_copy
from efface.training import Schedule, train_epochs
from efface.types import Callback, Records, Split, no_callback


@register_method(reads={"forget"}, memory=Memory(copies=6, graphs=27, batch_size=1))
def jit_paper(
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    sigma: Positive = 0.5,
    perturbations: Count = 25,
    learning_rate: NonNegative = 1e-4,
    squared: bool = False,
    adam: bool = False,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """One pass of equation 1 over the forget records; reads the model and the forget inputs alone.

    Args:
        model: the given model; it is not changed.
        split: its ``forget`` inputs are read, no labels.
        strength: multiplies the learning rate.
        sigma: the paper's σ, in the unit of the normalised inputs; 0.5 as in the authors' code for
            a full class with VGG11.
        perturbations: the paper's N, 25 in its code. All are in memory at once.
        learning_rate: the paper's η, for one record. The paper gives none for this form; its 0.1
            with Adam belongs to a toy of two inputs. This one is ours and small on purpose: a
            class of n records takes n steps.
        squared: square each ratio.
        adam: step with Adam; plain SGD otherwise.
        seed: draws the perturbations and the order.
        callback: called after each record.
    """
    student = trainable_copy(model)
    kind = torch.optim.Adam if adam else torch.optim.SGD
    optimizer = kind(student.parameters(), lr=learning_rate * strength)
    settings = {"sigma": sigma, "perturbations": perturbations, "squared": squared, "seed": seed}

    def loss(student: nn.Module, batch: Records, step: int) -> Tensor:
        return jit_paper_loss(student, batch, **settings, step=step)

    return train_epochs(student, loss, split.forget, optimizer, Schedule(1, 1, seed, callback))


def jit_paper_loss(
    student: nn.Module,
    batch: Records,
    *,
    sigma: float = 0.5,
    perturbations: int = 25,
    squared: bool = False,
    seed: int = 0,
    step: int = 0,
) -> Float[Tensor, " m"]:
    """Equation 1 for each record of a batch: a term for a training loop of one's own.

    ``step`` draws new perturbations. Raises InputError when ``sigma`` or ``perturbations`` is not
    above 0.
    """
    refuse_no_noise(sigma, perturbations)
    shape = (perturbations, *batch.x.shape[1:])
    # all draws of a record in one forward pass: both branches have gradients
    noise = sigma * normals(batch.ids, shape, seed=seed, step=step).to(batch.x).flatten(0, 1)
    around = batch.take(torch.arange(len(batch)).repeat_interleave(perturbations))
    perturbed = outputs(student, replace(around, x=around.x + noise))
    answer = outputs(student, batch).repeat_interleave(perturbations, 0)
    # no epsilon: without a clamp the noise is never 0
    ratios = (answer - perturbed).norm(dim=1) / noise.flatten(1).norm(dim=1)
    return (ratios.square() if squared else ratios).reshape(len(batch), perturbations).mean(1)
