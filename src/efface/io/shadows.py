"""What shadow models leave: a folder with one .npz a model, read without unpickling.

Each file holds ``ids`` (n,) texts, ``member`` (n,) whether the model was trained on the record, and
``log_odds`` (n,) of the label, ln p - ln(1 - p). A cell's arrays do, with ``ids`` beside them: its
names are ``train.member`` and ``train.log_odds``; other arrays are left alone.

Shapes: s shadow models · n records.
"""

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64

from efface.errors import InputError, UnknownRecords, UnsafeFile
from efface.io.checkpoint import some_of

LEAST = 2
FORM = "arrays ids, member and log_odds of one length"
REMEDY = "Save it anew: numpy.savez(path, ids=…, member=…, log_odds=…), ids as texts."


@dataclass(frozen=True, eq=False)
class Shadows:
    """Which records each shadow model was trained on, and how sure it is of their labels.

    ``names`` of the s files; ``ids`` of the n records; ``member`` and ``log_odds`` (s, n);
    ``digest`` over the files' contents.
    """

    names: tuple[str, ...]
    ids: tuple[str, ...]
    member: Bool[np.ndarray, " s n"]
    log_odds: Float64[np.ndarray, " s n"]
    digest: str

    def __len__(self) -> int:
        return len(self.names)

    def of(self, ids: Sequence[str]) -> "Shadows":
        """The same for these records, in this order. Raises UnknownRecords."""
        places = {identity: column for column, identity in enumerate(self.ids)}
        if unknown := [identity for identity in ids if identity not in places]:
            raise UnknownRecords(
                "shadow models that were asked about every forget record",
                f"{len(unknown)} without: {some_of(unknown)}",
                "Save the arrays of the shadow models for all records of --data.",
            )
        columns = [places[identity] for identity in ids]
        return Shadows(
            self.names,
            tuple(ids),
            self.member[:, columns],
            self.log_odds[:, columns],
            self.digest,
        )


def read_shadows(folder: str | Path) -> Shadows:
    """Every .npz of a folder, brought to the order of the first one's ids.

    Raises InputError for fewer than two, a file of another form, or files of other records;
    UnsafeFile for one that is damaged or could only be unpickled.
    """
    folder = Path(folder)
    paths = sorted(folder.glob("*.npz")) if folder.is_dir() else []
    if len(paths) < LEAST:
        raise InputError(
            f"a folder of {LEAST} or more shadow models, each an .npz file",
            f"{folder}, which holds {len(paths)}" if folder.is_dir() else f"{folder}, no folder",
            "Train shadow models on subsets of the data and save what they say (docs/scores.md).",
        )
    read = [_read(path) for path in paths]
    first = read[0][0]
    digest = hashlib.sha256()
    for path in paths:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    ordered = [_in_order(path, first, *found) for path, found in zip(paths, read, strict=True)]
    return Shadows(
        names=tuple(path.stem for path in paths),
        ids=first,
        member=np.stack([member for member, _ in ordered]),
        log_odds=np.stack([log_odds for _, log_odds in ordered]),
        digest=digest.hexdigest(),
    )


def _read(path: Path) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """(ids, member, log_odds) of one file."""
    found = _arrays(path)
    lacking = [name for name in ("ids", "member", "log_odds") if name not in found]
    if lacking:
        raise InputError(f"{FORM} in {path.name}", f"no {' and no '.join(lacking)}", REMEDY)
    ids, member, log_odds = (found[name] for name in ("ids", "member", "log_odds"))
    shapes = {array.shape for array in (ids, member, log_odds)}
    if len(shapes) > 1 or ids.ndim != 1 or not len(ids):
        came = f"lengths {', '.join(str(array.shape) for array in (ids, member, log_odds))}"
        raise InputError(f"{FORM} in {path.name}", came, REMEDY)
    if ids.dtype.kind != "U" or member.dtype.kind != "b" or log_odds.dtype.kind != "f":
        came = f"{ids.dtype}, {member.dtype} and {log_odds.dtype}"
        raise InputError(f"texts, truths and numbers in {path.name}", came, REMEDY)
    if not np.isfinite(log_odds).all():
        broken = int((~np.isfinite(log_odds)).sum())
        raise InputError(
            f"finite log_odds in {path.name}",
            f"{broken} of {len(log_odds)} that are not",
            "Look at that shadow model, or leave it out.",
        )
    names = tuple(ids.tolist())
    if len(set(names)) < len(names):
        raise InputError(f"ids in {path.name} that each stand once", "some twice", REMEDY)
    return names, member, log_odds.astype(np.float64)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays by name; those of a cell's training part without their prefix."""
    try:
        # numpy leaves a file open that it cannot read: it is opened and closed here
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            names = {name.removeprefix("train."): name for name in stored.files}
            wanted = ("ids", "member", "log_odds")
            return {name: stored[names[name]] for name in wanted if name in names}
    except (ValueError, OSError, zipfile.BadZipFile, EOFError, TypeError) as error:
        raise UnsafeFile(
            f"arrays of plain numbers and texts in {path.name}",
            f"{type(error).__name__}: {str(error).splitlines()[0]}",
            REMEDY,
        ) from error


def _in_order(
    path: Path,
    first: tuple[str, ...],
    ids: tuple[str, ...],
    member: np.ndarray,
    log_odds: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Member and log odds in the order of the first file's ids."""
    if ids == first:
        return member, log_odds
    places = {identity: row for row, identity in enumerate(ids)}
    other = sorted(set(first) ^ set(ids))
    if other:
        raise InputError(
            "shadow models that were asked about the same records",
            f"{path.name}, which differs in {len(other)}: {some_of(other)}",
            "Save the arrays of all shadow models for all records of --data.",
        )
    order = [places[identity] for identity in first]
    return member[order], log_odds[order]
