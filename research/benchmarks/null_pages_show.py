"""The page of null_pages: how often rows are flagged where nothing is to find, and what they detect."""

from collections import Counter
from typing import Any

import numpy as np

from efface.metrics.intervals import clopper_pearson
from efface.report.tests import TESTS, Declaration
from research import pages
from research.benchmarks.null_pages import FORGET, KINDS, MODELS, OBVIOUS, OBVIOUS_CASES, REASONS
from research.pages import percent, table

# Rows of other tests that no case shows.
OF_ROWS = {
    "attack.lira_tpr_0.1": "needs 3,000 unseen records; it is `attack.lira_tpr_1` at another rate",
    "retain.negative_flips": "describes; `retain.accuracy` judges the same records",
    "retrained.retain": "describes, as do `retrained.forget` and `retrained.attack`; `retrained.gap` judges them",
    "synthetic.agreement": "describes: there is no reference without unseen records",
}
SHOWN = 0.5  # a row that flags a case less often is not for it
# True of a model trained from scratch, or of the old model: nothing that should not be flagged.
APART = ("page", "buffers.change", "control.positive")
# What a row flags of its own where nothing is wrong: 5 % on two sides; one side or a control less.
LEVELS = {
    "attack.loss_tpr": 0.025, "attack.lira_tpr": 0.025, "holdout": 0.025, "retain": 0.025,
    "control": 0.01,
}  # fmt: skip
# Rows that judge a test whose key is not theirs.
ROWS = {"retrained.columns": "retrained.gap", "retrained.distance": "retrained.logit_margin"}


def judges(test: Declaration, key: str, kind: str) -> bool:
    """Whether a row's key is of this test, in a request of this kind."""
    name = ROWS.get(test.key, test.key)
    # ``holdout`` is of classes, ``holdout.accuracy`` of other tasks.
    if test.multiclass is not None and test.multiclass != (kind == "multiclass"):
        return False
    return key == name or key.startswith((f"{name}.", f"{name}_tpr"))


def level(key: str) -> float:
    """How often a row may be flagged where nothing is wrong."""
    return next((value for prefix, value in LEVELS.items() if key.startswith(prefix)), 0.05)


def page(record: dict[str, Any]) -> str:
    """FPR and power in tables."""
    made = {"arrays": _arrays, "requests": _requests, "power": _power, "pages": _whole}
    there = [name for name in made if name in record]
    commands = ", ".join(
        f"`{record[name]['command']}` ({record[name]['commit']})" for name in there
    )
    head = f"{commands}. Level of a row: 5 %, one-sided ones 2.5 %, controls 1 %; of a page, after Holm correction, 5 %."
    blocks = (block for name in there for block in made[name](record[name]))
    title = "How often the evidence flags what was never seen, and what each row detects"
    return pages.page(title, head, *blocks)


def _share(counted: Any) -> str:
    """Flagged and inconclusive, in % of the draws in which the row was judged."""
    hits, judged, few = counted
    return f"{percent(hits / judged)} ({percent(few / judged, 0)})" if judged else "–"


def _arrays(record: dict[str, Any]) -> list[str]:
    return [
        "## Nothing to find: simulated outputs",
        (
            f"{record['draws']} draws of each of {len(record['cases'])} cases: {FORGET} forget records of 1 to 40 classes, balanced, "
            "unbalanced, or half of them of a class with three unseen ones; holdout of 12 to 600. Flagged in %, with Clopper-Pearson "
            "intervals; in brackets how often the row is inconclusive for too few records. 2,000 permutations, as in every report. "
            "`residual.view` and `precision` are the rows of other views and of copies, of simulated answers. Last column: cases whose "
            "interval (family-wise 95 %) lies above the level."
        ),
        _null_table(record["cases"]),
    ]


def _requests(record: dict[str, Any]) -> list[str]:
    blocks = ["## Nothing to find: other requests"]
    for of, (name, about) in REQUESTED.items():
        every = [case for case in record["cases"] if of(case)]
        blocks += [
            f"**{name}**: {record['draws']} draws of each of {len(every)} cases, {about}.",
            _null_table(every),
        ]
    return blocks


