"""Weights files: one container in, the same container out, never unpickled.

``load_checkpoint`` reads safetensors, or what ``torch.save`` wrote (a state dict, or a checkpoint
of a training script, Lightning, DeepSpeed or timm around one); ``Checkpoint.write`` writes other
weights into the same container: names, order, dtypes, nesting and metadata as they came. Entries
that may hold the training records (optimizer, moving averages, samplers) are omitted and listed.

The weights are found by the names of the model: wherever in the container, after whatever prefix,
and whatever wrappers are named within. A file with two whole copies of them (raw and averaged) does
not say which is meant: the caller does, by the address of a copy, such as ``state_dict.ema``.

A safetensors file is 8 bytes with the length of the header, the header in JSON, and the tensors one
after another. Its tensors are read some at a time, and written back under the original header, so
that an unchanged model gives a byte-identical file whichever tool wrote it.
"""

import json
import re
import tempfile
import warnings
import zipfile
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from efface.errors import InputError, OutputError, UnsafeFile, abbreviate, did_you_mean
from efface.io.atomic import atomic_write
from efface.io.foreign import refuse_foreign
from efface.runtime import cast_like, is_lossless, nonfinite_tensors, tie_like

# entries that may hold the weights, where the model is not known
PLACES = ("state_dict", "model", "model_state_dict", "net", "module")
# what DataParallel, torch.compile, activation checkpointing and FSDP add to the names of modules
WRAPPERS = {"module", "_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"}
# counters: of BatchNorm, of the profiler thop, of averaged models
COUNTERS = ("num_batches_tracked", "total_ops", "total_params", "n_averaged")
# the largest public models have some thousands
MOST_TENSORS = 100_000
# entries within entries, and prefixes, that are searched for weights
DEPTH = 8
# the address of a copy at the top of a file, without prefix
TOP = "."
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
    shape and dtype alone, on torch's meta device); ``names``: by the model's names those in the
    file; ``content``: the whole container without what is omitted; ``place``: the entries, one in
    another, that lead to the weights, empty at the top; ``omitted``: entries that may hold the
    training records, which are not written back; ``extras``: tensors next to the weights that are
    not the model's, written back as they came; ``metadata`` and ``header``: of safetensors, None
    for a file of torch.save; ``archive``: the folder in a zip file of torch.save, None in its older
    form.
    """

    path: Path
    state: dict[str, Tensor]
    names: Mapping[str, str]
    content: dict[str, Any]
    place: tuple[str, ...] = ()
    omitted: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    metadata: dict[str, str] | None = None
    header: bytes | None = None
    archive: str | None = None

    def rename(self, names: Mapping[str, str]) -> "Checkpoint":
        """The same file under the model's names; ``names`` maps each to the file's."""
        own = {name: model_name for model_name, name in names.items()}
        state = {own.get(name, name): tensor for name, tensor in self.state.items()}
        in_file = {own.get(name, name): there for name, there in self.names.items()}
        return replace(self, state=state, names=in_file)

    def portions(self) -> Iterator[dict[str, Tensor]]:
        """The weights under the model's names: of safetensors some at a time, of torch.save all.

        A portion is freed before the next is read. Raises UnsafeFile when a safetensors file has
        been replaced since it was opened.
        """
        if self.header is None:
            yield self.state
            return
        names = {there: name for name, there in self.names.items()}
        for portion in self._read(names):
            yield {names[name]: tensor for name, tensor in portion.items()}

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
        old = {self.names[name]: tensor for name, tensor in self.state.items()}
        # the meta tensors of safetensors hold no numbers: where the model is narrower than the file
        # (float64), the file's own bits are read again, so that unchanged weights keep them
        wider = [name for name, old in self.state.items() if not is_lossless(old, state[name])]
        again = [*(self.names[name] for name in wider), *self.extras] if self.header else []
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
        if not self.omitted:
            atomic_write(path, lambda scratch: _write_safetensors(self.header, whole, scratch))
        else:
            # something is omitted: the original header cannot stay
            # safetensors refuses tensors that share memory
            apart = {name: tensor.contiguous().clone() for name, tensor in whole.items()}
            atomic_write(path, lambda scratch: save_file(apart, scratch, metadata=self.metadata))

    def _fill(self, new: Mapping[str, Tensor]) -> dict[str, Any]:
        """The container with new weights; new outer layers, so that this checkpoint stands."""
        layers = [self.content]
        for entry in self.place:
            layers.append(layers[-1][entry])
        old = layers.pop()
        filled = _rebuild(old, {n: _like(v, new[n]) if n in new else v for n, v in old.items()})
        for layer, entry in zip(reversed(layers), reversed(self.place), strict=True):
            filled = _rebuild(layer, {**layer, entry: filled})
        return filled


def load_checkpoint(
    path: str | Path,
    model_state: Mapping[str, Tensor] | None = None,
    *,
    weights_in: str | None = None,
) -> Checkpoint:
    """Read a safetensors file or one that ``torch.save`` wrote; the content decides, not the name.

    ``model_state``: of the model that the weights are for; without it they are taken from the top
    or a usual entry, under their own names. ``weights_in``: the address of one of several copies.

    Raises InputError when there is no such file, it holds no state dict, or several copies and none
    is chosen; UnsafeFile when only unpickling could read it, when it is damaged, or when a weight
    is not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("a weights file", f"{path}, which is not there", "Check the path.")
    try:
        content, container = _read_container(path)
    except UnsafeFile:
        # a model of another library is named for what it is
        refuse_foreign(path)
        raise
    copy = _choose_copy(path, content, model_state or {}, weights_in)
    content, omitted, extras = _without_records(content, copy)
    weights = _entry(content, copy.place)
    if container["header"] is None:
        _refuse_unusual_tensors(path, {n: weights[n] for n in (*copy.names.values(), *extras)})
    own = {name: model_name for model_name, name in copy.names.items()}
    state = {own[name]: tensor for name, tensor in weights.items() if name in own}
    found = {"place": copy.place, "omitted": omitted, "extras": extras}
    checkpoint = Checkpoint(path, state, copy.names, content, **found, **container)
    if broken := [name for part in checkpoint.portions() for name in nonfinite_tensors(part)]:
        remedy = "Use a checkpoint from before training diverged."
        raise UnsafeFile(f"finite weights in {path}", f"nan or inf in {abbreviate(broken)}", remedy)
    return checkpoint


