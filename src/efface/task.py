"""From (model, inputs) to the outputs that methods and scores read, and what these outputs mean.

One class of several (a single sigmoid unit is one of two), many labels, values, or a hook for
outputs and a loss of one's own. What records are is seen from their labels: ``task_of``.
"""

import copy
from collections.abc import Callable, Sequence
from contextlib import suppress

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from efface.errors import InputError
from efface.runtime import map_chunks
from efface.types import Records, Task

ENOUGH = 10
"""Values from which their own spread may be taken as the scale of an error."""


def task_of(records: Records) -> Task:
    """What the model's outputs mean for these records: said, or seen from the labels' form.

    Raises InputError for values of which too few are at hand to know their spread.
    """
    if records.task is not None:
        return records.task
    if not records.y.dtype.is_floating_point:
        return multiclass if records.y.ndim == 1 else multilabel
    if len(records) < ENOUGH:
        raise InputError(
            f"the spread of the values, or at least {ENOUGH} records to see it from",
            f"{len(records)} records",
            "Give Records(…, adapter=efface.task.values(scale=their standard deviation)).",
        )
    spread = records.y.cpu().double().reshape(len(records), -1).std(0)
    return regression(scale=[float(one) or 1.0 for one in spread])


def refuse_other_kinds(kind: str) -> None:
    """Raises InputError unless ``kind`` (an adapter's name) is one class of several."""
    if kind != multiclass.name:
        raise InputError(
            "one class of several, where a class leaves or labels are wrong",
            kind,
            "Name the records alone, by ids or an expression.",
        )


def outputs(model: nn.Module, batch: Records) -> Float[Tensor, " n k"]:
    """The model's outputs for a batch, one row a record. Raises InputError when there are none."""
    if batch.task is None and batch.y.dtype.is_floating_point:
        return raw(model, batch.x)  # the scale of values matters to their loss alone
    return task_of(batch).outputs(model, batch.x)


def predict(model: nn.Module, records: Records, *, batch_size: int = 256) -> Float[Tensor, " n k"]:
    """The outputs of a model in eval mode for all records, on the CPU, without gradients.

    Out of memory halves the batch and goes on.
    """
    task, device = task_of(records), device_of(model)

    def part(rows: Tensor) -> Tensor:
        return task.outputs(model, records.x[rows].to(device)).cpu()

    with torch.no_grad():
        found = list(map_chunks(part, torch.arange(len(records)), batch_size))
    return torch.cat(found) if found else torch.zeros(0, 1)


def raw(model: nn.Module, x: Float[Tensor, " n *features"]) -> Tensor:
    """The tensor in what a model answers: alone, first of a tuple, or ``logits`` of a mapping.

    Inputs are given the model's dtype, answers come back as float32 or wider. Raises InputError for
    the answers of a detector, of a segmenter, or without logits, and says what to do.
    """
    if x.ndim == 4:  # noqa: PLR2004
        # convolutions run up to twice as fast on a CPU, and no slower on a GPU
        x = x.contiguous(memory_format=torch.channels_last)
    answer = model(x.to(dtype_of(model)))
    _refuse_boxes(answer)
    if isinstance(answer, dict):
        answer = answer.get("logits", answer.get("out"))
    elif isinstance(answer, tuple | list):
        answer = answer[0] if answer else None
    if not isinstance(answer, Tensor):
        raise _unserved(f"{type(answer).__name__} without logits for {len(x)} records")
    if answer.ndim > 2:  # noqa: PLR2004
        what = {3: "an answer for each place (a sequence)", 4: "an answer for each pixel"}
        kind = what.get(answer.ndim, "an answer for each place")
        raise _unserved(f"{kind} of shape {tuple(answer.shape)}")
    if len(answer) != len(x):
        raise _unserved(f"{tuple(answer.shape)} for {len(x)} records")
    rows = answer if answer.ndim == 2 else answer.reshape(len(x), -1)  # noqa: PLR2004
    return rows.float() if rows.dtype in {torch.float16, torch.bfloat16} else rows


def _refuse_boxes(answer: object) -> None:
    """Detectors answer with boxes, as torchvision's lists of mappings or transformers' outputs."""
    first = answer[0] if isinstance(answer, tuple | list) and answer else answer
    if isinstance(first, dict) and {"boxes", "pred_boxes"} & set(first):
        raise _unserved("boxes (object detection)")


def _unserved(came: str) -> InputError:
    return InputError(
        "a model that answers with one row of numbers a record",
        came,
        "Segmentation, detection and sequences need outputs and a loss of your own: "
        "Records(…, adapter=Adapter(name, outputs, loss, …)), see docs/adapters.md.",
    )


def outputs_in(model: nn.Module, shape: tuple[int, ...]) -> int | None:
    """How many numbers the model answers with to one input of zeros; None where it fails on it.

    The model and the global random state are left as they were.
    """
    x = torch.zeros(1, *shape, device=device_of(model))
    devices = [x.device] if x.device.type == "cuda" else []
    with suppress(Exception), torch.no_grad(), torch.random.fork_rng(devices):
        return raw(frozen_teacher(model), x).shape[1]
    return None


def dtype_of(model: nn.Module) -> torch.dtype:
    """The dtype of the model's first floating-point weight; float32 for a model without any."""
    kinds = (w.dtype for w in model.parameters() if w.dtype.is_floating_point)
    return next(kinds, torch.float32)


