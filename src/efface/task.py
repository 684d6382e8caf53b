"""What a model's outputs mean: multiclass, binary, multilabel, regression, or a task of one's own.

From (model, inputs) to the outputs that methods and metrics read, and their losses. A single
sigmoid unit is binary: two classes. The task is inferred from the labels: ``task_of``.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from efface.errors import InputError
from efface.runtime import map_chunks
from efface.types import Records, Task

# regression values from which their own standard deviation may be the scale of an error
MIN_VALUES = 10


def task_of(records: Records) -> Task:
    """What the model's outputs mean for these records: as given, or inferred from the labels.

    Raises InputError for regression with too few values to estimate their standard deviation.
    """
    if records.task is not None:
        return records.task
    if not records.y.dtype.is_floating_point:
        return multiclass if records.y.ndim == 1 else multilabel
    if len(records) < MIN_VALUES:
        wanted = f"a scale of the values, or at least {MIN_VALUES} records to estimate it from"
        remedy = "Give Records(…, task=efface.task.regression(scale=their standard deviation))."
        raise InputError(wanted, f"{len(records)} records", remedy)
    scale = records.y.cpu().double().reshape(len(records), -1).std(0)
    # a constant column has no scale of its own
    return regression(scale=[float(one) or 1.0 for one in scale])


def require_multiclass(kind: str) -> None:
    """Raise InputError for a task (by name) without classes, where classes are needed."""
    if kind != multiclass.name:
        wanted = "a multiclass task, for forget classes and wrong labels"
        raise InputError(wanted, kind, "Name the records alone, by ids or an expression.")


def outputs(model: nn.Module, batch: Records) -> Float[Tensor, " n k"]:
    """The model's outputs for a batch, one row a record. Raises InputError when there are none."""
    if batch.task is None and batch.y.dtype.is_floating_point:
        # a batch is too small for the scale, which only the loss needs
        return raw(model, batch.x)
    return task_of(batch).outputs(model, batch.x)


def predict(model: nn.Module, records: Records, *, batch_size: int = 256) -> Float[Tensor, " n k"]:
    """The outputs of a model in eval mode for all records, on the CPU, without gradients.

    Each of its modules is afterwards in the mode that it was in. Out of memory halves the batch and
    continues.
    """
    task, device = task_of(records), device_of(model)

    # chunk by chunk to the CPU: the outputs of a large holdout need not fit on the device
    def part(rows: Tensor) -> Tensor:
        return task.outputs(model, records.x[rows].to(device)).cpu()

    with torch.no_grad(), eval_mode(model):
        parts = list(map_chunks(part, torch.arange(len(records)), batch_size))
    return torch.cat(parts) if parts else torch.zeros(0, 1)


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards each module has the flag that it had, after an error too."""
    # flag by flag: model.train() would also switch parts that were in eval mode
    flags = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for part, training in flags:
            part.training = training


def raw(model: nn.Module, x: Float[Tensor, " n *features"]) -> Tensor:
    """The outputs as one row a record: the tensor itself, first of a tuple, or a mapping's logits.

    Inputs are cast to the model's dtype, outputs of half precision to float32. Raises InputError
    for the outputs of a detector, of a segmenter, or without logits, and says what to do.
    """
    if x.ndim == 4:  # noqa: PLR2004
        # convolutions run up to twice as fast on a CPU, and no slower on a GPU
        x = x.contiguous(memory_format=torch.channels_last)
    answer = model(x.to(dtype_of(model)))
    sequence = isinstance(answer, tuple | list)
    first = answer[0] if sequence and answer else None if sequence else answer
    # torchvision's detectors return a list of mappings, those of transformers a mapping
    if isinstance(first, dict) and {"boxes", "pred_boxes"} & set(first):
        raise _unsupported("boxes (object detection)")
    if isinstance(answer, dict):
        first = answer.get("logits", answer.get("out"))
    if not isinstance(first, Tensor):
        raise _unsupported(f"{type(first).__name__} without logits for {len(x)} records")
    if first.ndim > 2:  # noqa: PLR2004
        place = {3: "each place (a sequence)", 4: "each pixel"}.get(first.ndim, "each place")
        raise _unsupported(f"an output for {place} of shape {tuple(first.shape)}")
    if len(first) != len(x):
        raise _unsupported(f"{tuple(first.shape)} for {len(x)} records")
    rows = first if first.ndim == 2 else first.reshape(len(x), -1)  # noqa: PLR2004
    return rows.float() if rows.dtype in {torch.float16, torch.bfloat16} else rows


def _unsupported(came: str) -> InputError:
    return InputError(
        "a model that returns one row of numbers a record",
        came,
        "Segmentation, detection and sequences need outputs and a loss of your own: "
        "Records(…, task=efface.task.custom(name, outputs, loss)), see docs/tasks.md.",
    )


def outputs_in(model: nn.Module, shape: tuple[int, ...]) -> int | None:
    """How many numbers the model returns for one input of zeros; None where it fails on it.

    The model and the global random state are left as they were.
    """
    x = torch.zeros(1, *shape, device=device_of(model))
    devices = [x.device] if x.device.type == "cuda" else []
    with suppress(Exception), torch.no_grad(), torch.random.fork_rng(devices):
        return raw(frozen_teacher(model), x).shape[1]
    return None


def output_width(model: nn.Module, records: Records) -> int:
    """The number of outputs per record."""
    return predict(frozen_teacher(model), records.take([0])).shape[1]


def dtype_of(model: nn.Module) -> torch.dtype:
    """The dtype of the model's first floating-point weight; float32 for a model without any."""
    kinds = (w.dtype for w in model.parameters() if w.dtype.is_floating_point)
    return next(kinds, torch.float32)