def _read_container(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what the file holds, ``metadata``, ``header`` and ``archive`` of a Checkpoint)."""
    with path.open("rb") as file:
        head = file.read(HEADER_LENGTH + 1)
    kind: dict[str, Any] = dict.fromkeys(("metadata", "header", "archive"))
    # the name of a file says nothing: weights from a stranger may be a disguised pickle
    if head[HEADER_LENGTH:] == b"{":
        content, kind["metadata"], kind["header"] = _read_outlines(path)
    elif head[:2] == b"PK":
        kind["archive"] = _archive_name(path)
        content = read_torch(path)
    elif head[:1] == b"\x80":
        # what torch wrote before it wrote zip archives
        content = read_torch(path)
    else:
        raise damaged(path, "an empty file" if not head else f"a file that begins with {head!r}")
    return content, kind


# The weights in a container


@dataclass(frozen=True)
class _Copy:
    """Tensors of one entry that are named as a model's.

    ``place``: the entries that lead to it; ``prefix``: what precedes each name; ``names``: by the
    model's names those in the file; ``fitting``: how many weights have the shape of the model's;
    ``others``: names in the same entry that make up further copies.
    """

    place: tuple[str, ...]
    prefix: str
    names: dict[str, str]
    fitting: int = 0
    others: frozenset[str] = frozenset()

    @property
    def address(self) -> str:
        """What the user calls it."""
        return ".".join((*self.place, self.prefix)).strip(".") or TOP


def _choose_copy(
    path: Path, content: dict[str, Any], model_state: State, address: str | None
) -> _Copy:
    """The whole copy of the model's weights, if several the one at ``address``."""
    weights = sum(tensor.ndim > 0 for tensor in model_state.values())
    # a few equal names, such as norm.weight, are no copy
    copies = [one for one in _find_copies(content, model_state) if 2 * len(one.names) >= weights]
    best = max((one.fitting for one in copies), default=0)
    whole = [one for one in copies if one.fitting == best]
    found = [one.address for one in whole]
    if address is not None:
        whole = [one for one in whole if one.address == address]
        if not whole:
            wanted = f"the weights of the model at {address!r} in {path}"
            remedy = did_you_mean(address, found, "Omit --weights-in.")
            raise InputError(wanted, f"them at {abbreviate(found)}", remedy)
    if len(whole) > 1:
        remedy = f"One may be an average: choose, such as --weights-in {found[0]}."
        wanted = f"one copy of the model's weights in {path}"
        raise InputError(wanted, f"{len(whole)}, at {abbreviate(found)}", remedy)
    if not whole:
        return _usual_copy(path, content)
    [copy] = whole
    # averages of half the weights remember the records too
    others = [
        o for o in copies if o is not copy and o.place == copy.place and 2 * o.fitting >= best
    ]
    others = frozenset(name for other in others for name in other.names.values())
    # what else follows the prefix is the model's, which does not know it: refused later
    start, entry = copy.prefix + "." * bool(copy.prefix), _entry(content, copy.place)
    known = others | set(copy.names.values())
    strange = [
        name
        for name, value in entry.items()
        if isinstance(value, Tensor) and name.startswith(start) and name not in known
        if not name.endswith(COUNTERS)
    ]
    names = copy.names | {name.removeprefix(start): name for name in strange}
    return replace(copy, names=names, others=others - set(copy.names.values()))


