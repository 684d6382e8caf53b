"""Weights files: one container in, the same container out, never unpickled.

``load_checkpoint`` reads safetensors, or what ``torch.save`` wrote (a state dict, or a training or
Lightning checkpoint around one); ``Checkpoint.write`` writes other weights into the same container:
names, order, dtypes, nesting and metadata as they came. Entries that may hold the training records
(optimizer, moving averages, samplers) are omitted and listed.

A safetensors file is 8 bytes with the length of the header, the header in JSON, and the tensors one
after another. Its tensors are read some at a time, and written back under the original header, so
that an unchanged model gives a byte-identical file whichever tool wrote it.
"""

import json
import re
import tempfile
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from efface.errors import InputError, OutputError, UnsafeFile, abbreviate
from efface.io.atomic import atomic_write
from efface.runtime import cast_like, is_lossless, nonfinite_tensors, tie_like

# entries that may hold the weights
PLACES = ("state_dict", "model", "model_state_dict", "net")
# prefixes of DistributedDataParallel and torch.compile
WRAPPERS = ("module.", "_orig_mod.")
# bytes that hold the length of a safetensors header
HEADER_LENGTH = 8
# bytes of tensors that are read together; a larger tensor is read alone
PORTION = 16 * 2**20

# optimizer moments and averaged weights remember the records that the weights forget
TRAINING_STATE = re.compile(r"(?i)optim|sched|scaler|(^|_)ema(_|$)")
# a resampler is a layer, no list of records
RECORD_LISTS = re.compile(r"(?i)(?<!re)sampler|data_?loader|(^|[_.-])(seen|ids|indices)([_.-]|$)")