def device_of(model: nn.Module) -> torch.device:
    """Where the model's weights are; the CPU for a model without any."""
    return next((weight.device for weight in model.parameters()), torch.device("cpu"))


def logits(model: nn.Module, x: Float[Tensor, " n *features"]) -> Float[Tensor, " n k"]:
    """The outputs before the softmax; a single sigmoid unit z becomes (0, z). Raises InputError."""
    rows = raw(model, x)
    return torch.cat([torch.zeros_like(rows), rows], 1) if rows.shape[1] == 1 else rows


def _softmax_divergence(reference: Tensor, answer: Tensor) -> Tensor:
    """KL(p ‖ q) of each record, in nats; a class of probability 0 in p adds nothing."""
    reference = reference.log_softmax(1)
    p = reference.exp()
    # 0 · log 0 would be nan
    own = torch.where(p > 0, p * reference, 0).sum(1)
    return own - (p * answer.log_softmax(1)).sum(1)


# One class of k; y: (n,) class ids. The loss is the cross-entropy in nats.
multiclass = Task(
    name="multiclass",
    outputs=logits,
    loss=lambda answer, y: functional.cross_entropy(answer, y, reduction="none"),
    divergence=_softmax_divergence,
    predict=lambda answer: answer.argmax(1),
    accuracy=lambda answer, y: (answer.argmax(1) == y).to(answer.dtype),
)


def _sigmoid_loss(answer: Tensor, y: Tensor) -> Tensor:
    y = y.to(answer.dtype)
    return functional.binary_cross_entropy_with_logits(answer, y, reduction="none").mean(1)


def _sigmoid_divergence(reference: Tensor, answer: Tensor) -> Tensor:
    """Mean over the labels of KL between two Bernoulli distributions, in nats."""
    p = reference.sigmoid()
    # logsigmoid of both signs: log(1 - p) would be -inf for a confident output
    own = p * functional.logsigmoid(reference) + (1 - p) * functional.logsigmoid(-reference)
    crossed = p * functional.logsigmoid(answer) + (1 - p) * functional.logsigmoid(-answer)
    return (own - crossed).mean(1)


# k labels, each 0 or 1, one sigmoid each; y: (n, k). Means over the labels.
multilabel = Task(
    name="multilabel",
    outputs=raw,
    loss=_sigmoid_loss,
    divergence=_sigmoid_divergence,
    predict=lambda answer: (answer > 0).to(torch.int64),
    accuracy=lambda answer, y: ((answer > 0) == (y > 0)).to(answer.dtype).mean(1),
)


def regression(*, scale: float | Sequence[float]) -> Task:
    """D values a record; y: (n,) or (n, d) float.

    ``scale``: the standard deviation of the values, one number or d. A loss is half the squared
    error in that unit; accuracy falls linearly from 1 without error to 0 at an error of ``scale``.
    """
    if not (torch.as_tensor(scale) > 0).all():
        remedy = "Give the standard deviation of the values."
        raise InputError("a scale above 0", str(scale), remedy)

    def error(answer: Tensor, y: Tensor) -> Tensor:
        return (answer - y.reshape(len(y), -1).to(answer)) / answer.new_tensor(scale)

    return Task(
        name="regression",
        outputs=raw,
        loss=lambda answer, y: 0.5 * error(answer, y).square().mean(1),
        divergence=lambda reference, answer: 0.5 * error(answer, reference).square().mean(1),
        predict=lambda answer: answer,
        accuracy=lambda answer, y: (1 - error(answer, y).abs().mean(1)).clamp_min(0),
    )


def custom(
    name: str,
    outputs: Callable[[nn.Module, Tensor], Tensor],
    loss: Callable[[Tensor, Tensor], Tensor],
) -> Task:
    """Any other task, by its outputs (n, k) and its loss (n,), which is 0 at its best.

    The divergence is half the squared distance of two outputs, a mean over k; accuracy is
    exp(-loss), so the guard's utility budget is one of that.
    """
    return Task(
        name=name,
        outputs=outputs,
        loss=loss,
        divergence=lambda reference, answer: 0.5 * (reference - answer).square().mean(1),
        predict=lambda answer: answer,
        accuracy=lambda answer, y: (-loss(answer, y)).exp(),
    )


def trainable_copy(model: nn.Module) -> nn.Module:
    """A copy in eval mode, so that buffers do not change; requires_grad as in ``model``."""
    student = copy.deepcopy(model)
    student.zero_grad(set_to_none=True)
    return student.eval()


def shared_view(model: nn.Module) -> nn.Module:
    """Modules of its own over the same weights and buffers, with modes and flags as in ``model``.

    It costs no memory. Gradients and flags are its own: setting them leaves ``model`` alone.
    """
    # deepcopy's memo: what it already holds is shared instead of copied
    shared: dict[int, object] = {id(buffer): buffer for buffer in model.buffers()}
    for weight in model.parameters():
        shared[id(weight)] = nn.Parameter(weight.detach(), requires_grad=weight.requires_grad)
    return copy.deepcopy(model, shared)


def frozen_teacher(model: nn.Module) -> nn.Module:
    """The model in eval mode without gradients: modules of its own over the same weights.

    It changes with the given model, and it costs no memory.
    """
    return shared_view(model).requires_grad_(requires_grad=False).eval()
