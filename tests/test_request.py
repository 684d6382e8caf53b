"""The main job in Python: what goes in stays as it was, what comes out is accounted for."""

import copy
import json

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from efface import Records, Split, forget
from efface.errors import InputError, NotMet
from efface.guard import Guard
from efface.methods import METHODS
from efface.types import Action, split_holdout

QUICK = {"steps": 3}


def _parts(digits):
    return digits.take(range(12)), digits.take(range(300, 400)), digits.take(range(200))


def test_gives_a_new_model_and_leaves_the_given_one_alone(tiny_net, digits):
    """The platform engineer's call, with all that a user may hold."""
    going, holdout, retain = _parts(digits)
    before = copy.deepcopy(tiny_net.state_dict())
    result = forget(tiny_net, Split(going, holdout, retain), settings=QUICK)
    assert all(torch.equal(before[k], v) for k, v in tiny_net.state_dict().items())
    assert result.model is not tiny_net
    assert result.manifest.outcome == "done"
    assert result.manifest.weights["new"] != result.manifest.weights["old"]
    assert result.report.tier == "T2"
    json.dumps(result.manifest.to_json())


def test_forget_records_are_taken_out_of_the_data_that_stay_and_counted(tiny_net, digits):
    """A retain set often holds the forget records; they must not count as staying."""
    going, _, retain = _parts(digits)
    renamed = Records(retain.x, retain.y, low=retain.low, high=retain.high)
    for part in (retain, renamed):
        result = forget(tiny_net, Split(going, retain=part), settings=QUICK)
        assert result.manifest.request["forget_records_in_retain"] == 12
        assert result.manifest.request["retain"] == 188
        assert result.report.counts["retain"] == 188


def test_the_holdout_is_cut_in_two_whatever_its_order(digits):
    """Law 7: evidence never uses what the method or the guard has seen."""
    holdout = digits.take(range(301, 400))
    theirs, ours = (part.holdout for part in split_holdout(Split(None, holdout), seed=0))
    assert set(theirs.ids).isdisjoint(ours.ids)
    assert set(theirs.ids) | set(ours.ids) == set(holdout.ids)
    assert abs(len(theirs) - len(ours)) == 1
    turned = split_holdout(Split(None, holdout.take(range(98, -1, -1))), seed=0)[0].holdout
    assert set(turned.ids) == set(theirs.ids)
    assert set(split_holdout(Split(None, holdout), seed=1)[0].holdout.ids) != set(theirs.ids)


def test_the_guard_sees_one_half_and_the_evidence_the_other(tiny_net, digits, monkeypatch):
    """The same holdout must not both stop a run and judge it."""
    import efface.unlearn as room

    seen = {}
    collect, guard = room.collect, room.Guard

    def collecting(model, student, split, **options):
        seen["evidence"] = set(split.holdout.ids)
        return collect(model, student, split, **options)

    def guarding(model, split, **options):
        seen["guard"] = set(split.holdout.ids)
        return guard(model, split, **options)

    monkeypatch.setattr(room, "collect", collecting)
    monkeypatch.setattr(room, "Guard", guarding)
    going, holdout, _ = _parts(digits)
    forget(tiny_net, Split(going, holdout), settings=QUICK)
    assert len(seen["guard"]) == len(seen["evidence"]) == 50
    assert seen["guard"].isdisjoint(seen["evidence"])


@pytest.mark.parametrize("form", ["tensors", "dataset", "loader"])
def test_takes_records_in_the_forms_that_people_hold(tiny_net, digits, form):
    """Tensors, a Dataset or a DataLoader give the same weights."""
    going = digits.take(range(6))
    plain = Records(going.x, going.y)
    data = TensorDataset(going.x, going.y)
    given = {
        "tensors": (going.x, going.y),
        "dataset": data,
        "loader": DataLoader(data, batch_size=4),
    }
    one = forget(tiny_net, Split(given[form]), settings=QUICK).manifest.weights["new"]
    assert one == forget(tiny_net, Split(plain), settings=QUICK).manifest.weights["new"]


def test_a_request_that_the_guard_cannot_meet_raises_and_keeps_the_account(
    tiny_net, digits, monkeypatch
):
    """Never a broken model: the old one stands, and why is written down."""

    def callback(self, student, loss):  # noqa: ARG001
        self.failed = "drift 9 above 1, after 8 halvings"
        return Action.STOP

    monkeypatch.setattr(Guard, "callback", callback)
    with pytest.raises(NotMet) as error:
        forget(tiny_net, Split(digits.take(range(6))), settings=QUICK)
    result = error.value.result
    assert result.model is tiny_net
    assert result.manifest.outcome == "not met"
    assert result.manifest.weights["new"] is None
    assert "drift 9 above 1" in str(error.value)


