"""The table of research/results/jit_differences*.json: means and standard deviations over base models."""

from typing import Any

import numpy as np

from research import pages
from research.pages import table

HEAD = "form | change, × reference | cosine | D_r | D_f | MIA | D_r, same length | D_f, same length | MIA, same length"
WHAT = (
    (
        "Digits, every difference",
        "Every digit reaches both ends of the data's range, so the three clamps are one and the same here.",
    ),
    (
        "CIFAR-10, the clamps",
        "2,000 photographs to train on. A model this small predicts few unseen ones: D_r is low throughout.",
    ),
)


def page(*records: dict[str, Any]) -> str:
    """The page from both records."""
    parts = [
        (
            "A model of two convolutions with dropout and without BatchNorm. One switch of `jit_reference` "
            "at a time, everything else (η too) as it was; forget records in batches of 32; mean ± "
            "standard deviation over base models. *Change*: length of the change of the weights over that "
            "of the reference; *cosine*: between the two changes. D_r, D_f and MIA in %; no retrained "
            "models, so the table says what a difference does, not which form is better. *Same length*: "
            "the same direction, with the length of the reference's change: the size of the step taken out."
        )
    ]
    for record, (title, note) in zip(records, WHAT, strict=True):
        seconds = f"{record['core_seconds']:.0f} core-seconds"
        about = f"{record['date']}, `{record['command']}`, {seconds}, {len(record['seeds'])} base models."
        parts += [f"## {title}\n{about} {note}"]
        for task, what in (("class", "class 3"), ("random", "100 random records")):
            rate = record["reference"][task]["learning_rate"]
            cells = [cell for cell in record["cells"] if cell["task"] == task]
            forms = dict.fromkeys(cell["form"] for cell in cells)
            rows = [_row(form, [cell for cell in cells if cell["form"] == form]) for form in forms]
            parts += [f"### {what} (σ 0.5, η {rate:g}, N 25)", table(HEAD, rows)]
    return pages.page(
        "What each difference between paper, code and printed forms of JiT does", *parts
    )


def _row(form: str, cells: list[dict[str, Any]]) -> list[str]:
    values = [_mean([c[k] for c in cells if k in c], 1, digits=2) for k in ("length", "cosine")]
    for scores in (cells, [cell.get("same_length", {}) for cell in cells]):
        for column in ("retain", "forget", "attack"):
            found = [score[column] for score in scores if column in score]
            lost = f" ({len(cells) - len(found)} not finite)" if len(found) < len(cells) else ""
            values.append(_mean(found, 100, digits=1) + (lost if scores is cells else ""))
    return [form, *values]


def _mean(values: list[float], scale: float, *, digits: int) -> str:
    """Mean ± standard deviation; nothing for no values."""
    if not values:
        return ""
    array = scale * np.array(values)
    return f"{array.mean():.{digits}f} ± {array.std(ddof=1) if len(array) > 1 else 0:.{digits}f}"
