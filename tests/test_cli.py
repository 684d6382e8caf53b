"""``efface forget``, ``doctor`` and help: the same container out, whole or absent; exit codes."""

import hashlib
import hmac
import inspect
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from run_files import MADE, contents, events, lines_of, read
from safetensors.torch import load_file, save_file

import efface as library
from efface.cli import options
from efface.guard import Guard
from efface.hazards import Diagnosis, Finding
from efface.manifest import exclusion_table, keyed_hashes
from efface.methods import METHODS
from efface.ranking.run import Settings
from efface.types import Action

DATA = "data/train-00000-of-00001.parquet"
FORGET = ("forget", "model", "--data", "data", "--setting", "steps=2")
NARROW = ("--architecture", "tests_nets:narrow", "--mean", "0.5", "--std", "0.5", "--size", "8")


def test_forget_writes_the_same_container_with_manifest_report_and_exclusions(efface, place):
    assert efface(*FORGET, "--ids", "ids.csv", "--holdout", "data:test", "--out", "new") == 11
    new = place / "new/model"
    old, changed = (load_file(f / "model.safetensors") for f in (place / "model", new))
    assert list(old) == list(changed)
    assert all(old[k].dtype == changed[k].dtype for k in old)
    assert any(not torch.equal(old[k], changed[k]) for k in old)
    assert (new / "recipe.json").read_bytes() == (place / "model/recipe.json").read_bytes()
    assert {*contents(new)} == {"model.safetensors", "recipe.json"}
    assert {*contents(new.parent / "evidence")} == EVIDENCE
    assert "digit-0001" not in (new.parent / "evidence/manifest.json").read_text()
    assert read(new.parent)["command"].startswith("efface forget model")


EVIDENCE = {"manifest.json", "evidence.json", "records.csv", "exclude.csv", "report.html"}


def test_hashes_can_be_matched_only_by_who_asked_for_their_key(efface, place, capfd):
    """One key for several runs, readable by its owner, apart from the folders; else none stays."""
    given = (*FORGET[:-1], "steps=1", "--ids", "ids.csv")
    for out in ("keyed", "keyed-again"):
        assert efface(*given, "--key", "a.key", "--out", out) in MADE
    assert efface(*given, "--out", "unkeyed") in MADE
    key = bytes.fromhex((place / "a.key").read_text())
    assert (place / "a.key").stat().st_mode & 0o777 == 0o600
    hashes = [read(place / out)["keyed_hashes"] for out in ("keyed", "keyed-again", "unkeyed")]
    assert hashes[0] == hashes[1] != hashes[2]
    for row, digest in zip(lines_of(place / "keyed/evidence/exclude.csv"), hashes[0], strict=True):
        assert row["keyed_hash"] == digest
        assert digest == hmac.new(key, row["id"].encode(), hashlib.sha256).hexdigest()
    assert not [path for out in ("keyed", "unkeyed") for path in (place / out).rglob("*key*")]
    capfd.readouterr()
    for name, text in WRONG_KEYS.items():
        assert efface(*given, "--key", name, "--out", "new") == 2
        assert capfd.readouterr().err == f"{text}\n"


def test_an_id_that_is_a_formula_has_the_hash_of_the_id_itself():
    [digest] = keyed_hashes(["=1+1"], b"key")
    assert exclusion_table(["=1+1"], b"key") == f"id,keyed_hash\n'=1+1,{digest}\n".encode()


WRONG_KEYS = {
    "new/a.key": "Wanted a key apart from what it opens. Got new/a.key, in the folder of the "
    "hashes. Give another --key.",
    "ids.csv": "Wanted 64 hexadecimal digits in ids.csv. Got 25 characters. Name a new file, to "
    "make a key.",
}


def test_the_new_model_is_as_readable_as_the_old_one(efface, place):
    """A model that was private does not become public by forgetting."""
    modes = {"model.safetensors": 0o600, "recipe.json": 0o440}
    shutil.copytree(place / "model", place / "private")
    for name, mode in modes.items():
        (place / "private" / name).chmod(mode)
    request = ("forget", "private", *FORGET[2:-1], "steps=1", *IDS)
    assert efface(*request, "--out", "as-private") in MADE
    made = {
        path.name: path.stat().st_mode & 0o777 for path in (place / "as-private/model").iterdir()
    }
    assert made == {**modes, "recipe.json": 0o640}


TEMPLATE = Path(__file__).parent.parent / "docs/template/my_method.py"