HOW_TO_SAVE = (
    "Where you trust it, load it and save its weights: torch.save(model.state_dict(), path)."
)
State = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A weights file and its container; the numbers themselves are read by ``portions``.

    ``state``: by the model's names, in the order of the file, each tensor (of a safetensors file
    shape and dtype alone, on torch's meta device); ``content``: the whole container without what is
    omitted; ``place``: the entry that holds the weights, None at the top; ``prefix``: what precedes
    every name in the file; ``omitted``: entries that may hold the training records, which are not
    written back; ``extras``: tensors that are not the model's, written back as they came;
    ``metadata`` and ``header``: of safetensors, None for a file of torch.save; ``archive``: the
    folder in a zip file of torch.save, None in its older form; ``names``: the file's name of a
    tensor where it differs from the model's in more than the prefix.
    """

    path: Path
    state: dict[str, Tensor]
    content: dict[str, Any]
    place: str | None
    prefix: str
    omitted: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    metadata: dict[str, str] | None = None
    header: bytes | None = None
    archive: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)

    def match_prefix(self, model_state: Mapping[str, Tensor]) -> "Checkpoint":
        """The same file read for a model with this state, whose names follow a further prefix.

        A second whole copy of the model's tensors (a moving average) is omitted; other tensors
        become ``extras``. The checkpoint itself where the names already match.
        """
        prefix = _find_prefix(self.state, model_state)
        if not prefix:
            return self
        own = {n.removeprefix(prefix): t for n, t in self.state.items() if n.startswith(prefix)}
        # class weights of a loss may carry the same prefix
        own = {name: tensor for name, tensor in own.items() if name in model_state}
        others = [name for name in self.state if name.removeprefix(prefix) not in own]
        copies = _second_copies(others, self.state, model_state)
        extras = tuple(self.prefix + name for name in others if name not in copies)
        omitted = (*self.omitted, *(self.prefix + name for name in copies))
        prefix = self.prefix + prefix
        return replace(self, state=own, prefix=prefix, extras=extras, omitted=omitted)

    def rename(self, names: Mapping[str, str]) -> "Checkpoint":
        """The same file under the model's names; ``names`` maps each to the file's."""
        own = {name: model_name for model_name, name in names.items()}
        return replace(self, state={own.get(k, k): v for k, v in self.state.items()}, names=names)

    def portions(self) -> Iterator[dict[str, Tensor]]:
        """The weights under the model's names: of safetensors some at a time, of torch.save all.

        A portion is freed before the next is read. Raises UnsafeFile when a safetensors file has
        been replaced since it was opened.
        """
        if self.header is None:
            yield self.state
            return
        names = {self._name_in_file(name): name for name in self.state}
        for portion in self._read(names):
            yield {names[name]: tensor for name, tensor in portion.items()}

    def _name_in_file(self, name: str) -> str:
        return self.prefix + self.names.get(name, name)

    def _read(self, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
        """Tensors of a safetensors file by its own names, a portion at a time."""
        for group in _groups({name: self.content[name].nbytes for name in names}):
            try:
                # reopened for each portion: the mapped pages of one would stay in memory otherwise
                with safe_open(self.path, framework="pt") as file:
                    portion = {name: file.get_tensor(name) for name in group}
                    unchanged = _read_header(self.path) == self.header
            except (SafetensorError, OSError, ValueError) as error:
                raise damaged(self.path, str(error)) from error
            if not unchanged:
                wanted = f"{self.path} as it was when opened"
                raise UnsafeFile(wanted, "another file in its place", "Start again.")
            yield portion

    def write(self, state: Mapping[str, Tensor], path: str | Path) -> None:
        """Write ``state`` in this container: same names, order, dtypes, nesting, metadata.

        Names that the container does not hold (the second name of a tied weight) are skipped.
        Raises InputError when a tensor is missing or has another shape, OutputError when a weight
        is not finite or the file cannot be written; the file is there whole or not at all.
        """
        missing = [name for name in self.state if name not in state]
        shared = [name for name in self.state if name in state]
        misshapen = [name for name in shared if state[name].shape != self.state[name].shape]
        if missing or misshapen:
            came = f"missing: {abbreviate(missing)}; of another shape: {abbreviate(misshapen)}"
            raise InputError("the tensors of the container", came, "Write the state that it held.")
        old = {self._name_in_file(name): tensor for name, tensor in self.state.items()}
        # the meta tensors of safetensors hold no numbers: where the model is narrower than the file
        # (float64), the file's own bits are read again, so that unchanged weights keep them
        wider = [name for name, old in self.state.items() if not is_lossless(old, state[name])]
        again = [*map(self._name_in_file, wider), *self.extras] if self.header is not None else []
        stored = {name: t for portion in self._read(again) for name, t in portion.items()}
        pairs = zip(old.items(), self.state, strict=True)
        new = {k: cast_like(stored.get(k, tensor), state[name]) for (k, tensor), name in pairs}
        # checked after the cast: 1e6 is finite in float32 and infinite in float16
        if broken := nonfinite_tensors(new):
            wanted, came = "finite weights to write", f"nan or inf in {abbreviate(broken)}"
            raise OutputError(wanted, came, "Nothing was written.")
        if self.header is None:
            # torch keeps one storage for tied weights, and the file its size
            content = self._fill(tie_like(old, new))
            atomic_write(path, lambda scratch: _write_torch(content, scratch, self.archive))
            return
        whole = {**new, **{name: stored[name] for name in self.extras}}
        if len(whole) == len(self.content):
            atomic_write(path, lambda scratch: _write_safetensors(self.header, whole, scratch))
        else:
            # something is omitted: the original header cannot stay
            # safetensors refuses tensors that share memory
            apart = {name: tensor.contiguous().clone() for name, tensor in whole.items()}
            atomic_write(path, lambda scratch: save_file(apart, scratch, metadata=self.metadata))

    def _fill(self, new: Mapping[str, Tensor]) -> dict[str, Any]:
        """The container with new weights; a new outer layer, so that this checkpoint stands."""
        old = self.content if self.place is None else self.content[self.place]
        kept = [name for name in old if name in new or name in self.extras]
        weights = {n: _like(old[n], new[n]) if n in new else old[n] for n in kept}
        weights = _rebuild(old, weights)
        if self.place is None:
            return weights
        return _rebuild(self.content, {**self.content, self.place: weights})


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a safetensors file or one that ``torch.save`` wrote; the content decides, not the name.

    Raises InputError when there is no such file or it holds no state dict; UnsafeFile when only
    unpickling could read it, when it is damaged, or when a weight is not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("a weights file", f"{path}, which is not there", "Check the path.")
    with path.open("rb") as file:
        head = file.read(HEADER_LENGTH + 1)
    metadata = header = archive = None
    # the name of a file says nothing: weights from a stranger may be a disguised pickle
    if head[HEADER_LENGTH:] == b"{":
        content, metadata, header = _read_outlines(path)
    elif head[:2] == b"PK":
        content, archive = read_torch(path), _archive_name(path)
    elif head[:1] == b"\x80":
        # what torch wrote before it wrote zip archives
        content = read_torch(path)
    else:
        raise damaged(path, "an empty file" if not head else f"a file that begins with {head!r}")
    place, weights = _find_weights(path, content)
    entries = content if place else {}
    omitted = [k for k, v in entries.items() if k != place and may_hold_records(k, v)]
    prefix = _wrapper_prefix(weights)
    state = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    content = _rebuild(content, {k: v for k, v in content.items() if k not in omitted})
    container = {"metadata": metadata, "header": header, "archive": archive}
    checkpoint = Checkpoint(path, state, content, place, prefix, tuple(omitted), **container)
    if broken := [name for part in checkpoint.portions() for name in nonfinite_tensors(part)]:
        remedy = "Use a checkpoint from before training diverged."
        raise UnsafeFile(f"finite weights in {path}", f"nan or inf in {abbreviate(broken)}", remedy)
    return checkpoint


def _find_weights(path: Path, content: dict[str, Any]) -> tuple[str | None, dict[str, Tensor]]:
    """The entry that holds the weights (None for the top), and the weights."""
    # the top first: a plain state dict may have a module called model
    for place, value in [(None, content), *((place, content.get(place)) for place in PLACES)]:
        weights: dict[str, Any] = value if isinstance(value, dict) else {}
        if weights and all(isinstance(k, str) and isinstance(weights[k], Tensor) for k in weights):
            return place, weights
    wanted = f"a state dict at the top of {path} or under {' or '.join(PLACES)}"
    raise InputError(wanted, f"the entries {abbreviate(content)}", HOW_TO_SAVE)


def may_hold_records(name: Any, value: Any) -> bool:
    """Whether an entry holds tensors, training state, or, by its names, lists of records.

    A number is progress, as in ``samples_seen``; settings are words and numbers.
    """
    if TRAINING_STATE.search(str(name)) or _holds_tensors_or_records(value, listed=False):
        return True
    return bool(RECORD_LISTS.search(str(name))) and not isinstance(value, int | float | None)


def _holds_tensors_or_records(value: Any, *, listed: bool) -> bool:
    """At any depth a tensor, or several things under a name that suggests records (``listed``)."""
    if isinstance(value, Mapping):
        inside = ((v, listed or bool(RECORD_LISTS.search(str(key)))) for key, v in value.items())
        return any(_holds_tensors_or_records(v, listed=below) for v, below in inside)
    if isinstance(value, list | tuple | set):
        return any(listed or _holds_tensors_or_records(v, listed=False) for v in value)
    return isinstance(value, Tensor)


def _wrapper_prefix(names: Iterable[str]) -> str:
    """The prefix of every name that wrappers of the model added."""
    prefix, names = "", list(names)
    while added := next((w for w in WRAPPERS if all(n.startswith(prefix + w) for n in names)), ""):
        prefix += added
    return prefix


def _find_prefix(state: Mapping[str, Tensor], model_state: Mapping[str, Tensor]) -> str:
    """The prefix of every name of the model in the file, such as a LightningModule's attribute."""
    first = next(iter(model_state), "")
    candidates = [name[: -len(first)] for name in state if first and name.endswith("." + first)]
    matches = {p: sum(p + name in state for name in model_state) for p in ["", *candidates]}
    # the model's weights and their moving average match alike: the shorter prefix is the model's
    return max(matches, key=lambda prefix: (matches[prefix], -len(prefix)))


