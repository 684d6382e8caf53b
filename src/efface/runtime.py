"""What a run needs of the machine: a device, threads, memory, half precision, a count of passes.

Device: ``resolve_device``. Threads: ``choose_threads``. Memory: ``estimate_memory`` before a run,
``map_chunks`` when there is too little: it halves the number of records that are processed at once,
and since every sum is over records, the result stays the same up to rounding. Precision: weights
change in float32 (``upcast_to_fp32``) and are evaluated as they will be written (``as_stored``),
because a small step is lost next to a weight of 8 (bfloat16) or 11 (float16) bits. Passes:
``PassCounter``. Models: ``check_model`` refuses those that cannot be copied and trained,
``copy_model`` copies the others, and ``isolated`` keeps a run and its caller's torch apart.
"""

import copy
import functools
import gc
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any, ParamSpec, TypeVar, cast
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from efface.errors import InputError

Part = TypeVar("Part")
P = ParamSpec("P")
HALF = {torch.float16, torch.bfloat16}
# Multiplications of a batch below which threads cost more than they share: 10 ms of one core.
SMALL = 1e8
# Messages of torch's allocators; only CUDA's has an exception class of its own.
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")

# Classes of modules that are no copy of themselves, or no modules inside, and what to give instead.
UNSERVED = {
    "ScriptModule": "Give the module that was scripted or traced, with the state_dict() of this.",
    "DistributedDataParallel": "Give the module in it: model.module.",
    "FullyShardedDataParallel": "Give the unsharded module, with its full state_dict().",
    "FSDPModule": "Give the unsharded module, with its full state_dict().",
    "DeepSpeedEngine": "Give the module in it: model.module.",
}


def check_model(model: object) -> None:
    """Raise InputError for a model that cannot be copied and trained as it is, saying why."""
    wanted = "a torch.nn.Module that can be copied and trained"
    if not isinstance(model, nn.Module):
        raise InputError(wanted, type(model).__name__, "Give the model itself.")
    for path, module in model.named_modules():
        # by name, also of base classes: importing them all would be slow, or fail
        for kind in {one.__name__ for one in type(module).__mro__} & set(UNSERVED):
            came = f"a {kind}" + (f" at {path}" if path else "")
            raise InputError(wanted, came, UNSERVED[kind])
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    if lazy := [name for name, tensor in named.items() if is_lazy(tensor)]:
        came = f"lazy layers without weights yet, such as {lazy[0]}"
        raise InputError(wanted, came, "Load the trained weights, or call model(x) once before.")
    if meta := [name for name, tensor in named.items() if tensor.is_meta]:
        came = f"weights without values, on the meta device, such as {meta[0]}"
        raise InputError(wanted, came, "Load the trained weights: load_state_dict(…, assign=True).")