@pytest.fixture
def own_file(place, monkeypatch):
    """A method of one's own that nothing installed, forgotten after the test."""
    monkeypatch.setattr(METHODS, "registered", {**METHODS.registered})
    monkeypatch.delitem(sys.modules, "own_file", raising=False)
    (place / "own_file.py").write_text(TEMPLATE.read_text().replace("my_method", "own_method"))
    return "own_file.py:own_method"


def test_a_method_of_ones_own_is_run_from_its_file_as_typed(efface, place, own_file, capfd):
    given = ("model", "--data", "data", *IDS, "--report", "quick")
    how = ("--method", own_file, "--setting", "epochs=1", "--out", "by-own")
    assert efface("forget", *given, *how) in MADE
    assert read(place / "by-own")["method"] == "own_method"
    assert efface("methods", own_file) == 0
    assert "Maximise the entropy" in capfd.readouterr().out
    several = ("compare", *given, "--methods", own_file, "--seeds", "0", "--out", "own-table")
    assert efface(*several, "--processes", "2") == 2
    assert "Wanted one process for a method of a file. Got 2." in capfd.readouterr().err
    assert efface(*several, "--setting", "own_method.epochs=1") == 0


NO_METHOD = {
    "none.py:own_method": "Wanted a Python file. Got none.py, not there.",
    "own_file.py:Tensor": "Wanted a function with @register_method. Got own_file.py:Tensor.",
    "own_file.py:own": "Wanted a function or class of own_file. Got 'own'.",
    "own_file.py:": "Wanted file.py:name or package.module:name. Got 'own_file:'.",
    "raises.py:own": "Wanted raises.py:own to be imported. Got ValueError: no. Fix its module.",
}


@pytest.mark.parametrize("typed", NO_METHOD)
def test_a_file_without_a_method_is_refused(efface, place, own_file, capfd, typed):  # noqa: ARG001
    (place / "raises.py").write_text("raise ValueError('no')")
    assert efface(*FORGET, *IDS, "--method", typed, "--out", "never") == 2
    assert NO_METHOD[typed] in capfd.readouterr().err


def test_a_report_may_be_omitted_and_is_priced_otherwise(efface, place, capfd):
    """Forward passes are said before they are made."""
    assert efface(*FORGET, "--ids", "ids.csv", "--report", "off", "--out", "bare") == 10
    assert "evidence_passes" not in capfd.readouterr().err
    assert not {"evidence/evidence.json", "evidence/report.html"} & {*contents(place / "bare")}
    assert read(place / "bare")["report"] == "off"
    assert efface(*FORGET, "--ids", "ids.csv", "--report", "quick", "--out", "quick") == 10
    (plan,) = [one for one in events(capfd.readouterr().err) if one["event"] == "plan"]
    assert plan["evidence_passes"] > 0
    assert plan["method_about_seconds"] > 0
    assert read(place / "quick")["arguments"]["split"]["report"] == "quick"


def test_the_new_folder_is_a_model_for_the_next_request(efface, place, capfd):
    """A class goes by name; nearly a whole one that is not named as one is warned of."""
    assert efface(*FORGET, "--where", "label=4 and id!=digit-0004", "--out", "second") == 10
    assert '"hint": "--forget-class removes a class"' in capfd.readouterr().err
    again = ("forget", "second/model", "--data", "data", "--setting", "steps=1")
    assert efface(*again, "--forget-class", "3", "--out", "third") == 10
    assert (place / "third/model/model.safetensors").exists()
    assert read(place / "third")["request"]["forget_classes"] == [3]


def test_a_weights_file_comes_back_and_what_does_not_is_an_event(efface, place, capfd):
    """Safetensors or torch.save; whoever wants to train on would look for the optimizer in vain."""
    weights = load_file(place / "model/model.safetensors")
    save_file(weights, place / "w.safetensors", {"note": "kept"})
    content = {"model": weights, "optimizer": {"step": 3}, "ema": weights, "epoch": 3}
    torch.save(content, place / "w.pt")
    for name in ("w.safetensors", "w.pt"):
        given = ["forget", name, "--data", "data", "--ids", "ids.csv", "--setting", "steps=1"]
        given += ["--weights-in", "model"] if name == "w.pt" else []
        assert efface(*given, *NARROW, "--out", f"out-{name}") == 10
        assert (place / f"out-{name}/model" / name).exists()
    again = torch.load(place / "out-w.pt/model/w.pt", weights_only=True)
    assert (again["epoch"], list(again["model"])) == (3, list(weights))
    omitted = {"event": "omitted", "of_the_checkpoint": "optimizer, ema"}
    omitted["hint"] = "they may hold the data"
    shown = [one for one in events(capfd.readouterr().err) if one["event"] == "omitted"]
    assert shown == [omitted]


