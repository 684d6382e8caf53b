"""Which cells there are, and how the settings of each method are found.

Every method runs at its published settings, and once more at those that a search prefers, on a
request that nothing is scored on (``Task.tuning``), and on the half of the test records that
nothing is scored on. Every method has the same budget: ``TRIALS`` trials, and no further one once ``BUDGET`` passes of records are spent.

A method that sees what stays is searched for the smallest gap to the retrained model. One that sees
the forget records alone is searched by what its user would see: how far the mean confidence in the
labels of the forget records lies from the accuracy that is expected of unseen ones, and how far the
guard's drift exceeds its limit. Trials are cells too: the search goes on where it was stopped, and is the same each time.
"""

import contextlib
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import expit

from efface.grid import Job, is_done, read, read_failure
from efface.methods import METHODS
from research.bench.scores import Reference, near, other_half, score
from research.bench.tasks import TASKS, Request, Task
from research.data import DIGITS as DIGITS_DATA
from research.reduce import right

# so many trials, or those that begin before so many passes forward and backward are spent
TRIALS, BUDGET, SEARCH_SEED = 12, 1_000_000, 0
# a loss of unseen accuracy beyond it counts against a setting, point for point
BEARABLE = 0.02
# the guard's own limit
DRIFT = 0.2
# what a setting comes to that gives nan, or ends in an error: worse than any other
BROKEN = 1e3

# What is searched, each in logarithms between its ends; all other methods: their strength.
STRENGTH = {"strength": (0.01, 30.0)}
SPACES: dict[str, dict[str, tuple[float, float]]] = {
    "jit_reference": {"sigma": (0.05, 1.5), "learning_rate": (1e-6, 3e-3)},
    "jit_paper": {"sigma": (0.05, 1.5), "learning_rate": (1e-6, 1e-3)},
    "ssd": {"selection_weighting": (1.0, 100.0), "dampening": (0.1, 1.0)},
    "lfssd": {"selection_weighting": (1.0, 100.0), "dampening": (0.1, 1.0)},
    "l2ul": {"steps": (20, 2000)},
    # beyond 20 what stays would not count
    "neggrad_plus": {"strength": (0.01, 15.0)},
}
# Nothing to set, or made to be set by nobody.
UNTUNED = {"baseline", "jit", "neighbourhood", "assd"}
# Not here: the reference itself, and a method of hours, which has a page of its own.
ELSEWHERE = {"retrain", "gkt"}
# Its published 2,001 passes a record before the first step are made for 16 records.
SCALED = {"l2ul": {"adversarials": 2, "adversarial_batch_size": 2, "attack_steps": 20}}
# On the first request of each base alone: minutes each.
SLOW = {"amun", "emmn", "l1_sparse", "l2ul", "neggrad_plus", "random_labels", "salun"}
# On which task the settings of a kind are searched for.
SEARCHED = {"class": "class", "sub-class": "sub-class", "random": "random-1"}
SEARCHED |= {"memorised": "random-1", "wrong labels": "wrong-labels"}
DIGITS = {"class": "digits-class", "random": "digits-random", "wrong labels": "digits-wrong-labels"}


@dataclass(frozen=True, eq=False)
class Row:
    """One cell: a method at some settings on a request; ``how``: published, searched or trial."""

    request: Request
    method: str
    how: str = "published"
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def job(self) -> Job:
        """The job that makes it."""
        return self.request.unlearned(self.method, **SCALED.get(self.method, {}), **self.settings)


def applicable(task: Task) -> list[str]:
    """The methods whose needs the task meets: classes go altogether only in class tasks."""
    return [
        name
        for name, entry in METHODS.items()
        if name not in ELSEWHERE and (task.kind == "class" or "forget_classes" not in entry.needs)
    ]


def models(requests: Iterable[Request]) -> list[Job]:
    """Everything that is trained or measured once for some requests."""
    return [job for r in requests for job in (r.base, *r.retrained, near(r))]


def published(task: Task, methods: list[str] | None = None) -> list[Row]:
    """Every method as it comes, on every request that it is run on."""
    names = applicable(task) if methods is None else methods
    slow = set() if task.data == DIGITS_DATA else SLOW
    return [
        Row(r, name) for r in task.requests() for name in names if r.turn == 0 or name not in slow
    ]


def searched(task: Task, store: str, methods: list[str] | None = None) -> list[Row]:
    """The same at the settings that the search prefers, which may be the published ones."""
    names = applicable(task) if methods is None else methods
    chosen = {name: best(search_task(task), name, store) for name in names if name not in UNTUNED}
    known = {name: settings for name, settings in chosen.items() if settings is not None}
    return [
        Row(row.request, row.method, "searched", known[row.method])
        for row in published(task, list(known))
    ]