def _second_copies(names: Iterable[str], state: State, model_state: State) -> list[str]:
    """Those ``names`` that make up another copy of at least half of the model's weights."""
    copies: dict[str, list[str]] = {}
    for name in names:
        for own, tensor in model_state.items():
            if name.endswith("." + own) and state[name].shape == tensor.shape:
                copies.setdefault(name[: -len(own)], []).append(name)
    # counters such as num_batches_tracked are no evidence of a copy
    weights = sum(tensor.ndim > 0 for tensor in model_state.values())
    return [name for copy in copies.values() if 2 * len(copy) >= weights for name in copy]


def _like(old: Tensor, new: Tensor) -> Tensor:
    """An ``nn.Parameter`` stays one; a view is written without the rest of its storage."""
    # torch.save writes the whole storage of a view: other numbers would leave with the file
    if new.untyped_storage().nbytes() > new.nbytes:
        new = new.clone()
    return nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new


def _rebuild(old: dict[str, Any], entries: Mapping[str, Any]) -> dict[str, Any]:
    """These entries in a dict of the type of ``old``, with its attributes.

    A state dict carries the versions of its modules as the attribute ``_metadata``.
    """
    rebuilt = type(old)(entries)
    if hasattr(old, "__dict__"):
        vars(rebuilt).update(vars(old))
    return rebuilt