def test_forget_records_in_a_copy_of_retain_are_taken_out_and_counted(efface, place, capfd):
    table = parquet.read_table(place / DATA)
    (place / "copy").mkdir()
    parquet.write_table(table.slice(0, 100), place / "copy/train-00000-of-00001.parquet")
    assert efface(*FORGET, "--ids", "ids.csv", "--retain", "copy", "--out", "with-copy") == 10
    taken_out = {"event": "retain", "forget_records_taken_out": 2}
    assert taken_out in events(capfd.readouterr().err)
    counts = read(place / "with-copy")["request"]
    assert (counts["forget_records_in_retain"], counts["retain"]) == (2, 98)


IDS = ("--ids", "ids.csv")


@pytest.mark.parametrize(
    ("group", "function"),
    [(options.MethodOptions, library.forget), (options.InspectOptions, Settings)],
)
def test_the_defaults_of_the_options_are_those_of_the_library(group, function):
    defaults = {p.name: p.default for p in inspect.signature(function).parameters.values()}
    shared = [field for field in fields(group) if field.name in defaults and field.default]
    assert shared
    assert {f.name: f.default for f in shared} == {f.name: defaults[f.name] for f in shared}


def test_every_argument_of_a_request_reaches_the_library(efface, place, monkeypatch):
    """One that got lost on the way would be taken for its default, in silence."""

    def stop(_model, split, **arguments):
        given.update(arguments, holdout=len(split.holdout), retain=split.retain)
        given.update(reference=split.reference)
        raise library.InputError("a request", "enough", "Stop here.")

    given = {}
    monkeypatch.setattr("efface.cli.forget.forget", stop)
    (place / "weights.csv").write_text("id,weight\ndigit-0001,1\ndigit-0002,0.5\n")
    weights = load_file(place / "model/model.safetensors")
    first, half = next(iter(weights)), {name: tensor.bfloat16() for name, tensor in weights.items()}
    save_file(half, place / "half.safetensors")
    command = (
        "forget half.safetensors --data data --ids ids.csv --holdout data:test --out never "
        "--method jit --trainable last-layers --strength 0.5 --expected-accuracy 0.9 "
        "--selection high-information --weights weights.csv --utility-budget 0.1 --setting steps=3 "
        "--seed 4 --holdout-seed 5 --mislabelled --whole-group --report quick "
        "--accept chance --accept units --reference model"
    )
    assert efface(*command.split(), *NARROW) == 2
    expected = {"method": "jit", "trainable": "last-layers", "strength": 0.5, "seed": 4}
    expected |= {"expected_accuracy": 0.9, "selection": "high-information", "utility_budget": 0.1}
    expected |= {"weights": {"digit-0001": 1.0, "digit-0002": 0.5}, "settings": {"steps": 3}}
    expected |= {"report": "quick", "accept": ("chance", "units")}
    expected |= {"holdout_seed": 5, "mislabelled": True, "retain": None, "whole_group": True}
    assert {name: given[name] for name in expected} == expected
    assert {*given["stored"].values()} == {torch.bfloat16}
    assert given["holdout"] > 0
    # a folder that states its architecture is no file of MODEL's
    assert torch.equal(given["reference"].state_dict()[first], weights[first])
    assert not (place / "never").exists()


@pytest.mark.parametrize("command", ["forget", "score", "inspect", "doctor", "methods"])
def test_every_help_has_an_example_and_a_text_for_every_option(efface, capfd, command):
    assert efface(command, "--help") == 0
    shown = capfd.readouterr().out
    assert f" efface {command} " in shown
    lines = [line.strip("│ *").strip() for line in shown.splitlines()]
    undocumented = [line for line in lines if line.startswith("--") and len(line.split()) < 3]
    assert undocumented == []


def test_a_request_that_is_not_met_leaves_a_report_and_no_model(efface, place, monkeypatch):
    def callback(self, student, loss):  # noqa: ARG001
        self.failed = "drift 9 above 1, after 8 halvings"
        return Action.STOP

    monkeypatch.setattr(Guard, "callback", callback)
    assert efface(*FORGET, *IDS, "--out", "unmet") == 3
    assert {*contents(place / "unmet")} == {f"evidence/{name}" for name in EVIDENCE}
    assert read(place / "unmet")["outcome"] == "not met"


