"""``efface score``: its flags, and the kinds of flags that commands share."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

Several = Parameter(consume_multiple=True, negative=())
Numbers = Annotated[tuple[float, ...] | None, Several]
Words = Annotated[tuple[str, ...], Several]
Paths = Annotated[tuple[Path, ...], Several]


def score(  # noqa: PLR0913  # each flag of the command stands here once
    old: Path | None = None,
    new: Path | None = None,
    /,
    *,
    data: str | None = None,
    out: Path | None = None,
    ids: Path | None = None,
    where: str | None = None,
    forget_class: str | None = None,
    holdout: str | None = None,
    retain: str | None = None,
    retrained: Paths = (),
    shadow: Path | None = None,
    mislabelled: Annotated[bool, Parameter(negative=())] = False,
    replay: Path | None = None,
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
    """Say what NEW still shows of records that OLD was trained on, whoever made NEW.

    Name the records in one way: --ids, --where or --forget-class. Both models are read alike and
    stay as they are.

    Args:
        old: A folder of `efface train`, transformers or timm, or a weights file with
            --architecture.
        new: Likewise; its classes and its inputs are those of OLD.
        data: Records, as in `efface forget`.
        out: A folder that does not exist yet; it gets evidence.json, manifest.json and report.html,
            all or nothing.
        ids: File with one id a line, or a CSV with a column `id`.
        where: Expression on columns, for example `label=dog and source!=web`.
        forget_class: A class that went altogether, all its records.
        holdout: Data that neither model was trained on, 12 records or more; its second half by
            --seed is used, the first is left to whoever made NEW.
        retain: Data that OLD was trained on and that stay.
        retrained: Models trained without the records, by OLD's recipe, each with its own seed.
        shadow: A folder of shadow models' arrays, one .npz a model: `ids`, `member`, `log_odds`.
        mislabelled: The labels of the forget records are wrong.
        replay: A folder of `efface score` or `efface forget`: measure it again from its record and
            compare each number; nothing else is given, nothing is written.
        seed: Of everything drawn at random; that of `efface forget` if it made NEW.
        architecture: `timm:NAME` or `package.module:factory`, for weights files.
        mean: Per channel, of the pixels in 0 to 1.
        std: Per channel, of the pixels in 0 to 1.
        size: Side of the images in pixels.
        features: For models of tables: JSON of the columns that go in, in order, and how.
        id_column: Column of the ids.
        image_column: Column of the images or of their paths.
        label_column: Column of the labels, or several of many labels or values.
        device: For torch: cpu, cuda or mps; `auto` takes the best that is here.
    """
    from efface.asked import Asked, Flags
    from efface.replay import run_replay
    from efface.scoring import refuse_lacking, run_score

    naming = {"ids": ids, "where": where, "forget_class": forget_class}
    needed = {"OLD": old, "NEW": new, "--data": data, "--out": out}
    if replay is not None:
        run_replay(replay, beside={**needed, **naming, "holdout": holdout, "retain": retain})
        return
    if old is None or new is None or data is None or out is None:
        refuse_lacking(needed)
    columns = (id_column, image_column, label_column)
    asked = Asked(
        old,
        new,
        data=data,
        naming=naming,
        others={"holdout": holdout, "retain": retain},
        flags=Flags(architecture, mean, std, size, features, *columns, device),
        retrained=retrained,
        shadow=shadow,
        mislabelled=mislabelled,
        seed=seed,
    )
    run_score(asked, new=new, out=out)
