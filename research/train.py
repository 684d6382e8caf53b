"""``python -m research.train``: a recipe into a folder, whole or absent; it can be resumed."""

import shlex
import sys
from pathlib import Path

from cyclopts import App

from efface.cli import exits
from efface.io.atomic import claim, refuse_overlap
from efface.io.data import load_data
from efface.io.models import WEIGHTS, save_trained
from efface.runtime import resolve_device
from efface.task import require_multiclass
from efface.terminal import show_progress
from research.recipes import description, fresh, named, train

app = App(name="python -m research.train")


@app.default
def command(
    recipe: str,
    /,
    *,
    data: str,
    out: Path,
    seed: int = 0,
    exclude: Path | None = None,
    exclude_class: str | None = None,
    label_column: str | None = None,
    device: str = "auto",
) -> None:
    """Train a named recipe from scratch; stopped, it goes on after its last whole epoch.

    Args:
        recipe: Name of a recipe, for example `cifar10-resnet`.
        data: Records, as in `efface forget`.
        out: A folder that does not exist yet; it gets model.safetensors and recipe.json.
        seed: Of the initial weights and everything drawn at random.
        exclude: File of ids that must not be trained on, for example an exclude.csv.
        exclude_class: A class that must not be trained on.
        label_column: Column of the labels.
        device: For torch: cpu, cuda or mps; `auto` takes the best that is available.
    """
    refuse_overlap(out, {"--data": data})
    # what is needed to go on, next to the folder until the training is done
    state = out.with_name(f".{out.name}.training")
    if (out / WEIGHTS).is_file():  # killed between the last two lines of an earlier run
        state.unlink(missing_ok=True)
    excluded = {"ids": exclude, "forget_class": exclude_class}
    with claim(out):
        chosen, table = named(recipe), load_data(data, label_column=label_column)
        require_multiclass(table.kind)
        rows = set(range(len(table)))
        if any(value is not None for value in excluded.values()):
            rows -= set(table.requested_rows(excluded)[0])
        records = table.records(sorted(rows), chosen.preprocessing)
        about = {"seed": seed, "excluded": len(table) - len(rows)}
        words = shlex.join(["python", "-m", "research.train", *sys.argv[1:]])
        facts = description(recipe, table, command=words, **about)
        # classes are counted over the whole table: excluding one must not change the last layer
        model = fresh(chosen, facts["num_classes"], seed=seed).to(resolve_device(device))
        train(model, records, chosen, seed=seed, state=state, progress=show_progress)
        save_trained(out, model.cpu(), facts)
        state.unlink(missing_ok=True)


if __name__ == "__main__":
    with exits():
        app()