def logits(model: nn.Module, x: Float[Tensor, " n *features"]) -> Float[Tensor, " n k"]:
    """The model's answer to ``x`` before the softmax; a single sigmoid unit z becomes (0, z).

    Raises InputError when the answer is not one row of numbers a record.
    """
    rows = raw(model, x)
    return torch.cat([torch.zeros_like(rows), rows], 1) if rows.shape[1] == 1 else rows


def _one_label_divergence(held: Tensor, answer: Tensor) -> Tensor:
    """KL(p ‖ q) of each record, in nats; a class of probability 0 in p adds nothing."""
    held = held.log_softmax(1)
    p = held.exp()
    own = torch.where(p > 0, p * held, 0).sum(1)
    return own - (p * answer.log_softmax(1)).sum(1)


multiclass = Task(
    name="multiclass",
    outputs=logits,
    loss=lambda answer, y: functional.cross_entropy(answer, y, reduction="none"),
    divergence=_one_label_divergence,
    predict=lambda answer: answer.argmax(1),
    accuracy=lambda answer, y: (answer.argmax(1) == y).to(answer.dtype),
)
"""One class of k; y: (n,) class ids. The loss is the cross-entropy in nats."""


def _many_labels_loss(answer: Tensor, y: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(
        answer, y.to(answer.dtype), reduction="none"
    ).mean(1)


def _many_labels_divergence(held: Tensor, answer: Tensor) -> Tensor:
    """Mean over the labels of KL between two coins, in nats."""
    p = held.sigmoid()
    own = p * functional.logsigmoid(held) + (1 - p) * functional.logsigmoid(-held)
    crossed = p * functional.logsigmoid(answer) + (1 - p) * functional.logsigmoid(-answer)
    return (own - crossed).mean(1)


multilabel = Task(
    name="multilabel",
    outputs=raw,
    loss=_many_labels_loss,
    divergence=_many_labels_divergence,
    predict=lambda answer: (answer > 0).to(torch.int64),
    accuracy=lambda answer, y: ((answer > 0) == (y > 0)).to(answer.dtype).mean(1),
)
"""k labels, each there or not, one sigmoid each; y: (n, k) of 0 and 1. Means over the labels."""


def regression(*, scale: float | Sequence[float]) -> Task:
    """Numbers, d a record (regression); y: (n,) or (n, d) float.

    ``scale`` is the spread of the values, one number or d: a loss is half the squared error in
    that unit, an answer is right (1) without error and wrong (0) from an error of ``scale`` on.
    """
    if not (torch.as_tensor(scale) > 0).all():
        raise InputError(
            "a scale above 0", str(scale), "Give the standard deviation of the values."
        )

    def apart(answer: Tensor, y: Tensor) -> Tensor:
        return (answer - y.reshape(len(y), -1).to(answer)) / answer.new_tensor(scale)

    return Task(
        name="regression",
        outputs=raw,
        loss=lambda answer, y: 0.5 * apart(answer, y).square().mean(1),
        divergence=lambda held, answer: 0.5 * apart(answer, held).square().mean(1),
        predict=lambda answer: answer,
        accuracy=lambda answer, y: (1 - apart(answer, y).abs().mean(1)).clamp_min(0),
    )


def custom(
    name: str,
    outputs: Callable[[nn.Module, Tensor], Tensor],
    loss: Callable[[Tensor, Tensor], Tensor],
) -> Task:
    """The hook for any other task: outputs (n, k) and a loss (n,) of one's own, 0 at its best.

    Two outputs are apart by half their squared distance, a mean over k; an answer is right by
    exp(-loss), so the guard's budget is a loss of that.
    """
    return Task(
        name=name,
        outputs=outputs,
        loss=loss,
        divergence=lambda held, answer: 0.5 * (held - answer).square().mean(1),
        predict=lambda answer: answer,
        accuracy=lambda answer, y: (-loss(answer, y)).exp(),
    )


def trainable_copy(model: nn.Module) -> nn.Module:
    """A copy that may change: eval mode, so that buffers stand still; gradients as in ``model``."""
    student = copy.deepcopy(model)
    student.zero_grad(set_to_none=True)
    return student.eval()


def shared_view(model: nn.Module) -> nn.Module:
    """Modules of its own over the same weights and buffers, with modes and flags as in ``model``.

    It costs no memory. Gradients and flags are its own: setting them leaves ``model`` alone.
    """
    shared: dict[int, object] = {}
    for weight in model.parameters():
        shared[id(weight)] = nn.Parameter(weight.detach(), requires_grad=weight.requires_grad)
    for buffer in model.buffers():
        shared[id(buffer)] = buffer
    return copy.deepcopy(model, shared)


def frozen_teacher(model: nn.Module) -> nn.Module:
    """The model held still: eval mode, no gradients; modules of its own over the same weights.

    It is the given model only as long as that stands still, and it costs no memory.
    """
    return shared_view(model).requires_grad_(requires_grad=False).eval()


def device_of(model: nn.Module) -> torch.device:
    """Where the model's weights are; the CPU for a model without any."""
    return next((weight.device for weight in model.parameters()), torch.device("cpu"))
