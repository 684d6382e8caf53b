"""Statuses and verdicts: the outcome of a test, its words, and the mark that follows from it.

Code compares members; their words are for readers and are defined only here.
"""

from enum import Enum, StrEnum


class Status(StrEnum):
    """How a row is marked; it follows from the verdict."""

    ERROR = "error"
    FLAGGED = "flagged"
    INCONCLUSIVE = "inconclusive"
    NOT_FLAGGED = "not flagged"
    NOT_RUN = "not run"


class Verdict(Enum):
    """The outcome of a test: (status, words). In JSON it is the name in lower case."""

    DESCRIPTIVE = Status.NOT_FLAGGED, "descriptive"
    NO_REFERENCE = Status.INCONCLUSIVE, "inconclusive: no reference at this tier"
    NO_NEW_MODEL = Status.NOT_RUN, "no new model"
    NOT_SIGNIFICANT = Status.NOT_FLAGGED, "no significant difference"
    ABOVE_REFERENCE = Status.FLAGGED, "significantly above the reference"
    BELOW_REFERENCE = Status.FLAGGED, "significantly below the reference"
    SIGNIFICANTLY_DIFFERENT = Status.FLAGGED, "significantly different from unseen"
    # The most extreme result would not have been significant: a test that could not fail.
    TOO_FEW_RECORDS = Status.INCONCLUSIVE, "inconclusive: too few records"
    DETECTED = Status.FLAGGED, "membership detected"
    NOT_DETECTED = Status.NOT_FLAGGED, "membership not detected"
    OVER_FORGOTTEN = Status.FLAGGED, "over-forgetting"
    INCONCLUSIVE = Status.INCONCLUSIVE, "inconclusive: not detected in the old model either"
    CONTROL_PASSED = Status.NOT_FLAGGED, "control passed"
    CONTROL_FAILED = Status.INCONCLUSIVE, "control failed"
    DROPPED = Status.FLAGGED, "significant drop"
    IMPROVED = Status.NOT_FLAGGED, "significant improvement"
    UNCHANGED = Status.NOT_FLAGGED, "no significant drop"
    NEVER_PREDICTED = Status.NOT_FLAGGED, "never predicted"
    RECOVERED = Status.FLAGGED, "significantly more correct in the copy"
    NOT_RECOVERED = Status.NOT_FLAGGED, "not recovered"
    WEIGHTS_UNCHANGED = Status.FLAGGED, "no weight changed"
    ONLY_LAST_LAYER = Status.FLAGGED, "only the last layer changed"
    BIT_IDENTICAL = Status.NOT_FLAGGED, "bit-identical"
    BUFFERS_CHANGED = Status.FLAGGED, "buffers changed"
    DETERMINISTIC = Status.NOT_FLAGGED, "deterministic"
    NON_DETERMINISTIC = Status.FLAGGED, "non-deterministic outputs"
    CONSTANT_OUTPUTS = Status.FLAGGED, "the same output for all inputs"
    WITHIN_FLOOR = Status.NOT_FLAGGED, "within retrain-to-retrain variability"
    BEYOND_FLOOR = Status.FLAGGED, "farther than any two retrained models"
    TOO_FEW_RETRAINED = Status.INCONCLUSIVE, "too few retrained models"
    FLOOR_UNKNOWN = Status.INCONCLUSIVE, "floor unknown"
    NO_UNTOUCHED_TENSORS = Status.NOT_FLAGGED, "none"
    UNTOUCHED_TENSORS = Status.FLAGGED, "changed by retraining only"
    EXCLUDED = Status.NOT_FLAGGED, "none in the training data"
    STATED = Status.INCONCLUSIVE, "stated by whoever trained it, not checked"
    # Harmful rather than broken, but nobody may overlook it: it is marked like a crash.
    NOT_EXCLUDED = Status.ERROR, "found in the training data"
    CRASHED = Status.ERROR, "crashed"
    NOT_RUN = Status.NOT_RUN, "not run"

    def __init__(self, status: Status, words: str) -> None:
        self.status, self.words = status, words
