"""Weights files: one container in, the same container out, never unpickled."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from efface.errors import InputError, OutputError, UnsafeFile
from efface.io.atomic import write_whole
from efface.io.beside import may_hold_records
from efface.io.prefixes import prefix_for, twins_of, wrapper_prefix
from efface.io.safetensors_file import read_outlines, read_portions, write_safetensors
from efface.io.torch_file import (
    HOW_TO_SAVE,
    archive_name,
    damaged,
    is_legacy,
    read_torch,
    write_torch,
)
from efface.runtime import cast_like, is_lossless, nonfinite_tensors, tie_like

PLACES = ("state_dict", "model", "model_state_dict", "net")
"""Where a checkpoint may keep its weights when they are not at its top."""

SHOWN = 10


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A weights file: what it holds and how; the numbers themselves are read by ``portions``.

    ``state``: names as the model has them, in the order of the file, each with its tensor (of a
    safetensors file shape and dtype alone, on torch's meta device); ``left_out``: entries that may
    hold the records too (optimizer, scheduler, averages, further tensors, samplers, lists of ids),
    which are not written back; ``kept``: tensors beside the net's own that are written back as they
    came; ``content``: the whole container without those; ``place``: the entry that holds the
    weights, None at the top; ``metadata`` and ``header``: of safetensors, None for a file of
    torch.save; ``names``: the file's name of a tensor where the model's is another but for the
    prefix; ``archive``: the folder in a zip file of torch.save, None in its older form.
    """

    path: Path
    state: dict[str, Tensor]
    left_out: tuple[str, ...]
    content: dict[str, Any]
    place: str | None
    prefix: str
    metadata: dict[str, str] | None
    header: bytes | None = None
    archive: str | None = None
    kept: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def safetensors(self) -> bool:
        """Whether the file is of safetensors."""
        return self.header is not None

    def under(self, net: Mapping[str, Tensor]) -> "Checkpoint":
        """The same file read for a net with this state: what stands before every name is found.

        A second whole copy of the net's tensors (a moving average) is left out; further tensors
        beside the net's are kept. The checkpoint itself where nothing of the kind is seen.
        """
        prefix = prefix_for(self.state, net)
        if not prefix:
            return self
        own = {n.removeprefix(prefix): t for n, t in self.state.items() if n.startswith(prefix)}
        own = {name: tensor for name, tensor in own.items() if name in net}
        beside = [name for name in self.state if name.removeprefix(prefix) not in own]
        twins = twins_of(beside, self.state, net)
        return replace(
            self,
            state=own,
            prefix=self.prefix + prefix,
            kept=tuple(self.prefix + name for name in beside if name not in twins),
            left_out=(*self.left_out, *(self.prefix + name for name in twins)),
        )

    def named(self, names: Mapping[str, str]) -> "Checkpoint":
        """The same file read under the model's names; ``names`` says the file's for each."""
        own = {name: model_name for model_name, name in names.items()}
        state = {own.get(name, name): tensor for name, tensor in self.state.items()}
        return replace(self, state=state, names=names)

    def portions(self) -> Iterator[dict[str, Tensor]]:
        """The weights under the model's names: of safetensors some at a time, of torch.save all.

        A portion is let go of before the next is read. Raises UnsafeFile when a safetensors file is
        no longer the one that was opened.
        """
        if self.header is None:
            yield self.state
            return
        names = {self._in_file(name): name for name in self.state}
        for portion in self._read(names):
            yield {names[name]: tensor for name, tensor in portion.items()}

    def _in_file(self, name: str) -> str:
        """The file's name of a tensor of the model."""
        return self.prefix + self.names.get(name, name)

    def _read(self, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
        """Tensors of a safetensors file by its own names, a portion at a time."""
        outlines = {name: self.content[name] for name in names}
        return read_portions(self.path, self.header or b"", outlines)

    def write(self, state: Mapping[str, Tensor], path: str | Path) -> None:
        """Write ``state`` in this container: same names, order, dtypes, nesting, metadata.

        Names that the container does not hold (the second name of a tied weight) are passed over.
        Raises InputError when a tensor is missing or has another shape, OutputError when a weight
        is not finite or the file cannot be written; the file is there whole or not at all.
        """
        _refuse_misfit(self.state, state)
        given = self._needed_from_file(state)
        new = {
            file_name: cast_like(given.get(file_name, old), state[name])
            for name, old in self.state.items()
            for file_name in [self._in_file(name)]
        }
        if broken := nonfinite_tensors(new):
            raise OutputError(
                "finite weights to write",
                f"nan or inf in {some_of(broken)}",
                "Nothing was written.",
            )
        if self.header is None:
            old = {self._in_file(name): tensor for name, tensor in self.state.items()}
            content, archive = self._filled(tie_like(old, new)), self.archive
            write_whole(path, lambda scratch: write_torch(content, scratch, archive=archive))
            return
        whole = {**new, **{name: given[name] for name in self.kept}}
        if len(whole) == len(self.content):
            header = self.header
            write_whole(path, lambda scratch: write_safetensors(header, whole, scratch))
        else:  # something is left out: the header cannot stay
            apart = {name: tensor.contiguous().clone() for name, tensor in whole.items()}
            write_whole(path, lambda scratch: save_file(apart, scratch, metadata=self.metadata))

    def _needed_from_file(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What ``state`` cannot give back bit for bit: tensors beside the net's, and wider ones."""
        if self.header is None:
            return {}
        wider = [
            self._in_file(n) for n, old in self.state.items() if not is_lossless(old, state[n])
        ]
        return {n: t for portion in self._read([*wider, *self.kept]) for n, t in portion.items()}

    def _filled(self, new: dict[str, Tensor]) -> dict[str, Any]:
        """The container with new weights; a fresh outer layer, so that this checkpoint stands."""
        old = self.content if self.place is None else self.content[self.place]
        weights = _copied(
            old,
            {
                name: _kept_parameter(old[name], new[name]) if name in new else old[name]
                for name in old
                if name in new or name in self.kept
            },
        )
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
    header = archive = None
    if head[8:] == b"{":
        content, metadata, header = read_outlines(path)
        place, weights = _find_weights(path, content)
    elif head[:2] == b"PK" or head[:1] == b"\x80":
        content, metadata = read_torch(path), None
        archive = None if is_legacy(head) else archive_name(path)
        place, weights = _find_weights(path, content)
        beside = {key: value for key, value in content.items() if place and key != place}
        left_out = tuple(key for key in beside if may_hold_records(str(key), beside[key]))
    else:
        raise damaged(path, "an empty file" if not head else f"a file that begins with {head!r}")
    prefix = wrapper_prefix(weights)
    read = Checkpoint(
        path=path,
        state={name.removeprefix(prefix): tensor for name, tensor in weights.items()},
        left_out=left_out,
        content=_copied(content, {k: v for k, v in content.items() if k not in left_out}),
        place=place,
        prefix=prefix,
        metadata=metadata,
        header=header,
        archive=archive,
    )
    if broken := [name for portion in read.portions() for name in nonfinite_tensors(portion)]:
        raise UnsafeFile(
            f"finite weights in {path}",
            f"nan or inf in {some_of(broken)}",
            "Use a checkpoint from before training diverged.",
        )
    return read


def _find_weights(path: Path, content: dict[str, Any]) -> tuple[str | None, dict[str, Tensor]]:
    if _is_state(content):
        return None, content
    for place in PLACES:
        if _is_state(content.get(place)):
            return place, content[place]
    raise InputError(
        f"a state dict at the top of {path} or under {' or '.join(PLACES)}",
        f"the entries {some_of(content)}",
        HOW_TO_SAVE,
    )


def _is_state(value: Any) -> bool:
    """Whether this is names and tensors, and nothing else."""
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())
    )


def _refuse_misfit(old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> None:
    missing = [name for name in old if name not in new]
    bent = [name for name in old if name in new and new[name].shape != old[name].shape]
    if missing or bent:
        raise InputError(
            "the tensors that the container holds",
            f"missing: {some_of(missing)}; of another shape: {some_of(bent)}",
            "Write the state of the model that was loaded from it.",
        )


def _kept_parameter(old: Tensor, new: Tensor) -> Tensor:
    """An ``nn.Parameter`` stays one; a view is written without the rest of its storage."""
    if new.untyped_storage().nbytes() > new.nbytes:
        new = new.clone()
    return nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new


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
