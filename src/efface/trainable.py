"""Which weights may move: all, those of the last layers, of the norms, or an adapter beside them.

It belongs to the request and not to a method: a method copies the model that it is given, and what
has no gradient there stays as it is, bit for bit.
"""

import copy
import math
import re
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from efface.errors import InputError, MissingExtra
from efface.task import device_of, frozen_teacher, outputs, shared_view
from efface.types import Records

TRAINABLE = ("all", "last-layers", "norm", "adapter")

SHARE = 3
"""One in so many layers, those used last, is open as ``last-layers``."""

RANK = 8
"""Of an adapter, PEFT's own default. Its scale is 2: at √3, with PEFT's first weights, a step moves
a layer as far as a step of the layer's own weights, in the directions that the rank has."""

NORM = re.compile(r"(batch|layer|group|instance|rms)norm", re.IGNORECASE)
"""Names of normalisation classes: torch's own, and those that transformers and timm write anew."""


def refuse_unknown(trainable: str, *, keep_adapter: bool = False) -> None:
    """Raise InputError for another word than these, and where no adapter will be there to keep.

    Raises MissingExtra for an adapter without PEFT.
    """
    if trainable not in TRAINABLE:
        raise InputError(
            f"trainable out of {', '.join(TRAINABLE)}", repr(trainable), "Choose one of these."
        )
    if keep_adapter and trainable != "adapter":
        raise InputError(
            "--trainable adapter beside --keep-adapter",
            f"--trainable {trainable}",
            "Give --trainable adapter, or leave --keep-adapter away.",
        )
    if trainable == "adapter":
        _peft()


def select_trainable(
    model: nn.Module, batch: Records, trainable: str, *, seed: int = 0
) -> nn.Module:
    """Modules of its own over the same weights, of which only the chosen ones may change.

    What is frozen in ``model`` stays frozen. ``model``, its flags, hooks and gradients are left as
    they are; it is given back itself for ``all``. For ``adapter`` it is PEFT's model around a copy.

    Args:
        model: answers ``batch``; each module keeps its mode.
        batch: one record or more, (n, *features), to see in which order the weights are used.
        trainable: ``all``; ``last-layers``: the last third, in the order of use, of the layers that
            hold weights; ``norm``: weights and biases of normalisation layers; ``adapter``: LoRA of
            rank 8 beside the linear layers but the output.
        seed: draws the adapter's first weights; the global random state is left alone.

    Raises:
        InputError: another word, or no such weights in the model.
        MissingExtra: an adapter is asked for and PEFT is not installed.
    """
    refuse_unknown(trainable)
    if trainable == "all":
        return model
    twin = shared_view(model)
    if trainable == "adapter":
        return _adapted(twin, batch, seed)
    names = set(_last_layers(twin, batch) if trainable == "last-layers" else _norms(twin))
    for name, weight in twin.named_parameters():
        weight.requires_grad_(weight.requires_grad and name in names)
    if not any(weight.requires_grad for weight in twin.parameters()):
        raise _nothing_to_open(trainable, frozen=bool(names))
    return twin


def merge_adapter(student: nn.Module, model: nn.Module) -> nn.Module:
    """The student in the given model's class, keys and flags; an adapter is merged, in a copy."""
    if is_adapted(student) and not is_adapted(model):
        merged: Any = copy.deepcopy(student)
        student = merged.merge_and_unload()
    given = dict(model.named_parameters())
    for name, weight in student.named_parameters():
        weight.requires_grad_(given[name].requires_grad)
    return student.eval()


def is_adapted(model: nn.Module) -> bool:
    """Whether the model carries an adapter of PEFT."""
    return hasattr(model, "peft_config") or any(_is_adapter(one) for one in model.modules())


@torch.no_grad()
def added(student: nn.Module) -> Iterator[Tensor]:
    """What the adapter adds to each layer's weights: zero where ``select_trainable`` left it."""
    layers: list[Any] = [module for module in student.modules() if _is_adapter(module)]
    for layer in layers:
        yield layer.get_delta_weight("default")


def moving(model: nn.Module, trainable: str) -> dict[str, Any]:
    """For the record: the choice, how many numbers may move, and how many the model has."""
    sizes = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
    numbers = sum(size for size, open_ in sizes if open_)
    own = sum(size for size, open_ in sizes if trainable != "adapter" or not open_)
    return {"name": trainable, "numbers": numbers, "of": own}


def _nothing_to_open(trainable: str, *, frozen: bool) -> InputError:
    wanted = {
        "last-layers": "weights in the last layers",
        "norm": "normalisation layers with weights",
        "adapter": "a linear layer besides the output, called as a module and not tied",
    }[trainable]
    came = "only frozen ones (requires_grad is False)" if frozen else "a model without any"
    others = " or ".join(repr(name) for name in TRAINABLE if name != trainable)
    return InputError(f"{wanted}, for trainable={trainable!r}", came, f"Choose {others}.")