def test_doctor_refuses_a_wrong_class_map(efface, place, capfd):
    """A silent error, found before anything moves: exit code 6."""
    assert efface("doctor", "model", "--data", "data") == 0
    table = parquet.read_table(place / DATA)
    labels = pa.array((table.column("label").to_numpy() + 1) % 10)
    (place / "turned").mkdir()
    turned = table.set_column(2, table.field("label"), labels)
    parquet.write_table(turned, place / "turned/train.parquet")
    assert efface("doctor", "model", "--data", "turned") == 6
    assert "with the classes in another order (0 for 9, 1 for 0, 2 for 1" in " ".join(
        capfd.readouterr().err.split()
    )
    assert efface("doctor", "model", "--data", "turned", "--accept", "class-order") == 0
    assert efface("doctor", "model", "--data", "turned", "--accept", "classorder") == 2
    assert "Did you mean 'class-order'?" in capfd.readouterr().err


def test_doctor_says_whether_a_holdout_is_unseen(efface, capfd):
    assert efface("doctor", "model", "--data", "data", "--holdout", "data:test") == 0
    shown = capfd.readouterr().out
    assert " holdout records" in shown
    assert "holdout-known" not in shown
    assert efface("doctor", "model", "--data", "data", "--holdout", "data:train") == 6
    assert "holdout-known" in capfd.readouterr().out


def test_a_dry_run_prints_what_was_found_and_writes_nothing(efface, place, capfd):
    before = contents(place)
    line = ("forget", "model", "--data", "data", *IDS, "--holdout", "data:test", "--dry-run")
    assert efface(*line, "--method", "auto") == 0
    shown = capfd.readouterr()
    assert "right on 2 of 2 records, " in shown.out
    assert "of 250 other records, " in shown.out
    assert "auto" in shown.out
    words = ("neighbourhood, which may change", "tier T1: ", "nothing", "seconds (", "evidence ")
    assert not [word for word in words if word not in shown.out]
    assert shown.out.splitlines()[-1].endswith("--holdout data:test --method auto --out new")
    # a folder that is named as well is left alone
    assert efface(*line, "--out", "named") == 0
    assert contents(place) == before
    assert efface(*line, "--keep-adapter") == 2
    assert "Wanted --trainable adapter" in capfd.readouterr().err
    assert efface(*FORGET, *IDS) == 2
    assert "Wanted --out DIR, or --dry-run. Got neither." in capfd.readouterr().err


def test_a_run_says_first_how_right_the_model_is_and_notes_it(efface, place, capfd):
    assert efface(*FORGET, *IDS, "--report", "off", "--out", "told") == 10
    load, doctor, first, plan, *_ = events(capfd.readouterr().err)
    assert [one["event"] for one in (load, doctor, plan)] == ["load", "doctor", "plan"]
    assert (first["event"], first["records"]) == ("accuracy", "2 of 2")
    noted = read(place / "told/evidence")["accuracy"]
    assert noted["records"] == {"accuracy": 1.0, "sample": 2, "of": 2}
    right = int(first["others"].split(" of ")[0])
    assert noted["others"]["accuracy"] == right / 250


def test_the_order_of_the_classes_can_be_given_by_names_or_a_file(efface, place, capfd):
    """Labels are renumbered by it; another order than the model's is found, like too many names."""
    names = [*"0123456789"]
    (place / "names.txt").write_text("\n".join(names))
    line = ("forget", "model", "--data", "data", "--dry-run", "--classes")
    for given in (",".join(names), "names.txt"):
        assert efface(*line, given, "--forget-class", "4") == 0
    refusals = {",".join(reversed(names)): "Where this is meant: --accept class-order"}
    refusals[",".join([*names, "ten"])] = "The model has 10 outputs, and there are 11 class names."
    for given, text in refusals.items():
        capfd.readouterr()
        assert efface(*line, given, "--forget-class", "4") == 6
        assert text in " ".join(capfd.readouterr().err.split())
    assert efface(*line, "digits", "--forget-class", "4") == 2
    assert "Wanted two class names or more in --classes. Got 'digits'." in capfd.readouterr().err


@pytest.mark.distributed
def test_two_processes_write_the_file_of_one(place):
    """One code path: `torchrun -m efface forget` gives the weights of one process."""
    paths = os.pathsep.join((str(place), os.environ["PYTHONPATH"]))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    two = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d"]
    two += ["--rdzv_endpoint", "localhost:0"]
    for start, out in (([], "of-one"), (two, "of-two")):
        line = [sys.executable, *start, "-m", "efface", *FORGET, "--ids", "ids.csv", "--out", out]
        done = subprocess.run(line, check=False, cwd=place, env=environment, capture_output=True)
        # torchrun has no code but 1 for what a process ends with
        assert done.returncode == (1 if start else 10), done.stderr
    one, other = (
        load_file(place / out / "model/model.safetensors") for out in ("of-one", "of-two")
    )
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_command_says_that_nothing_was_lost(efface, monkeypatch, capfd, number, code):
    before = signal.default_int_handler
    outer = signal.signal(number, before)  # a shell's background job ignores SIGINT
    stop = lambda *_: os.kill(os.getpid(), number)  # noqa: E731
    monkeypatch.setattr("efface.cli.methods.run_methods", stop)
    try:
        assert efface("methods") == code
        assert signal.getsignal(number) is before
    finally:
        signal.signal(number, outer)
    assert capfd.readouterr().err == "Stopped. What was there before is untouched; start again.\n"


