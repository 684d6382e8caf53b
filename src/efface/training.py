"""The only training loop: losses are means over records, shared by any number of processes.

``descend`` takes steps and ``mean_gradient`` takes none; ``train_epochs`` is "a loss and an
optimizer for k epochs", those of a ``Schedule``; ``Trainer`` runs single epochs of several kinds
under one callback, and ``stop_when`` ends a run early. ``train_mode`` switches dropout and
BatchNorm on; ``task_loss`` is what the model was trained with; ``Muon`` is for few, large steps.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from efface.runtime import HALF, free_memory, is_out_of_memory, to_eval
from efface.task import batch_statistics, device_of, outputs, task_of
from efface.types import Action, Callback, Records, no_callback

if TYPE_CHECKING:
    from accelerate import PartialState

# ``loss(student, batch, step)``: one number per record of the batch, shape (m,)
Loss = Callable[[nn.Module, Records, int], Float[Tensor, " m"]]

# records of a step that are on the device at once
MICRO_BATCH = 128

# ``rate(loss, gradient_norm)``: the learning rate of the step that is about to be taken
Rate = Callable[[float, float], float]


def descend(
    student: nn.Module,
    loss: Loss,
    records: Records,
    optimizer: Optimizer,
    *,
    steps: int,
    seed: int,
    callback: Callback = no_callback,
    batch_size: int = 128,
    micro_batch: int | None = None,
    clip_norm: float | None = None,
    rate: Rate | None = None,
    first_step: int = 0,
) -> nn.Module:
    """Train ``student`` in place, steps ``first_step`` to ``steps``, on the mean of ``loss``.

    Records come in a new seeded order each epoch. A step is cut into micro-batches and shared among
    the processes that ``accelerate launch`` started; neither changes the sum. A micro-batch is of
    128 records or, in training mode, the whole step where memory allows: BatchNorm takes its
    statistics from it. Out of memory halves it from there on, and the step is repeated. On
    HALVE_LR, ``callback`` has restored the student, and the same records are tried again at half
    the learning rate. ``rate`` sets the learning rate of each step from its mean loss and gradient
    norm.
    """
    step, share = first_step, 1.0
    micro = micro_batch or _micro_batch(student, batch_size)
    # a single record has no statistics of its own
    minimum = 2 if batch_statistics(student) else 1
    # a while loop: a refused step is tried again with the same rows
    while step < steps and len(records):
        batch = records.take(_batch_rows(step, len(records), batch_size, seed, minimum))
        value, micro = _backward(student, loss, batch, step, micro)
        # clipped after the sum over micro-batches and processes, as without them
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(student.parameters(), clip_norm)
        if rate is not None:
            gradients = [w.grad for w in student.parameters() if w.grad is not None]
            norm = float(nn.utils.get_total_norm(gradients))
            for group in optimizer.param_groups:
                # share: halvings last, although the rate is computed again each step
                group["lr"] = share * rate(value, norm)
        optimizer.step()
        # before the callback: the guard needs the memory that gradients take
        optimizer.zero_grad(set_to_none=True)
        action = callback(student, value)
        if action is Action.STOP:
            break
        if action is not Action.CONTINUE:
            share *= 0.5
            for group in optimizer.param_groups:
                group["lr"] *= 0.5
            # momentum would carry on the step that was just undone
            optimizer.state.clear()
        step += action is Action.CONTINUE
    return student


def mean_gradient(student: nn.Module, loss: Loss, records: Records) -> list[Tensor | None]:
    """The gradient of the mean loss over all records, one tensor per weight, None if frozen.

    Shared among processes as a step is; no gradient is left in the student.
    """
    _backward(student, loss, records, 0, _micro_batch(student, len(records)))
    gradients = [weight.grad for weight in student.parameters()]
    student.zero_grad(set_to_none=True)
    return gradients


def _micro_batch(student: nn.Module, step_size: int) -> int:
    """Records at once: the whole step, two at least, where a record may depend on the others."""
    together = student.training or batch_statistics(student)
    return max(step_size, 2) if together else MICRO_BATCH


def steps_per_epoch(records: Records, batch_size: int) -> int:
    """Steps in which each record is used once; the last may be smaller."""
    return -(-len(records) // batch_size)


@dataclass(frozen=True)
class Schedule:
    """How long to train and in what steps: the arguments of ``train_epochs`` that settings name."""

    epochs: int
    batch_size: int
    seed: int
    callback: Callback = no_callback
    training_mode: bool = False


def train_epochs(
    student: nn.Module, loss: Loss, records: Records, optimizer: Optimizer, schedule: Schedule
) -> nn.Module:
    """Train ``student`` in place for some passes over the records; returned in eval mode.

    In training mode dropout draws from the seed, and BatchNorm takes its statistics from each step.
    """
    how: dict[str, Any] = {"seed": schedule.seed, "batch_size": schedule.batch_size}
    steps = schedule.epochs * steps_per_epoch(records, schedule.batch_size)
    with train_mode(student, schedule.seed, enabled=schedule.training_mode):
        descend(student, loss, records, optimizer, steps=steps, callback=schedule.callback, **how)
    return to_eval(student)


class Trainer:
    """Single epochs, each with its own loss and records, of one student under one callback.

    Once the callback has answered STOP, ``stopped`` is True and further epochs do nothing.
    """

    def __init__(self, student: nn.Module, *, seed: int, callback: Callback) -> None:
        self.student, self.stopped = student, False
        self._seed, self._callback = seed, callback

    def run_epoch(
        self,
        loss: Loss,
        records: Records,
        optimizer: Optimizer,
        *,
        batch_size: int,
        epoch: int = 0,
        **options: Any,
    ) -> None:
        """One pass over the records, in the order that ``epoch`` and the seed draw.

        ``options`` are further ones of ``descend``.
        """
        if self.stopped:
            return
        steps = steps_per_epoch(records, batch_size)
        how: dict[str, Any] = {"seed": self._seed, "batch_size": batch_size, **options}
        how |= {"first_step": epoch * steps, "steps": (epoch + 1) * steps}
        descend(self.student, loss, records, optimizer, callback=self._observe, **how)

    def _observe(self, student: nn.Module, loss: float) -> Action:
        action = self._callback(student, loss)
        self.stopped = action is Action.STOP
        return action


@contextmanager
def train_mode(student: nn.Module, seed: int, *, enabled: bool = True) -> Iterator[None]:
    """Training mode inside, random numbers from ``seed``; the global random state is restored.

    BatchNorm whose weights are all frozen stays in eval mode, so its buffers do not change.
    """
    if not enabled:
        yield
        return
    student.train()
    # frozen BatchNorm in training mode would still update its running statistics
    for module in student.modules():
        weights = list(module.parameters(recurse=False))
        if isinstance(module, _BatchNorm) and weights:
            module.train(any(weight.requires_grad for weight in weights))
    # dropout has no generator argument: it draws from the global state
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
    to_eval(student)


def sgd(
    student: nn.Module, learning_rate: float, momentum: float = 0.0, weight_decay: float = 0.0
) -> torch.optim.SGD:
    """SGD for all weights of the student."""
    weights = student.parameters()
    return torch.optim.SGD(weights, learning_rate, momentum, weight_decay=weight_decay)


class Muon(Optimizer):
    """Momentum, orthogonalised: steepest descent under the spectral norm, for few and large steps.

    A weight of two or more dimensions is a matrix of its first dimension by all others (so is a
    convolution). With gradient G, M = μ M + G and U = G + μ M (Nesterov), its step is

        W ← W − η · √max(1, rows / columns) · orthogonalise(U),

    in which every singular value of U is near 1, whatever its size. A vector moves by
    η / 10 · U / ‖U‖. No weight decay. Keller Jordan, https://kellerjordan.github.io/posts/muon/

    ``torch.optim.Muon`` is not taken: it refuses what is not 2-D, decays weights by default, and
    computes in bfloat16, where a change of 1e-6 of one record's gradient, which micro-batches and
    processes make, moves the step by percents.

    Args:
        weights: those that are to move; one without a gradient stays.
        lr: η; with ``descend(rate=…)`` or ``linear_decay`` it may change from step to step.
        momentum: μ, 0 to 1.
    """

    def __init__(self, weights: Iterable[Tensor], lr: float, momentum: float = 0.9) -> None:
        super().__init__(weights, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """Move every weight that has a gradient."""
        for group in self.param_groups:
            for weight in (one for one in group["params"] if one.grad is not None):
                own = self.state[weight]
                own["momentum"] = group["momentum"] * own.get("momentum", 0) + weight.grad
                update = weight.grad + group["momentum"] * own["momentum"]
                if weight.ndim < 2:  # noqa: PLR2004
                    # a tenth: biases and norms shift whole channels
                    weight.sub_(0.1 * group["lr"] * update / (update.norm() + 1e-7))
                    continue
                step = orthogonalise(update.flatten(1)).reshape(weight.shape)
                scale = max(1.0, weight.shape[0] / weight[0].numel()) ** 0.5
                weight.sub_(group["lr"] * scale * step)


def orthogonalise(matrix: Float[Tensor, "r c"]) -> Float[Tensor, "r c"]:
    """U Vᵀ of the singular value decomposition, roughly: singular values of 0.7 to 1.2, not of 1.

    Five Newton-Schulz iterations with Jordan's coefficients; singular values below a thousandth of
    the Frobenius norm stay smaller. Half precision is computed in float32.
    """
    wide = matrix.float() if matrix.dtype in HALF else matrix
    # the smaller of the two products; the norm bounds the largest singular value by 1
    x = (wide.T if len(wide) > wide.shape[1] else wide) / (wide.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return (x.T if len(wide) > wide.shape[1] else x).to(matrix.dtype)


def linear_decay(callback: Callback, optimizer: Optimizer, steps: int) -> Callback:
    """The callback; each accepted step lowers the learning rate by 1 / ``steps`` of the first."""
    left = steps

    def after(student: nn.Module, loss: float) -> Action:
        nonlocal left
        action = callback(student, loss)
        if action is Action.CONTINUE:
            left -= 1
            for group in optimizer.param_groups:
                # a factor, so that what a refusal halved stays halved
                group["lr"] *= left / (left + 1)
        return action

    return after


def stop_when(callback: Callback, done: Callable[[nn.Module, float], bool]) -> Callback:
    """The callback's action; STOP where ``done(student, loss)`` holds after an accepted step."""

    def after(student: nn.Module, loss: float) -> Action:
        action = callback(student, loss)
        # a refused step is repeated: it must not be judged, nor counted
        return Action.STOP if action is Action.CONTINUE and done(student, loss) else action

    return after


