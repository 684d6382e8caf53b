"""The options that commands share: each has its type, default and help here and nowhere else.

cyclopts flattens the dataclasses into options (``@Parameter(name="*")``); their docstrings are the
help texts. ``Arguments`` is what it takes to evaluate a run again: it goes into the manifest, for
people to read. This module does not import torch, so that help comes at once.
"""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

# The panels of a help page, in this order.
REQUEST, METHOD, DATA, MODEL, OUTPUT, EVERY = map(
    Group.create_ordered, ("Request", "Method", "Data", "Model", "Output", "Every command")
)
# Several words after one option (`--mean 0.5 0.4`), and no `--empty-mean` in the help.
_SEVERAL = Parameter(consume_multiple=True, negative=(), show_default=False)
# A flag that is off by default needs no `--no-…`.
Flag = Annotated[bool, Parameter(negative=(), show_default=False)]
Numbers = Annotated[tuple[float, ...] | None, _SEVERAL]
Words = Annotated[tuple[str, ...], _SEVERAL]
Paths = Annotated[tuple[Path, ...], _SEVERAL]
Data = Annotated[str, Parameter(group=DATA)]
Out = Annotated[Path, Parameter(group=OUTPUT)]


def _typed_alone(kind: type, tokens: Any) -> str:  # noqa: ARG001
    """A command is run because somebody typed it, never because a file or a variable holds it."""
    if any(token.source not in {"", "cli"} for token in tokens):
        raise ValueError("only on the command line itself")
    return tokens[0].value


Command = Annotated[str | None, Parameter(group=METHOD, converter=_typed_alone)]
Seed = Annotated[int, Parameter(group=METHOD, help="Seed of all random draws.")]
MODEL_HELP = (
    "A folder with recipe.json or of transformers or timm, or a weights file with --architecture."
)
Model = Annotated[Path, Parameter(help=MODEL_HELP)]


@Parameter(name="*", group=MODEL)
@dataclass(frozen=True)
class ModelOptions:
    """How to build a model and what its inputs are.

    Attributes:
        architecture: `timm:NAME`, `package.module:factory` or `path/to/file.py:factory`, for a
            weights file.
        mean: Mean of each channel, of pixels scaled to 0 to 1.
        std: Standard deviation of each channel, of pixels scaled to 0 to 1.
        size: Height and width of the images in pixels.
        resize: Shorter side in pixels, before the centre of the size is cropped.
        interpolation: Of resizing: bilinear, bicubic, lanczos or nearest.
        feature_spec: For a model of tables: JSON file of the input columns in order, and how each
            is encoded.
        weights_in: Of a weights file with several copies of the weights (raw and averaged) the one
            to take, such as `state_dict.ema`.
        classes: Names of the model's classes in the order of its outputs, separated by commas, or a
            file with one a line; it replaces the names of the folder.
        device: Torch device: cpu, cuda or mps; `auto` takes the best one available.
    """

    architecture: str | None = None
    mean: Numbers = None
    std: Numbers = None
    size: int | None = None
    resize: int | None = None
    interpolation: str | None = None
    feature_spec: Path | None = None
    weights_in: str | None = None
    classes: str | None = None
    device: str = "auto"


@Parameter(name="*", group=DATA)
@dataclass(frozen=True)
class ColumnOptions:
    """Which columns of the data hold what; inferred from names and types when not given.

    Attributes:
        id_column: Column of the ids.
        image_column: Column of the images or of their paths.
        label_column: Column of the labels, or several for multilabel or regression.
    """

    id_column: str | None = None
    image_column: str | None = None
    label_column: Words = ()


@Parameter(name="*", group=DATA)
@dataclass(frozen=True)
class CheckOptions:
    """What of the checks before a run is accepted.

    Attributes:
        accept: Names of findings that shall warn instead of refusing, such as `chance`, see
            `efface doctor`.
    """

    accept: Words = ()


