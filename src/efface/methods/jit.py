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

from efface.adapters import logits, student_of
from efface.errors import InputError
from efface.methods.parts.neighbours import normals
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
        model: answers (n, *features) with logits (n, k); stays as it is.
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
    if sigma <= 0 or perturbations < 1:
        raise InputError(
            "sigma above 0 and at least 1 perturbation",
            f"sigma {sigma} and {perturbations} perturbations",
            "Without perturbations there is no neighbourhood to smooth; keep the defaults.",
        )
    student = student_of(model)

    def loss(student: nn.Module, batch: Records, step: int) -> Tensor:
        answer = logits(student, batch.x)
        ratios = [
            _ratio(student, answer, batch, sigma, seed=seed, draw=step * perturbations + j)
            for j in range(perturbations)
        ]
        return torch.stack(ratios).mean(0)

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


def _ratio(
    student: nn.Module, answer: Tensor, batch: Records, sigma: float, *, seed: int, draw: int
) -> Float[Tensor, " m"]:
    """‖f(x) − sg f(x+ξ)‖₂ / ‖ξ‖₂ of each record; 0 where the bounds leave no ξ."""
    with torch.no_grad():
        noise = normals(batch.ids, tuple(batch.x.shape[1:]), seed=seed, step=draw).to(batch.x)
        low, high = _bounds(batch)
        perturbed = torch.clamp(batch.x + sigma * (high - low) * noise, low, high)
        distance = (perturbed - batch.x).flatten(1).norm(dim=1)
        held_still = logits(student, perturbed)
    floor = torch.finfo(answer.dtype).eps
    change = ((answer - held_still).square().sum(1) + floor**2).sqrt()
    return torch.where(distance > floor, change / distance.clamp_min(floor), 0 * change)


def _bounds(batch: Records) -> tuple[Tensor, Tensor]:
    """The least and greatest value an input can take, in the inputs' dtype."""
    if batch.low is None or batch.high is None:
        raise InputError("records with bounds", "no bounds", "Make them with efface.types.Records.")
    return batch.low.to(batch.x), batch.high.to(batch.x)
