"""How a run ends: the outcomes, and everything that efface raises on purpose.

``Outcome`` is what ``efface forget`` came to, with its exit code; a run that was refused or failed
raises. Each error says what was wanted, what came and what to do, and the command line exits with
its code.

    EffaceError                      1   also: the given model was changed, by its own code
    ├── InputError (ValueError)      2   an argument, a file or a table does not hold what it must
    │   └── UnknownRecords           5   a record id that the data do not hold
    ├── NotMet                       3   the guard could not meet the request; the old model stands
    ├── UnsafeFile (ValueError)      4   a file that would have to be unpickled, or is damaged
    ├── Hazard (ValueError)          6   doctor refuses: the model and the data do not fit
    ├── MissingExtra (ImportError)   7   an optional package is not installed
    ├── OutputError (OSError)        8   the result could not be written; nothing was changed
    └── Differs                      9   evaluated again, a report has other numbers
"""

import difflib
import importlib
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

# an error with a million ids is read by nobody
SHOWN = 10


class Outcome(StrEnum):
    """What a run came to: its words, ``exit_code``, and whether it ``has_new_model``.

    DONE: the weights changed and no test flags the records, though the main one could have.
    NOT_JUDGED: they changed, and nothing judged whether it is enough (tier T0, or no report).
    PARTLY: they changed, and it is not shown that the records are equivalent to unseen.
    UNCHANGED: the weights are the old ones. LIKE_UNSEEN: so they are, and the holdout shows that
    the records were equivalent to unseen before. NOT_MET: the guard refused; there is no new model.
    DRY_RUN: nothing was tried.
    """

    exit_code: int

    DONE = "done", 0
    NOT_JUDGED = "changed, not judged", 10
    PARTLY = "partly", 11
    UNCHANGED = "unchanged, did not move", 12
    LIKE_UNSEEN = "unchanged, already equivalent to unseen", 13
    NOT_MET = "not met", 3
    DRY_RUN = "dry run", 0

    def __new__(cls, words: str, exit_code: int = 0) -> "Outcome":  # noqa: PYI034  # beartype
        """The words are the value; what raises has the code of its error."""
        one = str.__new__(cls, words)
        one._value_, one.exit_code = words, exit_code
        return one

    @property
    def has_new_model(self) -> bool:
        """Whether the weights are other ones; without that, none are written."""
        return self in (Outcome.DONE, Outcome.NOT_JUDGED, Outcome.PARTLY)


class EffaceError(Exception):
    """Base of all errors: what was wanted, what came, what to do."""

    exit_code = 1

    def __init__(self, wanted: str, came: str, remedy: str) -> None:
        self.wanted, self.came, self.remedy = wanted, came, remedy
        super().__init__(f"Wanted {wanted}. Got {came}. {remedy}")


class InputError(EffaceError, ValueError):
    """An argument, a file or a table does not hold what it must."""

    exit_code = 2


class UnknownRecords(InputError):
    """Record ids that the data do not hold."""

    exit_code = 5


class NotMet(EffaceError):
    """The request could not be met within the guard's budget; the old model stands.

    ``result``: the evidence on the old model and the record of the attempt, when there was one.
    """

    exit_code = Outcome.NOT_MET.exit_code
    result: Any = None


class UnsafeFile(EffaceError, ValueError):
    """A file that only unpickling could read, or that is damaged."""

    exit_code = 4


class Hazard(EffaceError, ValueError):
    """The model and the data do not fit each other; nothing was changed.

    ``diagnosis``: all that doctor found, the accuracies included.
    """

    exit_code = 6
    diagnosis: Any = None


class MissingExtra(EffaceError, ImportError):
    """An optional package is not installed."""

    exit_code = 7


class OutputError(EffaceError, OSError):
    """The result could not be written; what was there before is untouched."""

    exit_code = 8


class Differs(EffaceError):
    """Evaluated again, a report's numbers, or the model and data behind them, differ."""

    exit_code = 9


def abbreviate(names: Iterable[Any]) -> str:
    """The first ten names and the number of the others, for an error message."""
    names = [str(name) for name in names]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) or "none") + more


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "Choose one of these.") -> str:
    """A remedy: the known word most similar to this one."""
    # one at most: a list of near misses is no help
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"Did you mean {close[0]!r}?" if close else otherwise


def import_extra(package: str) -> Any:
    """An optional package; raises MissingExtra, with the command that installs it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        remedy = f"Install it: pip install 'efface[{package}]'."
        raise MissingExtra(f"the package {package}", "none installed", remedy) from error
