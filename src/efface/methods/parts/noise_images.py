"""Inputs made from noise: what a held model is made to answer by changing the input alone."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from efface.methods.parts.neighbours import normals
from efface.task import device_of
from efface.training import descend
from efface.types import Records, Task


class _Inputs(nn.Module):
    """The inputs as weights, so that the one training loop can change them."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.x = nn.Parameter(x)


def made_from_noise(
    teacher: nn.Module,
    like: Records,
    labels: Tensor,
    *,
    task: Task,
    sign: float,
    penalty: float,
    rate: float,
    steps: int,
    seed: int,
) -> Records:
    """One input for each of ``labels``, made from normal noise by Adam.

        N = argmin over N of the mean of sign · loss(f(N), label) + penalty · ‖N‖₂²

    With ``sign`` −1 the answers get as wrong as they can, with 1 as right. ``teacher`` is held
    still and in eval mode; ``like`` says what an input is. All inputs are in each step: an input
    depends on its place and on ``seed``, hardly on how many others there are.
    """
    names = tuple(f"noise {place}" for place in range(len(labels)))
    drawn = normals(names, tuple(like.x.shape[1:]), seed=seed, step=0)
    made = _Inputs(drawn.to(device_of(teacher)))
    places = torch.arange(len(labels)).to(drawn)[:, None]

    def loss(_: nn.Module, batch: Records, step: int) -> Tensor:  # noqa: ARG001
        own = made.x[batch.x[:, 0].long()]
        wrong = task.loss(task.outputs(teacher, own), batch.y)
        return sign * wrong + penalty * own.flatten(1).square().sum(1)

    descend(
        made,
        loss,
        Records(places, labels, names, task=task),
        optimizer=torch.optim.Adam(made.parameters(), lr=rate),
        steps=steps,
        seed=seed,
        batch_size=max(1, len(labels)),
    )
    return replace(like, x=made.x.detach().to(like.x), y=labels.to(like.y), ids=names, task=task)
