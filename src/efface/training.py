"""The only training loop: per-record means, any number of processes, a guard after each step."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.memory import is_out_of_memory, make_room
from efface.task import device_of
from efface.types import Action, Callback, Records, no_callback

if TYPE_CHECKING:
    from accelerate import PartialState

Loss = Callable[[nn.Module, Records, int], Float[Tensor, " m"]]
"""``loss(student, batch, step)``: one number a record of the batch."""

Rate = Callable[[float, float], float]
"""``rate(loss, gradient_norm)``: the learning rate of the step that is about to be taken."""


def descend(
    student: nn.Module,
    loss: Loss,
    records: Records,
    *,
    optimizer: torch.optim.Optimizer,
    steps: int,
    seed: int,
    callback: Callback = no_callback,
    batch_size: int = 128,
    micro_batch: int = 128,
    clip_norm: float | None = None,
    rate: Rate | None = None,
    first_step: int = 0,
) -> nn.Module:
    """Change ``student`` by ``steps`` steps down the mean of ``loss`` over the records of a step.

    Records come in a fresh seeded order each epoch. A step is cut into micro-batches and shared
    among the processes that ``accelerate launch`` started: neither changes the sum. Out of memory
    halves the micro-batch from there on, and the step is taken anew. When ``callback``
    answers HALVE it has put the student back; the same records are tried at half the learning rate.
    ``rate`` sets the learning rate of each step anew, from the mean loss and the gradient's norm.
    """
    step, share = first_step, 1.0
    while step < steps and len(records):
        batch = records.take(_rows_of(step, len(records), batch_size, seed))
        value, micro_batch = _gradients(student, loss, batch, step, micro_batch)
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(student.parameters(), clip_norm)
        if rate is not None:
            _set_rate(optimizer, share * rate(value, _gradient_norm(student)))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        verdict = callback(student, value)
        if verdict is Action.STOP:
            break
        if verdict is Action.HALVE_LR:
            share *= 0.5
            _halve(optimizer)
            continue
        step += 1
    return student


def mean_gradient(
    student: nn.Module, loss: Loss, records: Records, *, micro_batch: int = 128
) -> list[Tensor | None]:
    """The gradient of the mean loss over all records, one tensor a weight.

    None for a weight that may not move; none is left in the student. Shared among processes as a
    step is.
    """
    _gradients(student, loss, records, 0, micro_batch)
    found = [weight.grad for weight in student.parameters()]
    student.zero_grad(set_to_none=True)
    return found


def _rows_of(step: int, total: int, per_step: int, seed: int) -> Tensor:
    """The rows of one step; the rows of an epoch's steps are a permutation of all rows."""
    steps_an_epoch = -(-total // per_step)
    epoch, place = divmod(step, steps_an_epoch)
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(total, generator=generator)
    return order[place * per_step : (place + 1) * per_step]


def _gradients(
    student: nn.Module, loss: Loss, batch: Records, step: int, micro: int
) -> tuple[float, int]:
    """Leave the gradient of the step's mean loss in the student; that mean, and the micro-batch."""
    while True:
        try:
            total = _accumulated(student, loss, batch, step, micro)
        except (RuntimeError, MemoryError) as error:
            if micro == 1 or not is_out_of_memory(error):
                raise
            total = None
        if total is not None:
            return _summed_over_processes(student, total), micro
        student.zero_grad(set_to_none=True)
        micro = max(1, min(micro, len(batch)) // 2)
        make_room()


def _accumulated(
    student: nn.Module, loss: Loss, batch: Records, step: int, micro: int
) -> Float[Tensor, ""]:
    """This process's share of the mean loss, its gradient in the student."""
    device = device_of(student)
    total = torch.zeros((), device=device)
    for part in _share(batch.to(device), micro):
        part_loss = loss(student, part, step).sum() / len(batch)
        part_loss.backward()
        total = total + part_loss.detach()
    return total


def _share(batch: Records, micro: int) -> Iterator[Records]:
    """This process's records of a step, in micro-batches; none when records are fewer."""
    state = _processes(batch.x.device)
    rows = torch.arange(len(batch))[state.process_index :: state.num_processes]
    for part in rows.split(micro) if len(rows) else ():
        yield batch.take(part)


def _processes(device: torch.device) -> "PartialState":
    """The processes that share a step; told of the CPU, since it takes a GPU for granted else."""
    from accelerate import PartialState

    return PartialState(cpu=device.type == "cpu")


def _summed_over_processes(student: nn.Module, total: Tensor) -> float:
    """One sum for all gradients and the loss: every process then takes the same step."""
    if _processes(device_of(student)).num_processes > 1:
        from accelerate.utils import reduce

        weights = [weight for weight in student.parameters() if weight.requires_grad]
        flat = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
        joined = torch.cat([g.reshape(-1) for g in flat] + [total.reshape(1).to(flat[0].dtype)])
        joined = reduce(joined, reduction="sum")
        sizes = [w.numel() for w in weights]
        *parts, last = joined.split([*sizes, 1])  # type: ignore[union-attr]
        for weight, part in zip(weights, parts, strict=True):
            weight.grad = part.reshape(weight.shape).clone()
        return float(last)
    return float(total)


def _gradient_norm(student: nn.Module) -> float:
    gradients = [weight.grad for weight in student.parameters() if weight.grad is not None]
    return float(nn.utils.get_total_norm(gradients))


def _set_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def _halve(optimizer: torch.optim.Optimizer) -> None:
    """Half the learning rate, and no momentum from the step that was taken back."""
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] * 0.5
    optimizer.state.clear()