def can_be_searched(method: str) -> bool:
    """Whether it has what its space asks for, and is not made to be set by nobody."""
    space = SPACES.get(method, STRENGTH)
    return method not in UNTUNED and set(space) <= set(METHODS[method].settings)


def search_task(task: Task) -> Task:
    """Where the settings for a task come from: the quarter VGG, or the digits."""
    table = DIGITS if task.name.startswith("digits") else SEARCHED
    return TASKS[table[task.kind]]


def trials(task: Task, method: str, store: str) -> Generator[Row, None, list[tuple[float, dict]]]:
    """Trial after trial of one method: each must be made before the next is asked for.

    Returns every objective with its settings, the published ones first.
    """
    # pages are made without it
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=SEARCH_SEED, n_startup_trials=4)
    study, space = optuna.create_study(sampler=sampler), SPACES.get(method, STRENGTH)
    study.enqueue_trial(_published(method, space))
    request, found = task.tuning(), []
    reference, spent = Reference.of(request, store, searched=True), 0
    for number in range(TRIALS):
        if spent >= BUDGET:
            break
        trial = study.ask()
        settings = {
            name: trial.suggest_int(name, *map(int, ends), log=True)
            if isinstance(ends[0], int)
            else trial.suggest_float(name, *ends, log=True)
            for name, ends in space.items()
        }
        # the first is the published one, with nothing said
        row = Row(request, method, "trial", settings if number else {})
        yield row
        made = is_done(store, row.job.id)
        value = objective(row, reference, store) if made else BROKEN
        study.tell(trial, value)
        spent += sum(read(store, row.job).statistics["passes"].values()) if made else 0
        found.append((value, row.settings))
    return found


def _published(method: str, space: dict[str, tuple[float, float]]) -> dict[str, float]:
    """The default settings, within the space."""
    own = {name: METHODS[method].settings[name].default for name in space}
    return {name: min(max(own[name], low), high) for name, (low, high) in space.items()}


def search(task: Task, methods: list[str], store: str) -> Iterator[list[Row]]:
    """Rounds of trials, one of each method; a round must be made before the next is asked for."""
    waiting = [trials(task, name, store) for name in methods if name not in UNTUNED]
    while waiting:
        rows, going = [], []
        for one in waiting:
            with contextlib.suppress(StopIteration):
                row = next(one)
                rows.append(row)
                going.append(one)
        yield rows
        waiting = [one for one, row in zip(going, rows, strict=True) if _ended(store, row)]


def _ended(store: str, row: Row) -> bool:
    """Made, or failed: a setting that a method refuses is a trial too."""
    return is_done(store, row.job.id) or read_failure(store, row.job.id) is not None


def best(task: Task, method: str, store: str) -> dict[str, Any] | None:
    """The settings of the smallest objective; empty for the published ones.

    None where the search has not ended, or broke the model at every setting.
    """
    found = min(ended_trials(task, method, store), key=lambda one: one[0], default=(BROKEN, {}))
    return found[1] if found[0] < BROKEN else None


def ended_trials(task: Task, method: str, store: str) -> list[tuple[float, dict[str, Any]]]:
    """Objective and settings of each trial of a search; none while it has not ended."""
    rows = trials(task, method, store)
    try:
        while _ended(store, next(rows)):
            pass
    except StopIteration as end:
        return end.value
    return []


def objective(row: Row, reference: Reference, store: str) -> float:
    """What the search makes small: see the module. A setting that breaks the model: ``BROKEN``."""
    found = read(store, row.job)
    arrays = other_half(found.arrays)
    scored = score(reference, arrays)
    if not scored["finite"] or found.statistics["drift"] is None:
        return BROKEN
    base = reference.base
    if "retain" in METHODS[row.method].reads:
        before = reference.columns(base)["retain"]
        lost = before - scored["columns"]["retain"]
        return scored["gap"] + max(0.0, lost - BEARABLE)
    rows = reference.rows
    # and not the accuracy, which a setting that does little leaves as it was
    forget = float(expit(arrays["train.log_odds"][rows].astype(np.float64)).mean())
    return abs(forget - expected(reference)) + max(0.0, found.statistics["drift"] - DRIFT)


def expected(reference: Reference) -> float:
    """The accuracy on the forget records that a user without retained records would aim at.

    0 where a class goes; else the model card's, here that of the half of the test records that
    nothing is scored on (``reference`` is a searched one); with wrong labels what it leaves for each of the other classes.
    """
    request = reference.request
    if request.forget_classes:
        return 0.0
    base = reference.base
    card = float(right(base, "test")[base["test.evidence"].astype(bool)].mean())
    classes = len(set(base["test.y"].tolist()))
    return (1 - card) / (classes - 1) if request.task.kind == "wrong labels" else card