def damaged(path: Path, came: str) -> UnsafeFile:
    """The error for a file that is cut short or is no weights file at all."""
    wanted = f"a whole safetensors file, or one that torch.save wrote, at {path}"
    return UnsafeFile(wanted, came, "It is cut short, damaged or of another kind: save it again.")


# safetensors


def _read_outlines(path: Path) -> tuple[dict[str, Tensor], dict[str, str] | None, bytes]:
    """Tensors on the meta device in the library's order, the metadata, and the raw header."""
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            tensors = {n: torch.empty_like(file.get_tensor(n), device="meta") for n in names}
            return tensors, file.metadata(), _read_header(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise damaged(path, str(error)) from error


def _read_header(path: Path) -> bytes:
    with path.open("rb") as file:
        length = file.read(HEADER_LENGTH)
        return length + file.read(int.from_bytes(length, "little"))


def _groups(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Consecutive names whose sizes add up to ``PORTION`` bytes at most, at least one name each."""
    group: list[str] = []
    size = 0
    for name, nbytes in sizes.items():
        if group and size + nbytes > PORTION:
            yield group
            group, size = [], 0
        group.append(name)
        size += nbytes
    if group:
        yield group


def _write_safetensors(header: bytes | None, state: Mapping[str, Tensor], path: Path) -> None:
    """The header as it is, then each tensor at the offset that the header gives it."""
    header = header or b""
    offsets = json.loads(header[HEADER_LENGTH:])
    with path.open("wb") as file:
        file.write(header)
        for name in sorted(state, key=lambda name: offsets[name]["data_offsets"]):
            flat = state[name].detach().cpu().contiguous().reshape(-1)
            file.write(flat.view(torch.uint8).numpy().data if flat.numel() else b"")


# torch.save


def read_torch(path: Path) -> dict[str, Any]:
    """What ``torch.save`` wrote, as far as it is tensors and plain values.

    Raises UnsafeFile when only unpickling could read it or it is damaged, InputError for no dict.
    """
    try:
        with warnings.catch_warnings():
            # weights_only: the pickle in the file may call nothing but tensors' constructors
            # what torch warns of here is refused below
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        is_script = "TorchScript" in str(error)
        if is_script or isinstance(error, UnpicklingError):
            names = re.findall(r"GLOBAL ([\w.]+)", str(error)) or ["pickled objects"]
            came = f"{path}, which holds {'a TorchScript program' if is_script else names[0]}"
            raise UnsafeFile("a file of tensors and plain values", came, HOW_TO_SAVE) from error
        # a damaged file fails wherever its broken bytes lead to
        reason = re.split(r"\. |\n", str(error))[0].rstrip(".")
        raise damaged(path, f"{type(error).__name__} {reason}".strip()) from error
    if not isinstance(content, dict):
        raise InputError(f"a state dict in {path}", f"a {type(content).__name__}", HOW_TO_SAVE)
    return content


def _archive_name(path: Path) -> str:
    """The folder inside the zip archive: torch names it after the file that it first wrote."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()[0].partition("/")[0]
    except (zipfile.BadZipFile, OSError, IndexError):
        return "archive"


def _write_torch(content: Any, path: Path, archive: str | None) -> None:
    """As ``torch.save`` does: ``archive`` is the inner folder, None for the form before zip."""
    if archive is None:
        torch.save(content, path, _use_new_zipfile_serialization=False)
        return
    # torch derives the inner folder from the file's name, so the file gets that name first
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        inner = Path(folder) / f"{archive}.pt"
        torch.save(content, inner)
        inner.replace(path)