class _Uses(TorchFunctionMode):
    """Notes at which operation a weight was last used, with or without a module's call."""

    def __init__(self, weights: Iterable[Tensor]) -> None:
        super().__init__()
        self._weights = {id(weight) for weight in weights}
        self.last: dict[int, int] = {}
        self._time = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        self._time += 1
        if any(isinstance(one, Tensor) for one in _flat([result])):  # not a shape or a dtype
            given = {id(one) for one in _flat([*args, *kwargs.values()])}
            self.last.update(dict.fromkeys(given & self._weights, self._time))
        return result


def _flat(values: Iterable[Any]) -> Iterator[Any]:
    """Values, and those in a list or a tuple: recurrent nets take their weights as one."""
    for value in values:
        yield from value if isinstance(value, list | tuple) else (value,)


def _layers(model: nn.Module, batch: Records) -> list[list[str]]:
    """Names of the weights of each layer, in the order in which layers are used.

    A module's own weights stand where the last of them was last used, a tied weight where it was
    itself; what is last used at once is one layer.
    """
    held = frozen_teacher(model)
    uses, tied = _Uses(held.parameters()), _tied(held)
    with uses:
        _asked_once(held, batch)
    used = {name: uses.last[id(w)] for name, w in held.named_parameters() if id(w) in uses.last}
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
    names: dict[int, list[str]] = {}
    for name, weight in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(weight), []).append(name)
    return {name for several in names.values() if len(several) > 1 for name in several}


@torch.no_grad()
def _asked_once(held: nn.Module, batch: Records) -> None:
    """One forward pass that leaves the global random state as it was."""
    device = device_of(held)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        outputs(held, batch.to(device))


def _last_layers(model: nn.Module, batch: Records) -> list[str]:
    layers = _layers(model, batch)
    count = math.ceil(len(layers) / SHARE)
    return [name for layer in layers[len(layers) - count :] for name in layer]


def _norms(model: nn.Module) -> list[str]:
    """Names of what a normalisation layer, by the name of its class or of a base, holds itself."""
    return [
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        if any(NORM.search(kind.__name__) for kind in type(module).__mro__)
        for name, _ in module.named_parameters(recurse=False)
    ]


def _adapted(twin: nn.Module, batch: Records, seed: int) -> nn.Module:
    """PEFT's model around ``twin``: LoRA whose first change is zero, and nothing else open."""
    if is_adapted(twin):
        raise InputError(
            "a model without adapters, for trainable='adapter'",
            "one with PEFT's own",
            "Merge them first: model.merge_and_unload().",
        )
    names = _linear(twin, batch)
    open_ = [name for name in names if twin.get_submodule(name).weight.requires_grad]
    if not open_:
        raise _nothing_to_open("adapter", frozen=bool(names))
    peft = _peft()
    config = peft.LoraConfig(
        r=RANK,
        lora_alpha=2 * RANK,
        # a pattern: in a list a name would also stand for each that ends with it
        target_modules="|".join(re.escape(name) for name in open_),
    )
    device = device_of(twin)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), warnings.catch_warnings():
        # PEFT asks transformers for a name on its way out: nobody who runs this can help it
        warnings.simplefilter("ignore", FutureWarning)
        torch.manual_seed(seed)
        return peft.get_peft_model(twin, config)


def _linear(model: nn.Module, batch: Records) -> list[str]:
    """Linear layers that an adapter would reach, but the output.

    Not where a weight is tied, since an adapter on one place would not be at the other; nor where
    the weight is used without the module's forward, as attention and torch's encoder layer do.
    """
    left = {*_layers(model, batch)[-1], *_tied(model)}
    held = frozen_teacher(model)
    fused = [n for n, m in held.named_modules() if isinstance(m, nn.TransformerEncoderLayer)]
    called: list[nn.Module] = []
    for module in held.modules():
        module.register_forward_hook(lambda module, *_: called.append(module))
    _asked_once(held, batch)
    return [
        name
        for name, module in held.named_modules()
        if type(module).forward is nn.Linear.forward
        and "weight" in dict(module.named_parameters(recurse=False))
        and f"{name}.weight" not in left
        and any(module is one for one in called)
        and not any(name.startswith(f"{layer}.") for layer in fused)
    ]


def _is_adapter(module: nn.Module) -> bool:
    return hasattr(module, "get_delta_weight")


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise MissingExtra(
            "the package peft", "none installed", "Install it: pip install 'efface[peft]'."
        ) from error
    return peft
