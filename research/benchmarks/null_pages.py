"""How often the evidence flags what was never seen, and what each row detects of an obvious case.

    python -m research.benchmarks.null_pages arrays STORE   # simulated outputs with nothing to find
    python -m research.benchmarks.null_pages requests STORE # the same: wrong labels, other tasks, models
    python -m research.benchmarks.null_pages power STORE    # obvious cases of 4, 20 and 60 records
    python -m research.benchmarks.null_pages pages          # whole reports: a truly retrained model

STORE: a folder for the results of single cases, of which those that are there are not made again.

Arrays: logits are noise and a class's own level on the label, of the same distribution for forget and
unseen records and for the old, the new, retrained and shadow models, so no row has anything to find.
``three``: half the forget records are of a class with three unseen ones; ``unbalanced``: classes are
common on one side where they are rare on the other. A quarter of the holdout is of a class that
nobody forgets. Other views and copies are answered by simulation too; the linear probe reads drawn
embeddings.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import sklearn
import torch
from sklearn.datasets import load_digits
from torch import nn

import efface.report.tests_utility  # noqa: F401  # declares its tests
from efface import task as tasks
from efface.grid import Job, JobOutput, read, run
from efface.io.shadows import Shadows
from efface.metrics import membership
from efface.metrics.evaluation import Evaluation
from efface.report import Row, Status, Verdict, collect, significant_rows, tests_unseen
from efface.report import tests_forget as of_forget
from efface.report import tests_retrained as of_retrained
from efface.report.context import Context, Pair
from efface.report.runner import _run
from efface.report.tests import TESTS
from efface.testing import fit, untrained_model
from efface.types import Records, Split
from research.tables import RESULTS, about, rebuild

FORGET = (1, 4, 20, 60)
# (classes of the forget records, how they are mixed, holdout): each corner with few of something.
ARRAYS = (
    (1, "balanced", 12), (1, "three", 60), (2, "three", 12), (2, "unbalanced", 60),
    (10, "balanced", 60), (10, "three", 60), (10, "unbalanced", 600), (40, "three", 600),
    (40, "balanced", 60),
)  # fmt: skip
REQUEST = {"classes": 10, "mix": "balanced", "holdout": 240}
# Retrained and shadow models, embeddings; a TPR at 1 % FPR needs 300 unseen records, here are 315.
FURTHER = {"models": True, "holdout": 420}
# Requests with rows of their own: wrong labels, other tasks, further models and embeddings.
REQUESTS: tuple[dict[str, Any], ...] = (
    {"mislabelled": True},
    {"kind": "multilabel"},
    {"kind": "regression"},
    FURTHER,
)
DRAWS, POWER_DRAWS, PAGES = 300, 300, 20
VIEWS, RETAIN, DIMENSIONS = 4, 120, 8
MODELS = of_retrained.MIN_RETRAINED  # retrained ones, which serve as shadow models too
KINDS = {"multilabel": tasks.multilabel, "regression": tasks.regression(scale=1.0)}
FLIPPED = 0.2  # at most so many answers of a copy differ from the model's
OBVIOUS = (4, 20, 60)
# Tests that read models or inputs; the first two get simulated answers below.
NOT_OF_ARRAYS = ("residual", "precision", "retrained.untouched_tensors", "exclusion")


def labels(n: int, classes: int, mix: str, *, unseen: bool) -> np.ndarray:
    """Labels of n records of the classes that are forgotten."""
    if mix == "three" and not unseen:
        return np.where(np.arange(n) % 2 == 0, 0, np.arange(n) % classes)
    if mix == "three":
        others = 1 + np.arange(n - 3) % max(1, classes - 1)
        return np.concatenate([np.zeros(3, int), others])
    weights = np.arange(1, classes + 1) if mix == "unbalanced" else np.ones(classes)
    shares = (weights[::-1] if unseen else weights).cumsum() / weights.sum()
    return np.searchsorted(shares, (np.arange(n) + 0.5) / n)


class Simulated:
    """Outputs of an old, a new and further models on the records of one request."""

    def __init__(
        self,
        n: int,
        classes: int,
        mix: str,
        holdout: int,
        seed: int,
        *,
        kind: str = "multiclass",
        mislabelled: bool = False,
        models: bool = False,
    ) -> None:
        self.draw, self.classes = np.random.default_rng([n, classes, holdout, seed]), classes
        self.kind, self.mislabelled, self.models = kind, mislabelled, models
        self.others: dict[str, tuple[Evaluation, ...]] = {}
        unseen = labels(holdout * 3 // 4, classes, mix, unseen=True)
        unseen = np.concatenate([unseen, np.full(holdout - len(unseen), classes)])
        forget = labels(n, classes, mix, unseen=False)
        # With wrong labels all unseen records are compared with: classes are mixed alike.
        forget = self.draw.choice(unseen, n) if mislabelled else forget
        self.forget = self.pair(forget, "forget")
        if mislabelled:
            wrong = (forget + self.draw.integers(1, classes + 1, n)) % (classes + 1)
            pair = self.forget
            sides = (side.labelled(wrong) for side in (pair.before, pair.after))
            self.forget = Pair(replace(pair.records, y=torch.from_numpy(wrong)), *sides)
        self.holdout = self.pair(unseen, "holdout")
        self.retain = self.pair(np.arange(RETAIN) % (classes + 1), "retain", known=1.0)

    def pair(self, y: np.ndarray, name: str, *, known: float = 0.0) -> Pair:
        """Each model's outputs: what all share, an own part, and the level of the class."""
        draw, n, ids = self.draw, len(y), tuple(f"{name}{row}" for row in range(len(y)))
        x = draw.normal(0, 1, (n, DIMENSIONS)) + directions(self.classes)[y]
        if self.kind == "multiclass":
            levels = 1 + 2 * (np.arange(self.classes + 1) % 3)
            mean = np.eye(self.classes + 2)[y] * (levels[y] + known)[:, None]
        else:
            y = (
                draw.normal(0, 1, (n, 1))
                if self.kind == "regression"
                else draw.integers(0, 2, (n, 6))
            )
            mean = 3.0 * y if self.kind == "regression" else 2.0 * y - 1
        scale = 1 / 3 if self.kind == "regression" else 1.0  # errors below the values' spread
        shared = mean + draw.normal(0, 1, mean.shape)
        own = (draw.normal(0, 0.4, mean.shape) for _ in range(2 + MODELS * self.models))
        before, after, *others = (
            evaluation(self.kind, scale * (shared + part), y, ids) for part in own
        )
        self.others[name] = tuple(others)
        task = KINDS.get(self.kind)
        records = Records(torch.from_numpy(x).float(), torch.from_numpy(y), ids, task=task)
        return Pair(records, before, after)

    def shifted(self, part: str, side: str, by: float, rows: Any = slice(None)) -> None:
        """Move one model's outputs on a part's records towards (by > 0) or off their labels."""
        pair = getattr(self, part)
        seen = getattr(pair, side)
        moved = seen.logits.copy()
        if self.kind == "multiclass":
            moved[rows] += by * np.eye(self.classes + 2, dtype=np.float32)[seen.y[rows]]
        elif self.kind == "multilabel":
            moved[rows] += by * (2 * seen.y[rows] - 1)
        else:
            moved[rows] = seen.y[rows] + (moved[rows] - seen.y[rows]) * 2.0**-by
        setattr(self, part, replace(pair, **{side: evaluation(self.kind, moved, seen.y, seen.ids)}))

    def context(self, **request: Any) -> Context:
        """What the tests of a report read."""
        parts = {name: getattr(self, name) for name in ("forget", "holdout", "retain")}
        model = nn.Sequential(nn.Identity(), nn.Linear(DIMENSIONS, self.classes + 2))
        request["mislabelled"] = self.mislabelled
        if self.models:
            request |= {"retrained": (model,) * MODELS, "shadows": self.shadows()}
        split = Split(*(pair.records for pair in parts.values()))
        ctx = Context(model, model, split, **request)
        vars(ctx).update(parts, retrained_evaluations=self.others)
        return ctx

    def shadows(self) -> Shadows:
        """The other models as shadow models: each was trained on half the forget records."""
        n, sides = len(self.forget), (self.others["forget"], self.others["holdout"])
        odds = np.concatenate([[one.logit_margin for one in side] for side in sides], axis=1)
        member = np.zeros(odds.shape, bool)
        member[:, :n] = np.add.outer(np.arange(MODELS), np.arange(n)) % 2 == 0
        ids = (*self.forget.records.ids, *self.holdout.records.ids)
        return Shadows(tuple("abcdefgh"[:MODELS]), ids, member, odds + 3.0 * member, "")

    def views(self, pair: Pair) -> np.ndarray:
        """Whether the new model is correct in each view (n, VIEWS): those of a record alike."""
        margins = pair.after.logit_margin[:, None]
        return margins + self.draw.normal(-0.5, 1, (len(pair), VIEWS)) > 0


