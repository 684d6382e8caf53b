"""What a model's outputs mean: multiclass, binary, multilabel, regression, or a task of one's own.

From (model, inputs) to the outputs that methods and metrics read, and their losses. A single
sigmoid unit is binary: two classes. The task is inferred from the labels: ``task_of``.
"""

import re
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from efface.errors import EffaceError, Hazard, InputError, abbreviate
from efface.runtime import (
    CONTIGUOUS,
    HALF,
    copy_model,
    fork_rng,
    is_out_of_memory,
    map_chunks,
    to_eval,
)
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
    if batch_statistics(model):
        # no chunk of a single record, which would have no statistics
        batch_size = next((n for n in range(batch_size, 2, -1) if len(records) % n != 1), 2)

    # chunk by chunk to the CPU: the outputs of a large holdout need not fit on the device
    def part(rows: Tensor) -> Tensor:
        return task.outputs(model, records.x[rows].to(device)).cpu()

    with torch.no_grad(), eval_mode(model):
        parts = list(map_chunks(part, torch.arange(len(records)), batch_size))
    return torch.cat(parts) if parts else torch.zeros(0, 1)


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards each module has the flag and the buffers that it had."""
    # flag by flag: model.train() would also switch parts that were in eval mode
    flags = [(part, part.training) for part in model.modules()]
    # some models write buffers in forward, in any mode
    buffers = [
        (part, name, buffer, buffer.clone())
        for part in model.modules()
        for name, buffer in part.named_buffers(recurse=False)
    ]
    model.eval()
    try:
        yield
    finally:
        for part, training in flags:
            part.training = training
        for part, name, buffer, value in buffers:
            if getattr(part, name) is not buffer or not buffer.equal(value):
                setattr(part, name, buffer.copy_(value))


def raw(model: nn.Module, x: Float[Tensor, " n *features"]) -> Tensor:
    """The outputs as one row a record, of which there may be one in a tuple or a mapping.

    Inputs are cast to the model's dtype, outputs of half precision to float32. Raises Hazard with
    the model's own error and its layer, and InputError for outputs that are not one row a record,
    such as a detector's, or where several tensors could be meant.
    """
    try:
        return _rows(model, x)
    except EffaceError:
        # squeeze() drops the batch dimension of a single record: two of them keep it
        if len(x) == 1 and not batch_statistics(model):
            with suppress(EffaceError):
                return _rows(model, torch.cat([x, x]))[:1]
        raise


def _rows(model: nn.Module, x: Tensor) -> Tensor:
    # convolutions run up to twice as fast on a CPU in channels_last, and no slower on a GPU
    fast = x.ndim == 4 and model not in CONTIGUOUS  # noqa: PLR2004
    laid = x.contiguous(memory_format=torch.channels_last) if fast else x
    # with one channel contiguous() leaves the strides of channels_last as they are
    layout = torch.preserve_format if fast else torch.contiguous_format
    try:
        with _refusing(model, x):
            # a copy: a model may work in place
            answer = model(laid.to(dtype_of(model), copy=True, memory_format=layout))
    except Hazard:
        if not fast:
            raise
    else:
        return _read_outputs(answer, len(x))
    # view(-1, n) after convolutions, say, needs the layout that data loaders make
    CONTIGUOUS.add(model)
    return _rows(model, x)


def check_layout(model: nn.Module, records: Records) -> None:
    """Note a model whose outputs depend on the layout of its inputs: it gets them contiguous."""
    probe = probe_batch(records).to(device_of(model))
    teacher = frozen_teacher(model)
    # a model that fails on the records is refused where that is looked at
    with suppress(EffaceError), torch.no_grad():
        fast = outputs(teacher, probe)
        CONTIGUOUS.add(teacher)
        if not torch.allclose(fast, outputs(teacher, probe), rtol=1e-2, atol=1e-3):
            CONTIGUOUS.add(model)


# A model's error, by what its text holds, and what to do.
REMEDIES = {
    "more than 1 value per channel": "BatchNorm uses the statistics of the batch there, and one "
    "record has none: give more records, or choose another method.",
    "argument": "Wrap the model in a module whose forward takes the inputs alone.",
    "size|shape|channel|dimension": "Give inputs of the shape that the model was trained on: look "
    "at --size and at the channels of --mean --std.",
    "": "Call model(x) on such a batch in eval mode, and mend what it raises.",
}


@contextmanager
def _refusing(model: nn.Module, x: Tensor) -> Iterator[None]:
    """Raise Hazard for an error of the model's own; out of memory is none."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error) or isinstance(error, EffaceError):
            raise
        raise _failed(model, x, error) from error


def _failed(model: nn.Module, x: Tensor, error: Exception) -> Hazard:
    """The refusal of a model that raises: the error's own words, and the layer it came from."""
    names = {id(module): name for name, module in model.named_modules() if name}
    frames = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    inside = [one for one in frames if id(one) in names]
    where = f" in layer {names[id(inside[-1])]} ({type(inside[-1]).__name__})" if inside else ""
    first = str(error).strip().splitlines() or [""]
    wanted = f"a model that computes outputs for inputs of shape {tuple(x.shape[1:])}"
    came = f"{type(error).__name__}{where}: {first[0].rstrip('.')}"
    return Hazard(wanted, came, next(r for key, r in REMEDIES.items() if re.search(key, first[0])))


