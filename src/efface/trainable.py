"""Which weights may change: all, those of the last layers, of the norms, or a LoRA adapter.

It belongs to the request and not to a method: a method copies the model that it is given, and what
has no gradient there stays as it is, bit for bit.
"""

import math
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from efface.errors import InputError, import_extra
from efface.runtime import copy_model, fork_rng, to_eval
from efface.task import device_of, frozen_teacher, outputs, shared_view
from efface.types import Records

# each choice, and what a model must have for it
TRAINABLE = {
    "all": "weights",
    "last-layers": "weights in the last layers",
    "norm": "normalisation layers with weights",
    "adapter": "a linear layer besides the output, called as a module and not tied",
}

# One in so many layers, those used last, is trainable as ``last-layers``.
SHARE = 3

# Of an adapter, PEFT's own default. Its scale is 2: at √3, with PEFT's first weights, a step moves
# a layer as far as a step of the layer's own weights, in the directions that the rank has.
RANK = 8

# Class names of normalisation layers: torch's, and those that transformers and timm define.
NORM = re.compile(r"(batch|layer|group|instance|rms)norm", re.IGNORECASE)


def check_trainable(trainable: str, *, keep_adapter: bool = False) -> None:
    """Raise InputError for an unknown choice, and where there will be no adapter to keep.

    Raises MissingExtra for an adapter without PEFT.
    """
    if trainable not in TRAINABLE:
        wanted = f"trainable out of {', '.join(TRAINABLE)}"
        raise InputError(wanted, repr(trainable), "Choose one of these.")
    if keep_adapter and trainable != "adapter":
        remedy = "Give --trainable adapter, or omit --keep-adapter."
        wanted = "--trainable adapter with --keep-adapter"
        raise InputError(wanted, f"--trainable {trainable}", remedy)
    if trainable == "adapter":
        import_extra("peft")


def select_trainable(model: nn.Module, batch: Records, trainable: str, seed: int = 0) -> nn.Module:
    """A view of the model that shares its weights, of which only the chosen ones may change.

    What is frozen in ``model`` stays frozen. ``model``, its flags, hooks and gradients are left as
    they are; it is returned itself for ``all``. For ``adapter`` it is PEFT's model around a copy.

    Args:
        model: takes ``batch``; each module keeps its mode.
        batch: one record or more, (n, *features), to see in which order the weights are used.
        trainable: ``all``; ``last-layers``: the last third, in the order of use, of the layers that
            have weights; ``norm``: weights and biases of normalisation layers; ``adapter``: LoRA of
            rank 8 on the linear layers except the output.
        seed: draws the adapter's first weights; the global random state is left alone.

    Raises:
        InputError: an unknown choice, or no such weights in the model.
        MissingExtra: ``adapter``, and PEFT is not installed.
    """
    check_trainable(trainable)
    if trainable == "all":
        return model
    # flags and hooks are those of the view: the owner of the model sees no change
    view = shared_view(model)
    if trainable == "adapter":
        return _add_adapter(view, batch, seed)
    names = _norms(view)
    if trainable == "last-layers":
        layers = _layers(view, batch)
        # rounded up: at least one layer
        names = [name for layer in layers[-math.ceil(len(layers) / SHARE) :] for name in layer]
    for name, weight in view.named_parameters():
        # what the owner froze stays frozen
        weight.requires_grad_(weight.requires_grad and name in names)
    if not any(weight.requires_grad for weight in view.parameters()):
        raise _nothing_trainable(trainable, frozen=bool(names))
    return view


def merge_adapter(student: nn.Module, model: nn.Module) -> nn.Module:
    """The student in the given model's class, keys and flags; an adapter is merged, in a copy."""
    if has_adapter(student) and not has_adapter(model):
        # merging is in place, and the student may be written as an adapter too
        merged: Any = copy_model(student)
        student = merged.merge_and_unload()
    given = dict(model.named_parameters())
    for name, weight in student.named_parameters():
        weight.requires_grad_(given[name].requires_grad)
    return to_eval(student)


def has_adapter(model: nn.Module) -> bool:
    """Whether the model has an adapter of PEFT."""
    return hasattr(model, "peft_config") or any(True for _ in _adapters(model))


@torch.no_grad()
def adapter_changes(student: nn.Module) -> Iterator[Tensor]:
    """What the adapter adds to each layer's weight: zero where ``select_trainable`` left it."""
    for layer in _adapters(student):
        yield layer.get_delta_weight("default")


def count_trainable(model: nn.Module, trainable: str) -> dict[str, Any]:
    """For the manifest: the choice, how many numbers may change, and how many the model has."""
    sizes = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
    numbers = sum(size for size, free in sizes if free)
    # the adapter is the only part that is trainable, and no part of the model
    own = sum(size for size, free in sizes if trainable != "adapter" or not free)
    return {"name": trainable, "numbers": numbers, "of": own}


def _adapters(model: nn.Module) -> Iterator[Any]:
    return (module for module in model.modules() if hasattr(module, "get_delta_weight"))