def directions(classes: int) -> np.ndarray:
    """The mean embedding of each class, the same in every draw."""
    return np.random.default_rng(0).normal(0, 1, (classes + 1, DIMENSIONS))


def evaluation(kind: str, outputs: np.ndarray, y: np.ndarray, ids: tuple[str, ...]) -> Evaluation:
    """Outputs as an evaluation of the task."""
    found = Evaluation(outputs.astype(np.float32), y, ids)
    if kind == "multiclass":
        return found
    task, both = KINDS[kind], (torch.from_numpy(found.logits).double(), torch.from_numpy(y))
    loss, accuracy = (of(*both).double().numpy() for of in (task.loss, task.accuracy))
    return replace(found, own_loss=loss, own_accuracy=accuracy)


def rows_of(ctx: Context, simulated: Simulated) -> Iterator[Row]:
    """The rows of a report on simulated outputs; tests that lack records give none."""
    for test in TESTS:
        if test.key not in (*NOT_OF_ARRAYS, *REASONS) and test.section != "weights":
            yield from _run(test, ctx, probes=simulated.models)
    if simulated.kind == "multiclass":
        yield from probe_rows(ctx, simulated)


def probe_rows(ctx: Context, simulated: Simulated) -> Iterator[Row]:
    """Other views, and a quantised copy that repairs as much as it breaks."""
    forget, unseen = ctx.forget, ctx.unseen
    if len(unseen) and not ctx.mislabelled:
        yield from view_rows(forget, unseen, simulated.views(forget), simulated.views(unseen))
    full = forget.after.correct
    share = float(np.clip(full.mean(), 0.01, 0.99))
    # As many repaired as broken, also where most answers are wrong.
    rates = FLIPPED * np.where(full, min(1.0, 1 / share - 1), min(1.0, share / (1 - share)))
    found = of_forget.recovery(ctx, full, full ^ (simulated.draw.random(len(full)) < rates))
    yield Row(key="precision", **found)


