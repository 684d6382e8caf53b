"""Which rows, of all up to a tier, are off for more than chance: one level for all of them.

A page of twenty rows with 95 % intervals has a row off by chance most of the time. So each judged
row brings its p, and Holm's rule keeps the chance of a false alarm at a tier at ``level`` or less.
"""

from efface.report.rows import RED, Evidence, Row

LEVEL = 0.05


def alarms(evidence: Evidence, *, tier: str | None = None, level: float = LEVEL) -> list[Row]:
    """The rows that stand out at this tier, crashed ones first, then the least p; often none.

    ``tier``: use the rows up to it alone; every row that ran when not given. Range of the false
    alarms over models that never saw the records: at most ``level``, whatever the number of rows
    (Holm 1979), if each row's p is right.
    """
    here = [row for row in evidence.rows if tier is None or row.tier <= tier]
    found = [row for row in here if row.status == RED]
    judged = sorted((row.p, row.key, row) for row in here if row.p is not None and row not in found)
    for place, (p, _, row) in enumerate(judged):
        if p > level / (len(judged) - place):
            break
        found.append(row)
    return found
