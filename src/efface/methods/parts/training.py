"""Training for some epochs, as the methods do that start from the given model and go on with it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from efface.adapters import adapter_of, outputs
from efface.steps import Loss, descend
from efface.types import Records, Watch, carry_on


def steps_an_epoch(records: Records, records_per_step: int) -> int:
    """Steps in which each record is used once."""
    return -(-len(records) // records_per_step)


def trained(
    student: nn.Module,
    loss: Loss,
    records: Records,
    *,
    optimizer: torch.optim.Optimizer,
    epochs: int,
    records_per_step: int,
    training_mode: bool,
    seed: int,
    watch: Watch = carry_on,
) -> nn.Module:
    """The student after ``epochs`` passes over the records, in eval mode.

    In train mode dropout draws from ``seed`` and BatchNorm takes its statistics from whole steps,
    where memory holds them; else both stand still.
    """
    with training(student, seed) if training_mode else _as_it_is():
        descend(
            student,
            loss,
            records,
            optimizer=optimizer,
            steps=epochs * steps_an_epoch(records, records_per_step),
            seed=seed,
            watch=watch,
            records_per_step=records_per_step,
            micro_batch=records_per_step if training_mode else 128,
        )
    return student.eval()


@contextmanager
def training(student: nn.Module, seed: int) -> Iterator[None]:
    """Train mode within, random numbers from ``seed``; the host's random state is left alone.

    BatchNorm of which no weight may move stays as it is, buffers included.
    """
    student.train()
    for module in student.modules():
        weights = list(module.parameters(recurse=False))
        if isinstance(module, _BatchNorm) and weights:
            module.train(any(weight.requires_grad for weight in weights))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
    student.eval()


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield


def own_loss(student: nn.Module, batch: Records, step: int) -> Tensor:  # noqa: ARG001
    """What training made small, of each record."""
    return adapter_of(batch).loss(outputs(student, batch), batch.y)


def with_one_adapter(records: Records) -> Records:
    """The records with their outputs' meaning said: a batch of few could not see it."""
    return replace(records, adapter=adapter_of(records)) if len(records) else records