def _read_outputs(answer: Any, n: int) -> Tensor:
    """The one tensor with a row for each of the n records; half precision as float32.

    It is what the model returns, a mapping's ``logits`` or ``out``, or the only part of a tuple or
    mapping that has such rows: of several, the first need not be the logits.
    """
    whole = answer._asdict() if hasattr(answer, "_asdict") else answer
    pairs = enumerate(whole) if isinstance(whole, tuple | list) else [("", answer)]
    parts: dict[Any, Any] = dict(whole if isinstance(whole, Mapping) else pairs)
    # torchvision's detectors return a list of mappings, those of transformers a mapping
    first = parts.get(0, parts)
    if isinstance(first, Mapping) and {"boxes", "pred_boxes"} & set(first):
        raise _unsupported("boxes (object detection)")
    tensors = {name: part for name, part in parts.items() if isinstance(part, Tensor)}
    named = [tensors[name] for name in ("logits", "out") if name in tensors]
    rows = [part for part in tensors.values() if _has_rows(part, n)]
    found = named[:1] or rows or [*tensors.values()]
    if not found:
        raise _unsupported(f"{type(answer).__name__} without logits for {n} records")
    if len(found) > 1:
        listed = abbreviate(f"{name} {tuple(part.shape)}" for name, part in tensors.items())
        came = f"a {type(answer).__name__} of several tensors: {listed}"
        raise _unsupported(came, "Wrap the model in a module that returns the logits alone.")
    output = found[0]
    if not output.is_floating_point():
        remedy = "Return logits, as the loss takes them, and not predictions."
        raise _unsupported(f"{output.dtype} numbers".removeprefix("torch."), remedy)
    if not _has_rows(output, n):
        places = {3: "each place (a sequence)", 4: "each pixel"}.get(output.ndim, "each place")
        shape = tuple(output.shape)
        if output.ndim > 2:  # noqa: PLR2004
            raise _unsupported(f"an output for {places} of shape {shape}")
        raise _unsupported(f"{shape} for {n} records")
    output = output.reshape(n, -1)
    return output.float() if output.dtype in HALF else output


def _has_rows(tensor: Tensor, n: int) -> bool:
    """Whether it holds one row of numbers a record, also as (n, k, 1, 1) or (n,)."""
    shape = tensor.shape
    return len(shape) > 0 and shape[0] == n and shape[2:].numel() == 1


CUSTOM = (
    "Segmentation, detection and sequences need outputs and a loss of your own: "
    "Records(…, task=efface.task.custom(name, outputs, loss)), see docs/tasks.md."
)


def _unsupported(came: str, remedy: str = CUSTOM) -> InputError:
    return InputError("a model that returns one row of numbers a record", came, remedy)


def batch_statistics(model: nn.Module) -> bool:
    """Whether a BatchNorm takes its statistics from the batch: a single record has none."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    return any(norm.training or norm.running_mean is None for norm in norms)


def outputs_in(model: nn.Module, shape: tuple[int, ...]) -> int | None:
    """How many numbers the model returns for an input of zeros; None where it fails on it.

    The model and the global random state are left as they were.
    """
    # two: some models cannot take a single record
    x = torch.zeros(2, *shape, device=device_of(model))
    with suppress(Exception), torch.no_grad(), fork_rng():
        return raw(frozen_teacher(model), x).shape[1]
    return None


def output_width(model: nn.Module, records: Records) -> int:
    """The number of outputs per record."""
    return predict(frozen_teacher(model), probe_batch(records)).shape[1]


def probe_batch(records: Records) -> Records:
    """Two records to look at a model's outputs with: the first and the last."""
    # not one: squeeze() would drop its batch dimension, and BatchNorm may need two
    return records.take([0, len(records) - 1])


def written_in_eval(model: nn.Module, records: Records) -> list[str]:
    """Names of the buffers that a forward pass in eval mode writes, such as a counter."""
    teacher = frozen_teacher(model)
    before = {name: buffer.clone() for name, buffer in teacher.named_buffers()}
    with torch.no_grad():
        outputs(teacher, probe_batch(records).to(device_of(teacher)))
    after = dict(teacher.named_buffers())
    return [name for name, was in before.items() if not torch.equal(after[name], was)]


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

    def own_outputs(model: nn.Module, x: Tensor) -> Tensor:
        with _refusing(model, x):
            return outputs(model, x)

    return Task(
        name=name,
        outputs=own_outputs,
        loss=loss,
        divergence=lambda reference, answer: 0.5 * (reference - answer).square().mean(1),
        predict=lambda answer: answer,
        accuracy=lambda answer, y: (-loss(answer, y)).exp(),
    )


def trainable_copy(model: nn.Module) -> nn.Module:
    """A copy in eval mode, so that buffers do not change; requires_grad as in ``model``."""
    student = copy_model(model)
    student.zero_grad(set_to_none=True)
    return to_eval(student)


def shared_view(model: nn.Module, *, buffers: bool = False) -> nn.Module:
    """Modules of its own over the same weights, with modes and flags as in ``model``.

    Gradients and flags are its own: setting them leaves ``model`` alone; so are the buffers, which
    a forward pass may write, unless ``buffers`` shares them too.
    """
    # deepcopy's memo: what it already holds is shared instead of copied
    shared: dict[int, object] = {id(buffer): buffer for buffer in model.buffers() if buffers}
    for weight in model.parameters():
        # no gradient goes through a weight that was made in inference mode, but through its copy
        data = weight.detach().clone() if weight.is_inference() else weight.detach()
        shared[id(weight)] = nn.Parameter(data, requires_grad=weight.requires_grad)
    return copy_model(model, shared)


def frozen_teacher(model: nn.Module) -> nn.Module:
    """The model in eval mode without gradients: modules of its own over the same weights.

    Its weights change with those of the given model, and it costs the memory of the buffers.
    """
    return to_eval(shared_view(model).requires_grad_(requires_grad=False))
