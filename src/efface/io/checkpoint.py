"""Weights files: one container in, the same container out, never unpickled."""

import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from efface.errors import InputError, OutputError, UnsafeFile
from efface.io.atomic import write_whole

PLACES = ("state_dict", "model")
"""Where a checkpoint may keep its weights when they are not at its top."""

PREFIXES = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before every name."""

TRAINING_STATE = re.compile(r"optim|sched|scaler|(^|_)ema(_|$)", re.IGNORECASE)

SHOWN = 10


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A weights file in memory.

    ``state``: names as the model has them, in the order of the file; ``left_out``: entries that may
    hold the records too (optimizer, scheduler, averages, further tensors), which are not written
    back; ``content``: the whole container without those; ``place``: the entry that holds the
    weights, None at the top; ``metadata``: of safetensors, None for a file of torch.save.
    """

    path: Path
    state: dict[str, Tensor]
    left_out: tuple[str, ...]
    content: dict[str, Any]
    place: str | None
    prefix: str
    safetensors: bool
    metadata: dict[str, str] | None

    def write(self, state: Mapping[str, Tensor], path: str | Path) -> None:
        """Write ``state`` in this container: same names, order, dtypes, nesting, metadata.

        Names that the container does not hold (the second name of a tied weight) are passed over.
        Raises InputError when a tensor is missing or has another shape, OutputError when a weight
        is not finite or the file cannot be written; the file is there whole or not at all.
        """
        _refuse_misfit(self.state, state)
        new = {self.prefix + name: _as(old, state[name]) for name, old in self.state.items()}
        if broken := _not_finite(new):
            raise OutputError(
                "finite weights to write",
                f"nan or inf in {some_of(broken)}",
                "Nothing was written.",
            )
        if self.safetensors:
            apart = _apart(new)
            write_whole(path, lambda scratch: save_file(apart, scratch, metadata=self.metadata))
        else:
            content = self._filled(new)
            write_whole(path, lambda scratch: torch.save(content, scratch))

    def _filled(self, new: dict[str, Tensor]) -> dict[str, Any]:
        """The container with new weights; a fresh outer layer, so that this checkpoint stands."""
        old = self.content if self.place is None else self.content[self.place]
        weights = _copied(old, {name: _kept_parameter(old[name], new[name]) for name in old})
        if self.place is None:
            return weights
        return _copied(self.content, {**self.content, self.place: weights})


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a safetensors file or one that ``torch.save`` wrote; the content decides, not the name.

    Raises InputError when there is no such file or it holds no state dict; UnsafeFile when only
    unpickling could read it, when it is damaged, or when a weight is not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("a weights file", f"{path}, which is not there", "Check the path.")
    with path.open("rb") as file:
        head = file.read(9)
    left_out: tuple[str, ...] = ()
    if head[8:] == b"{":
        content, metadata = _read_safetensors(path)
        place, weights = _find_weights(path, content)
    elif head[:2] == b"PK" or head[:1] == b"\x80":
        content, metadata = _read_torch(path), None
        place, weights = _find_weights(path, content)
        left_out = tuple(key for key in content if place and _is_left_out(key, content, place))
    else:
        raise _damaged(path, "an empty file" if not head else f"a file that begins with {head!r}")
    prefix = _prefix(weights)
    state = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    if broken := _not_finite(state):
        raise UnsafeFile(
            f"finite weights in {path}",
            f"nan or inf in {some_of(broken)}",
            "Use a checkpoint from before training diverged.",
        )
    return Checkpoint(
        path=path,
        state=state,
        left_out=left_out,
        content=_copied(content, {k: v for k, v in content.items() if k not in left_out}),
        place=place,
        prefix=prefix,
        safetensors=head[8:] == b"{",
        metadata=metadata,
    )


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str] | None]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error


