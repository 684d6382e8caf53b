"""What was asked on the command line: models, data and records, read as they were named."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from efface import terminal
from efface.errors import abbreviate
from efface.io.data import DataSource, load_data
from efface.io.models import LoadedModel, load_model
from efface.runtime import resolve_device
from efface.types import Records, Split


@dataclass(frozen=True)
class Flags:
    """How to read the model and the data, as given on the command line."""

    architecture: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: int | None = None
    features: Path | None = None
    id_column: str | None = None
    image_column: str | None = None
    label_column: tuple[str, ...] = ()
    device: str = "auto"

    def model(self, path: Path) -> LoadedModel:
        """The model of a folder or a weights file, on the device."""
        device = resolve_device(self.device)
        loaded = load_model(
            path,
            architecture=self.architecture,
            mean=self.mean,
            std=self.std,
            size=self.size,
            features=self.features,
        )
        if loaded.extras:
            terminal.event(
                "kept", beside_the_model=list(loaded.extras), hint="they may hold the data"
            )
        if loaded.omitted:
            names = abbreviate(loaded.omitted)
            terminal.event("left out", of_the_checkpoint=names, hint="they may hold the data")
        return replace(loaded, model=loaded.model.to(device))

    def table(self, spec: str, loaded: LoadedModel) -> DataSource:
        """A table of records; the model's classes settle which label column is meant."""
        return load_data(
            spec,
            id_column=self.id_column,
            image_column=self.image_column,
            label_column=self.label_column,
            classes=loaded.classes,
            num_classes=loaded.num_classes,
        )


@dataclass(frozen=True)
class Asked:
    """The arguments of a request, paths as they were given: what it takes to measure again.

    ``old`` and ``new``: the two models, ``new`` None where the run itself made it; ``naming``: how
    the records were named; ``others``: the data of the other parts.
    """

    old: Path
    new: Path | None
    data: str
    naming: Mapping[str, Any]
    others: Mapping[str, str | None]
    flags: Flags
    retrained: tuple[Path, ...] = ()
    shadow: Path | None = None
    mislabelled: bool = False
    seed: int = 0

    def read(self) -> dict[str, str | Path | None]:
        """Every path that is read, by the name of its argument."""
        others = {f"--{name}": spec for name, spec in self.others.items()}
        models = {"OLD": self.old, "NEW": self.new, "--shadow": self.shadow}
        again = {f"--retrained {path}": path for path in self.retrained}
        return {**models, "--data": self.data, **others, **again}

    def named(self) -> str:
        """How the records were named, as on the command line."""
        given = {name: value for name, value in self.naming.items() if value is not None}
        return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in given.items())

    def as_json(self) -> dict[str, Any]:
        """Plain values, from which ``again`` makes the same."""
        return asdict(self)

    @classmethod
    def again(cls, written: Mapping[str, Any]) -> "Asked":
        """What ``as_json`` gave, after it went through a file."""
        flags: dict[str, Any] = {n: _tuples(value) for n, value in written["flags"].items()}
        flags["features"] = _path(flags["features"])
        naming = dict(written["naming"])
        return cls(
            old=Path(written["old"]),
            new=_path(written["new"]),
            data=written["data"],
            naming={**naming, "ids": _path(naming["ids"])},
            others=written["others"],
            flags=Flags(**flags),
            retrained=tuple(Path(path) for path in written["retrained"]),
            shadow=_path(written["shadow"]),
            mislabelled=written["mislabelled"],
            seed=written["seed"],
        )


def _path(written: str | None) -> Path | None:
    return None if written is None else Path(written)


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@dataclass(frozen=True)
class Gathered:
    """The records that were named, and what is to be said of the files that they came from.

    ``left_out``: unreadable records by part; ``taken``: forget records by the part that held them;
    ``digests``: of the data of each part.
    """

    split: Split
    table: DataSource
    left_out: dict[str, list[str]] = field(default_factory=dict)
    taken: dict[str, int] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    def told(self, counts: dict[str, Any]) -> None:
        """Print and record how many forget records other parts held, by row and by content."""
        for name in ("holdout", "retain"):
            if name in counts:
                key = f"forget_records_in_{name}"
                counts[key] += self.taken.get(name, 0)
                terminal.event(name, forget_records_taken_out=counts[key])


def gathered(asked: Asked, loaded: LoadedModel) -> Gathered:
    """The records of every part; rows to forget are taken out of the parts that hold them."""
    table = asked.flags.table(asked.data, loaded)
    rows, forget_classes = table.requested_rows(asked.naming)
    _warn(table, rows, a_class=bool(forget_classes))
    parts: dict[str, Records | None] = dict.fromkeys(asked.others)
    found = Gathered(Split(table.records(rows, loaded.preprocessing)), table)
    found.digests["data"] = table.digest
    for name, spec in asked.others.items():
        if spec is None:
            continue
        other = asked.flags.table(spec, loaded)
        found.digests[name] = other.digest
        kept = range(len(other))
        if other.digest == table.digest:
            kept = sorted(set(kept) - set(rows))
            found.taken[name] = len(other) - len(kept)
        parts[name], lost = other.readable(kept, loaded.preprocessing)
        found.left_out[f"unreadable in {name}"] = list(lost)
    split = Split(found.split.forget, parts["holdout"], parts["retain"], forget_classes)
    return replace(found, split=split)


def _warn(table: DataSource, rows: list[int], *, a_class: bool) -> None:
    """Say what the request may not have meant."""
    if table.ids_are_row_numbers:
        terminal.event(
            "warning",
            ids="row numbers, counted from 0",
            hint="they name other records when the rows move; --id-column names a column",
        )
    if a_class:
        return
    if len(rows) == len(table) > 1:
        terminal.event(
            "warning",
            named="every record of the data",
            hint="if the model was trained on nothing else, delete it instead",
        )
    if whole := table.nearly_whole_classes(rows):
        terminal.event(
            "warning", nearly_all_of=", ".join(whole), hint="--forget-class removes a class"
        )