def _nothing_trainable(trainable: str, *, frozen: bool) -> InputError:
    came = "only frozen ones (requires_grad is False)" if frozen else "a model without any"
    others = " or ".join(repr(name) for name in TRAINABLE if name != trainable)
    wanted = f"{TRAINABLE[trainable]}, for trainable={trainable!r}"
    return InputError(wanted, came, f"Choose {others}.")


class _LastUse(TorchFunctionMode):
    """Records at which operation a weight was last used, with or without a module's call."""

    def __init__(self, weights: Iterable[Tensor]) -> None:
        super().__init__()
        self._weights = {id(weight) for weight in weights}
        self.time: dict[int, int] = {}
        self._now = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        # every operation is a tick, so that parallel branches have an order
        self._now += 1
        if any(isinstance(value, Tensor) for value in _flatten([result])):  # no shape or dtype
            given = {id(value) for value in _flatten([*args, *kwargs.values()])}
            self.time.update(dict.fromkeys(given & self._weights, self._now))
        return result


def _flatten(values: Iterable[Any]) -> Iterator[Any]:
    """Values, and those in a list or a tuple: recurrent layers pass their weights as one."""
    for value in values:
        yield from value if isinstance(value, list | tuple) else (value,)


def _layers(model: nn.Module, batch: Records) -> list[list[str]]:
    """Names of the weights of each layer, in the order in which layers are used.

    A module's own weights stand where the last of them was last used, a tied weight where it was
    itself; what is last used at once is one layer.
    """
    teacher = frozen_teacher(model)
    uses, tied = _LastUse(teacher.parameters()), _tied(teacher)
    # hooks on modules would miss weights that are used as plain tensors
    with uses:
        _forward(teacher, batch)
    weights = teacher.named_parameters()
    used = {name: uses.time[id(weight)] for name, weight in weights if id(weight) in uses.time}
    # a tied weight has several owners: it stands for itself
    owner = {name: name if name in tied else name.rpartition(".")[0] for name in used}
    places: dict[str, int] = {}
    for name, place in used.items():
        places[owner[name]] = max(place, places.get(owner[name], 0))
    layers: dict[int, list[str]] = {place: [] for place in sorted(places.values())}
    for name in used:
        layers[places[owner[name]]].append(name)
    return list(layers.values())


def _tied(model: nn.Module) -> set[str]:
    """Names of the weights that have more than one."""
    names = {n: id(weight) for n, weight in model.named_parameters(remove_duplicate=False)}
    count = Counter(names.values())
    return {name for name, weight in names.items() if count[weight] > 1}


@torch.no_grad()
def _forward(teacher: nn.Module, batch: Records) -> None:
    with fork_rng():
        outputs(teacher, batch.to(device_of(teacher)))


def _norms(model: nn.Module) -> list[str]:
    """Names of the weights that a normalisation layer has itself, by its class or a base class."""
    return [
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        # by name: transformers and timm define norms of their own
        if any(NORM.search(kind.__name__) for kind in type(module).__mro__)
        for name, _ in module.named_parameters(recurse=False)
    ]


def _add_adapter(view: nn.Module, batch: Records, seed: int) -> nn.Module:
    """PEFT's model around ``view``: LoRA whose first change is zero, and nothing else trainable."""
    if has_adapter(view):
        wanted = "a model without adapters, for trainable='adapter'"
        remedy = "Merge them first: model.merge_and_unload()."
        raise InputError(wanted, "one with PEFT's own", remedy)
    names = _linear(view, batch)
    free = [name for name in names if view.get_submodule(name).weight.requires_grad]
    if not free:
        raise _nothing_trainable("adapter", frozen=bool(names))
    # a pattern, since each name of a list also stands for every name that ends with it
    pattern, peft = "|".join(re.escape(name) for name in free), import_extra("peft")
    config = peft.LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=pattern)
    with fork_rng(), warnings.catch_warnings():
        # PEFT imports a deprecated name of transformers: the user can do nothing about it
        warnings.simplefilter("ignore", FutureWarning)
        # PEFT draws from the global state
        torch.manual_seed(seed)
        return peft.get_peft_model(view, config)


def _linear(model: nn.Module, batch: Records) -> list[str]:
    """Linear layers that an adapter would reach, except the output.

    Not where a weight is tied, since an adapter on one place would not be at the other; nor where
    the weight is used without the module's forward, as attention and torch's encoder layer do.
    """
    excluded, called = {*_layers(model, batch)[-1], *_tied(model)}, set[nn.Module]()
    teacher = frozen_teacher(model)
    fused = [n for n, m in teacher.named_modules() if isinstance(m, nn.TransformerEncoderLayer)]
    for module in teacher.modules():
        module.register_forward_hook(lambda module, *_: called.add(module))
    _forward(teacher, batch)
    return [
        name
        for name, module in teacher.named_modules()
        # not isinstance: a subclass with another forward would ignore the adapter
        if type(module).forward is nn.Linear.forward
        and "weight" in dict(module.named_parameters(recurse=False))
        and f"{name}.weight" not in excluded
        and module in called
        and not name.startswith(tuple(f"{layer}." for layer in fused))
    ]
