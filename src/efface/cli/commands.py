"""The commands with their help; the work of each is in the module of its name.

Those modules import torch, so they are imported when a command runs: help comes at once.
"""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from efface.cli import options
from efface.errors import InputError

OUTPUT, REQUEST = Parameter(group=options.OUTPUT), Parameter(group=options.REQUEST)


def forget(
    model: options.Model,
    *,
    data: options.Data,
    # With --dry-run nothing is written, so a folder cannot be required by the signature.
    out: Annotated[Path | None, OUTPUT] = None,
    records: options.RecordOptions = options.RecordOptions(),
    split: options.SplitOptions = options.SplitOptions(),
    how: options.MethodOptions = options.MethodOptions(),
    reference: Annotated[Path | None, REQUEST] = None,
    train_command: options.Command = None,
    read: options.ReadOptions = options.ReadOptions(),
    seed: options.Seed = 0,
    keep_adapter: Annotated[options.Flag, OUTPUT] = False,
    key: Annotated[Path | None, OUTPUT] = None,
    dry_run: Annotated[options.Flag, OUTPUT] = False,
) -> None:
    """Unlearn records of DATA from MODEL; write the new model and its report into a new folder.

    Name the records in one way: --ids, --where or --forget-class. For example:

    ```
    efface forget demo/model --data demo/data --ids demo/ids.csv --out new
    ```

    Args:
        data: Parquet, arrow or CSV, a folder of these or of images, or `hub:owner/name`;
            `DATA:test` names a split.
        out: A folder that does not exist yet, written whole or not at all: `model`, the new model
            in the same container, and apart from it `evidence`, all that names the records:
            manifest.json, evidence.json, records.csv, exclude.csv and report.html. Publish the
            first alone. Where the weights did not change there is no `model`.
        reference: A model that never saw the records, such as last month's checkpoint, of any
            architecture that its folder states; of a weights file it is that of MODEL. Its classes
            and inputs are those of MODEL. Read by `neighbourhood`.
        train_command: With `--method retrain`, your own training, run without a shell: `{exclude}`
            stands for a CSV with the column `id` of the records that it must omit (its other column
            is a hash), `{ids}` for a text file of the same ids, one a line; `{out}` for the path
            where it must write the new model, in a form that MODEL may have, `{seed}` for the seed.
            That it omits them is what it states: docs/methods.md#retrain has a check.
        key: A file apart from OUT with the key of the ids' hashes: it is read, or made where there
            is none. Without it a key is drawn, and forgotten: nobody can match the hashes then.
        keep_adapter: Write the adapter next to the merged model too, as PEFT's own folder
            `adapter`.
        dry_run: Change and write nothing: print how right the model is, the findings, the method,
            its cost in seconds and memory, and the tier that the report can reach; of a training
            command the command as it would be run.
    """
    if out is None and not dry_run:
        remedy = "Name a folder that does not exist yet."
        raise InputError("--out DIR, or --dry-run", "neither", remedy)
    if (how.method == "retrain") != (train_command is not None):
        wanted = "--method retrain together with --train-command"
        remedy = "For example --train-command 'python train.py --exclude {exclude} --out {out}'."
        came = "no command" if train_command is None else f"--method {how.method}"
        raise InputError(wanted, came, remedy)
    if train_command is not None:
        spare = [name for name in options.flags(how) if name != "--method"]
        spare += ["--keep-adapter"] * keep_adapter + ["--reference"] * bool(reference)
        if spare:
            remedy = "Say it in your command: efface runs that and no method of its own."
            raise InputError("no option of a method with --train-command", spare[0], remedy)
        from efface.cli import retrain

        own = options.Arguments(model, None, data, records, split, read, seed)
        if out is None or dry_run:
            retrain.run_dry(own, train_command, out=out)
        else:
            retrain.run_retrain(own, train_command, out=out, key=key)
        return
    from efface.cli.forget import run_dry, run_forget

    given = {"reference": reference}
    arguments = options.Arguments(model, None, data, records, split, read, seed, **given)
    if out is None or dry_run:
        run_dry(arguments, how, out=out, keep_adapter=keep_adapter)
        return
    run_forget(arguments, how, out=out, keep_adapter=keep_adapter, key=key)


