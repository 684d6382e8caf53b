"""What the evidence says in plain words, for readers who know no statistics."""

from collections.abc import Sequence

from efface.report.rows import LOOK, NOT_RUN, Evidence, Row

NAMED = 3
"""So many findings stand in one sentence."""

DASH = "\N{EN DASH}"
UNSEEN = (
    "Whether the records now look like ones the model never saw, and what the change cost "
    "elsewhere: that takes a holdout."
)
STAYING = "What happened to other records that were trained on: that takes a sample of them."
RETRAINED = (
    "How far the new model is from one retrained without the records: that takes such a model, "
    "better several."
)
ONE_RETRAINED = (
    "How far two retrained models are from each other, so whether the distance to the one at hand "
    "means anything: that takes a second one."
)
SHADOWS = "What an attack on each record by itself would find: that takes shadow models."
COPIES = (
    "What is left in copies of the old model, in its optimizer states, exports, backups and logs, "
    "and in models made from it."
)


def headline(evidence: Evidence) -> list[str]:
    """What came out, in plain sentences; each follows from one or two rows."""
    rows = {row.key: row for row in evidence.rows}
    if evidence.outcome != "done":
        return ["The request was not met. There is no new model; the old one stands unchanged."]
    said = [_said_of_records(rows), _said_of_attack(rows), _said_of_utility(rows)]
    said.append(_said_of_alarms(rows, evidence.alarms))
    return [sentence for sentence in said if sentence]


def _said_of_records(rows: dict[str, Row]) -> str:
    row = rows.get("forget.accuracy")
    if row is None or row.before is None or row.after is None:
        return ""
    target = f" (target: {shown(row.target, row.unit)})" if row.target is not None else ""
    before, after = shown(row.before, row.unit), shown(row.after, row.unit)
    return f"{row.name}: {before} before, {after} now{target}."


def _said_of_attack(rows: dict[str, Row]) -> str:
    row = rows.get("attack.loss")
    if row is None or row.status == NOT_RUN:
        return (
            "Whether they now look like records the model never saw cannot be said at this tier: "
            "that needs a holdout."
        )
    spoken = {
        "still recognised": "A membership attack still recognises the records in the new model.",
        "forgotten too far": "The records stand out in the new model by being answered worse than "
        "records it never saw: forgotten too far, which betrays them too.",
        "void": "The membership attack says nothing here: it does not see the records even in the "
        "old model.",
        "too few records to tell": "There are too few records for the membership attack to tell.",
        "stands out from unseen": "A membership attack tells the records from ones the model never "
        "saw, by how sure it is of its own answer.",
        "not recognised": "A (weak) membership attack saw the records in the old model and does "
        "not recognise them in the new one.",
    }
    return spoken.get(row.verdict, "The membership attack could not be run: see its row.")


def _said_of_utility(rows: dict[str, Row]) -> str:
    row = rows.get("holdout.accuracy")
    if row is None or row.before is None or row.after is None:
        return "What the change cost elsewhere is not known: that needs a holdout."
    return f"{row.name}: {shown(row.before, row.unit)} before, {shown(row.after, row.unit)} now."


def _said_of_alarms(rows: dict[str, Row], alarms: Sequence[str]) -> str:
    """What of all that stands out does so for more than chance; silent where nothing is judged."""
    if alarms:
        first = "; ".join(f"{rows[key].name} ({rows[key].verdict})" for key in alarms[:NAMED])
        more = f"; and {len(alarms) - NAMED} more" if len(alarms) > NAMED else ""
        return f"Off for more than chance, at one level of 5 % for the whole page: {first}{more}."
    if not any(row.p is not None for row in rows.values()):
        return ""
    looked = sum(row.status == LOOK for row in rows.values())
    marked = f" {looked} further rows are marked: look at them." if looked else ""
    return (
        "No test that is judged at one level of 5 % for the whole page is off for more than chance."
        f"{marked} What the tests cannot see may still be there."
    )


def shown(value: float | str | None, unit: str = "share") -> str:
    """A number as the page prints it; a dash where there is none."""
    if value is None:
        return DASH
    if isinstance(value, str):
        return value
    if unit == "share":
        return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"
    return f"{value:.0f}" if unit == "count" else f"{value:.3g}"


def span(interval: tuple[float, float] | None, unit: str) -> str:
    """The two ends of an interval as the page prints them."""
    return DASH if interval is None else " to ".join(shown(end, unit) for end in interval)


def unknown(evidence: Evidence) -> list[str]:
    """What nobody can say from this evidence, and what it would take."""
    rows = {row.key: row for row in evidence.rows}
    there = evidence.counts
    silent = {key for key, row in rows.items() if row.status == NOT_RUN}
    said = (
        (not there.get("holdout"), UNSEEN),
        (not there.get("retain"), STAYING),
        (not there.get("retrained") and evidence.tier != "TE", RETRAINED),
        (there.get("retrained") == 1, ONE_RETRAINED),
        ("shadow" in silent, SHADOWS),
        ("relearning" in silent, "Whether a little more training brings the records back."),
        ("precision" in silent, "Whether it holds for a quantised or pruned copy."),
        (True, COPIES),
    )
    return [sentence for holds, sentence in said if holds]