def _usual_copy(path: Path, content: dict[str, Any]) -> _Copy:
    """All tensors of a usual entry, under their names without the prefix of all."""
    # the top first: a plain state dict may have a module called model
    for place in ((), *((entry,) for entry in PLACES)):
        entry = content.get(place[0]) if place else content
        if isinstance(entry, dict) and entry and all(_is_weight(*item) for item in entry.items()):
            prefix = ""
            while starts := {name.removeprefix(prefix).partition(".")[0] for name in entry}:
                if len(starts) > 1 or not starts <= WRAPPERS:
                    break
                prefix += f"{starts.pop()}."
            return _Copy(place, prefix, {name.removeprefix(prefix): name for name in entry})
    wanted = f"a state dict at the top of {path} or under {' or '.join(PLACES)}"
    raise InputError(wanted, f"the entries {abbreviate(content)}", HOW_TO_SAVE)


def _is_weight(name: Any, value: Any) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor)


def _find_copies(content: dict[str, Any], model_state: State) -> Iterator[_Copy]:
    """The tensors that end in the model's names, by their entry and what precedes the names."""
    own = {_without_wrappers(name.split(".")): name for name in model_state}
    # a model with modules of these very names is matched by its full names
    wrappers = WRAPPERS if len(own) == len(model_state) else set()
    own = own if wrappers else {name: name for name in model_state}
    for place, entry in _entries(content):
        found: dict[str, dict[str, str]] = defaultdict(dict)
        for name in (name for name, value in entry.items() if _is_weight(name, value)):
            parts = name.split(".")
            for cut in range(min(len(parts), DEPTH)):
                tail = _without_wrappers(parts[cut:]) if wrappers else ".".join(parts[cut:])
                # the prefix takes the wrappers: with and without them are two copies
                if parts[cut] not in wrappers and tail in own:
                    found[".".join(parts[:cut])].setdefault(own[tail], name)
        for prefix, names in found.items():
            pairs = ((entry[there], model_state[name]) for name, there in names.items())
            # a nested tensor has no shape
            fitting = sum(o.ndim > 0 and not t.is_nested and t.shape == o.shape for t, o in pairs)
            yield _Copy(place, prefix, names, fitting)


def _without_wrappers(parts: Sequence[str]) -> str:
    return ".".join(part for part in parts if part not in WRAPPERS)