@Parameter(name="*")
@dataclass(frozen=True)
class ReadOptions:
    """How models and data are read and checked."""

    columns: ColumnOptions = field(default_factory=ColumnOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    checks: CheckOptions = field(default_factory=CheckOptions)


@Parameter(name="*", group=REQUEST)
@dataclass(frozen=True)
class RecordOptions:
    """Which records are meant; one of these names them.

    Attributes:
        ids: File with one id a line, or a CSV with a column `id`.
        where: Expression on columns with = != >= <= > <, and, or, parentheses, for example
            `label=dog and source!=web`; texts with spaces in quotes.
        forget_class: A class, with all its records; so a person where the classes are persons.
            Where persons share labels name the records instead, without `--whole-group`.
    """

    ids: Path | None = None
    where: str | None = None
    forget_class: str | None = None

    def __str__(self) -> str:
        """As on the command line; empty when no records are named."""
        return " ".join(f"{name} {value}" for name, value in flags(self).items())


@Parameter(name="*", group=REQUEST)
@dataclass(frozen=True)
class SplitOptions:
    """The other parts of the data, and properties of the request.

    Attributes:
        holdout: Data never trained on, 12 records or more. A seeded hash splits them: one part is
            for the method and the guard, the other for the report.
        holdout_seed: Seed of that split.
        retain: Training data that are not to be forgotten.
        mislabelled: The labels of the forget records are flagged as wrong.
        note: A text for the manifest and the report, such as the number of a case.
        report: `full`, `quick` (one pass over each record: no other views, no quantised or pruned
            copies, no linear probe) or, for `efface forget`, `off`.
    """

    holdout: str | None = None
    holdout_seed: int = 0
    retain: str | None = None
    mislabelled: Flag = False
    note: Annotated[str, Parameter(show_default=False)] = ""
    report: Literal["full", "quick", "off"] = "full"


@Parameter(name="*", group=METHOD)
@dataclass(frozen=True)
class MethodOptions:
    """Arguments of ``efface.forget`` by their own names, and its settings.

    Attributes:
        method: Name of a method, see `efface methods`; `path/to/file.py:name` for one of your own;
            or `auto` for the one that suits the data available: the manifest says which and why.
        trainable: Weights that may change: `all`, `last-layers`, `norm` or `adapter` (LoRA,
            merged).
        strength: How strongly the method unlearns; 1 is its default.
        expected_accuracy: Accuracy on unseen data (0 to 1), from the model card.
        whole_group: Their label itself may not be predicted either, since no record of their kind
            stays (all rockets, all pictures of a person): not a clinic or a customer, whose labels
            other records have too.
        selection: `all`, or `high-information`: the method sees only the forget records that the
            model memorised most; the report is on all of them.
        weights: CSV with columns `id` and `weight`, one line a forget record: how often the method
            sees it.
        setting: Any other setting of the method, as NAME=VALUE.
        utility_budget: Accuracy that may be lost on the guard's part of the holdout, 0 to 1. Two
            standard errors more are allowed, so that chance stops nothing; the report says how much
            that came to.
        keep_best: After so many steps each the model is compared with unseen records of the
            holdout's part for method and guard, and the nearest is kept.
    """

    method: str = "neighbourhood"
    trainable: str = "all"
    strength: float | None = None
    expected_accuracy: float | None = None
    whole_group: Flag = False
    selection: str = "all"
    weights: Path | None = None
    setting: Annotated[tuple[str, ...], Parameter(negative=(), show_default=False)] = ()
    utility_budget: float = 0.02
    keep_best: int | None = None


@Parameter(name="*", group=METHOD)
@dataclass(frozen=True)
class CompareOptions:
    """Arguments of ``efface.compare`` by their own names.

    Attributes:
        methods: Names of methods, see `efface methods`, or `path/to/file.py:name` of your own.
        seeds: Seeds of the methods; the holdout is split by `--holdout-seed`, the same for all.
        guard: Whether the guard limits the runs: `on`, `off`, or `both` next to each other.
        search_strength: Strengths of 0.1 to 10 to try for each method, 2 to 12, on the part of the
            holdout that method and guard see; 0 takes the default.
        keep_best: After so many steps each the model is compared with unseen records of that part,
            and the nearest is kept.
        setting: A setting of a method, as METHOD.NAME=VALUE.
        trainable: As in `efface forget`.
        expected_accuracy: As in `efface forget`.
        whole_group: As in `efface forget`.
        utility_budget: As in `efface forget`.
        processes: Runs at a time.
    """

    methods: Words
    seeds: Annotated[tuple[int, ...], _SEVERAL] = (0, 1, 2)
    guard: Literal["on", "off", "both"] = "on"
    search_strength: int = 0
    keep_best: int | None = None
    setting: Annotated[tuple[str, ...], Parameter(negative=())] = ()
    trainable: str = "all"
    expected_accuracy: float | None = None
    whole_group: Flag = False
    utility_budget: float = 0.02
    processes: int = 1


@Parameter(name="*", group=METHOD)
@dataclass(frozen=True)
class InspectOptions:
    """Arguments of ``efface.inspect`` by their own names; None is its default.

    Attributes:
        sigma: Standard deviation of the noise, as a share of the data's range; of several the first
            ranks. Chosen from the model when not given.
        expected_accuracy: Accuracy on unseen data (0 to 1), from the model card: sigma is chosen so
            that this share of noisy copies keeps its prediction; 0.75 when not given.
        copies: Noisy copies of each record.
        neighbours: Other records in a ball; 0 for no balls, then only the named records are read.
        threshold: An information content of at least this is called low.
        curvature: Second derivatives too, of this function; from 11 passes a record on.
    """

    sigma: Numbers = None
    expected_accuracy: float | None = None
    copies: int = 16
    neighbours: int = 20
    threshold: float | None = None
    curvature: Literal["probability", "log_probability", "loss"] | None = None


@Parameter(name="*", group=EVERY)
@dataclass(frozen=True)
class DisplayOptions:
    """What every command takes, before or after its own options.

    Attributes:
        config: TOML file with options, a table a command: `[forget]`, `data = "…"`. What is typed
            comes first.
        json: One JSON document on standard output in place of text and tables.
        quiet: Warnings and errors only.
        verbose: Every row of a report and what each phase took too.
    """

    config: Path | None = None
    json: Flag = False
    quiet: Flag = False
    verbose: Flag = False


@dataclass(frozen=True)
class Arguments:
    """The arguments of a run, paths as given: what it takes to evaluate the run again.

    ``old`` and ``new``: the two models, ``new`` None where the run itself made it.
    """

    old: Path
    new: Path | None
    data: str
    records: RecordOptions
    split: SplitOptions
    read: ReadOptions
    seed: int
    retrained: tuple[Path, ...] = ()
    shadow: Path | None = None
    reference: Path | None = None

    def inputs(self) -> dict[str, str | Path | None]:
        """Every path that is read, by the name of its argument."""
        # The one model of forget is MODEL in its help, the first of two is OLD.
        models = {"OLD": self.old, "NEW": self.new} if self.new else {"MODEL": self.old}
        further = {"--reference": self.reference, "--shadow": self.shadow}
        parts = {"--holdout": self.split.holdout, "--retain": self.split.retain}
        compared = {f"--retrained {path}": path for path in self.retrained}
        return {**models, **further, "--data": self.data, **parts, **compared}

    def to_score(self) -> list[str]:
        """The words after ``efface score`` that evaluate the run again, but for the folder."""
        given: dict[str, Any] = {"--data": self.data}
        read = (self.read.columns, self.read.model, self.read.checks)
        for options in (self.records, self.split, *read):
            given |= flags(options)
        own = {"--seed": self.seed, "--retrained": self.retrained, "--shadow": self.shadow}
        given |= {name: value for name, value in own.items() if value}
        words = [self.old, self.new] if self.new else [self.old]
        for name, value in given.items():
            several = value if isinstance(value, tuple) else () if value is True else (value,)
            words += [name, *several]
        return [str(word) for word in words]


def flags(options: Any) -> dict[str, Any]:
    """The options that are not at their default, by their names on the command line."""
    pairs = ((f, getattr(options, f.name)) for f in fields(options))
    given = {f.name: value for f, value in pairs if value != f.default}
    return {f"--{name.replace('_', '-')}": value for name, value in given.items()}