SSD = "2308.07707|needs retain|selection_weighting 10.0 a number|the paper's α"
SSD += "|seed 0 an integer of at least 0 draws who"
PAGES = [((), 0, ("needs", "year", "passes", "--train-command", *METHODS))]
PAGES += [(("ssd",), 0, SSD.split("|")), (("sdd",), 2, ("Did you mean 'ssd'?",))]


@pytest.mark.parametrize(("arguments", "code", "words"), PAGES)
def test_methods_are_listed_and_each_has_a_page(efface, capfd, arguments, code, words):
    assert efface("methods", *arguments) == code
    printed = " ".join(" ".join(capfd.readouterr()).split())
    assert not [word for word in words if word not in printed]


def test_what_seems_wrong_stands_before_the_method_and_again_at_the_end(
    efface, place, monkeypatch, capfd
):
    """A run that ends in green must not have whispered it into a file."""
    odd = Finding("odd", "warn", "The model is odd.")
    quiet = Finding("quiet", "note", "The model has weights.")
    monkeypatch.setattr("efface.unlearn.doctor", lambda *_, **__: Diagnosis((odd, quiet), {}))
    short = ("--method", "jit", "--setting", "step_size=0.001", "--setting", "tolerance=0.99")
    assert efface(*FORGET, *short, *IDS, "--out", "odd") == 10
    printed = capfd.readouterr()
    shown = events(printed.err)
    names = [event.get("finding", event["event"]) for event in shown]
    assert names.index("odd") < names.index("plan") < names.index("not reached")
    outcome = read(place / "odd")["summary"]
    assert shown[-1] == {"event": "outcome", "text": outcome, "progress": None}
    said = " ".join(printed.out.split())
    assert said.startswith(f"Outcome {outcome}")
    assert "Warnings The model is odd. The method stopped at" in said
    assert "The model has weights" not in said
    assert outcome in (place / "odd/evidence/report.html").read_text()


OUTCOMES = [("baseline", "data:test", 12), ("jit", "data:test", 11), ("baseline", None, 12)]


@pytest.mark.parametrize(("method", "holdout", "code"), OUTCOMES)
def test_the_exit_code_is_that_of_the_outcome(efface, place, method, holdout, code):
    out, parts = f"{method}-{holdout is None}", ("--holdout", holdout) if holdout else ()
    settings = () if method == "baseline" else ("--setting", "steps=2")
    given = ("forget", "model", "--data", "data", *IDS, "--method", method, *settings, *parts)
    assert efface(*given, "--out", out) == code
    manifest, evidence = read(place / out), read(place / out, "evidence")
    assert manifest["outcome"] == evidence["outcome"]
    assert manifest["progress"] == evidence["progress"]
    assert holdout or evidence["progress"] is None
    assert (place / out / "model").exists() is (code == 11)
    new = f"{out}/model" if code == 11 else "model"
    again = ("score", "model", new, "--data", "data", *IDS, *parts, "--out", f"{out}-scored")
    assert efface(*again) == 0
    assert read(place / f"{out}-scored")["outcome"] == manifest["outcome"]


def test_a_model_that_did_not_change_is_not_written_and_the_first_sentence_says_so(
    efface, place, capfd
):
    """Nobody deploys the old model for the new one; without a report too."""
    given = ("forget", "model", "--data", "data", *IDS, "--method", "baseline", "--report")
    for report, lacking in (
        ("quick", set()),
        ("off", {"evidence.json", "records.csv", "report.html"}),
    ):
        out = f"unchanged {report}"
        assert efface(*given, report, "--out", out) == 12
        assert {*contents(place / out)} == {f"evidence/{name}" for name in EVIDENCE - lacking}
        said = "There is no new model; the old one stands."
        assert said in read(place / out)["summary"]
        assert said in capfd.readouterr().err


def test_the_help_names_every_exit_code(efface, capfd):
    assert efface("--help") == 0
    shown = " ".join(capfd.readouterr().out.replace("│", " ").split())
    made = set(library.Outcome) - {library.Outcome.DRY_RUN}
    assert not [o for o in made if f"{o.exit_code} {o}" not in shown]
