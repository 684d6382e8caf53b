"""Training for some epochs, as the methods do that start from the given model and go on with it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from efface.task import outputs, task_of
from efface.training import Loss, descend
from efface.types import Callback, Records, no_callback


def steps_an_epoch(records: Records, batch_size: int) -> int:
    """Steps in which each record is used once."""
    return -(-len(records) // batch_size)


def trained(
    student: nn.Module,
    loss: Loss,
    records: Records,
    *,
    optimizer: torch.optim.Optimizer,
    epochs: int,
    batch_size: int,
    training_mode: bool,
    seed: int,
    callback: Callback = no_callback,
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
            steps=epochs * steps_an_epoch(records, batch_size),
            seed=seed,
            callback=callback,
            batch_size=batch_size,
            micro_batch=batch_size if training_mode else 128,
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
    return task_of(batch).loss(outputs(student, batch), batch.y)


def with_one_adapter(records: Records) -> Records:
    """The records with their outputs' meaning said: a batch of few could not see it."""
    return replace(records, task=task_of(records)) if len(records) else records
