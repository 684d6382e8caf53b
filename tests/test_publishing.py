"""Where a new model lands: its card and its model version say what was done, and name no record."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from refusals import refusal

from efface import Records, add_to_model_card, forget
from efface.errors import MissingExtra, Outcome
from efface.manifest import exclusion_table
from efface.publishing import log_to_mlflow

IDS = tuple(f"patient {row:03d} of ward {row % 7}" for row in range(12))


@pytest.fixture(scope="module")
def made(tiny_net, digits):
    """A request of twelve patients."""
    known = digits.take(range(12))
    named = Records(known.x, known.y, IDS, known.low, known.high)
    holdout = digits.take(range(300, 400))
    where = {"where": "id!='nobody'", "settings": {"steps": 2}, "report": "quick"}
    return forget(tiny_net, named, holdout=holdout, others=digits.take(range(20, 99)), **where)


@pytest.fixture
def run(made, tmp_path):
    """The folder of a run, as the command writes it."""
    for part in ("model", "evidence"):
        (tmp_path / part).mkdir()
    (tmp_path / "model/model.safetensors").write_bytes(b"weights")
    made.save(tmp_path / "evidence")
    (tmp_path / "evidence/exclude.csv").write_bytes(exclusion_table(IDS, b"key"))
    return tmp_path


def test_the_card_says_what_was_done_and_names_no_record(run, made):
    text = add_to_model_card(run).read_text()
    assert "12 records of the training data were unlearned from these weights" in text
    for part in (
        made.manifest.summary,
        "`neighbourhood`",
        made.manifest.weights["new"],
        "50 records",
    ):
        assert part in text
    # nor the digest of the old weights, which would find copies that still know the records
    for secret in (*IDS, "patient", " ward ", "nobody", made.manifest.weights["old"]):
        assert secret not in text
    assert made.manifest.request["named"] == "where id!='nobody'"


def test_a_card_keeps_what_it_had_and_one_section_for_each_unlearning(run):
    card = run / "model/README.md"
    card.write_text("---\nlicense: mit\n---\n# My model\n\nÜber all.\n")
    card.chmod(0o604)
    once = add_to_model_card(run).read_text()
    assert once.startswith("---\nlicense: mit\n---\n# My model\n\nÜber all.\n\n<!-- efface ")
    assert add_to_model_card(run).read_text() == once
    assert card.stat().st_mode & 0o777 == 0o604
    # the next run copies the card with its weights
    again = json.loads((run / "evidence/manifest.json").read_text())
    again["weights"]["new"] = "0" * 64
    again["request"]["forget"] = 1
    (run / "evidence/manifest.json").write_text(json.dumps(again))
    twice = add_to_model_card(run).read_text()
    assert twice.startswith(once)
    assert twice.count("## Records unlearned") == 2
    assert "1 record of the training data was unlearned" in twice


@pytest.mark.parametrize("publish", [add_to_model_card, lambda run: log_to_mlflow(run, "net")])
def test_a_run_without_a_new_model_has_nothing_to_publish(run, publish):
    written = json.loads((run / "evidence/manifest.json").read_text())
    written["outcome"] = str(Outcome.UNCHANGED)
    (run / "evidence/manifest.json").write_text(json.dumps(written))
    assert refusal(publish, run) == (
        f"Wanted a run with a new model in {run}/model. Got unchanged, did not move. "
        "The old model stands: there is nothing to publish."
    )
    assert "manifest.json" in refusal(publish, run / "model")


def test_without_mlflow_the_extra_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    text = refusal(log_to_mlflow, run, "net", kind=MissingExtra)
    assert "pip install 'efface[mlflow]'" in text


LOGGED = """
import json, sys
import mlflow, efface
store, run = sys.argv[1:]
mlflow.set_tracking_uri(f"file://{store}/runs")
with mlflow.start_run():
    versions = [efface.log_to_mlflow(run, "net's name") for _ in range(2)]
client = mlflow.MlflowClient()
[one, two] = versions
uri = f"models:/net's name/{two.version}"
model = mlflow.artifacts.download_artifacts(uri, dst_path=f"{store}/m")
all_of_it = [f.path for d in ("", "evidence") for f in client.list_artifacts(one.run_id, d)]
print(json.dumps([one.version, two.version, two.tags, model, sorted(all_of_it)]))
"""


@pytest.mark.slow
def test_a_model_version_holds_the_model_and_its_run_the_evidence(run, made, tmp_path_factory):
    """In a process of its own: MLflow is no part of the tested set, and keeps a tracking state."""
    place = os.environ.get("EFFACE_MLFLOW", "")
    own = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ALLOW_FILE_STORE": "true"}
    own["PYTHONPATH"] = os.pathsep.join([os.environ["PYTHONPATH"], "src", place])

    def python(*code):
        how = {"capture_output": True, "text": True, "env": os.environ | own}
        return subprocess.run([sys.executable, "-c", *code], check=False, **how)

    if python("import mlflow").returncode:
        pytest.skip("NOT RUN: make test-slow installs MLflow, or name its folder in EFFACE_MLFLOW")
    done = python(LOGGED, str(tmp_path_factory.mktemp("mlflow")), str(run))
    assert done.returncode == 0, done.stderr
    one, two, tags, model, files = json.loads(done.stdout.splitlines()[-1])
    assert (int(one), int(two)) == (1, 2)
    assert tags["efface.outcome"] == str(made.outcome)
    assert tags["efface.weights"] == made.manifest.weights["new"]
    assert [path.name for path in Path(model).iterdir()] == ["model.safetensors"]
    logged = ["evidence.json", "manifest.json", "report.html"]
    assert files == ["evidence", *(f"evidence/{name}" for name in logged), "model"]
    assert not any(name in json.dumps(tags) for name in IDS)
