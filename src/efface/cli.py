"""The command line: parse, call, show. torch is imported only when a command runs."""

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

from cyclopts import App, CycloptsError, Parameter

from efface import __version__
from efface.cli_inspect import inspect
from efface.cli_score import Numbers, Words, score

app = App(
    name="efface",
    version=__version__,
    suppress_keyboard_interrupt=False,
    help="Make a trained model forget records, with an honest account of how far it succeeded.",
    help_epilogue="Exit codes: 0 done · 2 input · 3 not met, the old model stands · "
    "4 unsafe file · 5 unknown record · 6 doctor refuses · 7 a package is missing · "
    "8 the result was not written · 9 a replay differs · 130, 143 stopped by a signal.",
)

app.command(score)
app.command(inspect)


@app.command
def forget(  # noqa: PLR0913  # each flag of the command stands here once
    model: Path,
    /,
    *,
    data: str,
    out: Path,
    ids: Path | None = None,
    where: str | None = None,
    forget_class: str | None = None,
    holdout: str | None = None,
    retain: str | None = None,
    method: str = "neighbourhood",
    trainable: str = "all",
    keep_adapter: Annotated[bool, Parameter(negative=())] = False,
    strength: float | None = None,
    expected_accuracy: float | None = None,
    mislabelled: Annotated[bool, Parameter(negative=())] = False,
    target: str = "all",
    weights: Path | None = None,
    setting: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    utility_budget: float = 0.02,
    seed: int = 0,
    architecture: str | None = None,
    mean: Numbers = None,
    std: Numbers = None,
    size: int | None = None,
    features: Path | None = None,
    id_column: str | None = None,
    image_column: str | None = None,
    label_column: Words = (),
    device: str = "auto",
) -> None:
    """Make MODEL forget records of DATA; write the new model and its evidence into a new folder.

    Name the records in one way: --ids, --where or --forget-class.

    Args:
        model: A folder of `efface train`, transformers or timm, or a weights file with
            --architecture.
        data: Parquet, arrow or CSV, a folder of these or of images, or `hub:owner/name`;
            `DATA:test` names a split.
        out: A folder that does not exist yet; it gets the model in the same container, manifest.json,
            evidence.json, exclude.csv and report.html, all or nothing.
        ids: File with one id a line, or a CSV with a column `id`.
        where: Expression on columns, for example `label=dog and source!=web`.
        forget_class: A class that goes altogether, all its records.
        holdout: Data that the model was never trained on, 12 records or more.
        retain: Data that the model was trained on and that stay.
        method: Name of a method, or `auto` for the one that suits what is at hand; the record says
            which and why.
        trainable: Weights that may move: `all`, `last-layers`, `norm` or `adapter` (LoRA, merged).
        keep_adapter: Write the adapter beside the merged model too, as PEFT's own folder `adapter`.
        strength: The method's one knob; 1 is its default.
        expected_accuracy: Accuracy on unseen data (0 to 1), from the model card.
        mislabelled: The labels of the forget records are wrong.
        target: `all`, or `high-information`: the method sees only the records that told the model
            much; the evidence is on all of them.
        weights: CSV with columns `id` and `weight`, one line a forget record: how often the method
            sees it.
        setting: Any other setting of the method, as NAME=VALUE.
        utility_budget: Accuracy that may be lost on the holdout, 0 to 1.
        seed: Of everything drawn at random.
        architecture: `timm:NAME` or `package.module:factory`, for a weights file.
        mean: Per channel, of the pixels in 0 to 1.
        std: Per channel, of the pixels in 0 to 1.
        size: Side of the images in pixels.
        features: For a model of tables: JSON of the columns that go in, in order, and how.
        id_column: Column of the ids.
        image_column: Column of the images or of their paths.
        label_column: Column of the labels, or several of many labels or values.
        device: For torch: cpu, cuda or mps; `auto` takes the best that is here.
    """
    from efface.asked import Asked, Flags
    from efface.command import run_forget

    columns = (id_column, image_column, label_column)
    asked = Asked(
        model,
        None,
        data=data,
        naming={"ids": ids, "where": where, "forget_class": forget_class},
        others={"holdout": holdout, "retain": retain},
        flags=Flags(architecture, mean, std, size, features, *columns, device),
        mislabelled=mislabelled,
        seed=seed,
    )
    run_forget(
        asked,
        out=out,
        keep_adapter=keep_adapter,
        options={
            "method": method,
            "trainable": trainable,
            "strength": strength,
            "expected_accuracy": expected_accuracy,
            "mislabelled": mislabelled,
            "selection": target,
            "weights": weights,
            "utility_budget": utility_budget,
            "seed": seed,
            "settings": _settings(setting),
        },
    )


