"""Container by container: in, out, and read again by the library that wrote it.

    python -m research.benchmarks.containers     # writes research/results/containers.json and .md

The files are made by their own libraries, with random weights; the cases are those of the tests.
"""

import copy
import tempfile
from pathlib import Path

import torch

from efface.io.models import load_model
from efface.task import logits
from research import pages
from research.pages import table
from research.tables import write_record
from tests.containers import CASES, SIDE


def moved(loaded):  # noqa: ANN001, ANN201
    """The model with noise on every weight, rounded as the file will round it."""
    student, generator = copy.deepcopy(loaded.model), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in student.named_parameters():
            # noise far above the rounding of bfloat16, so that a lost weight shows
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
            weight.copy_(weight.to(loaded.stored.get(name, weight.dtype)))
    return student


def cell(case, folder: Path) -> dict:  # noqa: ANN001
    """One container: what is equal untouched, and how far its library's outputs are when changed."""
    (folder / "old").mkdir()
    path = case.make(folder / "old")
    loaded = load_model(path, architecture=case.architecture, **case.options)
    for name, model in (("same", loaded.model), ("new", moved(loaded))):
        (folder / name).mkdir()
        loaded.write(model, folder / name)
    out = sorted((folder / "same").iterdir())
    old = [path if path.is_file() else path / file.name for file in out]
    equal = [a.read_bytes() == b.read_bytes() for a, b in zip(old, out, strict=True)]
    again = load_model(out[0] if path.is_file() else folder / "same",
                       architecture=case.architecture, **case.options)  # fmt: skip
    state = loaded.model.state_dict()
    tensors = all(torch.equal(state[n], t) for n, t in again.model.state_dict().items())
    changed = folder / "new" / path.name if path.is_file() else folder / "new"
    x = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        apart = (logits(case.reload(changed), x) - logits(moved(loaded), x)).abs().max()
    return {
        "files": len(out),
        "files_byte_equal": sum(equal),
        "tensors_equal": tensors,
        "dtypes": sorted({str(kind).removeprefix("torch.") for kind in loaded.stored.values()}),
        "left_out": list(loaded.omitted),
        "kept": list(loaded.extras),
        "reloaded_answers_apart": float(apart),
    }


def main() -> None:
    """Measure every case."""
    cells = {}
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            cells[case.name] = cell(case, Path(folder))
    write_record("containers", "containers", {"cells": cells})


def page(record: dict) -> str:
    """The table from the record."""
    rows = []
    for name, row in record["cells"].items():
        omitted = row["left_out"]
        more = f" and {len(omitted) - 3} more" if omitted[3:] else ""
        files = f"{row['files_byte_equal']} of {row['files']}"
        rows.append((
            name, files, "yes" if row["tensors_equal"] else "NO", ", ".join(row["dtypes"]),
            ", ".join(omitted[:3]) + more, f"{row['reloaded_answers_apart']:.1e}",
        ))  # fmt: skip
    return pages.page(
        "Containers: in, out, and read again by their own library",
        f"{record['date']}, `{record['command']}`. Untouched: files that came back byte for byte, "
        "and whether every tensor did. Changed: the maximum difference between the outputs of the "
        "changed model and of its file, read by its own library.",
        table(
            "container | files byte-equal | tensors equal | dtypes | omitted | outputs differ by",
            rows,
        ),
        "Not byte-equal: what was omitted is missing (optimizer, averages), and pickles of "
        "torch.save's form before zip archives name storages by their address in memory.",
    )


if __name__ == "__main__":
    main()