def view_rows(forget: Pair, unseen: Pair, ours: np.ndarray, theirs: np.ndarray) -> Iterator[Row]:
    """Rows of views, of which ``ours`` (n, VIEWS) and ``theirs`` are answered correctly."""
    row = of_forget.residual_row(forget, unseen, ours.mean(1), ours.mean(1), theirs, "")
    yield replace(row, key="residual.view")
    ours, theirs = (~p.after.correct & v.any(1) for p, v in ((forget, ours), (unseen, theirs)))
    row = of_forget.residual_row(forget, unseen, ours, ours, theirs[:, None], "")
    yield replace(row, key="residual.any_view")


def flagged(row: Row) -> bool:
    """Whether a row says that something is wrong; a control that fails says so too."""
    wrong = (Verdict.CONTROL_FAILED, Verdict.NOT_EXCLUDED)
    return row.status is Status.FLAGGED or row.verdict in wrong


def counts(reports: list[list[Row]]) -> dict[str, list[int]]:
    """[flagged, judged, inconclusive] of each row, and of the page after Holm correction."""
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for rows in reports:
        assert not [row for row in rows if row.status is Status.ERROR], rows
        judged = [row for row in rows if row.status is not Status.NOT_RUN]
        page = Row(verdict=Verdict.DETECTED if significant_rows(rows) else Verdict.NOT_DETECTED)
        for row in (*judged, replace(page, key="page")):
            if row.verdict in (Verdict.DESCRIPTIVE, Verdict.NO_REFERENCE):
                continue
            wrong, few = flagged(row), row.verdict is Verdict.TOO_FEW_RECORDS
            found[row.key] = [a + b for a, b in zip(found[row.key], (wrong, 1, few), strict=True)]
    return dict(found)