def _entries(content: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """The container and the mappings in it, each once, with the entries that lead to them."""
    seen: set[int] = set()
    waiting: deque[tuple[tuple[str, ...], dict[str, Any]]] = deque([((), content)])
    while waiting:
        place, entry = waiting.popleft()
        # a file may hold a mapping that holds itself
        if id(entry) not in seen and len(place) < DEPTH:
            seen.add(id(entry))
            yield place, entry
            inner = ((k, v) for k, v in entry.items() if isinstance(k, str) and isinstance(v, dict))
            waiting += (((*place, name), value) for name, value in inner)


def _entry(content: dict[str, Any], place: Iterable[str]) -> dict[str, Any]:
    for name in place:
        content = content[name]
    return content


def _without_records(
    content: dict[str, Any], copy: _Copy
) -> tuple[dict[str, Any], tuple[str, ...], tuple[str, ...]]:
    """(the container, what was omitted as it may hold the records, tensors that stay as extras)."""
    omitted, extras, used = [], [], set(copy.names.values())

    def keep(entry: dict[str, Any], place: tuple[str, ...]) -> dict[str, Any]:
        inner = {}
        for name, value in entry.items():
            if place and name == place[0]:
                inner[name] = keep(value, place[1:])
            elif not place and _is_weight(name, value) and name not in copy.others:
                inner[name] = value
                extras.extend({name} - used)
            elif may_hold_records(name, value):
                omitted.append(name)
            else:
                inner[name] = value
        return _rebuild(entry, inner)

    return keep(content, copy.place), tuple(omitted), tuple(extras)


def _refuse_unusual_tensors(path: Path, tensors: State) -> None:
    """What cannot be unlearned, or only seems to be there."""
    kinds = {
        "sparse": lambda t: t.layout is not torch.strided,
        "nested": lambda t: t.is_nested,
        "quantised": lambda t: t.is_quantized,
        "without numbers (meta)": lambda t: t.is_meta,
        "larger than its memory": lambda t: (
            t.nbytes > max(PORTION, 2 * t.untyped_storage().nbytes())
        ),
    }
    for name, tensor in tensors.items():
        # in this order: a sparse tensor has no storage to ask for
        if kind := next((kind for kind, holds in kinds.items() if holds(tensor)), None):
            remedy = "Save the dense weights that it stands for."
            raise InputError(f"dense weights in {path}", f"{name}, which is {kind}", remedy)


def may_hold_records(name: Any, value: Any) -> bool:
    """Whether an entry holds tensors, training state, or, by its names, lists of records.

    A number is progress, as in ``samples_seen``; settings are words and numbers.
    """
    if TRAINING_STATE.search(str(name)) or _holds_tensors_or_records(value):
        return True
    return bool(RECORD_LISTS.search(str(name))) and not isinstance(value, int | float | None)


def _holds_tensors_or_records(value: Any) -> bool:
    """At any depth a tensor, or several things under a name that suggests records."""
    seen: set[tuple[int, bool]] = set()
    waiting = [(value, False)]
    while waiting:
        item, listed = waiting.pop()
        if isinstance(item, Tensor):
            return True
        # a container that holds itself, or one a thousand times, is looked at once
        if not isinstance(item, Mapping | list | tuple | set) or (id(item), listed) in seen:
            continue
        seen.add((id(item), listed))
        if isinstance(item, Mapping):
            waiting += [(v, listed or bool(RECORD_LISTS.search(str(k)))) for k, v in item.items()]
        elif listed and item:
            return True
        else:
            waiting += [(inner, False) for inner in item]
    return False


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
    """The folder inside the zip archive: torch names it after the file that it first wrote.

    Raises UnsafeFile for more tensors than a model has: torch would read them for minutes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    # a damaged or strange archive: torch says what is wrong with it
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        names = []
    if len(names) > MOST_TENSORS:
        raise damaged(path, f"{len(names)} tensors")
    return names[0].partition("/")[0] if names else "archive"


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
