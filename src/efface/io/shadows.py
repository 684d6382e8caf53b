"""Outputs of shadow models: a folder with one .npz a model, read without unpickling.

Each file holds ``ids`` (n,) texts, ``member`` (n,) whether the model was trained on the record, and
``log_odds`` (n,) of the label, ln p - ln(1 - p). The arrays of a benchmark cell serve with ``ids``
added: there they are ``train.member`` and ``train.log_odds``; other arrays are ignored.

Shapes: s shadow models · n records.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64

from efface.errors import InputError, UnknownRecords, UnsafeFile, abbreviate

NAMES = ("ids", "member", "log_odds")
SAVE_AGAIN = "Save it again: numpy.savez(path, ids=…, member=…, log_odds=…), ids as texts."
ALL_RECORDS = "Save the arrays of all shadow models for all records of --data."


@dataclass(frozen=True, eq=False)
class Shadows:
    """Which records each shadow model was trained on, and how confident it is of their labels.

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
            came = f"{len(unknown)} without: {abbreviate(unknown)}"
            raise UnknownRecords("shadow outputs for every forget record", came, ALL_RECORDS)
        rows = [places[identity] for identity in ids]
        member, log_odds = self.member[:, rows], self.log_odds[:, rows]
        return replace(self, ids=tuple(ids), member=member, log_odds=log_odds)


def read_shadows(folder: str | Path) -> Shadows:
    """Every .npz of a folder, in the order of the first one's ids.

    Raises InputError for fewer than two, a file of another form, or files of other records;
    UnsafeFile for one that is damaged or could only be unpickled.
    """
    folder = Path(folder)
    paths = sorted(folder.glob("*.npz")) if folder.is_dir() else []
    if len(paths) < 2:  # noqa: PLR2004
        came = f"{folder}, which holds {len(paths)}" if folder.is_dir() else f"{folder}, no folder"
        remedy = "Train shadow models on subsets of the data, save their outputs (docs/metrics.md)."
        raise InputError("a folder of two or more shadow models, each an .npz file", came, remedy)
    digest, members, log_odds = hashlib.sha256(), [], []
    ids: tuple[str, ...] = ()
    for path in paths:
        if not path.is_file():
            raise UnsafeFile(f"an .npz file at {path}", "no regular file", SAVE_AGAIN)
        content = path.read_bytes()
        digest.update(hashlib.sha256(content).digest())
        own, member, values = _read(path, content)
        ids = ids or own
        if other := sorted(set(ids) ^ set(own)):
            came = f"{path.name}, which differs in {len(other)}: {abbreviate(other)}"
            raise InputError("shadow outputs for the same records", came, ALL_RECORDS)
        # rows of two files are matched by id, never by position
        places = {identity: row for row, identity in enumerate(own)}
        order = [places[identity] for identity in ids]
        members.append(member[order])
        log_odds.append(values[order])
    names = tuple(path.stem for path in paths)
    return Shadows(names, ids, np.stack(members), np.stack(log_odds), digest.hexdigest())


def _read(path: Path, content: bytes) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """(ids, member, log_odds) of one file."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            # allow_pickle=False: an array of objects would have to run code
            names = {name.removeprefix("train."): name for name in stored.files}
            arrays = {name: stored[names[name]] for name in NAMES if name in names}
    # a damaged archive fails wherever its broken bytes lead to
    except Exception as error:
        came = f"{type(error).__name__} in {path.name}: {(str(error) or 'damaged').splitlines()[0]}"
        raise UnsafeFile("arrays of plain numbers and texts", came, SAVE_AGAIN) from error
    form = f"arrays ids, member and log_odds of one length in {path.name}"
    if missing := [name for name in NAMES if name not in arrays]:
        raise InputError(form, f"no {' and no '.join(missing)}", SAVE_AGAIN)
    ids, member, log_odds = (arrays[name] for name in NAMES)
    shapes = [array.shape for array in (ids, member, log_odds)]
    if len(set(shapes)) > 1 or ids.ndim != 1 or not len(ids):
        raise InputError(form, f"lengths {', '.join(map(str, shapes))}", SAVE_AGAIN)
    if ids.dtype.kind != "U" or member.dtype.kind != "b" or log_odds.dtype.kind != "f":
        came = f"{ids.dtype}, {member.dtype} and {log_odds.dtype}"
        raise InputError(f"texts, booleans and floats in {path.name}", came, SAVE_AGAIN)
    if broken := int((~np.isfinite(log_odds)).sum()):
        wanted, came = f"finite log_odds in {path.name}", f"{broken} of {len(log_odds)} not finite"
        raise InputError(wanted, came, "Check that shadow model, or omit it.")
    if len(set(ids.tolist())) < len(ids):
        raise InputError(f"unique ids in {path.name}", "some twice", SAVE_AGAIN)
    return tuple(ids.tolist()), member, log_odds.astype(np.float64)
