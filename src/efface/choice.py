"""Which method, where it is left open: a small table, each row with the committed result behind it.

What committed results do not settle is not chosen by: methods that see records that stay were
compared on one request each, so without the recipe they change nothing here.
"""

from collections.abc import Callable
from dataclasses import dataclass

from efface.hazards import Finding
from efface.settings import AUTO
from efface.task import multilabel, task_of
from efface.types import Split


@dataclass(frozen=True)
class _Request:
    """What the rows look at."""

    split: Split
    mislabelled: bool
    lacking: tuple[str, ...]


@dataclass(frozen=True)
class Rule:
    """``method`` where ``holds``, ``because`` of a result; the first row that holds is taken."""

    method: str
    because: str
    holds: Callable[[_Request], bool]


RULES = (
    Rule(
        "retrain",
        "all that training again without the records needs is at hand, and only that is exact "
        "(README.md)",
        lambda request: not request.lacking,
    ),
    Rule(
        "jit",
        "the labels are wrong, and of 24 such records, each alone, jit left none answered with its "
        "label, without a measurable loss (research/results/jit_one_record.md)",
        lambda request: request.mislabelled,
    ),
    Rule(
        "jit",
        "a class leaves, and on nine such requests jit came from 39.1 points of the retrained "
        "model to 5.1 (research/results/jit_quality.md)",
        lambda request: bool(request.split.forget_classes),
    ),
    Rule(
        "jit",
        "a record has many labels, and in the one such request that was measured neighbourhood "
        "forgot too much (research/results/kinds.md)",
        lambda request: task_of(request.split.forget).name == multilabel.name,
    ),
    Rule(
        "neighbourhood",
        "single records go, and of all methods neighbourhood came nearest to the retrained model "
        "on 500 of them, from 25.6 points to 3.2, in one measurement (research/results/every_method.md)",
        lambda request: True,  # noqa: ARG005
    ),
)
"""Which method is chosen, row by row."""


def method_for(split: Split, *, mislabelled: bool, trainable: str) -> tuple[str, str]:
    """The method for what is at hand, and in one sentence why and what more would have changed.

    ``split`` holds Records. Raises InputError where what the forget records are cannot be seen.
    """
    needed = {part: getattr(split, part) for part in ("retain", "fresh", "train")}
    lacking = [part for part, given in needed.items() if not _is_there(given)]
    lacking += [] if trainable == "all" else ["trainable all"]
    request = _Request(split, mislabelled, tuple(lacking))
    rule = next(rule for rule in RULES if rule.holds(request))
    best = RULES[0].method
    more = (
        f"; with {_listed(lacking)} it would have chosen {best}, which is exact (on a command "
        "line: efface train RECIPE --exclude ids.csv)"
    ) * bool(lacking)
    return rule.method, f"{AUTO} chose {rule.method}: {rule.because}{more}."


def settled(
    method: str, split: Split, *, mislabelled: bool, trainable: str
) -> tuple[str, tuple[Finding, ...]]:
    """The method as named, or the one for what is at hand and a finding that says why."""
    if method != AUTO:
        return method, ()
    method, why = method_for(split, mislabelled=mislabelled, trainable=trainable)
    return method, (Finding(AUTO, "note", why),)


def _is_there(given: object) -> bool:
    """A part with nothing in it is none."""
    return given is not None and (callable(given) or len(given) > 0)  # type: ignore[arg-type]


def _listed(words: list[str]) -> str:
    first, last = words[:-1], words[-1:]
    return " and ".join([*filter(None, [", ".join(first)]), *last])