def score(
    old: options.Model | None = None,
    new: Path | None = None,
    *,
    # A run has no --out with --replay, and its own model as NEW: the signature can require neither.
    data: Annotated[str | None, Parameter(group=options.DATA)] = None,
    out: Annotated[Path | None, OUTPUT] = None,
    records: options.RecordOptions = options.RecordOptions(),
    split: options.SplitOptions = options.SplitOptions(),
    retrained: Annotated[options.Paths, REQUEST] = (),
    shadow: Annotated[Path | None, REQUEST] = None,
    replay: Annotated[Path | None, REQUEST] = None,
    read: options.ReadOptions = options.ReadOptions(),
    seed: options.Seed = 0,
) -> None:
    """Report what NEW still knows of records that OLD was trained on, whoever made NEW.

    Name the records in one way: --ids, --where or --forget-class. Neither model is changed. For
    example:

    ```
    efface score demo/model new/model --data demo/data --ids demo/ids.csv --out scored
    ```

    Args:
        new: Likewise, with the classes and the inputs of OLD.
        data: Records, as in `efface forget`.
        out: A folder that does not exist yet; its folder `evidence` gets evidence.json,
            manifest.json, records.csv and report.html, all or nothing.
        retrained: Models trained without the records by OLD's recipe, each with its own seed.
        shadow: A folder of shadow models' arrays, one .npz a model: `ids`, `member`, `log_odds`.
        replay: A folder of `efface score` or `efface forget`: evaluate OLD and DATA again, with NEW
            or the model of that folder, and compare digests and each number. Give the arguments
            of the run, without --out: what the folder names is not read, and nothing is written.
    """
    needed: dict[str, Any] = {"OLD": old, "NEW": new, "--data": data, "--out": out}
    # what a replay finds in the folder, or does not write
    absent = {"NEW", "--out"} if replay else set()
    if missing := [name for name, value in needed.items() if value is None and name not in absent]:
        wanted = "efface score OLD NEW --data DATA … --out DIR, or efface score OLD --replay RUN"
        remedy = "Name both models, the data and a folder for the report."
        raise InputError(wanted, f"no {' and no '.join(missing)}", remedy)
    from efface.cli.score import run_replay, run_score

    # All of these are there by now, which a type checker cannot know.
    one, other, source, folder = needed.values()
    given = options.Arguments(one, other, source, records, split, read, seed, retrained, shadow)
    if replay is None:
        run_score(given, folder)
    elif folder is None:
        run_replay(given, replay)
    else:
        raise InputError("--replay without --out", f"--out {folder}", "A replay writes nothing.")


def compare(
    model: options.Model,
    *,
    data: options.Data,
    out: options.Out,
    how: options.CompareOptions,
    records: options.RecordOptions = options.RecordOptions(),
    split: options.SplitOptions = options.SplitOptions(),
    reference: Annotated[Path | None, REQUEST] = None,
    retrained: Annotated[options.Paths, REQUEST] = (),
    read: options.ReadOptions = options.ReadOptions(),
) -> None:
    """Run several methods and seeds on one request, and show what each came to and cost.

    Name the records in one way: --ids, --where or --forget-class. A comparison that was stopped
    goes on by the same command. For example:

    ```
    efface compare demo/model --data demo/data --ids demo/ids.csv --methods jit delete --out table
    ```

    Args:
        data: Records, as in `efface forget`.
        out: A folder: compare.html and cells.csv, and in `cells` the evidence of each run, which
            names records. Runs that are there are read, not made again.
        reference: As in `efface forget`.
        retrained: As in `efface score`: methods are then ordered by the average gap to them.
    """
    from efface.cli.compare import run_compare

    given: dict[str, Any] = {"reference": reference, "retrained": retrained}
    arguments = options.Arguments(model, None, data, records, split, read, 0, **given)
    run_compare(arguments, how, out=out)


def inspect(
    model: options.Model,
    *,
    data: options.Data,
    out: options.Out,
    records: options.RecordOptions = options.RecordOptions(),
    how: options.InspectOptions = options.InspectOptions(),
    read: options.ReadOptions = options.ReadOptions(),
    seed: options.Seed = 0,
) -> None:
    """Rank records of DATA by how much MODEL memorised them, the most memorised first.

    Name the records in one way, --ids, --where or --forget-class, or give none for all. A run that
    was stopped is resumed after its last whole shard by the same command. For example:

    ```
    efface inspect demo/model --data demo/data --out ranking
    ```

    Args:
        data: Records, as in `efface forget`, preferably all that the model was trained on: the
            neighbours are searched among them.
        out: A folder that does not exist yet; it gets records.csv, records.parquet (the same rows),
            manifest.json and inspect.html, all or nothing. They hold ids, and pictures or values.
            Until it is done the folder .NAME.inspecting next to it holds embeddings and labels.
    """
    from efface.cli.inspect import run_inspect

    arguments = options.Arguments(model, None, data, records, options.SplitOptions(), read, seed)
    run_inspect(arguments, how, out=out)


def doctor(
    model: options.Model,
    *,
    data: options.Data,
    holdout: Annotated[str | None, Parameter(group=options.DATA)] = None,
    read: options.ReadOptions = options.ReadOptions(),
) -> None:
    """Check MODEL and DATA for hazards: wrong preprocessing, modes, weights or labels.

    For example:

    ```
    efface doctor demo/model --data demo/data
    ```

    Args:
        data: Correctly labelled records, as in `efface forget`.
        holdout: Data never trained on: it says how right the model is on them, and whether some of
            them are in DATA.
    """
    from efface.cli.doctor import run_doctor

    run_doctor(model, data, holdout, read)


def methods(name: str | None = None, /) -> None:
    """List the methods with what each needs and reads; for one method also its settings.

    For example:

    ```
    efface methods jit
    ```

    Args:
        name: A method, or `path/to/file.py:name`: what it does and which settings it has.
    """
    from efface.cli.methods import run_methods

    run_methods(name)
