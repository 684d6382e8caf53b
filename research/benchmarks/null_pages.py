"""How often the evidence flags what was never seen, and what each row detects of an obvious case.

    python -m research.benchmarks.null_pages arrays   # cases of 300 draws: simulated outputs
    python -m research.benchmarks.null_pages power    # one obvious case a row, at 4, 20 and 60 forget records
    python -m research.benchmarks.null_pages pages    # whole reports on digits: a truly retrained model

Arrays: logits are noise and a class's own level on the label, of the same distribution for forget and
unseen records, so no row has anything to find. ``three``: half the forget records are of a class with
three unseen ones; ``unbalanced``: classes are common on one side where they are rare on the other. A
quarter of the holdout is of a class that nobody forgets. Probes get simulated answers in place of a
model's, the linear one excepted, which is in the whole pages.
"""

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from itertools import product
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed
from sklearn.datasets import load_digits
from torch import nn

from efface.metrics import permutation
from efface.metrics.evaluation import Evaluation
from efface.metrics.intervals import clopper_pearson
from efface.report import Report, Row, Status, Verdict, collect, significant_rows
from efface.report import tests_forget as of_forget
from efface.report import tests_unseen as of_unseen
from efface.report import tests_utility as of_utility
from efface.report.context import Context, Pair
from efface.testing import fit, untrained_model
from efface.types import Records, Split
from research import pages
from research.pages import percent, table
from research.tables import RESULTS, about, rebuild

