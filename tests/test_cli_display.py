"""What a person, a script and cron see of a command: sentences, JSON, a file of options, bars."""

import copy
import json
import logging
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from run_files import contents, events, read
from torch import nn

from efface.cli import app, options
from efface.cli.doctor import print_diagnosis
from efface.cli.summary import _cells, next_command
from efface.errors import Outcome
from efface.hazards import Diagnosis, Finding
from efface.manifest import Manifest
from efface.report import Report, Row, Verdict
from efface.report.text import chosen_rows
from efface.terminal import LOG, event
from efface.types import Split
from efface.unlearn import Result, forget

FORGET = ("forget", "model", "--data", "data", "--ids", "ids.csv", "--setting", "steps=2")


def document(capfd):
    """The JSON on standard output, which is one document."""
    return json.loads(capfd.readouterr().out)


def test_a_person_reads_sentences_then_ten_rows_then_what_to_do(efface, place, capfd):
    code = efface(*FORGET, "--holdout", "data:test", "--note", "case 4711", "--out", "told")
    shown = capfd.readouterr().out
    evidence, manifest = read(place / "told", "evidence"), read(place / "told")
    assert manifest["note"] == "case 4711"
    assert "case 4711" in (place / "told/evidence/report.html").read_text()
    said = " ".join(shown.split())
    parts = [f"Outcome {evidence['summary']}", "Request 2 records, named by --ids ids.csv"]
    parts += ["· case 4711.", "Forgotten", "Cost Accuracy on the holdout: "]
    parts += [
        "Accuracy on other training records: ",
        "the guard's part of the holdout",
        "2 steps of neighbourhood, ",
    ]
    parts += ["Not known", "10 of ", "test n before after reference result", "Files told/model"]
    parts += ["told/evidence/report.html", "Next"]
    places = [said.index(part) for part in parts]
    assert places == sorted(places)
    assert sum(mark in shown for mark in ("▲ flagged", "◇ inconclusive", "○ not flagged")) > 1
    assert code == 11
    assert shown.splitlines()[-1].startswith("  efface ")


FURTHER = "efface forget m --data d --method jit --setting steps=2 --whole-group --out new-2"
REPLAY = "efface score m --data d --where a=1 --mislabelled --seed 3 --replay new"
RETRAIN = "--method retrain --train-command 'YOUR_COMMAND --exclude {exclude} --out {out}'"
NEXT = [
    ("forget", Outcome.PARTLY, 0.5, f"{FURTHER} --strength 1.5"),
    ("forget", Outcome.PARTLY, 1.5, f"{FURTHER} --strength 0.7"),
    ("forget", Outcome.PARTLY, 1.0, f"efface forget m --data d --out new-2 {RETRAIN}"),
    ("forget", Outcome.NOT_JUDGED, None, f"{FURTHER} --holdout UNSEEN"),
    ("forget", Outcome.DONE, 1.0, REPLAY),
    ("forget", Outcome.LIKE_UNSEEN, None, None),
    ("forget", Outcome.NOT_MET, None, f"efface forget m --data d --out new-2 {RETRAIN}"),
]


@pytest.mark.parametrize(("job", "outcome", "progress", "line"), NEXT)
def test_the_next_command_is_one_that_can_be_typed(monkeypatch, job, outcome, progress, line):
    """What was typed, with what the outcome asks for; none of it is folded."""
    typed = f"efface {job} m --data d --method jit --setting steps=2 --whole-group --out=new"
    monkeypatch.setattr("sys.argv", shlex.split(typed))
    parts = options.RecordOptions(where="a=1"), options.SplitOptions(mislabelled=True)
    given = options.Arguments(Path("m"), None, "d", *parts, options.ReadOptions(), 3)
    manifest = Manifest(job, 0, 0, outcome, progress=progress, method="neighbourhood")
    then = next_command(Result(nn.Identity(), None, manifest), Path("new"), given)
    assert (then and then[1]) == line
    if then:
        app.parse_args(shlex.split(line)[1:], exit_on_error=False)


FLAGGED = Row(key="attack.loss", section="unseen", p=0.001, verdict=Verdict.DETECTED)
FEW = Row(key="attack.loss", section="unseen", p=0.5, verdict=Verdict.TOO_FEW_RECORDS)
COSTLY = Finding("utility-budget", "warn", "")
# what a run came to, whether it is a strength, the default method or the own training that is next
STEPS = {
    "a test flags the records": ({}, FLAGGED, (), "--strength 1.5"),
    "too few records": ({}, FEW, (), "--method retrain"),
    "too much is lost": ({}, FLAGGED, (COSTLY,), "--method retrain"),
    "a strength was tried": ({"settings": {"strength": 1.5}}, FLAGGED, (), "--method retrain"),
    "the guard kept a part": (
        {"guard": {"interpolation": 0.1}},
        FLAGGED,
        (),
        "--method neighbourhood",
    ),
    "of the default": (
        {"guard": {"interpolation": 0.1}, "method": "neighbourhood"},
        FLAGGED,
        (),
        "--method retrain",
    ),
}


