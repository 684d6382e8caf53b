"""The command line: parse, call the library, end with the exit code of the error.

``commands``: signatures and help · ``options``: what commands share · ``config``: options from a
file · one module a command for its work · ``loading``: from options to models and records ·
``summary``: what came of a run.
"""

import io
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Annotated, NoReturn

from cyclopts import App, CycloptsError, Parameter

from efface import __version__
from efface.cli import commands
from efface.cli.config import read_config
from efface.cli.options import DisplayOptions
from efface.display import printable
from efface.errors import EffaceError, InputError, Outcome

RUNS = [outcome for outcome in Outcome if outcome is not Outcome.DRY_RUN]
OUTCOMES = " · ".join(f"{outcome.exit_code} {outcome}" for outcome in RUNS)
app = App(
    name="efface",
    version=__version__,
    help="Machine unlearning for PyTorch: remove records from a trained model and report what it "
    "still knows of them.",
    help_epilogue=f"Exit codes of efface forget: {OUTCOMES}; of every command: 2 input · 4 unsafe "
    "file · 5 unknown record · 6 doctor refuses · 7 a package is missing · 8 the result was not "
    "written · 9 a replay differs · 130, 143 stopped by a signal · 141 nobody reads the output · "
    "1 anything else.",
)
for name in ("forget", "score", "compare", "inspect", "doctor", "methods"):
    app.command(getattr(commands, name))
app.register_install_completion_command()
# Ctrl-C must reach `exits`, which says that nothing was lost; the commands are run by both.
app.suppress_keyboard_interrupt = app.meta.suppress_keyboard_interrupt = False

# Commands of efface 0.1 and what runs them now, in a clone of the repository.
MOVED = {"train": "python -m research.train", "geometry": "python -m research.geometry"}
# Options of efface 0.1 and their names now.
RENAMED = {"--target": "--selection", "--features": "--feature-spec"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; end with the exit code of the error, if there was one."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    with exits():
        if "--json" in tokens and {"--help", "-h"} & {*tokens}:
            _print_help_as_json([word for word in tokens if word != "--json"])
            return
        # The exit codes are ours, so cyclopts raises instead of exiting.
        app.meta(tokens, exit_on_error=False)


def _print_help_as_json(tokens: list[str]) -> None:
    from efface import terminal

    # cyclopts ends the program after a help page
    with redirect_stdout(io.StringIO()) as page, suppress(SystemExit):
        app.meta(tokens, exit_on_error=False)
    with terminal.configure_display(as_json=True):
        terminal.document(help=page.getvalue())


@app.meta.default
def _run(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    display: DisplayOptions = DisplayOptions(),
) -> None:
    if display.quiet and display.verbose:
        raise InputError("--quiet or --verbose", "both", "Omit one of them.")
    # rich is loaded here: help comes at once
    from efface import terminal

    # of the processes of one launch (torchrun) the first alone speaks
    first = os.environ.get("RANK", "0") == "0"
    how = {"quiet": display.quiet or not first, "as_json": display.json and first}
    with terminal.configure_display(**how, verbose=display.verbose):
        try:
            _refuse_old_names(tokens)
            app.config = read_config(display.config, app) if display.config else None
            app(tokens, exit_on_error=False)
        except BaseException as error:
            code = error.code if isinstance(error, SystemExit) else exit_code(error)
            # what ends a run on purpose has no sentence
            said = {"error": str(error)} if isinstance(error, Exception) else {}
            terminal.document(exit_code=code, **said)
            raise
        finally:
            # the next call of this process names its own file, or none
            app.config = None


def _refuse_old_names(tokens: Sequence[str]) -> None:
    """Raise InputError with the new name of a command or an option of efface 0.1."""
    if tokens and tokens[0] in MOVED:
        remedy = "Run it with the same arguments in a clone of the repository."
        raise InputError(MOVED[tokens[0]], f"efface {tokens[0]}, which moved there", remedy)
    # cyclopts would suggest the nearest option, which is not the one that was renamed.
    for old in (token.partition("=")[0] for token in tokens):
        if new := RENAMED.get(old):
            raise InputError(new, f"{old}, its old name", f"Write {new}.")


def exit_code(error: BaseException) -> int:
    """What a command ends with after this error."""
    if isinstance(error, EffaceError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return 128 + (error.args[0] if error.args else signal.SIGINT)
    return 2 if isinstance(error, CycloptsError | OSError) else 1


@contextmanager
def exits() -> Iterator[None]:
    """Errors in the block become one line and an exit code; SIGTERM unwinds it as Ctrl-C does."""
    before = None
    # Closed on purpose (>&-): there is nobody to tell.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: PTH123, SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: PTH123, SIM115
    # Scratch folders are removed on the way out. Another thread than the main one sets no handlers.
    with suppress(ValueError):
        before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except EffaceError as error:
        _say(str(error))
        sys.exit(error.exit_code)
    except CycloptsError:  # cyclopts has printed it
        sys.exit(2)
    except BrokenPipeError:  # `efface … | head`: what was written to files is whole
        # else Python says so once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:  # a name too long, a disk that went away
        _say(f"Wanted files that can be read. Got {error}. Check the paths.")
        sys.exit(2)
    except KeyboardInterrupt as stopped:
        _say("Stopped. What was there before is untouched; start again.")
        sys.exit(128 + (stopped.args[0] if stopped.args else signal.SIGINT))
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _say(sentence: str) -> None:
    """On standard error, names of a stranger's without what would move the cursor."""
    with suppress(OSError):
        sys.stderr.write(f"{printable(sentence)}\n")


def _interrupt(number: int, frame: object) -> NoReturn:  # noqa: ARG001
    raise KeyboardInterrupt(number)