FORGET = (1, 4, 20, 60)
# (classes of the forget records, how they are mixed, holdout): each corner with few of something.
ARRAYS = (
    (1, "balanced", 12), (1, "three", 60), (2, "three", 12), (2, "unbalanced", 60),
    (10, "balanced", 60), (10, "three", 60), (10, "unbalanced", 600), (40, "three", 600),
    (40, "balanced", 60),
)  # fmt: skip
DRAWS, PAGES, VIEWS, RETAIN, FEWER, JOBS = 300, 20, 4, 120, 500, 2
FLIPPED = 0.2  # answers of a copy that differ from the model's
OBVIOUS, POWER_DRAWS = (4, 20, 60), 100
# True of a model trained from scratch, or of the old model: nothing that should not be flagged.
APART = ("page", "buffers.change", "control.positive")
# What a row flags of its own where nothing is wrong: 5 % on two sides; one side or a control less.
LEVELS = {"attack.loss_tpr": 0.025, "holdout": 0.025, "control": 0.01}
TESTS = (
    of_forget.forget_accuracy, of_unseen.loss_attack_rows, of_unseen.entropy_attack_rows,
    of_unseen.unseen_margins, of_unseen.unseen_distance, of_utility.holdout_accuracy,
    of_unseen.negative_control, of_unseen.negative_control_of_margins,
)  # fmt: skip


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
    """Outputs of an old and of a new model on records of one request."""

    def __init__(self, n: int, classes: int, mix: str, holdout: int, seed: int) -> None:
        self.draw, self.classes = np.random.default_rng([n, classes, holdout, seed]), classes
        unseen = labels(holdout * 3 // 4, classes, mix, unseen=True)
        others = np.full(holdout - len(unseen), classes)
        self.forget = self.pair(labels(n, classes, mix, unseen=False), "f")
        self.holdout = self.pair(np.concatenate([unseen, others]), "h")
        self.retain = self.pair(np.arange(RETAIN) % (classes + 1), "r", known=1.0)

    def pair(self, y: np.ndarray, name: str, *, known: float = 0.0) -> Pair:
        """Both models' logits: what they share, an own part, and the level of the class."""
        levels = 1 + 2 * (np.arange(self.classes + 1) % 3)
        mean = np.eye(self.classes + 2)[y] * (levels[y] + known)[:, None]
        shared = self.draw.normal(0, 1, mean.shape) + mean
        ids = tuple(f"{name}{row}" for row in range(len(y)))
        sides = (
            Evaluation((shared + self.draw.normal(0, 0.4, mean.shape)).astype(np.float32), y, ids)
            for _ in "12"
        )
        records = Records(torch.zeros(len(y), 1), torch.from_numpy(y), ids)
        return Pair(records, *sides)

    def shifted(self, side: str, by: float) -> None:
        """Move the logit of the label of every forget record of one model."""
        seen = getattr(self.forget, side)
        moved = seen.logits + by * np.eye(self.classes + 2, dtype=np.float32)[seen.y]
        self.forget = replace(self.forget, **{side: replace(seen, logits=moved)})

    def context(self, **request: Any) -> Context:
        """What the tests of a report read."""
        parts = {name: getattr(self, name) for name in ("forget", "holdout", "retain")}
        ctx = Context(
            nn.Identity(), nn.Identity(), Split(*(p.records for p in parts.values())), **request
        )
        vars(ctx).update(parts)
        return ctx

    def views(self, pair: Pair) -> np.ndarray:
        """Whether the new model is correct in each view (n, VIEWS): those of a record alike."""
        margins = pair.after.logit_margin[:, None]
        return margins + self.draw.normal(-0.5, 1, (len(pair), VIEWS)) > 0


def rows_of(ctx: Context, simulated: Simulated) -> Iterator[Row]:
    """The rows of a report on simulated outputs; tests that lack records give none."""
    from efface.report.runner import _run
    from efface.report.tests import TESTS as DECLARED

    for test in DECLARED:
        if test.run in TESTS:
            yield from _run(test, ctx, probes=False)
    if len(ctx.unseen):
        yield from probe_rows(ctx, simulated)


def probe_rows(ctx: Context, simulated: Simulated) -> Iterator[Row]:
    """Other views, and a quantised copy that repairs as much as it breaks."""
    forget, unseen = ctx.forget, ctx.unseen
    ours, theirs = simulated.views(forget), simulated.views(unseen)
    row = of_forget.residual_row(forget, unseen, ours.mean(1), ours.mean(1), theirs, "")
    yield replace(row, key="residual.view")
    ours, theirs = (~p.after.correct & v.any(1) for p, v in ((forget, ours), (unseen, theirs)))
    row = of_forget.residual_row(forget, unseen, ours, ours, theirs[:, None], "")
    yield replace(row, key="residual.any_view")
    flipped = simulated.draw.random(len(forget)) < FLIPPED
    found = of_forget.recovery(ctx, forget.after.correct, forget.after.correct ^ flipped)
    yield Row(key="precision", **found)


def flagged(row: Row) -> bool:
    """Whether a row says that something is wrong; a control that fails says so too."""
    return row.status is Status.FLAGGED or row.verdict is Verdict.CONTROL_FAILED


def counts(reports: list[list[Row]]) -> dict[str, list[int]]:
    """[flagged, judged, inconclusive] of each row, and of the page after Holm correction."""
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for rows in reports:
        assert not [row for row in rows if row.status is Status.ERROR], rows
        judged = [row for row in rows if row.status is not Status.NOT_RUN]
        page = Row(
            verdict=Verdict.DETECTED
            if significant_rows(Report("T2", tuple(rows)))
            else Verdict.NOT_DETECTED
        )
        for row in (*judged, replace(page, key="page")):
            if row.verdict in (Verdict.DESCRIPTIVE, Verdict.NO_REFERENCE):
                continue
            wrong, few = flagged(row), row.verdict is Verdict.TOO_FEW_RECORDS
            found[row.key] = [a + b for a, b in zip(found[row.key], (wrong, 1, few), strict=True)]
    return dict(found)


def arrays() -> dict[str, Any]:
    """How often every row and the page are flagged, case by case."""
    # By the module's name: a function of __main__ would be sent with all that it names.
    one = import_module("research.benchmarks.null_pages").null_case
    every = (delayed(one)(n, *case) for case, n in product(ARRAYS, FORGET))
    cases: list[dict[str, Any]] = []
    for case in Parallel(n_jobs=JOBS, return_as="generator_unordered")(every):
        cases.append(case)
        print(json.dumps(case), flush=True)
    return {"draws": DRAWS, "permutations": FEWER, "cases": cases}


def null_case(n: int, classes: int, mix: str, holdout: int) -> dict[str, Any]:
    """The rows of ``DRAWS`` reports with nothing to find."""
    # Fewer than a report has: they change what p resolves, not how often a row is flagged.
    permutation.PERMUTATIONS, reports = FEWER, []
    for seed in range(DRAWS):
        simulated = Simulated(n, classes, mix, holdout, seed)
        reports.append([*rows_of(simulated.context(), simulated)])
    request = {"forget": n, "classes": classes, "mix": mix, "holdout": holdout}
    return {**request, "rows": counts(reports)}


def memorised(simulated: Simulated) -> Context:
    """Both models know the forget records: logits of the label three standard deviations up."""
    simulated.shifted("before", 3.0)
    simulated.shifted("after", 3.0)
    return simulated.context()


def over_forgotten(simulated: Simulated) -> Context:
    """The new model is as far below unseen records as the old one was above."""
    simulated.shifted("before", 3.0)
    simulated.shifted("after", -3.0)
    return simulated.context()


def class_left(simulated: Simulated) -> Context:
    """A class that should be gone is predicted as before."""
    return simulated.context(forget_classes=(0,))


def damaged(simulated: Simulated) -> Context:
    """A third of the other records is answered at random; half of the retain records of a class."""
    for name in ("holdout", "retain"):
        pair = getattr(simulated, name)
        lost = simulated.draw.random(len(pair)) < np.where(pair.after.y == 0, 0.6, 1 / 3)
        logits = np.where(
            lost[:, None], simulated.draw.normal(size=pair.after.logits.shape), pair.after.logits
        )
        setattr(
            simulated,
            name,
            replace(pair, after=replace(pair.after, logits=logits.astype(np.float32))),
        )
    return simulated.context()


def suppressed(simulated: Simulated) -> Context:
    """Wrong as they are, right in other views and in copies, as ``probes_of_suppressed`` has it."""
    simulated.shifted("before", 3.0)
    simulated.shifted("after", -6.0)
    return simulated.context()


RELEARNED = ("residual.view", "residual.any_view", "precision")
CASES = {
    "memorised: +3 standard deviations": memorised,
    "over-forgotten: −3 standard deviations": over_forgotten,
    "forgotten class still predicted": class_left,
    "utility lost: a third at random": damaged,
    "suppressed: right in other views and in copies": suppressed,
}


def power() -> dict[str, Any]:
    """Share of draws in which each row flags each obvious case, and how often it is inconclusive."""
    found = {}
    for (name, case), n in product(CASES.items(), OBVIOUS):
        classes, reports = (1 if case is class_left else 10), []
        for seed in range(POWER_DRAWS):
            simulated = Simulated(n, classes, "balanced", 600, seed)
            ctx = case(simulated)
            rows = [*rows_of(ctx, simulated)]
            if case is suppressed:
                rows = [row for row in rows if row.key not in RELEARNED] + [
                    *suppressed_rows(ctx, simulated)
                ]
            reports.append(rows)
        found[f"{name}|{n}"] = counts(reports)
    return {"draws": POWER_DRAWS, "cases": found, "models": rogues()}


def suppressed_rows(ctx: Context, simulated: Simulated) -> Iterator[Row]:
    """The probes' rows where views and copies are answered as the old model answers."""
    forget, unseen = ctx.forget, ctx.unseen
    ours, theirs = replace(forget, after=forget.before), simulated.views(unseen)
    views = simulated.views(ours)
    row = of_forget.residual_row(forget, unseen, views.mean(1), views.mean(1), theirs, "")
    yield replace(row, key="residual.view")
    hidden = [~p.after.correct & v.any(1) for p, v in ((forget, views), (unseen, theirs))]
    row = of_forget.residual_row(forget, unseen, hidden[0], hidden[0], hidden[1][:, None], "")
    yield replace(row, key="residual.any_view")
    found = of_forget.recovery(ctx, forget.after.correct, ours.after.correct)
    yield Row(key="precision", **found)


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
    old, split = fit(untrained_model(0), shuffled().take(range(300)), 0), digits_split(4, 60, 0)
    found = {}
    for name, change in ROGUES.items():
        new = change(fit(untrained_model(0), shuffled().take(range(300)), 0))
        rows = collect(old, new, split, probes=False).rows
        keys = ("weights.change", "buffers.change", "outputs.determinism", "outputs.constant")
        found[name] = {row.key: flagged(row) for row in rows if row.key in keys}
    return found


def scaled(net: nn.Module, part: str, by: float) -> nn.Module:
    """The tensors whose name holds ``part``, times a factor."""
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if part in name and tensor.is_floating_point():
                tensor.mul_(by)
    return net


ROGUES = {
    "the old model": lambda net: net,
    "only the last layer changed": lambda net: scaled(net, "7.", 0.9),
    "BatchNorm statistics changed": lambda net: scaled(net, "running_mean", 1.1),
    "noise on every output": lambda net: Noisy(net).eval(),
    "the same output for all inputs": lambda net: scaled(net, "7.weight", 0.0),
}


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


def level(key: str) -> float:
    """How often a row may be flagged where nothing is wrong."""
    return next((value for prefix, value in LEVELS.items() if key.startswith(prefix)), 0.05)


def page(record: dict[str, Any]) -> str:
    """FPR and power in three tables."""
    made = {"arrays": _arrays, "power": _power, "pages": _whole}
    there = [name for name in made if name in record]
    commands = ", ".join(f"`{record[name]['command']}`" for name in there)
    head = f"{commands}. Level of a row: 5 %, one-sided ones 2.5 %, controls 1 %; of a page, after Holm correction, 5 %."
    blocks = (block for name in there for block in made[name](record[name]))
    title = "How often the evidence flags what was never seen, and what each row detects"
    return pages.page(title, head, *blocks)


def _arrays(record: dict[str, Any]) -> list[str]:
    cases, keys = record["cases"], sorted({key for case in record["cases"] for key in case["rows"]})
    lines = []
    for key in keys:
        found = [(case, case["rows"][key]) for case in cases if key in case["rows"]]
        by_n = []
        for n in FORGET:
            hits = np.sum([c for case, c in found if case["forget"] == n] or [[0, 0, 0]], axis=0)
            by_n.append(
                f"{percent(hits[0] / hits[1])} ({percent(hits[2] / hits[1], 0)})"
                if hits[1]
                else "–"
            )
        hits = np.sum([c for _, c in found], axis=0)
        low, high = clopper_pearson(int(hits[0]), int(hits[1]))
        worst = max(c[0] / c[1] for _, c in found)
        # Each case at a level that all of them share.
        over = sum(
            clopper_pearson(c[0], c[1], level=1 - 0.05 / len(found))[0] > level(key)
            for _, c in found
        )
        share = f"{percent(hits[0] / hits[1], 2)} ({percent(low, 2)} to {percent(high, 2)})"
        lines.append(
            [
                f"`{key}`",
                percent(level(key)),
                share,
                *by_n,
                percent(worst),
                f"{over} of {len(found)}",
            ]
        )
    head = " | ".join(f"{n} records" for n in FORGET)
    return [
        "## Nothing to find: simulated outputs",
        (
            f"{record['draws']} draws of each of {len(cases)} cases: {FORGET} forget records of 1 to 40 classes, balanced, "
            f"unbalanced, or half of them of a class with three unseen ones; holdout of 12 to 600. Flagged in %, with Clopper-Pearson intervals; in "
            "brackets how often the row is inconclusive for too few records. Last column: cases whose interval "
            "(family-wise 95 %) lies above the level."
        ),
        table(f"row | level | flagged | {head} | worst case | above its level", lines),
    ]


def _power(record: dict[str, Any]) -> list[str]:
    lines = []
    for name in CASES:
        found = [record["cases"][f"{name}|{n}"] for n in OBVIOUS]
        for key in sorted({key for one in found for key in one}):
            shares = [one.get(key, [0, 0, 0]) for one in found]
            if max((c[0] / c[1] for c in shares if c[1]), default=0) > 0.5:  # noqa: PLR2004  # what the row is for
                cells = [
                    f"{percent(c[0] / c[1], 0)} ({percent(c[2] / c[1], 0)})" if c[1] else "–"
                    for c in shares
                ]
                lines.append([name, f"`{key}`", *cells])
    exact = [
        [name, ", ".join(f"`{key}`" for key, hit in found.items() if hit) or "–"]
        for name, found in record["models"].items()
    ]
    head = " | ".join(f"{n} records" for n in OBVIOUS)
    return [
        "## An obvious case for each row",
        (
            f"Flagged in % of {record['draws']} draws (in brackets: inconclusive); ten classes, holdout of 600. Rows that "
            "flag a case in less than half of the draws at every size are omitted."
        ),
        table(f"case | row | {head}", lines),
        "Rows whose reference is exact, on a small model of digits with 4 forget records:",
        table("model | flagged", exact),
    ]


def _whole(record: dict[str, Any]) -> list[str]:
    lines = []
    for case in record["cases"]:
        rows = {key: c for key, c in case["rows"].items() if key not in APART}
        hits, judged, few = np.sum(list(rows.values()), axis=0)
        raised = ", ".join(
            f"`{key}` {n}"
            for key, n in Counter({k: c[0] for k, c in rows.items() if c[0]}).most_common()
        )
        page = case["rows"]["page"]
        ends = " to ".join(percent(end, 0) for end in clopper_pearson(page[0], page[1]))
        cells = (
            f"{page[0]} of {page[1]} ({ends})",
            f"{hits} of {judged}",
            f"{few}",
            raised or "none",
        )
        lines.append([case["case"], *cells])
    return [
        "## Nothing to find: whole reports on digits",
        (
            f"{record['pages']} reports a case at T2, probes included: forget records drawn from 200 that the new model never saw "
            "(four pairs of models: trained on all 500, and from scratch on the other 300), holdout from 1,000. Omitted: "
            "`buffers.change`, which is true of such a model, and `control.positive`, which is about the old one."
        ),
        table(
            "case | pages with a significant row | rows flagged | inconclusive: too few records | flagged",
            lines,
        ),
    ]


def main(part: str) -> None:
    """Make one part of the record, and the page when all are there."""
    torch.set_num_threads(1)
    made = {
        **about(f"null_pages {part}"),
        **{"arrays": arrays, "power": power, "pages": whole}[part](),
    }
    path = RESULTS / "null_pages.json"
    record = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**record, part: made, "commit": made["commit"]}) + "\n")
    rebuild("null_pages")


if __name__ == "__main__":
    main(sys.argv[1])