def test_a_method_that_did_not_get_there_is_said_in_the_first_lines(tiny_net, digits, tmp_path):
    """One step of jit is on its way; what it reached in full is not spoken of."""
    going, _, _ = _parts(digits)
    result = forget(
        tiny_net,
        Split(going),
        method="jit",
        settings={"steps": 1, "step_size": 0.01, "tolerance": 0.95},
    )
    progress = result.manifest.calibration["progress"]
    said = (
        f"The method stopped at {progress:.0%} of the distance to its target: the records may still "
        "be known. More steps, where there were too few, go further."
    )
    assert progress < 0.95
    assert said in result.save_report(tmp_path / "report.html").read_text()
    assert [f.text for f in result.findings if f.name == "not reached"] == [said]
    whole = forget(
        tiny_net, Split(going), method="jit", settings={"steps": 1, "tolerance": progress / 2}
    )
    assert not [f for f in whole.findings if f.name == "not reached"]


def test_a_collapsing_setting_never_gives_a_broken_model(tiny_net, digits):
    """Thousandfold the step: halved, drawn back or refused, but finite and accurate."""
    going, holdout, _ = _parts(digits)
    try:
        result = forget(tiny_net, Split(going, holdout), method="jit", strength=1000.0)
    except NotMet as error:
        result = error.result
    with torch.no_grad():
        right = (result.model(holdout.x).argmax(1) == holdout.y).float().mean()
        was = (tiny_net(holdout.x).argmax(1) == holdout.y).float().mean()
    assert float(right) > float(was) - 0.1


def test_unknown_words_are_refused_with_the_nearest_known_one(tiny_net, digits):
    """A typo in a setting must not silently run the default."""
    split = Split(digits.take(range(3)))
    with pytest.raises(InputError) as error:
        forget(tiny_net, split, method="neighborhood")
    assert str(error.value) == (
        f"Wanted a method out of {', '.join(METHODS)}. "
        "Got 'neighborhood'. Did you mean 'neighbourhood'?"
    )
    with pytest.raises(InputError) as error:
        forget(tiny_net, split, method="jit", settings={"sigm": 0.1})
    assert str(error.value) == (
        "Wanted a setting of jit: strength, expected_accuracy, mislabelled, sigma, perturbations, "
        "trust_region, step_size, steps, tolerance, batch_size. Got 'sigm'. Did you mean 'sigma'?"
    )


def test_nothing_to_forget_is_refused_at_the_door(tiny_net, digits):
    """An empty request is a mistake upstream, not a success."""
    with pytest.raises(InputError) as error:
        forget(tiny_net, Split(digits.take([])))
    assert str(error.value) == (
        "Wanted at least one record to forget. Got none. "
        "Name them by ids, by an expression or a class."
    )


def test_the_report_is_one_page(tiny_net, digits, tmp_path):
    """Result.report writes what a person reads."""
    page = forget(tiny_net, Split(digits.take(range(3))), settings=QUICK).save_report(
        tmp_path / "r.html"
    )
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_equal_names_in_a_holdout_are_other_records(tiny_net, digits):
    """`3/000.png` stands in the test folder too: it must not be taken out."""
    going = Records(digits.x[:3], digits.y[:3], ("a", "b", "c"))
    holdout = Records(digits.x[300:320], digits.y[300:320], tuple("abcdefghijklmnopqrst"))
    counts = forget(tiny_net, Split(going, holdout), settings=QUICK).manifest.request
    assert counts["forget_records_in_holdout"] == 0
    assert counts["holdout"] == 20


@pytest.mark.parametrize(
    ("setting", "value"),
    [("steps", 0), ("strength", float("nan")), ("expected_accuracy", 95.0), ("seed", -1)],
)
def test_a_number_out_of_range_is_refused_by_name(tiny_net, digits, setting, value):
    """Nonsense that runs to the end and says done is worse than an error."""
    with pytest.raises(InputError, match=f"for {setting}. Got"):
        known = {"seed", "strength", "expected_accuracy"}
        how = {setting: value} if setting in known else {"settings": {setting: value}}
        forget(tiny_net, Split(digits.take(range(3))), **how)