REQUESTED: dict[Any, tuple[str, str]] = {
    lambda case: case.get("mislabelled"): ("Wrong labels", "ten classes, holdout of 240"),
    lambda case: case.get("kind") == "multilabel": ("Multilabel", "six labels, holdout of 240"),
    lambda case: case.get("kind") == "regression": ("Regression", "one value, holdout of 240"),
    lambda case: case.get("models"): (
        "Further models",
        f"ten classes, holdout of 420, {MODELS} retrained models, the same {MODELS} as shadow models (half of them trained on each forget record) and drawn embeddings",
    ),
}


def _null_table(every: list[dict[str, Any]]) -> str:
    keys = sorted({key for case in every for key in case["rows"]} - {*APART})
    lines = [_null_line(every, key, level(key)) for key in ("page", *keys)]
    head = " | ".join(f"{n} records" for n in FORGET)
    return table(f"row | level | flagged | {head} | worst case | above its level", lines)


def _null_line(every: list[dict[str, Any]], key: str, allowed: float) -> list[str]:
    found = [(case, case["rows"][key]) for case in every if key in case["rows"]]
    by_n = [
        _share(np.sum([c for case, c in found if case["forget"] == n] or [[0, 0, 0]], axis=0))
        for n in FORGET
    ]
    hits, judged, _ = np.sum([c for _, c in found], axis=0).tolist()
    ends = " to ".join(percent(end, 2) for end in clopper_pearson(hits, judged))
    # Each case at a level that all of them share.
    over = sum(
        clopper_pearson(c[0], c[1], level=1 - 0.05 / len(found))[0] > allowed for _, c in found
    )
    worst = percent(max(c[0] / c[1] for _, c in found))
    share = f"{percent(hits / judged, 2)} ({ends})"
    return [f"`{key}`", percent(allowed), share, *by_n, worst, f"{over} of {len(found)}"]


def best(
    record: dict[str, Any], test: Declaration, kind: str
) -> tuple[str, str, list[list[int]]] | None:
    """(row, case, counts at each size) of what a test detects best in requests of this kind."""
    cases = [case for case in record["cases"] if case.get("kind", "multiclass") == kind]
    rows = {(key, case["case"]) for case in cases for key in case["rows"]}
    found = [
        (key, name, _sizes(record, name, key)) for key, name in rows if judges(test, key, kind)
    ]
    # the clearest; by name where several are
    return max(sorted(found), key=lambda one: sum(map(_rate, one[2])), default=None)


def _rate(counted: list[int]) -> float:
    return counted[0] / max(1, counted[1])


def _sizes(record: dict[str, Any], name: str, key: str) -> list[list[int]]:
    return [
        case["rows"].get(key, [0, 0, 0])
        for n in OBVIOUS
        for case in record["cases"]
        if case["case"] == name and case["forget"] == n
    ]


def _power(record: dict[str, Any]) -> list[str]:
    tests = []
    for test in sorted(TESTS, key=lambda one: one.key):  # not in the order of imports
        for kind in KINDS if test.multiclass is False else ("multiclass",):
            if found := best(record, test, kind):
                key, name, sizes = found
                row = f"`{key}`" + f" ({kind})" * (kind != "multiclass")
                tests.append([row, name, *map(_share, sizes)])
    lines = []
    for name in OBVIOUS_CASES:
        keys = {key for case in record["cases"] if case["case"] == name for key in case["rows"]}
        for key in sorted(keys):
            sizes = _sizes(record, name, key)
            if max(map(_rate, sizes)) > SHOWN:
                lines.append([name, f"`{key}`", *map(_share, sizes)])
    exact = [
        [name, ", ".join(f"`{key}`" for key, hit in found.items() if hit) or "–"]
        for name, found in record["models"].items()
    ]
    head = " | ".join(f"{n} records" for n in OBVIOUS)
    return [
        "## Each test on the obvious case that it detects best",
        (
            f"Flagged in % of {record['draws']} draws (in brackets: inconclusive); ten classes, holdout of 240, or of 420 where there are further models; forgotten class: one of two. "
            "Of a test with several rows the one that detects most."
        ),
        table(f"row | case | {head}", tests),
        "Rows whose reference is exact, on a small model of digits with 4 forget records:",
        table("model | flagged", exact),
        "Not in these tables:",
        "\n".join(f"- `{key}` {why}." for key, why in (REASONS | OF_ROWS).items()),
        "## Every row on each obvious case",
        "Rows that flag a case in less than half of the draws at every size are omitted.",
        table(f"case | row | {head}", lines),
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
