"""``efface score``: evaluate a pair of models of any origin, write the report whole or not."""

from pathlib import Path

from efface.cli.loading import Inputs, print_summary
from efface.cli.options import Arguments
from efface.io.atomic import atomic_folder, claim, refuse_overlap
from efface.unlearn import Result, score


def run_score(arguments: Arguments, out: Path) -> None:
    """Write the folder whole or not at all, print what came of it."""
    refuse_overlap(out, arguments.inputs())
    with claim(out):
        result = evaluate(Inputs.read(arguments))
        with atomic_folder(out) as scratch:
            result.save(scratch)
    print_summary(result, out)


def evaluate(inputs: Inputs) -> Result:
    """The report that the arguments ask for, and its manifest."""
    old, new, *retrained = (loaded.model for loaded in inputs.models)
    compared = {"retrained": retrained, "shadows": inputs.shadows}
    result = score(old, new, inputs.split, **compared, **inputs.context())
    inputs.complete(result)
    return result