def _read_torch(path: Path) -> dict[str, Any]:
    """What ``torch.save`` wrote, as far as it is tensors and plain values."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch warns of here is refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise _must_be_unpickled(path, error) from error
    except Exception as error:
        if "TorchScript" in str(error):
            raise _must_be_unpickled(path, error) from error
        # a damaged file ends in whatever its broken bytes lead to
        reason = re.split(r"\. |\n", str(error))[0].rstrip(".")
        raise _damaged(path, f"{type(error).__name__} {reason}".strip()) from error
    if not isinstance(content, dict):
        raise InputError(f"a state dict in {path}", f"a {type(content).__name__}", _HOW_TO_SAVE)
    return content


_HOW_TO_SAVE = (
    "Where you trust the file and have its code, load it once and save the weights alone: "
    'torch.save(model.state_dict(), "weights.pt").'
)


def _must_be_unpickled(path: Path, error: Exception) -> UnsafeFile:
    names = re.findall(r"GLOBAL ([\w.]+)", str(error))
    script = "a TorchScript program" if "TorchScript" in str(error) else "pickled objects"
    found = f"{path}, which holds {names[0] if names else script}"
    return UnsafeFile("a file of tensors and plain values", found, _HOW_TO_SAVE)


def _damaged(path: Path, found: str) -> UnsafeFile:
    return UnsafeFile(
        f"a whole safetensors file, or one that torch.save wrote, at {path}",
        found,
        "The file is cut short, damaged or of another kind: fetch or save it again.",
    )


def _find_weights(path: Path, content: dict[str, Any]) -> tuple[str | None, dict[str, Tensor]]:
    if _is_state(content):
        return None, content
    for place in PLACES:
        if _is_state(content.get(place)):
            return place, content[place]
    raise InputError(
        f"a state dict at the top of {path} or under {' or '.join(PLACES)}",
        f"the entries {some_of(content)}",
        _HOW_TO_SAVE,
    )


def _is_state(value: Any) -> bool:
    """Whether this is names and tensors, and nothing else."""
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())
    )


def _is_left_out(key: Any, content: dict[str, Any], place: str) -> bool:
    return key != place and (bool(TRAINING_STATE.search(str(key))) or _holds_tensor(content[key]))


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_tensor, value.values()))
    if isinstance(value, list | tuple | set):
        return any(map(_holds_tensor, value))
    return isinstance(value, Tensor)


def _prefix(weights: Mapping[str, Tensor]) -> str:
    """What stands before every name, put there by a wrapper."""
    prefix = ""
    while added := next((p for p in PREFIXES if _all_start(weights, prefix + p)), ""):
        prefix += added
    return prefix


def _all_start(names: Iterable[str], prefix: str) -> bool:
    return all(name.startswith(prefix) for name in names)


def _not_finite(state: Mapping[str, Tensor]) -> list[str]:
    return [name for name, tensor in state.items() if not _is_finite(tensor)]


def _is_finite(tensor: Tensor) -> bool:
    if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.is_quantized:
        return True
    wide = tensor.float() if tensor.element_size() == 1 else tensor
    return bool(wide.isfinite().all())


def _refuse_misfit(old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> None:
    missing = [name for name in old if name not in new]
    bent = [name for name in old if name in new and new[name].shape != old[name].shape]
    if missing or bent:
        raise InputError(
            "the tensors that the container holds",
            f"missing: {some_of(missing)}; of another shape: {some_of(bent)}",
            "Write the state of the model that was loaded from it.",
        )


def _as(old: Tensor, new: Tensor) -> Tensor:
    """``new`` in the dtype of ``old``; what did not move keeps its exact bits.

    A float64 weight goes through a float32 model rounded: only where it moved is that written.
    """
    new = new.detach().cpu()
    if new.dtype == old.dtype:
        return new
    kept = old.detach()
    return torch.where(new == kept.to(new.dtype), kept, new.to(old.dtype))


def _kept_parameter(old: Tensor, new: Tensor) -> Tensor:
    """An ``nn.Parameter`` stays one; a view is written without the rest of its storage."""
    if new.untyped_storage().nbytes() > new.nbytes:
        new = new.clone()
    return nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new


def _apart(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors that share no memory, as safetensors wants them."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in state.items():
        whole = tensor.contiguous()
        place = whole.untyped_storage().data_ptr()
        apart[name] = whole.clone() if place in seen else whole
        seen.add(place)
    return apart


def _copied(old: dict[str, Any], entries: Mapping[str, Any]) -> dict[str, Any]:
    """These entries in a dict of the type of ``old``, with its attributes (torch's versions)."""
    copied = type(old)(entries)
    if hasattr(old, "__dict__"):
        vars(copied).update(vars(old))
    return copied


def some_of(names: Iterable[Any]) -> str:
    """The first names and how many more there are."""
    names = [str(name) for name in names]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) or "none") + more
