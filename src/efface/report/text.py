"""The words of the report: numbers, tiers, sections, marks, headline, and what is not known.

A verdict's words stand in ``verdicts.py``, a test's title and note in its declaration, what every
page says in ``report.html.jinja``.
"""

from efface.report.report import Report, Row, significant_rows
from efface.report.verdicts import Status, Verdict

DASH = "\N{EN DASH}"
NAMED = 3  # so many significant rows stand in the headline

# What each tier has.
TIERS = {
    "T0": "the forget records",
    "T1": "the forget records and a holdout that was never trained on",
    "T2": "the forget records, a holdout and a sample of the retain records",
    "T3": "forget, holdout and retain records, and models retrained without the forget records",
    "T4": "forget, holdout and retain records, and shadow models",
    "TE": "a model retrained from scratch without the forget records: its exclusion is stated",
}

SECTIONS = {
    "forget": "The forget records, before and after",
    "unseen": "Compared with records the model never saw",
    "utility": "Utility on other records",
    "controls": "Controls and power",
    "retrained": "Compared with models retrained without the records",
    "exclusion": "Retrained from scratch without the records",
    "weights": "Change of the weights",
    "not run": "Not run",
}

# The mark of each status, and what it means.
STATUSES = {
    Status.ERROR: ("■", "the test crashed, or the exclusion does not hold"),
    Status.FLAGGED: ("▲", "off its reference by its own 95 % interval; one in twenty is by chance"),
    Status.INCONCLUSIVE: ("◇", "the data, or a failed control, allow no conclusion"),
    Status.NOT_FLAGGED: ("○", "nothing significant, which does not mean that nothing is there"),
    Status.NOT_RUN: (DASH, "the row says what it lacks"),
}

# The headline's sentence on ``attack.loss``.
ATTACK = {
    Verdict.DETECTED: "A membership inference attack still detects the records in the new model.",
    Verdict.OVER_FORGOTTEN: "The new model is worse on the records than on unseen ones: "
    "over-forgetting, which reveals them too.",
    Verdict.VOID: "The membership inference attack is inconclusive: it does not detect the records "
    "even in the old model.",
    Verdict.TOO_FEW_RECORDS: "There are too few records for the membership inference attack.",
    Verdict.SIGNIFICANTLY_DIFFERENT: "A membership inference attack tells the records from unseen "
    "ones by the confidence of the predicted class.",
    Verdict.NOT_DETECTED: "A (weak) membership inference attack detected the records in the old "
    "model and does not detect them in the new one.",
    Verdict.NOT_RUN: "Whether they now look like unseen records cannot be said at this tier: that "
    "needs a holdout.",
    Verdict.CRASHED: "The membership inference attack crashed: see its row.",
}

# Attacks that the EDPB names and nothing here tries, in its order.
NOT_TESTED = {
    "attribute inference": "no test infers unknown attributes of a person from known ones and the "
    "model's outputs",
    "exfiltration": "no attempt was made to extract training data from the model or its storage",
    "regurgitation": "no test looks for records in the model's own outputs",
    "model inversion": "no attempt was made to build typical inputs of a class or of a person",
    "reconstruction": "no attempt was made to rebuild the records from the weights, nor from the "
    "old and the new model together, which is easier",
}
NO_REGURGITATION = "the model outputs one number for each class; that cannot repeat a record"

# What cannot be concluded while the part, row or model is missing.
UNKNOWN = {
    "holdout": "Whether the records now look like unseen ones, and what the change cost elsewhere: "
    "that takes a holdout.",
    "retain": "What happened to other records that were trained on: that takes a sample of them.",
    "retrained": "The distance to a model retrained without the records: that takes such models.",
    "floor": "The retrain-to-retrain variability, so whether the distance to the one retrained "
    "model means anything: that takes a second one.",
    "attack.lira": "What an attack on each single record would find: that takes shadow models.",
    "relearning": "Whether a little more training brings the records back.",
    "precision": "Whether it holds for a quantised or pruned copy.",
    "copies": "What is left in copies of the old model, in its optimizer states, exports, backups "
    "and logs, and in models derived from it.",
}


def count(n: int, thing: str = "record") -> str:
    """``n`` things, singular or plural."""
    plural = f"{thing}es" if thing.endswith("s") else f"{thing}s"
    return f"{n} {thing if n == 1 else plural}"


def formatted(value: float | str | None, unit: str = "share") -> str:
    """A number as the page prints it; a dash where there is none."""
    if value is None:
        return DASH
    if isinstance(value, str):
        return value
    if unit == "share":
        return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"
    return f"{value:.0f}" if unit == "count" else f"{value:.3g}"


def formatted_interval(interval: tuple[float, float] | None, unit: str) -> str:
    """Both ends of an interval as the page prints them."""
    return DASH if interval is None else " to ".join(formatted(end, unit) for end in interval)


def headline(report: Report) -> list[str]:
    """The result in sentences for readers who know no statistics; each from a row or two."""
    if report.outcome != "done":
        return ["The request was not met. There is no new model; the old one stands unchanged."]
    rows = {row.key: row for row in report.rows}
    attack = rows["attack.loss"].verdict if "attack.loss" in rows else Verdict.NOT_RUN
    sentences = [
        _before_and_after(rows.get("forget.accuracy")),
        ATTACK.get(attack, ""),
        _before_and_after(rows.get("holdout.accuracy"))
        or "What the change cost elsewhere is not known: that needs a holdout.",
        _significance(report),
    ]
    return [sentence for sentence in sentences if sentence]


def _before_and_after(row: Row | None) -> str:
    if row is None or row.before is None or row.after is None:
        return ""
    before, after = formatted(row.before, row.unit), formatted(row.after, row.unit)
    reference = ""
    if isinstance(row.reference, float):
        reference = f" (reference: {formatted(row.reference, row.unit)})"
    return f"{row.name}: {before} before, {after} now{reference}."


def _significance(report: Report) -> str:
    """What is significant of all rows together; empty where none has a p-value."""
    holm = "significant after Holm correction (family-wise error 5 %)"
    if significant := significant_rows(report):
        first = "; ".join(f"{row.name} ({row.verdict.words})" for row in significant[:NAMED])
        more = f"; and {len(significant) - NAMED} more" * (len(significant) > NAMED)
        return f"S{holm[1:]}: {first}{more}."
    if all(row.p is None for row in report.rows):
        return ""
    marked = sum(row.status in (Status.FLAGGED, Status.INCONCLUSIVE) for row in report.rows)
    further = f" {count(marked, 'row')} flagged or inconclusive by themselves: read them."
    return f"No row is {holm}.{further * bool(marked)} What the tests cannot see may still exist."


def unknown(report: Report) -> list[str]:
    """What nobody can conclude from this report, and what it would take."""
    missing = {row.key for row in report.rows if row.status is Status.NOT_RUN}
    missing |= {"holdout", "retain", "retrained"} - report.counts.keys()
    missing -= {"retrained"} if report.tier == "TE" else set()
    missing |= {"floor"} if report.counts.get("retrained") == 1 else set()
    return [line for key, line in UNKNOWN.items() if key in missing | {"copies"}]