@pytest.mark.parametrize(
    ("method", "seen"), [("neighbourhood", {}), ("neighbourhood", {"retain": 9}), ("jit", {})]
)
def test_records_that_stay_are_asked_for_where_others_lost_and_the_method_reads_them(
    monkeypatch, method, seen
):
    monkeypatch.setattr("sys.argv", shlex.split("efface forget m --data d --out new"))
    parts = options.RecordOptions(where="a=1"), options.SplitOptions()
    given = options.Arguments(Path("m"), None, "d", *parts, options.ReadOptions(), 3)
    facts = {"method": method, "request": {"forget": 2} | seen}
    manifest = Manifest("forget", 0, 0, Outcome.DONE, **facts)
    lost = Row(key="others.accuracy", section="utility", verdict=Verdict.DROPPED)
    result = Result(nn.Identity(), Report("T1", (lost,)), manifest)
    asked = next_command(result, Path("new"), given)[1].endswith("--out new-2 --retain d")
    assert asked == ((method, seen) == ("neighbourhood", {}))


@pytest.mark.parametrize("case", STEPS)
def test_another_strength_is_next_only_where_it_may_help(monkeypatch, case):
    """Never a second time: 1.5 and 0.7 would go round in circles."""
    facts, row, findings, end = STEPS[case]
    monkeypatch.setattr("sys.argv", shlex.split("efface forget m --data d --method jit --out new"))
    parts = options.RecordOptions(where="a=1"), options.SplitOptions()
    given = options.Arguments(Path("m"), None, "d", *parts, options.ReadOptions(), 3)
    manifest = Manifest(
        "forget", 0, 0, Outcome.PARTLY, **{"progress": 0.5, "method": "jit"} | facts
    )
    result = Result(nn.Identity(), Report("T1", (row,)), manifest, findings)
    _, line = next_command(result, Path("new"), given)
    assert line.partition(" --train-command")[0].endswith(end)


def test_a_loss_that_could_be_chance_is_not_said_to_be_nothing():
    row = Row(1.0, 0.95, "unchanged", verdict=Verdict.UNCHANGED, name="Accuracy on the holdout")
    assert _cells(row)[-1] == "○ not significant"
    assert _cells(replace(row, after=1.0))[-1] == "○ not flagged"


def test_doctor_says_that_it_found_nothing(capsys):
    print_diagnosis(Diagnosis((), {}))
    assert "nothing found" in capsys.readouterr().out


def test_a_script_gets_one_document_of_a_result_and_of_an_error(efface, place, capfd):
    code = efface(*FORGET, "--json", "--out", "as-json")
    found = document(capfd)
    assert code == found["exit_code"] == 10
    assert found["outcome"] == "changed, not judged"
    assert found["files"]["model"] == "as-json/model"
    assert found["rows"][0].keys() >= {"key", "before", "after", "reference", "status"}
    assert {"load", "doctor", "method", "report"} <= found["seconds"].keys()
    assert found["next"].endswith("--out as-json-2 --holdout UNSEEN")
    wrong = [("--out as-json", 2), ("--out /proc/none/x", 8), ("--out x --strength -1", 2)]
    for line, code in [*wrong, ("--out x --target all", 2)]:
        assert efface(*FORGET, "--json", *line.split()) == code
        printed = capfd.readouterr()
        failed = json.loads(printed.out)
        assert failed["exit_code"] > 0
        assert failed["error"] == printed.err.splitlines()[-1]
    assert efface("forget", "model", "--dat", "data", "--json") == 2
    assert document(capfd)["exit_code"] == 2
    assert efface(*FORGET, "--dry-run", "--json") == 0
    plan = document(capfd)
    assert (plan["method"], plan["tier"]) == ("neighbourhood", "T0")
    assert {"load", "doctor", "method", "evidence"} <= plan["seconds"].keys()
    assert efface("doctor", "model", "--data", "data", "--json") == 0
    assert document(capfd)["accuracy"]["records"]["sample"] == 250
    assert efface("train", "--json") == 2
    assert "research.train" in document(capfd)["error"]
    assert efface("forget", "--help", "--json") == 0
    assert "--forget-class" in document(capfd)["help"]
    assert efface("methods", "--json") == 0
    assert document(capfd)["tables"][0]["columns"][0] == "method"
    assert not [path for path in contents(place) if path.startswith("x/")]


def test_cron_hears_of_nothing_but_what_is_wrong(efface, capfd):
    """Output is a mail at night: none of a success, one line of what did not go as asked."""
    assert efface("methods", "--quiet") == 0
    assert capfd.readouterr() == ("", "")
    assert efface(*FORGET, "--quiet", "--out", "at-night") == 10
    out, err = capfd.readouterr()
    assert out == ""
    (line,) = events(err)
    assert line["text"].startswith("Changed, not judged (tier T0)")
    assert efface("methods", "--quiet", "--verbose") == 2
    assert "Wanted --quiet or --verbose. Got both." in capfd.readouterr().err


