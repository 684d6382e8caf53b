"""Ways to forget one x of a sigmoid: equation 1 of JiT as it is read by paper, code and library.

What is read off figure 3 of https://arxiv.org/abs/2402.01401 (v4) stands here too. The paper does
not give its settings; where those of a form are not the library's,
research/benchmarks/sigmoid_settings.py found them.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.methods._perturb import normals
from efface.methods.jit import jit
from efface.methods.jit_forms import jit_paper, jit_paper_loss, jit_reference
from efface.task import outputs, regression, trainable_copy
from efface.training import descend
from efface.types import Records, Split

POSITIVE = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 4.0)
# What is forgotten, one at a time, each time from the same sigmoid.
POINTS = (*(-x for x in reversed(POSITIVE)), 0.0, *POSITIVE)

# The paper's S(x) after forgetting x, read by eye (±0.01); symmetric, as far as it can be seen.
READ = dict(
    zip((*POSITIVE, -2.0), (0.6, 0.675, 0.72, 0.75, 0.755, 0.75, 0.745, 0.95, 0.257), strict=True)
)

# With these a step *up* equation 1 gives the paper's figure; N is that of the authors' code.
SIGMA, COPIES, RATE = 0.25, 25, 5.0

# ``form(model, x, seed)``: the model after forgetting x.
Form = Callable[[nn.Module, float, int], nn.Module]


def unit() -> nn.Module:
    """S(wx + b) with w = 1 and b = 0."""
    line = nn.Linear(1, 1)
    nn.init.ones_(line.weight)
    nn.init.zeros_(line.bias)
    return nn.Sequential(line, nn.Sigmoid())


def small_net(seed: int, *, squashed: bool) -> nn.Module:
    """A model of 16 tanh units that has learned the sigmoid, within 0.01 of it for |x| up to 6.

    ``squashed``: a sigmoid closes it, and what is learned is the line below. The global random
    state is as it was before.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        last = (nn.Sigmoid(),) if squashed else ()
        model = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1), *last)
    x = torch.linspace(-6, 6, 241)[:, None]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(1500):
        optimizer.zero_grad()
        (model(x) - x.sigmoid()).square().mean().backward()
        optimizer.step()
    model.zero_grad(set_to_none=True)
    return model.eval()


def record(x: float, copies: int = 1) -> Records:
    """The x as a record whose answer is a value; inputs lie between −4 and 4."""
    return records([x] * copies)


def records(points: list[float]) -> Records:
    """Several of them, each with noise of its own; their labels are read by none of the forms."""
    column = torch.tensor(points)[:, None]
    ids = tuple(f"{x:g}, {place}" for place, x in enumerate(points))
    low, high, task = torch.tensor(-4.0), torch.tensor(4.0), regression(scale=1.0)
    return Records(column, column[:, 0].sigmoid(), ids, low=low, high=high, task=task)


def down(model: nn.Module, x: float, seed: int, *, rate: float = RATE) -> nn.Module:
    """Equation 1 as the paper prints it: one plain step."""
    return jit_paper(
        model, Split(record(x)), learning_rate=rate, sigma=SIGMA, perturbations=COPIES, seed=seed
    )


def up(model: nn.Module, x: float, seed: int) -> nn.Module:
    """The same step, up: what a loss |c − l| does while l is below c."""

    def loss(student: nn.Module, batch: Records, step: int) -> Tensor:
        settings = {"sigma": SIGMA, "perturbations": COPIES, "seed": seed, "step": step}
        return -jit_paper_loss(student, batch, **settings)

    return _stepped(model, record(x), loss, RATE)


def adam(model: nn.Module, x: float, seed: int) -> nn.Module:
    """Down by Adam: 8 steps of 0.1 on the squared ratio with σ = 5; the best of those down."""
    noise = {"sigma": 5.0, "perturbations": COPIES, "seed": seed}
    how = {"learning_rate": 0.1, "adam": True, "squared": True}
    return jit_paper(model, Split(record(x, 8)), **how, **noise)


def one_branch(model: nn.Module, x: float, seed: int) -> nn.Module:
    """Down with the gradient through f(x) alone, as in the authors' code, but without its clamp."""

    def loss(student: nn.Module, batch: Records, step: int) -> Tensor:
        noise = SIGMA * normals(batch.ids, (COPIES, 1), seed=seed, step=step)[0]
        with torch.no_grad():
            held_still = student(batch.x + noise)
        return ((outputs(student, batch) - held_still).abs() / noise.abs()).mean()[None]

    return _stepped(model, record(x), loss, RATE / 50)


def library(model: nn.Module, x: float, seed: int) -> nn.Module:
    """``efface.methods.jit`` with its own settings."""
    return jit(model, Split(record(x)), seed=seed)


FORMS: dict[str, Form] = {
    "down": down,
    "up": up,
    "adam": adam,
    "one branch": one_branch,
    "jit": library,
}


def answers_of_the_code(points: list[float], seed: int) -> Float[Tensor, " n"]:
    """Outputs after ``jit_reference`` forgot these x as one batch: NaN, and why.

    It clamps noise to the batch's own range; of the maximum and the minimum x half of all draws are
    clamped to nothing, of a single x each is, and 0 / 0 follows.
    """
    forgotten = jit_reference(unit(), Split(records(points)), sigma=SIGMA, seed=seed)
    with torch.no_grad():
        return forgotten(torch.tensor(points)[:, None])[:, 0]


def _stepped(
    model: nn.Module,
    forget: Records,
    loss: Callable[[nn.Module, Records, int], Tensor],
    rate: float,
) -> nn.Module:
    """One plain step."""
    student = trainable_copy(model)
    optimizer = torch.optim.SGD(student.parameters(), lr=rate)
    return descend(student, loss, forget, optimizer=optimizer, steps=1, seed=0)