@app.command
def doctor(
    model: Path,
    /,
    *,
    data: str,
    architecture: str | None = None,
    mean: Numbers = None,
    std: Numbers = None,
    size: int | None = None,
    features: Path | None = None,
    image_column: str | None = None,
    label_column: Words = (),
    device: str = "auto",
) -> None:
    """Look for hazards before anything moves: wrong preprocessing, modes, weights, labels.

    Args:
        model: A folder of `efface train`, transformers or timm, or a weights file with
            --architecture.
        data: Correctly labelled records, as in `efface forget`.
        architecture: `timm:NAME` or `package.module:factory`, for a weights file.
        mean: Per channel, of the pixels in 0 to 1.
        std: Per channel, of the pixels in 0 to 1.
        size: Side of the images in pixels.
        features: For a model of tables: JSON of the columns that go in, in order, and how.
        image_column: Column of the images or of their paths.
        label_column: Column of the labels, or several of many labels or values.
        device: For torch: cpu, cuda or mps; `auto` takes the best that is here.
    """
    from efface.asked import Flags
    from efface.command import run_doctor

    columns = (None, image_column, label_column)
    run_doctor(model, Flags(architecture, mean, std, size, features, *columns, device), data)


@app.command
def methods(name: str | None = None, /) -> None:
    """List the methods: what each needs, sees and costs; of one its settings too.

    Args:
        name: Of a method, to read what it does and can be told.
    """
    from efface.listing import run_methods

    run_methods(name)


RESERVED = (
    "split",
    "model",
    "method",
    "trainable",
    "mislabelled",
    "classes",
    "preprocessing",
    "progress",
    "seed",
)
"""Arguments of the request that are not settings of a method."""


def _settings(pairs: tuple[str, ...]) -> dict[str, Any]:
    """NAME=VALUE pairs, the values read as JSON."""
    from efface.errors import InputError

    settings = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise InputError("--setting NAME=VALUE", repr(pair), "For example --setting steps=100.")
        if name in RESERVED:
            raise InputError(
                "a setting of the method", repr(name), "Use its own flag, if it has one."
            )
        try:
            settings[name] = json.loads(value)
        except json.JSONDecodeError as error:
            raise InputError(
                "a number, true, false or a quoted text", repr(value), "Check --setting."
            ) from error
    return settings


def main(arguments: list[str] | None = None) -> None:
    """Run a command; end with the exit code of the error, if there was one."""
    with exits():
        app(sys.argv[1:] if arguments is None else arguments, exit_on_error=False)


@contextmanager
def exits() -> Iterator[None]:
    """Errors within become their one line and exit code; a signal unwinds first."""
    from efface.errors import EffaceError

    try:
        with _terminated_as_interrupted():
            yield
    except EffaceError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
    except CycloptsError:
        sys.exit(2)
    except OSError as error:  # a name too long, a disk that went away
        sys.stderr.write(f"Wanted files that can be read. Got {error}. Check the paths.\n")
        sys.exit(2)
    except KeyboardInterrupt as stopped:
        sys.stderr.write("Stopped. What was there before is untouched; start again.\n")
        sys.exit(128 + (stopped.args[0] if stopped.args else signal.SIGINT))


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM unwinds as Ctrl-C does, so that scratch folders are removed; only while it runs."""

    def stop(number: int, frame: object) -> NoReturn:  # noqa: ARG001
        raise KeyboardInterrupt(number)

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread, which alone may set handlers
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