def drawn(settings: Mapping[str, Any], needs: Any, shared: Path) -> JobOutput:  # noqa: ARG001
    """The rows of many reports on simulated outputs: nothing to find, or one obvious case."""
    given, reports = {k: v for k, v in settings.items() if k not in ("case", "draws")}, []
    change = OBVIOUS_CASES[settings["case"]][0] if "case" in settings else Simulated.context
    given["n"] = given.pop("forget")
    for seed in range(settings["draws"]):
        simulated = Simulated(seed=seed, **given)
        ctx = change(simulated)
        with faster():
            rows = [*rows_of(ctx, simulated)]
        if change is suppressed:
            rows = [row for row in rows if row.key not in RELEARNED]
            rows += suppressed_rows(ctx, simulated)
        reports.append(rows)
    return JobOutput({**settings, "rows": counts(reports)})


@contextmanager
def faster() -> Iterator[None]:
    """Inside, what no verdict reads is left out, and the old model's loss attack is made once."""
    once = lru_cache(maxsize=4)(tests_unseen._loss_attack)  # noqa: SLF001
    with (
        # the p of a distance, the old model's entropy attack, checks of arguments
        patch.object(of_retrained, "ks", ks_distance),
        patch.object(membership, "entropy_attack", lambda *_: np.nan),
        patch.object(tests_unseen, "_loss_attack", once),
        sklearn.config_context(assume_finite=True, skip_parameter_validation=True),
    ):
        yield


def ks_distance(values: np.ndarray, unseen: np.ndarray) -> tuple[float, float]:
    """The distance of ``efface.metrics.equivalence.ks``, without its p."""
    every = np.concatenate([values, unseen])
    shares = [np.searchsorted(np.sort(one), every, "right") / len(one) for one in (values, unseen)]
    return float(np.abs(shares[0] - shares[1]).max()), np.nan


def cases(store: str, every: list[dict[str, Any]], draws: int) -> list[dict[str, Any]]:
    """The counts of each case, made unless the store holds them."""
    address = "research.benchmarks.null_pages:drawn"
    jobs = [Job(address, {**one, "draws": draws}) for one in every]
    run(jobs, store, processes=1)
    return [read(store, job).statistics for job in jobs]


def arrays(store: str) -> dict[str, Any]:
    """How often every row and the page are flagged where there is nothing to find."""
    named = [dict(zip(("classes", "mix", "holdout"), case, strict=True)) for case in ARRAYS]
    return null(store, named)


def requests(store: str) -> dict[str, Any]:
    """The same for requests that have rows of their own."""
    return null(store, [{**REQUEST, **one} for one in REQUESTS])