class _WithoutGraph(TorchFunctionMode):
    """Copies a tensor that a forward pass left in a model without the graph that computed it.

    torch refuses to copy one: the weight that ``torch.nn.utils.weight_norm`` computes, or
    activations that a hook keeps.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            return memo.setdefault(id(tensor), tensor.detach().clone())
        return func(*args, **(kwargs or {}))


# Models that take images in the layout of data loaders alone, and their copies; by identity.
CONTIGUOUS: WeakSet[nn.Module] = WeakSet()


def copy_model(model: nn.Module, shared: dict[int, object] | None = None) -> nn.Module:
    """A deep copy, hooks and modes included; ``shared``: by id, what stands for a tensor in it.

    Raises InputError, naming the attribute, for a model that Python cannot copy.
    """
    try:
        with _WithoutGraph():
            copied = copy.deepcopy(model, shared)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        wanted, came = "a model that copy.deepcopy copies", f"{type(error).__name__}: {error}"
        remedy = "Remove it from the module for the run, or define __deepcopy__."
        raise InputError(wanted, f"{came} ({_uncopied(model)})", remedy) from error
    if model in CONTIGUOUS:
        CONTIGUOUS.add(copied)
    return copied


def _uncopied(model: nn.Module) -> str:
    """The attribute of a module that cannot be copied, by its path."""
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            # its parts have an entry of their own
            if name in {"_modules", "_parameters", "_buffers"}:
                continue
            try:
                with _WithoutGraph():
                    copy.deepcopy(value)
            except Exception:  # noqa: BLE001  # that is what is searched for
                return f"{path}.{name}".lstrip(".")
    return type(model).__name__


def to_eval(model: nn.Module) -> nn.Module:
    """The model itself, in eval mode, also where a ``train`` of its own returns nothing."""
    model.eval()
    return model


def fork_rng() -> AbstractContextManager[None]:
    """The global random state of every device is afterwards as it was."""
    count = torch.cuda.device_count() if torch.cuda.is_initialized() else 0
    return torch.random.fork_rng(range(count))


def isolated(function: Callable[P, Part]) -> Callable[P, Part]:
    """Run ``function`` apart from its caller's torch, which is as it was afterwards.

    Inside, gradients are on, autocast and another default device are off, compiled modules run
    uncompiled, and draws do not move the global random state.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> Part:
        with ExitStack() as stack:
            # gradients on, after no_grad too
            stack.enter_context(torch.inference_mode(mode=False))
            for kind in ("cpu", "cuda"):
                if torch.is_autocast_enabled(kind):
                    stack.enter_context(torch.autocast(kind, enabled=False))
            if torch.get_default_device().type != "cpu":
                stack.enter_context(torch.device("cpu"))
            # a compiled module has no second derivative, and each batch size would compile again;
            # nothing is compiled where the compiler was never imported
            if "torch._dynamo" in sys.modules:
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            stack.enter_context(fork_rng())
            return function(*args, **kwargs)

    return run


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Its parameters and persistent buffers themselves, tied ones under each name.

    ``state_dict()`` is what hooks make of them: names that differ, values that are no tensors.
    """
    state: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    for path, module in model.named_modules(remove_duplicate=False):
        omitted = module._non_persistent_buffers_set  # noqa: SLF001
        for name, buffer in module.named_buffers(recurse=False, remove_duplicate=False):
            if name not in omitted:
                state[f"{path}.{name}".lstrip(".")] = buffer
    return state


def resolve_device(name: str) -> torch.device:
    """The device of this name; ``auto`` is CUDA, else Apple's MPS, else the CPU.

    Raises InputError, listing what is available, for a device that torch does not have here.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    available = [*(kind for kind, here in present.items() if here), "cpu"]
    if name == "auto":
        return torch.device(available[0])
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    # torch accepts cuda:99 and fails at the first tensor
    count = torch.cuda.device_count() if device is not None and device.type == "cuda" else 1
    if device is None or device.type not in available or (device.index or 0) >= count:
        wanted = f"a device that torch has here: {', '.join(available)}"
        raise InputError(wanted, repr(name), "Use --device auto, or one of these.")
    return device


def choose_threads(model: nn.Module, forward: Callable[[], Any], *, records_at_once: int) -> int:
    """Threads for a run on the CPU: the physical cores of this process, or 1 for little work.

    ``forward`` is one record's forward pass. Little is a batch of fewer than ``SMALL``
    multiplications. ``OMP_NUM_THREADS`` comes first. It depends on model and machine and on no
    clock, since other threads round differently.
    """
    if "OMP_NUM_THREADS" in os.environ:
        return torch.get_num_threads()
    if _multiplications(model, forward) * records_at_once < SMALL:
        return 1
    from joblib import cpu_count

    # as this process may use them: affinity and the quota of a container count too
    return cpu_count(only_physical_cores=True)


def _multiplications(model: nn.Module, forward: Callable[[], Any]) -> int:
    """Those of the weights of linear and convolutional layers in one forward pass."""
    total = 0

    def count(module: nn.Module, _: Any, output: Any) -> None:
        nonlocal total
        # each output number is a product with one row of the weight
        products = cast("Tensor", module.weight)[0].numel()
        total += sum(tensor.numel() for tensor in _tensors([output])) * products

    weights = ((module, getattr(module, "weight", None)) for module in model.modules())
    weighted = [
        module for module, weight in weights if isinstance(weight, Tensor) and weight.ndim > 1
    ]
    hooks = [module.register_forward_hook(count) for module in weighted]
    try:
        with torch.no_grad():
            forward()
    finally:
        for hook in hooks:
            hook.remove()
    return total


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error means that an allocator had no more memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in OUT_OF_MEMORY)


