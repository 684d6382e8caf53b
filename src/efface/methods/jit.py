"""JiT, zero-shot unlearning by smoothing the model around each record: https://arxiv.org/abs/2402.01401.

Equation 1: l(x) = 1/N Σ_j ‖f(x) − f(x+ξ_j)‖₂ / ‖ξ_j‖₂ with ξ_j ~ N(0, σ²I). Departures from the
paper: the perturbed branch is the current model held still, since with gradient through both
branches the forgotten class swallows the others; the loss is a mean over records, so that one
record and ten thousand take the same step; eval mode with frozen buffers; x+ξ stays within the
data's own bounds; σ is a share of the data's range and not of one normalisation's unit.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.adapters import outputs, student_of
from efface.methods.parts.neighbours import noisy
from efface.methods.parts.noise import refuse_no_noise
from efface.steps import descend
from efface.types import Records, Split, Watch, carry_on


def jit(
    model: nn.Module,
    split: Split,
    *,
    strength: float = 1.0,
    sigma: float = 0.125,
    perturbations: int = 8,
    learning_rate: float = 1e-3,
    steps: int = 40,
    records_per_step: int = 128,
    seed: int = 0,
    watch: Watch = carry_on,
) -> nn.Module:
    """Smooth the model around the forget records; sees the model and the forget inputs alone.

    Args:
        model: answers (n, *features) with outputs (n, k); stays as it is.
        split: its ``forget`` inputs are read, no labels.
        strength: the one knob; multiplies the step.
        sigma: the paper's σ over the range of the data (high − low); the paper's 0.5 on
            normalised photographs is about 0.125.
        perturbations: the paper's N.
        learning_rate: the paper's η, for the mean over records.
        steps: how many steps; the paper makes one pass.
        records_per_step: records in one step's mean.
        seed: draws the perturbations and the order.
        watch: called after each step.

    Raises:
        InputError: ``sigma`` or ``perturbations`` is not above 0.
    """
    student = student_of(model)

    def loss(student: nn.Module, batch: Records, step: int) -> Tensor:
        return jit_loss(
            student, batch, sigma=sigma, perturbations=perturbations, seed=seed, step=step
        )

    return descend(
        student,
        loss,
        split.forget,
        optimizer=torch.optim.SGD(student.parameters(), lr=learning_rate * strength),
        steps=steps,
        seed=seed,
        watch=watch,
        records_per_step=records_per_step,
    )


def jit_loss(
    student: nn.Module,
    batch: Records,
    *,
    sigma: float = 0.125,
    perturbations: int = 8,
    seed: int = 0,
    step: int = 0,
) -> Float[Tensor, " m"]:
    """Equation 1 for each record of a batch: a term for a training loop of one's own.

    ``step`` draws new perturbations. Raises InputError when ``sigma`` or ``perturbations`` is not
    above 0.
    """
    refuse_no_noise(sigma, perturbations)
    answer = outputs(student, batch)
    ratios = [
        _ratio(student, answer, batch, sigma, seed=seed, draw=step * perturbations + j)
        for j in range(perturbations)
    ]
    return torch.stack(ratios).mean(0)


def _ratio(
    student: nn.Module, answer: Tensor, batch: Records, sigma: float, *, seed: int, draw: int
) -> Float[Tensor, " m"]:
    """‖f(x) − sg f(x+ξ)‖₂ / ‖ξ‖₂ of each record; 0 where the bounds leave no ξ."""
    with torch.no_grad():
        perturbed = noisy(batch, sigma, seed=seed, step=draw)
        distance = (perturbed.x - batch.x).flatten(1).norm(dim=1)
        held_still = outputs(student, perturbed)
    floor = torch.finfo(answer.dtype).eps
    change = ((answer - held_still).square().sum(1) + floor**2).sqrt()
    return torch.where(distance > floor, change / distance.clamp_min(floor), 0 * change)
