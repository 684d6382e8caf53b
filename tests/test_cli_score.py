"""``efface score``: evidence for any pair of models, whole or absent, and neither model touched."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from efface.io.data import load_data

FLAGS = ("--data", "data", "--ids", "ids.csv")
ALL = ("--holdout", "data:test", "--retain", "data")


@pytest.fixture(scope="module")
def models(place):
    """Beside ``model`` four of others' making: its last layer moved a little, each its own way."""
    weights = load_file(place / "model/model.safetensors")
    last = [name for name in weights if weights[name].ndim > 1][-1]
    for seed, name in enumerate(("other", "again-1", "again-2", "again-3")):
        noise = torch.randn(weights[last].shape, generator=torch.Generator().manual_seed(seed))
        shutil.copytree(place / "model", place / name)
        save_file(
            {**weights, last: weights[last] + 0.1 * noise}, place / name / "model.safetensors"
        )
    return place


def _content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_any_second_model_gets_evidence_and_both_stay_as_they_are(efface, models, capfd):
    """Three files, whole, and the tier on the screen."""
    before = {name: _content(models / name) for name in ("model", "other")}
    assert efface("score", "model", "other", *FLAGS, *ALL, "--out", "scored") == 0
    names = {path.name for path in (models / "scored").iterdir()}
    assert names == {"evidence.json", "manifest.json", "report.html"}
    assert "tier T2" in capfd.readouterr().out
    record = json.loads((models / "scored/manifest.json").read_text())
    assert record["arguments"]["new"] == "other"
    assert record["weights"]["old"] != record["weights"]["new"]
    assert record["request"]["named"] == "--ids ids.csv"
    assert record["request"]["forget_records_in_retain"] == 2
    assert {name: _content(models / name) for name in ("model", "other")} == before


def test_what_forget_reports_of_its_own_model_score_reports_too(efface, models):
    """The same half of the holdout, the same seeds: who asks later gets the same rows."""
    asked = (*FLAGS, *ALL, "--seed", "3")
    assert efface("forget", "model", *asked, "--setting", "steps=2", "--out", "made") == 0
    assert efface("score", "model", "made", *asked, "--out", "asked-later") == 0
    ours, later = (
        json.loads((models / name / "evidence.json").read_text())
        for name in ("made", "asked-later")
    )
    assert later == ours


def test_retrained_models_lift_the_tier_and_give_targets(efface, models, capfd):
    """The paper's columns of old, new and retrained; with one of them no floor is known."""
    again = ("--retrained", "again-1", "again-2")
    assert efface("score", "model", "other", *FLAGS, *ALL, *again, "--out", "beside") == 0
    assert "tier T3" in capfd.readouterr().out
    found = json.loads((models / "beside/evidence.json").read_text())
    rows = {row["key"]: row for row in found["rows"]}
    assert found["counts"]["retrained"] == 2
    assert rows["retrained.gap"]["target"] is not None
    digests = json.loads((models / "beside/manifest.json").read_text())["weights"]["retrained"]
    assert len(set(digests)) == 2
    one = ("--retrained", "again-1", "--out", "beside-one")
    assert efface("score", "model", "other", *FLAGS, *ALL, *one) == 0
    found = json.loads((models / "beside-one/evidence.json").read_text())
    gap = next(row for row in found["rows"] if row["key"] == "retrained.gap")
    assert (gap["verdict"], gap["target"]) == ("floor not known", None)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("model", "other", *FLAGS),
         2, ("Wanted efface score OLD NEW --data DATA … --out DIR, or efface score --replay RUN. "
         "Got no --out. Name both models, the data and a folder for the evidence.")),
        (("model", "--data", "data", "--out", "wrong"), 2, "Got no NEW."),
        (("model", "other", "--data", "data", "--out", "wrong"),
         2, "Wanted one of --ids, --where, --forget-class. Got none."),
        (("model", "nowhere", *FLAGS, "--out", "wrong"), 2, "Wanted"),
        (("model", "other", *FLAGS, "--out", "model/inside"), 2, "is inside the folder of OLD"),
        (("model", "other", *FLAGS, "--retrained", "again-1", "--out", "again-1/x"),
         2, "is inside the folder of --retrained again-1"),
        (("model", "narrow", *FLAGS, "--out", "wrong"),
         2, ("Wanted models that take their inputs alike. Got NEW, whose preprocessing is not that "
         "of OLD. Give models of one task; in Python efface.score takes any two modules.")),
        (("model", "turned", *FLAGS, "--out", "wrong"),
         2, ("Wanted models with the same classes in the same order. Got NEW, whose classes are "
         "not those of OLD. Give models of one task.")),
        (("model", "other", *FLAGS, "--shadow", "data", "--out", "wrong"),
         2, ("Wanted a folder of 2 or more shadow models, each an .npz file. Got data, which "
         "holds 0.")),
        (("model", "other", *FLAGS, "--seed", "-1", "--out", "wrong"), 2, "Wanted seed from 0"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_and_leaves_nothing(
    efface, models, capfd, arguments, code, text
):
    """What was wanted, what came, what to do; and no folder."""
    _odd_models(models)
    assert efface("score", *arguments) == code
    assert text in capfd.readouterr().err
    assert not (models / "wrong").exists()


def _odd_models(place):
    """One that takes its pixels otherwise, one whose classes stand in another order."""
    names = [str(digit) for digit in range(10)]
    changes = {"narrow": {"mean": [0.1]}, "turned": {"classes": names[::-1]}}
    for name, change in changes.items():
        if not (place / name).exists():
            shutil.copytree(place / "model", place / name)
            recipe = json.loads((place / name / "recipe.json").read_text())
            (place / name / "recipe.json").write_text(json.dumps({**recipe, **change}))


def test_shadow_models_that_know_no_holdout_are_read_and_said_to_be_unused(efface, models, capfd):
    """Nobody may take the folder for a test that ran."""
    ids = np.array(load_data(models / "data").ids)
    (models / "shadows").mkdir()
    for seed in range(3):
        draws = np.random.default_rng(seed)
        member, odds = draws.random(len(ids)) < 0.5, draws.normal(size=len(ids))
        np.savez(models / f"shadows/{seed}.npz", ids=ids, member=member, log_odds=odds)
    shadow = ("--shadow", "shadows", "--out", "shadowed")
    assert efface("score", "model", "other", *FLAGS, *ALL, *shadow) == 0
    assert "tier T4" in capfd.readouterr().out
    found = json.loads((models / "shadowed/evidence.json").read_text())
    row = next(row for row in found["rows"] if row["key"] == "shadow")
    assert row["status"] == "not run"
    assert row["note"].startswith("the shadow models were not asked about 50 of ")
    assert json.loads((models / "shadowed/manifest.json").read_text())["digests"]["shadow"]
