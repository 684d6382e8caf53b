"""JiT against equation 1 by hand, and where it could divide by nothing."""

import pytest
import torch
from torch import nn

from efface.errors import InputError
from efface.methods.jit import jit
from efface.methods.parts.neighbours import normals
from efface.types import Records, Split


def test_one_step_is_equation_1_by_hand():
    """A linear model f(x) = W x: the gradient of the ratio is known in closed form."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    records = Records(x, torch.zeros(3, dtype=torch.int64))
    model = nn.Linear(4, 2, bias=False).double()
    weights = model.weight.detach().clone()
    student = jit(model, Split(records), sigma=0.1, perturbations=2, learning_rate=0.5, steps=1)

    low, high = x.min(), x.max()
    gradient = torch.zeros_like(weights)
    for draw in range(2):
        noise = normals(records.ids, (4,), seed=0, step=draw).double()
        perturbed = (x + 0.1 * (high - low) * noise).clamp(low, high)
        for row in range(3):
            step = x[row] - perturbed[row]
            change = weights @ step  # the perturbed branch is held still: d/dW sees x alone
            gradient += torch.outer(change / change.norm(), x[row]) / step.norm() / 2 / 3
    torch.testing.assert_close(student.weight, weights - 0.5 * gradient, rtol=0, atol=1e-12)


def test_a_blank_image_alone_leaves_every_weight_finite():
    """In the authors' code one blank image in a batch of one turns every weight into NaN."""
    blank = Records(torch.zeros(1, 4), torch.tensor([0]))
    model = nn.Linear(4, 2)
    student = jit(model, Split(blank), steps=3)
    assert torch.equal(student.weight, model.weight)


def test_no_noise_is_refused():
    """0/0 must be an error with words, not a weight."""
    with pytest.raises(InputError) as error:
        jit(nn.Linear(4, 2), Split(Records(torch.ones(1, 4), torch.tensor([0]))), sigma=0.0)
    assert str(error.value) == (
        "Wanted sigma above 0 and at least 1 perturbation. Got sigma 0.0 and 8 perturbations. "
        "Without perturbations there is no neighbourhood to smooth; keep the defaults."
    )