def null(store: str, requests: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """How often rows are flagged in each of these requests, by the number of forget records."""
    every = [{"forget": n, **one} for one, n in product(requests, FORGET)]
    return {"draws": DRAWS, "cases": cases(store, every, DRAWS)}


def memorised(simulated: Simulated) -> Context:
    """Both models know the forget records: outputs three standard deviations nearer the label."""
    simulated.shifted("forget", "before", 3.0)
    simulated.shifted("forget", "after", 3.0)
    return simulated.context()


def over_forgotten(simulated: Simulated) -> Context:
    """The new model is as far below unseen records as the old one was above."""
    simulated.shifted("forget", "before", 3.0)
    simulated.shifted("forget", "after", -3.0)
    return simulated.context()


def class_left(simulated: Simulated) -> Context:
    """A class that should be gone is predicted as before."""
    return simulated.context(forget_classes=(0,))


def label_left(simulated: Simulated) -> Context:
    """Wrong labels are predicted as before; copies answer as the model."""
    simulated.shifted("forget", "before", 6.0)
    simulated.shifted("forget", "after", 6.0)
    return simulated.context()


def damaged(simulated: Simulated) -> Context:
    """A third of the other records is answered at random; 60 % of a class."""
    for name in ("holdout", "retain"):
        pair = getattr(simulated, name)
        lost = simulated.draw.random(len(pair)) < np.where(pair.after.groups == 0, 0.6, 1 / 3)
        noise = simulated.draw.normal(size=pair.after.logits.shape)
        logits = np.where(lost[:, None], noise, pair.after.logits)
        after = evaluation(simulated.kind, logits, pair.after.y, pair.after.ids)
        setattr(simulated, name, replace(pair, after=after))
    return simulated.context()


def suppressed(simulated: Simulated) -> Context:
    """Wrong as they are, right in other views and in copies, as ``suppressed_rows`` has it."""
    simulated.shifted("forget", "before", 3.0)
    simulated.shifted("forget", "after", -6.0)
    return simulated.context()


RELEARNED = ("residual.view", "residual.any_view", "precision")


def suppressed_rows(ctx: Context, simulated: Simulated) -> Iterator[Row]:
    """The probes' rows where views and copies are answered as the old model answers."""
    forget, unseen = ctx.forget, ctx.unseen
    ours = simulated.views(replace(forget, after=forget.before))
    yield from view_rows(forget, unseen, ours, simulated.views(unseen))
    found = of_forget.recovery(ctx, forget.after.correct, forget.before.correct)
    yield Row(key="precision", **found)


def embedded(simulated: Simulated) -> Context:
    """Embeddings hold the forget records: class means five times as far apart, all moved by 2."""
    pair = simulated.forget
    x = pair.records.x.numpy() + 4 * directions(simulated.classes)[pair.after.y] + 2
    simulated.forget = replace(pair, records=replace(pair.records, x=torch.from_numpy(x).float()))
    return simulated.context()


def halves_differ(simulated: Simulated) -> Context:
    """The new model knows one of the halves in which the holdout is split for the controls."""
    ctx = simulated.context()
    known = {*tests_unseen.split_unseen(ctx)[0].ids}
    simulated.shifted("holdout", "after", 3.0, [i in known for i in simulated.holdout.records.ids])
    return simulated.context()


# What each case does, and requests that differ from REQUEST.
OBVIOUS_CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "memorised: +3 standard deviations": (memorised, FURTHER),
    "over-forgotten: −3 standard deviations": (over_forgotten, {}),
    "forgotten class still predicted": (class_left, {"classes": 1}),
    "wrong labels still predicted": (label_left, {"mislabelled": True}),
    "utility lost: a third at random": (damaged, {}),
    "suppressed: right in other views and in copies": (suppressed, {}),
    "embeddings hold the records": (embedded, FURTHER),
    "control: the old model does not know the records": (Simulated.context, {}),
    "control: one half of the unseen records is known": (halves_differ, {}),
    "multilabel: memorised": (memorised, {"kind": "multilabel"}),
    "multilabel: utility lost": (damaged, {"kind": "multilabel"}),
    "regression: memorised": (memorised, {"kind": "regression"}),
    "regression: utility lost": (damaged, {"kind": "regression"}),
}
# Tests without a verdict that a case could bring about, or without a case of their own.
REASONS = {
    "others.accuracy": "is the test of `retain.accuracy`, on a sample of the training records that nobody named",
    "forget.confidence": "describes; `attack.loss`, `unseen.ks` and `unseen.central_95` judge these values",
    "synthetic.divergence": "describes: there is no reference without unseen records",
    "relearning": "is a separate call, which trains a copy",
    "power.auc": "says what the sample could show, of itself",
    "power.undetected_share": "says what the sample could show, of itself",
}


def power(store: str) -> dict[str, Any]:
    """How often each row flags each obvious case, and how often it is inconclusive."""
    every = [
        {"case": name, "forget": n, **REQUEST, **request}
        for (name, (_, request)), n in product(OBVIOUS_CASES.items(), OBVIOUS)
    ]
    return {"draws": POWER_DRAWS, "cases": cases(store, every, POWER_DRAWS), "models": rogues()}


class Noisy(nn.Module):
    """Adds noise to every output."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Outputs and noise."""
        return self.net(x) + torch.randn(len(x), 10)


def rogues() -> dict[str, dict[str, bool]]:
    """Rows whose reference is exact, on a real model with 4 forget records: flagged or not."""
    every, split = shuffled(), digits_split(4, 60, 0)
    # forget records stay in it
    split = replace(split, retain=every.take(range(500)))
    old, retrained = (fit(untrained_model(0), every.take(rows), 0) for rows in ROGUE_ROWS)
    found = {}
    for name, (change, options) in ROGUES.items():
        new = change(fit(untrained_model(0), every.take(ROGUE_ROWS[0]), 0))
        more: dict[str, Any] = {"retrained": [retrained], **options}
        rows = collect(old, new, split, probes=False, **more).rows
        found[name] = {row.key: flagged(row) for row in rows if row.key in EXACT}
    return found


