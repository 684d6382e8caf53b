"""The table of research/results/jit_differences*.json: means and standard deviations over base models."""

from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path("results")
WHAT = (
    (
        "Digits, every difference",
        "Every digit reaches both ends of the data's range, so the three clamps are one and the same here.",
    ),
    (
        "CIFAR-10, the clamps",
        "2,000 photographs to train on. A net this small knows few unseen ones: D_r is low throughout.",
    ),
)


def page(*records: dict[str, Any]) -> str:
    """The page from both records."""
    lines = [
        "# What each difference between paper, code and printed forms of JiT does",
        "",
        (
            "A net of two convolutions with dropout and without BatchNorm. One switch of `jit_reference` "
            "at a time, everything else (η too) as it was; forget records in batches of 32; mean ± "
            "standard deviation over base models. *Moved*: length of the change of the weights over that "
            "of the reference; *cosine*: between the two changes. D_r, D_f and MIA in %; no retrained "
            "models, so the table says what a difference does, not which form is better. *Same length*: "
            "the same direction, as far as the reference moved: the size of the step taken out."
        ),
    ]
    for record, (title, note) in zip(records, WHAT, strict=True):
        lines += ["", f"## {title}", _about(record) + note]
        for task, what in (("class", "class 3"), ("random", "100 random records")):
            rate = record["reference"][task]["learning_rate"]
            lines += ["", f"### {what} (σ 0.5, η {rate:g}, N 25)", "", *_head()]
            cells = [cell for cell in record["cells"] if cell["task"] == task]
            for form in dict.fromkeys(cell["form"] for cell in cells):
                lines.append(_row(form, [cell for cell in cells if cell["form"] == form]))
    return "\n".join(lines) + "\n"


def _about(record: dict[str, Any]) -> str:
    seconds = f"{record['core_seconds']:.0f} core-seconds"
    return (
        f"{record['date']}, `{record['command']}`, {seconds}, {len(record['seeds'])} base models. "
    )


def _head() -> list[str]:
    same = [f"{name}, same length" for name in ("D_r", "D_f", "MIA")]
    titles = ["form", "moved, × reference", "cosine", "D_r", "D_f", "MIA", *same]
    return ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]


def _row(form: str, cells: list[dict[str, Any]]) -> str:
    values = [_spread([c[k] for c in cells if k in c], 1, digits=2) for k in ("length", "cosine")]
    for scores in (cells, [cell.get("same_length", {}) for cell in cells]):
        for column in ("retain", "forget", "attack"):
            found = [score[column] for score in scores if column in score]
            lost = f" ({len(cells) - len(found)} not finite)" if len(found) < len(cells) else ""
            values.append(_spread(found, 100, digits=1) + (lost if scores is cells else ""))
    return "| " + " | ".join([form, *values]) + " |"


def _spread(values: list[float], scale: float, *, digits: int) -> str:
    """Mean ± standard deviation; nothing for no values."""
    if not values:
        return ""
    array = scale * np.array(values)
    return f"{array.mean():.{digits}f} ± {array.std(ddof=1) if len(array) > 1 else 0:.{digits}f}"
