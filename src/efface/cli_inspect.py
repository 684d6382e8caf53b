"""``efface inspect``: its flags and their help."""

from pathlib import Path
from typing import Literal

from efface.cli_score import Numbers, Words


def inspect(  # noqa: PLR0913  # each flag of the command stands here once
    model: Path,
    /,
    *,
    data: str,
    out: Path,
    ids: Path | None = None,
    where: str | None = None,
    forget_class: str | None = None,
    sigma: Numbers = None,
    expected_accuracy: float | None = None,
    copies: int = 16,
    neighbours: int = 20,
    threshold: float | None = None,
    curvature: Literal["probability", "log_probability", "loss"] | None = None,
    seed: int = 0,
    architecture: str | None = None,
    mean: Numbers = None,
    std: Numbers = None,
    size: int | None = None,
    features: Path | None = None,
    id_column: str | None = None,
    image_column: str | None = None,
    label_column: Words = (),
    device: str = "auto",
) -> None:
    """Rank records by how much the model memorised them, the most informative first.

    Name the records in one way, --ids, --where or --forget-class, or give none for all. Stopped, it
    goes on after its last whole shard when it is started again alike.

    Args:
        model: A folder of `efface train`, transformers or timm, or a weights file with
            --architecture.
        data: Records, as in `efface forget`, better all that the model was trained on: the
            neighbours are looked for among them.
        out: A folder that does not exist yet; it gets records.csv, records.parquet (the same rows),
            manifest.json and inspect.html, all or nothing. They hold ids, and pictures or values.
            Until it is done the folder .NAME.inspecting beside it holds features and labels.
        ids: File with one id a line, or a CSV with a column `id`.
        where: Expression on columns, for example `label=dog and source!=web`.
        forget_class: A class, all its records.
        sigma: Of the noise, as a share of the data's range; the first of several ranks. Found from
            the model when not given.
        expected_accuracy: Accuracy on unseen data (0 to 1), from the model card: as many noisy
            copies then keep the answer; 0.75 when not given.
        copies: Noisy ones of each record.
        neighbours: Other records in a ball; 0 for no balls, then only the named records are read.
        threshold: An information content of at least that is called low information.
        curvature: Second derivatives too, of this function; from 11 passes a record on.
        seed: Of everything drawn at random.
        architecture: `timm:NAME` or `package.module:factory`, for a weights file.
        mean: Per channel, of the pixels in 0 to 1.
        std: Per channel, of the pixels in 0 to 1.
        size: Side of the images in pixels.
        features: For a model of tables: JSON of the columns that go in, in order, and how.
        id_column: Column of the ids.
        image_column: Column of the images or of their paths.
        label_column: Column of the labels.
        device: For torch: cpu, cuda or mps; `auto` takes the best that is here.
    """
    from efface.asked import Flags
    from efface.inspect_command import Wanted, run_inspect
    from efface.ranking.content import TAU
    from efface.ranking.run import Settings

    columns = (id_column, image_column, label_column)
    naming = {"ids": ids, "where": where, "forget_class": forget_class}
    flags = Flags(architecture, mean, std, size, features, *columns, device)
    settings = Settings(
        sigma=sigma or (),
        expected_accuracy=expected_accuracy,
        copies=copies,
        neighbours=neighbours,
        threshold=TAU if threshold is None else threshold,
        curvature=curvature,
        seed=seed,
    )
    run_inspect(Wanted(model, data, naming, flags), settings, out=out)