def scaled(net: nn.Module, part: str, by: float) -> nn.Module:
    """The tensors whose name holds ``part``, times a factor."""
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if part in name and tensor.is_floating_point():
                tensor.mul_(by)
    return net


# What the old model was trained on, and a retrained one.
ROGUE_ROWS = (range(300), range(200, 500))
ROGUES: dict[str, tuple[Any, dict[str, Any]]] = {
    "the old model": (lambda net: net, {}),
    "only the last layer changed": (lambda net: scaled(net, "7.", 0.9), {}),
    "BatchNorm statistics changed": (lambda net: scaled(net, "running_mean", 1.1), {}),
    "noise on every output": (lambda net: Noisy(net).eval(), {"retrained": []}),
    "the same output for all inputs": (lambda net: scaled(net, "7.weight", 0.0), {}),
    "called retrained, a forget record in its training data": (
        lambda net: net,
        {"exact": True},
    ),
}
EXACT = (
    "weights.change", "buffers.change", "outputs.determinism", "outputs.constant",
    "retrained.untouched_tensors", "exclusion",
)  # fmt: skip


def shuffled() -> Records:
    """1,797 digits in a drawn order: they come sorted by writer."""
    data: Any = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(1))
    x = torch.tensor(data.images / 16, dtype=torch.float32).unsqueeze(1)[order]
    ids = tuple(f"d{row}" for row in order.tolist())
    return Records((x - 0.3053) / 0.376, torch.tensor(data.target)[order], ids)


def digits_split(
    n: int, holdout: int, seed: int, classes: tuple[int, ...] = tuple(range(10))
) -> Split:
    """N of the first 200 digits, drawn; a holdout of those never trained on; retain records."""
    every, draw = shuffled(), np.random.default_rng([n, holdout, seed])
    going = [row for row in range(200) if int(every.y[row]) in classes]
    forget = draw.permutation(going)[:n].tolist()
    unseen = (600 + draw.permutation(1000)[:holdout]).tolist()
    return Split(every.take(forget), every.take(unseen), every.take(range(200, 500)))


# (name, forget records, holdout, classes of the forget records)
WHOLE = (
    ("1 record", 1, 300, range(10)), ("4 records", 4, 300, range(10)), ("20 records", 20, 300, range(10)),
    ("60 records", 60, 300, range(10)), ("20 records, holdout of 24", 20, 24, range(10)),
    ("20 records of two classes", 20, 300, (3, 8)),
)  # fmt: skip


def whole() -> dict[str, Any]:
    """Whole reports, probes included, of models retrained without 200 records of which some are drawn."""
    every, pairs = shuffled(), []
    for seed in range(4):
        old = fit(untrained_model(seed), every.take(range(500)), seed)
        pairs.append((old, fit(untrained_model(100 + seed), every.take(range(200, 500)), seed)))
    cases: list[dict[str, Any]] = []
    for name, n, holdout, classes in WHOLE:
        reports = []
        for seed in range(PAGES):
            split = digits_split(n, holdout, seed, tuple(classes))
            old, new = pairs[seed % 4]
            reports.append([*collect(old, new, split, seed=seed).rows])
        cases.append({"case": name, "forget": n, "holdout": holdout, "rows": counts(reports)})
        print(name, cases[-1]["rows"]["page"], flush=True)
    return {"pages": PAGES, "cases": cases}


def main(part: str, *store: str) -> None:
    """Make one part of the record, and the page."""
    torch.set_num_threads(1)
    made = about(" ".join(["null_pages", part, *("STORE" for _ in store)]))
    parts = {"arrays": arrays, "requests": requests, "power": power, "pages": whole}
    made |= parts[part](*store)
    path = RESULTS / "null_pages.json"
    record = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**record, part: made, "commit": made["commit"]}) + "\n")
    rebuild("null_pages")


if __name__ == "__main__":
    main(*sys.argv[1:])
