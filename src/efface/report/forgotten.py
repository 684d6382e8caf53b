"""What is still said about the forget records and about what lies around them (tier T0)."""

import numpy as np
from jaxtyping import Bool
from scipy import stats

from efface.metrics.indistinguishability import expected_from_unseen, more_often_p
from efface.metrics.intervals import clopper_pearson
from efface.metrics.measure import evaluate
from efface.report.facts import Facts, NotRun, Pair
from efface.report.nearby import VIEWERS, VIEWS, seen_otherwise
from efface.report.rows import PLAIN, Row
from efface.report.verdicts import against, still_answered_p

NO_TARGET = "no target at this tier"
MOST_UNSEEN = 500


def accuracy_row(facts: Facts) -> list[Row]:
    """Share of forget records that get the label they came with."""
    pair = facts.forget
    hits, n = int(pair.after.correct.sum()), len(pair)
    interval, target = clopper_pearson(hits, n), _label_target(facts)
    verdict, status = (NO_TARGET, PLAIN) if target is None else against(interval, target)
    what = "the wrong label they came with" if facts.mislabelled else "their label"
    return [
        Row(
            key="forget.accuracy",
            name=f"Forget records answered with {what}",
            section="forget",
            tier="T0",
            before=float(pair.before.correct.mean()),
            after=hits / n,
            target=target,
            interval=interval,
            verdict=verdict,
            status=status,
            note=_label_note(facts, target),
            p=still_answered_p(hits, n) if facts.forget_classes and target == 0 else None,
        )
    ]


def _label_target(facts: Facts) -> float | None:
    """What a model that never saw the records would do, as far as the tier knows."""
    if facts.forget_classes and set(facts.forget.after.y.tolist()) <= set(facts.forget_classes):
        return 0.0
    if not facts.has_unseen:
        return None
    unseen = facts.holdout.after
    if facts.mislabelled:
        wrong = [(unseen.predicted[unseen.y != c] == c).mean() for c in facts.forget.after.y]
        return float(np.mean(wrong))
    return _or_none(expected_from_unseen(facts.forget.after.y, unseen.correct * 1.0, unseen.y))


def _label_note(facts: Facts, target: float | None) -> str:
    if target is None:
        return "Without a holdout it is not known how a model that never saw them would answer."
    if facts.mislabelled:
        return "Target: how often unseen records of other classes get that label."
    if facts.forget_classes:
        return "Target: a model that never learned the class does not answer with it."
    return "Target: the new model's accuracy on unseen records of the same classes."


def spread_rows(facts: Facts) -> list[Row]:
    """Mean entropy and mean logit margin; described here, judged by the tests of tier T1."""
    return [_mean_row(facts, "entropy", "nats"), _mean_row(facts, "margin", "logits")]


def _mean_row(facts: Facts, what: str, unit: str) -> Row:
    before, after = (facts.seen_by_attack(m) for m in (facts.forget.before, facts.forget.after))
    values, target = getattr(after, what), None
    if facts.has_unseen:
        unseen = facts.seen_by_attack(facts.holdout.after)
        target = _or_none(expected_from_unseen(after.y, getattr(unseen, what), unseen.y))
    return Row(
        key=f"forget.{what}",
        name=f"Mean {what} of the forget records",
        section="forget",
        tier="T0",
        before=float(getattr(before, what).mean()),
        after=float(values.mean()),
        target=target,
        interval=_mean_interval(values),
        unit=unit,
        verdict=NO_TARGET if target is None else "described",
        note="" if target is None else f"Target: unseen records {facts.alike}.",
    )


def _mean_interval(values: np.ndarray) -> tuple[float, float] | None:
    """Student's interval; None for one value, or for values that are all the same."""
    if len(values) < 2 or not values.std():  # noqa: PLR2004
        return None
    low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
    return float(low), float(high)


def _or_none(value: float) -> float | None:
    return value if np.isfinite(value) else None


