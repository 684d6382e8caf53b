"""Where the new model of a run lands: a section of its model card, a model version of MLflow.

Both take the folder that ``efface forget … --out`` wrote, and the user alone calls them. What goes
with the model says how many records were unlearned and what the tests said, and names none.
"""

from pathlib import Path
from typing import Any

from efface.errors import InputError, import_extra
from efface.io.atomic import atomic_write
from efface.io.files import read_text
from efface.manifest import EVIDENCE, FILE, MODEL, Manifest

CARD = "README.md"
# the ids for the next training run stay out: they are no evidence
LOGGED = ("report.html", "evidence.json", FILE)
SECTION = """{mark}
## Records unlearned after training

{records} of the training data {were} unlearned from these weights, and what the model still
knows of {them} was tested.

- Outcome: {summary}
- Method: `{method}`, with {versions}, {date}
- Evidence: {holdout}
- Weights (SHA-256 over all tensors): `{digest}`

Unlearning is approximate: tests that flag nothing are no proof that nothing is left. The report
names the records, and stays with whoever ran it. Copies of the earlier weights still know them.
"""


def add_to_model_card(run: str | Path) -> Path:
    """Add to ``run/model/README.md`` what was unlearned and what the tests said; return its path.

    The card is the old model's own, or a new one. Sections of earlier runs stay: a model that was
    unlearned twice has two. Written twice, a section stands once. The summary may name classes,
    never records. Uploading the folder is your own act (``hf upload NAME run/model``).

    Raises InputError where the folder is no run's, or the run made no new model.
    """
    folder, manifest = _new_model(run)
    card, mark = folder / CARD, f"<!-- efface {manifest.weights['new']} -->"
    text = read_text(card, "a model card", "Write it as UTF-8.") if card.exists() else ""
    if mark in text:
        return card
    number, holdout = manifest.request["forget"], manifest.holdout.get("evaluation", 0)
    packages = (f"{name} {manifest.versions[name]}" for name in ("efface", "torch"))
    unseen = f"{holdout} records that neither training nor the method had seen"
    section = SECTION.format(
        mark=mark,
        records=f"{number} record{'s' * (number != 1)}",
        were="was" if number == 1 else "were",
        them="it" if number == 1 else "them",
        summary=" ".join(manifest.summary.split()),
        method=manifest.method,
        versions=", ".join(packages),
        date=manifest.date[:10],
        holdout=unseen if holdout else "no holdout: nothing tells the records from unseen ones",
        digest=manifest.weights["new"],
    )
    mode = card.stat().st_mode if card.exists() else None
    atomic_write(card, f"{text.rstrip()}\n\n{section}".lstrip().encode())
    if mode is not None:
        card.chmod(mode)
    return card


def log_to_mlflow(run: str | Path, name: str) -> Any:
    """Register the new model as a version of ``name`` in MLflow, with the evidence; return it.

    One MLflow run holds the artifacts ``model`` and ``evidence``; the version points to the model
    alone, and its tags say outcome, method and digest. It is the files of ``run/model``, which
    ``efface.load_model`` loads, and no flavour of MLflow. The evidence names records: whoever may
    read the MLflow run may read them. ``exclude.csv`` is not logged. Where it goes is your tracking
    URI; inside another active run it is a nested one.

    Raises InputError as ``add_to_model_card`` does, MissingExtra without ``efface[mlflow]``.
    """
    folder, manifest = _new_model(run)
    mlflow: Any = import_extra("mlflow")
    tags = {"outcome": str(manifest.outcome), "summary": manifest.summary}
    tags |= {"method": str(manifest.method), "records": str(manifest.request["forget"])}
    tags |= {"weights": manifest.weights["new"], "version": manifest.versions["efface"]}
    tags = {f"efface.{key}": value for key, value in tags.items()}
    client = mlflow.MlflowClient()
    with mlflow.start_run(nested=True) as active:
        mlflow.set_tags(tags)
        mlflow.log_artifacts(str(folder), MODEL)
        for file in LOGGED:
            if (path := Path(run) / EVIDENCE / file).is_file():
                mlflow.log_artifact(str(path), EVIDENCE)
    number = active.info.run_id
    # its search would need the name quoted
    try:
        client.get_registered_model(name)
    except mlflow.exceptions.MlflowException:
        client.create_registered_model(name)
    return client.create_model_version(name, f"runs:/{number}/{MODEL}", number, tags=tags)


def _new_model(run: str | Path) -> tuple[Path, Manifest]:
    """(the folder of the new model, the manifest). Raises InputError where there is none."""
    folder, manifest = Path(run) / MODEL, Manifest.read(Path(run) / EVIDENCE)
    if not manifest.outcome.has_new_model or not folder.is_dir():
        remedy = "The old model stands: there is nothing to publish."
        raise InputError(f"a run with a new model in {folder}", str(manifest.outcome), remedy)
    return folder, manifest