def test_details_are_every_row_and_the_seconds_of_each_phase(efface, capfd):
    assert efface(*FORGET, "--verbose", "--out", "in-detail") == 10
    out, err = capfd.readouterr()
    ran = [line for line in events(err) if " took " in line.get("text", "")]
    assert {line["text"].split()[0] for line in ran} >= {"doctor", "guard", "method", "report"}
    assert "Noise inputs with an unchanged prediction" in out
    assert not LOG.handlers


REQUEST = """
[forget]
model = "model"
data = "data"
ids = "ids.csv"
setting = ["steps=2"]
forget-class = "4"
mislabelled = true
"""


def test_a_request_that_comes_again_stands_in_a_file_and_what_is_typed_wins(efface, place, capfd):
    (place / "again.toml").write_text(REQUEST.replace('forget-class = "4"\n', ""))
    line = ("forget", "--config", "again.toml", "--dry-run", "--json")
    assert efface(*line) == 0
    found = document(capfd)
    assert (found["settings"]["steps"], found["settings"]["mislabelled"]) == (2, True)
    assert efface(*line, "--setting", "steps=3") == 0
    assert document(capfd)["settings"]["steps"] == 3


REFUSED = {
    '[forget]\ndatas = "data"': "options of efface forget in bad.toml. Got datas. Did you mean",
    '[forgt]\ndata = "data"': "Got [forgt]. Did you mean 'forget'?",
    'forget = "data"': "Got forget = 'data'. Write [forget] above the options.",
    "[forget": "Wanted a TOML file with a table a command at bad.toml. Got ",
    '[forget]\narchitecture = "bad:net"': "Type --architecture on the command line.",
    '[forget]\nmethod = "bad.py:method"': "Type --method on the command line.",
    '[compare]\nmethods = ["ssd", "bad:method"]': "Type --methods on the command line.",
    '[forget]\ntrain-command = "touch canary"': "Type --train-command on the command line.",
    '[forget]\nholdout = "hub:owner/name"': "Type --holdout on the command line.",
}


@pytest.mark.parametrize("text", REFUSED)
def test_a_file_of_options_is_refused_in_a_sentence(efface, place, capfd, text):
    """What it cannot say is what runs code or reaches a hub."""
    (place / "bad.toml").write_text(text)
    assert efface("forget", "model", "--config", "bad.toml", "--out", "never") == 2
    assert REFUSED[text] in capfd.readouterr().err
    assert efface("forget", "model", "--config", "none.toml") == 2
    assert "Wanted a TOML file with a table a command at none.toml." in capfd.readouterr().err


def test_a_terminal_has_a_bar_for_each_stage(efface, capfd, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    assert efface(*FORGET, "--report", "quick", "--out", "barred") == 10
    shown = capfd.readouterr().err
    assert not [stage for stage in ("load", "doctor", "method", "evidence") if stage not in shown]
    assert "252/252" in shown


def test_the_library_logs_warnings_and_phases_under_its_name(tiny_net, digits, caplog):
    with caplog.at_level(logging.DEBUG, "efface"):
        training = copy.deepcopy(tiny_net).train()
        forget(training, Split(digits.take(range(12))), settings={"steps": 1}, report="off")
    warned = [one for one in caplog.records if one.levelno == logging.WARNING]
    assert "training-mode" in [one.facts["finding"] for one in warned]
    assert [one for one in caplog.records if one.getMessage().startswith("method took")]


def test_an_event_says_when(capsys):
    event("one", count=torch.float32)
    line = json.loads(capsys.readouterr().err)
    assert line["time"].endswith("+00:00")
    assert line["count"] == "torch.float32"


def test_the_ten_rows_have_the_main_ones_and_what_is_flagged():
    """An attack never stands without its controls, and nothing flagged gives way to the rest."""
    fine = Row(0.1, 0.2, key="", verdict=Verdict.NOT_SIGNIFICANT, section="forget")
    main = ["forget.accuracy", "attack.loss", "holdout.accuracy", "control.positive"]
    rows = [replace(fine, key=f"other.{n}") for n in range(12)]
    rows += [replace(fine, key=key) for key in (*main, "control.negative")]
    rows += [Row(key="broken", verdict=Verdict.CRASHED, section="utility")]
    rows += [replace(fine, key="bad", verdict=Verdict.DROPPED)]
    rows += [replace(fine, key="said", verdict=Verdict.DESCRIPTIVE), Row(key="never")]
    chosen = [row.key for row in chosen_rows(Report("T1", tuple(rows)))]
    assert {*chosen} >= {*main, "control.negative", "broken", "bad"}
    assert len(chosen) == 10
    assert chosen == [row.key for row in rows if row.key in chosen]
    assert "said" not in chosen