def task_loss(student: nn.Module, batch: Records, step: int) -> Tensor:  # noqa: ARG001
    """The task's own training loss, one number per record."""
    return task_of(batch).loss(outputs(student, batch), batch.y)


def with_task(records: Records) -> Records:
    """The records with their task set: a batch may be too small to see regression's scale."""
    return replace(records, task=task_of(records)) if len(records) else records


def _batch_rows(step: int, total: int, batch_size: int, seed: int, minimum: int = 1) -> Tensor:
    """The rows of one step; the rows of an epoch's steps are a permutation of all rows.

    A step of fewer than ``minimum`` rows is filled with the next ones, or the epoch's first.
    """
    epoch, place = divmod(step, -(-total // batch_size))
    # from seed and epoch alone, so that a run may start at any step
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(total, generator=generator)
    start = place * batch_size
    return order.roll(-start)[: max(minimum, min(batch_size, total - start))]


def _backward(
    student: nn.Module, loss: Loss, batch: Records, step: int, micro: int
) -> tuple[float, int]:
    """Leave the gradient of the mean loss in the student; returns that mean and the micro-batch."""
    while True:
        try:
            total = _accumulate(student, loss, batch, step, micro)
        except (RuntimeError, MemoryError) as error:
            if micro == 1 or not is_out_of_memory(error):
                raise
        else:
            return _sum_over_processes(student, total), micro
        # after the except clause: until its end the traceback keeps the failed graph in memory
        student.zero_grad(set_to_none=True)
        micro = max(1, min(micro, len(batch)) // 2)
        free_memory()


def _accumulate(
    student: nn.Module, loss: Loss, batch: Records, step: int, micro: int
) -> Float[Tensor, ""]:
    """This process's share of the mean loss; its gradient is added to the student's."""
    device = device_of(student)
    batch, state, total = batch.to(device), _processes(device), torch.zeros((), device=device)
    # strided: shares differ by one record at most, and may be empty
    own = torch.arange(len(batch))[state.process_index :: state.num_processes]
    for rows in own.split(micro) if len(own) else ():
        # divided by the whole step, not by the part: the sum is the same however it is cut
        part_loss = loss(student, batch.take(rows), step).sum() / len(batch)
        part_loss.backward()
        total = total + part_loss.detach()
    return total


def _processes(device: torch.device) -> "PartialState":
    from accelerate import PartialState

    # without ``cpu`` accelerate would claim a GPU for a model that is on the CPU
    return PartialState(cpu=device.type == "cpu")


def _sum_over_processes(student: nn.Module, total: Tensor) -> float:
    """Sum all gradients and the loss in one call, so that every process takes the same step."""
    if _processes(device_of(student)).num_processes > 1:
        from accelerate.utils import reduce

        weights = [weight for weight in student.parameters() if weight.requires_grad]
        # a process without records has no gradients, but has to take part in the sum
        flat = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
        # the loss rides along: one call, and every process returns the same float
        joined = torch.cat([g.reshape(-1) for g in flat] + [total.reshape(1).to(flat[0].dtype)])
        joined = reduce(joined, reduction="sum")
        *parts, total = joined.split([*(w.numel() for w in weights), 1])  # type: ignore[union-attr]
        for weight, part in zip(weights, parts, strict=True):
            weight.grad = part.reshape(weight.shape).clone()
    return float(total)
