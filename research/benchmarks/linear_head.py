"""Softmax regression on frozen features: the head that research/benchmarks/foreign_checkpoint.py fits."""

import torch
from torch import Tensor, nn
from torch.nn import functional

DECAYS = (1e-1, 1e-2, 1e-3)


def best_decay(x: Tensor, y: Tensor) -> tuple[float, dict[str, float]]:
    """The weight decay that is best on every fifth training image; the test images see none."""
    fifth = torch.arange(len(y)) % 5 == 0
    tried = {}
    for decay in DECAYS:
        head, _ = fitted(x[~fifth], y[~fifth], decay)
        tried[str(decay)] = float((head(x[fifth]).argmax(1) == y[fifth]).float().mean())
    print(tried, flush=True)
    return float(max(tried, key=lambda name: tried[name])), tried


def fitted(x: Tensor, y: Tensor, decay: float) -> tuple[nn.Linear, dict[str, float]]:
    """Softmax regression for all 83 outputs from zero, L-BFGS to convergence; deterministic.

    ``decay`` is on weights and biases over standardised features, so that the row of a class
    without images has an end to go to too; the standardisation is folded into the head.
    """
    mean, std = x.mean(0), x.std(0) + 1e-6
    # one decay means the same for every feature only where all have one scale
    z = (x - mean) / std
    # from zero: the problem is convex, and the end the same from anywhere
    weight = torch.zeros(83, x.shape[1], requires_grad=True)
    bias = torch.zeros(83, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=300, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        solver.zero_grad()
        penalty = weight.square().sum() + bias.square().sum()
        value = functional.cross_entropy(z @ weight.T + bias, y) + decay / 2 * penalty
        value.backward()
        return value

    solver.step(objective)
    value = float(objective())
    slope = max(float(abs(w.grad).max()) for w in (weight, bias) if w.grad is not None)
    head = nn.Linear(x.shape[1], 83)
    with torch.no_grad():
        head.weight.copy_(weight / std)
        head.bias.copy_(bias - (weight / std) @ mean)
    return head.requires_grad_(requires_grad=False), {"objective": value, "steepest slope": slope}