def residual_rows(facts: Facts) -> list[Row]:
    """What is still known around the records: in other light, out of focus, turned a little."""
    if facts.forget.records.x.ndim != 4:  # noqa: PLR2004
        raise NotRun("the views are those of images (n, channels, height, width)")
    if not facts.of_classes:
        raise NotRun("the views ask for one class of several")
    kinds = [kind for kind in VIEWERS if kind not in facts.method_saw]
    if not kinds:
        raise NotRun("the method was trained on every view that this test has")
    facts = facts.about(facts.sample(facts.forget, MOST_UNSEEN))
    ours = {kind: _views(facts, facts.forget, kind) for kind in kinds}
    unseen = None
    if facts.has_unseen and len(facts.rivals) and not facts.mislabelled:
        some = facts.sample(facts.rivals, MOST_UNSEEN)
        unseen = some, {kind: _views(facts, some, kind)[1] for kind in kinds}
    rows = [_view_row(facts, kind, ours[kind], unseen) for kind in kinds]
    return [*rows, _again_row(facts, ours, unseen)]


_Unseen = tuple[Pair, dict[str, Bool[np.ndarray, "m v"]]] | None


def _views(
    facts: Facts, pair: Pair, kind: str
) -> tuple[Bool[np.ndarray, "n v"], Bool[np.ndarray, "n v"]]:
    """For each record and view: does the old, does the new model answer with the label?"""
    seen = [seen_otherwise(pair.records, kind, view=v, seed=facts.seed) for v in range(VIEWS)]
    right = [
        np.stack([evaluate(model, r).correct for r in seen], 1) for model in (facts.old, facts.new)
    ]
    return right[0], right[1]


def _view_row(
    facts: Facts,
    kind: str,
    right: tuple[Bool[np.ndarray, "n v"], Bool[np.ndarray, "n v"]],
    unseen: _Unseen,
) -> Row:
    value = float(right[1].mean())
    spoken = {"light": "other light", "focus": "blur", "turn": "a small turn"}[kind]
    return _residual_row(
        facts,
        key=f"residual.{kind}",
        name=f"Forget records answered with their label under {spoken}",
        before=float(right[0].mean()),
        after=value,
        target=None if unseen is None else _matched(facts, unseen[0], unseen[1][kind].mean(1)),
        note=f"{VIEWS} views of each of {len(facts.forget)} records. ",
    )


def _again_row(
    facts: Facts,
    ours: dict[str, tuple[Bool[np.ndarray, "n v"], Bool[np.ndarray, "n v"]]],
    unseen: _Unseen,
) -> Row:
    """Missed as they are, yet recognised in some other view: residual knowledge (2601.22359)."""
    before, after = (
        ~clean.correct & np.concatenate([right[side] for right in ours.values()], 1).any(1)
        for side, clean in enumerate((facts.forget.before, facts.forget.after))
    )
    target = p = None
    if unseen is not None:
        again = ~unseen[0].after.correct & np.concatenate([*unseen[1].values()], 1).any(1)
        target = _matched(facts, unseen[0], again * 1.0)
        groups = {"classes": facts.forget.after.y, "unseen_classes": unseen[0].after.y}
        p = more_often_p(after, again, **groups, seed=facts.seed)
    return _residual_row(
        facts,
        key="residual.again",
        name="Forget records missed as they are, recognised in another view",
        before=float(before.mean()),
        after=float(after.mean()),
        target=target,
        note="",
        p=p,
        tier="T0" if p is None else "T1",
    )


def _matched(facts: Facts, unseen: Pair, values: np.ndarray) -> float | None:
    return _or_none(expected_from_unseen(facts.forget.after.y, values, unseen.after.y))


def _residual_row(  # the fields of one row
    facts: Facts,
    *,
    key: str,
    name: str,
    before: float,
    after: float,
    target: float | None,
    note: str,
    p: float | None = None,
    tier: str = "T0",
) -> Row:
    n = len(facts.forget)
    interval = clopper_pearson(round(after * n), n)
    none = "no target for wrong labels" if facts.mislabelled else NO_TARGET
    verdict, status = (none, PLAIN) if target is None else against(interval, target)
    if target is not None:
        note += f"Target: the same on at most {MOST_UNSEEN} unseen records of the same classes."
    return Row(
        key=key,
        name=name,
        section="forget",
        tier=tier,
        before=before,
        after=after,
        target=target,
        interval=interval,
        verdict=verdict,
        status=status,
        note=note.strip(),
        p=p,
    )