def free_memory() -> None:
    """Release what a failed attempt still holds."""
    # exceptions leave reference cycles that hold tensors
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def map_chunks(function: Callable[[Tensor], Part], rows: Tensor, size: int) -> Iterator[Part]:
    """``function`` of ``rows``, at most ``size`` at a time; out of memory halves the size.

    The error is raised when a single row is too much.
    """
    while len(rows):
        part = rows[:size]
        try:
            result = function(part)
        except (RuntimeError, MemoryError) as error:
            if len(part) == 1 or not is_out_of_memory(error):
                raise
        else:
            yield result
            rows = rows[len(part) :]
            continue
        # after the except clause: until its end the traceback keeps the failed tensors in memory
        size = max(1, len(part) // 2)
        free_memory()


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that a run holds at its peak: models, activations of one step, records."""

    models_bytes: int
    activations_bytes: int
    records_bytes: int

    @property
    def total_bytes(self) -> int:
        """Their sum."""
        return self.models_bytes + self.activations_bytes + self.records_bytes

    def as_json(self) -> dict[str, int]:
        """As the manifest has it."""
        return {**asdict(self), "total_bytes": self.total_bytes}


def estimate_memory(
    model: nn.Module,
    forward: Callable[[], Tensor],
    *,
    copies: int,
    records_at_once: int,
    records: Iterable[Tensor],
) -> MemoryEstimate:
    """Estimate the peak of a run: the given model, ``copies`` more, activations and records.

    ``copies`` counts float32 states: student, gradients, optimizer, averages, the guard's last good
    one. Frozen weights have no gradient, so one state is counted without them. ``forward`` is a
    forward pass; what it saves for the backward pass counts ``records_at_once`` times per record.
    """
    # by identity: tied weights are stored once
    given = sum(t.nbytes for t in {id(t): t for t in state_of(model).values()}.values())
    # at least 4 bytes: half precision is trained in float32
    sizes = {w: w.numel() * max(4, w.element_size()) for w in model.parameters()}
    frozen = sum(size for weight, size in sizes.items() if not weight.requires_grad)
    activations = _saved_bytes(model, forward) * records_at_once
    models = given + copies * sum(sizes.values()) - frozen
    return MemoryEstimate(models, activations, sum(tensor.nbytes for tensor in records))


def _saved_bytes(model: nn.Module, forward: Callable[[], Tensor]) -> int:
    """Bytes that a forward pass saves for the backward pass per record, without the weights."""
    own = {w.untyped_storage().data_ptr() for w in (*model.parameters(), *model.buffers())}
    saved: dict[int, int] = {}
    # an address that is freed and used again would be counted as the same tensor
    alive = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        # by storage: views of one tensor are saved once
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = forward()
    return (sum(saved.values()) + output.nbytes) // len(output)


def upcast_to_fp32(model: nn.Module) -> nn.Module:
    """The model itself or, if a tensor is of half precision, a float32 copy."""
    kinds = {tensor.dtype for tensor in state_of(model).values()}
    return copy_model(model).float() if kinds & HALF else model


@torch.no_grad()
def as_stored(
    student: nn.Module,
    model: nn.Module,
    stored: Mapping[str, torch.dtype] | None = None,
    given: Collection[str] = (),
) -> nn.Module:
    """A clean copy of the model with the student's state, each tensor rounded as it is written.

    The tensors named in ``given`` stay as the model has them.
    """
    state, stored = student.state_dict(), stored or {}
    written = to_eval(copy_model(model))
    for name, tensor in written.state_dict().items():
        # a module's extra state may be anything, and stays as it was
        if isinstance(tensor, Tensor) and name not in given:
            tensor.copy_(state[name].to(stored.get(name, tensor.dtype)))
    return written


def cast_like(old: Tensor, new: Tensor) -> Tensor:
    """``new`` on the CPU in the dtype of ``old``; unchanged numbers keep their exact bits.

    A float64 weight goes through a float32 model rounded: it is written so only if it changed.
    """
    new = new.detach().cpu()
    if is_lossless(old, new):
        return new.to(old.dtype)
    old = old.detach()
    return torch.where(new == old.to(new.dtype), old, new.to(old.dtype))


def tie_like(old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``new``, where names that share memory in ``old`` share it again if their values agree."""
    first: dict[tuple[Any, ...], Tensor] = {}
    tied = {}
    for name, tensor in new.items():
        was = old[name]
        place = (was.data_ptr(), was.dtype, was.shape, was.stride())
        # an empty or meta tensor has no address: it is tied to nothing
        twin = first.setdefault(place, tensor) if was.data_ptr() else tensor
        tied[name] = twin.detach() if twin is not tensor and twin.equal(tensor) else tensor
    return tied


def is_lossless(old: Tensor, new: Tensor) -> bool:
    """Whether each number in the dtype of ``old`` survives the way through the dtype of ``new``."""
    if old.dtype == new.dtype:
        return True
    kinds = (old.dtype, new.dtype)
    # finfo has no integers: only equal dtypes are lossless for them
    narrow, wide = (torch.finfo(kind).bits if kind.is_floating_point else 0 for kind in kinds)
    return 0 < narrow < wide


def nonfinite_tensors(state: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that contain nan or inf."""
    return [name for name, tensor in state.items() if not _is_finite(tensor)]


def _is_finite(tensor: Tensor) -> bool:
    if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.is_quantized:
        return True
    # float8 has no isfinite; in portions, since the mask of a whole tensor is as large again
    wide = tensor.float() if tensor.element_size() == 1 else tensor
    return all(bool(part.isfinite().all()) for part in wide.reshape(-1).split(2**20))


@dataclass(frozen=True)
class Passes:
    """Records that went through a model forward and backward, each counted once per pass."""

    forward: int
    backward: int

    @property
    def total(self) -> int:
        """Their sum."""
        return self.forward + self.backward


class PassCounter:
    """A copy of a model, ``model``, whose passes are counted, as are those of its copies."""

    def __init__(self, model: nn.Module) -> None:
        self.forward, self.backward = 0, 0

        # closures: a bound method would be deep-copied, and the counter with it, with each model
        def count_backward(gradient: Any) -> None:
            self.backward += len(gradient)

        def count_forward(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            count = len(next(_tensors([*args, *kwargs.values()])))
            self.forward += count
            for tensor in _tensors([output]):
                # under no_grad there is no backward pass to count
                if tensor.requires_grad and tensor.ndim and len(tensor) == count:
                    tensor.register_hook(count_backward)
                    return

        self._hook = count_forward
        self.model = self.attach(copy_model(model))

    def attach(self, model: nn.Module) -> nn.Module:
        """Count what goes through this model and its copies too; returns it."""
        model.register_forward_hook(self._hook, with_kwargs=True)
        return model

    def detach(self, model: nn.Module) -> nn.Module:
        """Count a copy of a counted model no longer; returns it."""
        # PEFT's model has the counted one inside
        for module in model.modules():
            hooks = module._forward_hooks  # noqa: SLF001  # the handle belongs to the copied model
            for key in [key for key, hook in hooks.items() if hook is self._hook]:
                del hooks[key], module._forward_hooks_with_kwargs[key]  # noqa: SLF001
        return model

    @property
    def passes(self) -> Passes:
        """What was counted so far."""
        return Passes(self.forward, self.backward)


@contextmanager
def watch_passes(models: Iterable[nn.Module], seen: Callable[[int], Any]) -> Iterator[None]:
    """Call ``seen`` with the records that went forward through these models and their copies."""
    total = 0

    def hook(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:  # noqa: ARG001
        nonlocal total
        total += len(next(_tensors([*args, *kwargs.values()]), ()))
        seen(total)

    handles = [model.register_forward_hook(hook, with_kwargs=True) for model in models]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors in a call's arguments or output, also in a tuple or a mapping."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Mapping):
            yield from _tensors(value.values())
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
