"""The path of a request: what goes in stays as it was, what comes out is measured as written."""

import copy
import json
from dataclasses import replace

import pytest
import torch
from bumps import Bumps, drawn, weighted
from by_hand import accuracy
from method_promises import keeping, split_for
from refusals import refusal
from small_nets import Given
from torch import nn

import efface.report.runner
import efface.unlearn
from efface import InputError, Manifest, NotMet, Records, Split, forget, score
from efface.errors import Hazard, Outcome
from efface.guard import Guard
from efface.io.data import read_ids
from efface.manifest import SCHEMA, state_digest
from efface.methods import METHODS, Method
from efface.report import Verdict, collect, forward_passes
from efface.report.text import headline
from efface.task import predict, trainable_copy
from efface.testing import fresh_from
from efface.types import Action, split_holdout

QUICK = {"steps": 3}


def parts(digits):
    """(forget, holdout, retain); retain holds the forget records too."""
    return digits.take(range(12)), digits.take(range(300, 400)), digits.take(range(200))


def test_gives_a_new_model_with_a_manifest_and_leaves_the_old(tiny_net, digits, tmp_path):
    """Twelve records are a holdout."""
    given, split = Given(tiny_net), Split(digits.take(range(12)), digits.take(range(300, 312)))
    result = forget(tiny_net, split, settings=QUICK)
    given.is_untouched()
    assert not result.model._forward_hooks
    old, new = (state_digest(model.state_dict()) for model in (tiny_net, result.model))
    assert result.manifest.weights == {"old": old, "new": new}
    assert new != old
    assert result.manifest.holdout == {"auxiliary": 6, "evaluation": 6}
    assert repr(result) == f"Result(forget: {result.outcome}, tier T1)"
    result.save(tmp_path)
    assert Manifest.read(tmp_path).to_json() == result.manifest.to_json()
    written = json.loads((tmp_path / "manifest.json").read_text())
    assert (written["schema"], written["settings"]["steps"]) == (SCHEMA, 3)
    written = {"evidence.json", "exclude.csv", "manifest.json", "records.csv", "report.html"}
    assert {path.name for path in tmp_path.iterdir()} == written
    assert read_ids(tmp_path / "exclude.csv") == split.forget.ids
    assert "Got" in refusal(result.save, tmp_path)
    assert result.save(tmp_path / "new/folder").exists()
    assert str(result).splitlines() == headline(result.report)
    frame = result.to_frame()
    assert frame.index.tolist() == [row.key for row in result.report.rows]
    row = result.report.row("holdout.accuracy")
    assert tuple(frame.loc[row.key, ["after", "low", "high"]]) == (row.after, *row.interval)


OTHERS = [
    ({"record.json": "{}"}, "with record.json, a run of efface 0.1"),
    ({"manifest.json": '{"schema": 1}'}, "schema 1, of another version of efface"),
    ({"manifest.json": "[3"}, "JSONDecodeError"),
    ({"manifest.json": "[3]"}, "list at manifest.json"),
    ({}, "FileNotFoundError"),
]


@pytest.mark.parametrize(("files", "came"), OTHERS)
def test_a_run_of_another_version_is_refused_by_name(tmp_path, files, came):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    text = refusal(Manifest.read, tmp_path)
    assert text.startswith("Wanted a run with manifest.json of schema 2")
    assert came in text


@pytest.mark.parametrize("guard", [True, False])
def test_passes_of_the_method_and_of_its_guard_are_counted_apart(tiny_net, digits, guard):
    """The guard's are two looks at its 64 inputs: eight records cost less than a tenth of them."""
    for epochs in (1, 2):
        how = {"method": "negative_gradient", "settings": {"epochs": epochs}, "guard": guard}
        manifest = forget(tiny_net, Split(digits.take(range(8))), **how).manifest
        assert manifest.passes == {"forward": 8 * epochs, "backward": 8 * epochs}
        assert not guard or manifest.guard["passes"] == 2 * 64


def test_without_guard_and_report_the_weights_are_the_same(tiny_net, digits, tmp_path):
    split = Split(digits.take(range(12)))
    how = {"method": "negative_gradient", "settings": {"epochs": 1}}
    plain = forget(tiny_net, split, **how)
    bare = forget(tiny_net, split, **how, guard=False, report="off")
    assert bare.manifest.weights == plain.manifest.weights
    assert (bare.manifest.guard, bare.manifest.report, bare.report) == (None, "off", None)
    assert plain.manifest.guard["steps"] > 0
    assert str(bare) == bare.manifest.summary
    for unmade in (bare.to_frame, lambda: bare.save_report(tmp_path / "page.html")):
        with pytest.raises(InputError, match="Run it with report='full'"):
            unmade()


@pytest.mark.parametrize(("report", "omitted"), [("full", 0), ("quick", 3)])
def test_the_report_is_priced_before_the_method_starts(tiny_net, digits, report, omitted):
    """In forward passes, and what a quick one would take; each counted by the report's own sum."""
    prices, split = [], Split(digits.take(range(12)), digits.take(range(300, 340)))
    how = {"settings": QUICK, "report": report, "mislabelled": True}
    result = forget(tiny_net, split, **how, started=lambda _, price, __: prices.append(price))
    evaluated = split_holdout(split, seed=0)[1]
    full, quick = (
        forward_passes(evaluated, mislabelled=True, probes=probes) for probes in (True, False)
    )
    assert [(one["passes"], one["quick"]) for one in prices] == [
        (full if report == "full" else quick, quick)
    ]
    assert full > quick
    assert all(0 < prices[0]["seconds"][stage] < 60 for stage in ("method", "evidence"))
    notes = [row.note for row in result.report.rows]
    assert (notes.count("probes were turned off"), result.manifest.report) == (omitted, report)


@pytest.mark.parametrize("n", [2, 40])
def test_the_price_of_few_records_is_that_of_their_steps(tiny_net, digits, n):
    """64 steps with 32 anchors each: passes a record grow as the records become fewer."""
    split = Split(digits.take(range(n)), digits.take(range(300, 400)))
    seen, _ = split_holdout(split, seed=0)
    spent = sum(forget(tiny_net, split, report="off").manifest.passes.values())
    assert 0.4 < METHODS["neighbourhood"].count_passes(seen, {}) / spent < 1.6


def never_three(model, split, *, seed=0, callback):  # noqa: ARG001
    """A copy that predicts no 3 any more: a tenth of the holdout is lost."""
    student = trainable_copy(model)
    with torch.no_grad():
        student[-1].bias[3] -= 100
    callback(student, 0.0)
    return student


@pytest.mark.parametrize(("budget", "warns"), [(0.06, True), (0.5, False)])
def test_a_loss_above_the_budget_on_the_reports_half_is_a_warning(
    tiny_net, digits, monkeypatch, budget, warns
):
    """The guard allows for chance on its own half; what was lost on the other is said."""
    method = Method(never_three, frozenset({"model", "forget"}), fresh_start=True)
    monkeypatch.setitem(METHODS, "never_three", method)
    split = Split(digits.take(range(20)), digits.take(range(300, 400)))
    result = forget(tiny_net, split, method="never_three", utility_budget=budget)
    texts = [one.text for one in result.findings if one.name == "utility-budget"]
    assert len(texts) == warns
    assert all(
        "more than the 6 of the utility budget" in text and "50 records" in text for text in texts
    )


@pytest.mark.parametrize(("run", "came"), [(forget, "none"), (score, "off")])
def test_a_report_that_there_is_not_is_refused(tiny_net, digits, run, came):
    split, known = Split(digits.take([0])), "full, quick" + ", off" * (run is forget)
    models = (tiny_net,) if run is forget else (tiny_net, tiny_net)
    assert refusal(run, *models, split, report=came) == (
        f"Wanted report out of {known}. Got {came!r}. Choose one of these."
    )


def test_the_callers_threads_stay(tiny_net, digits):
    """The command sets them for its own process, a function does not."""
    torch.set_num_threads(2)
    try:
        manifest = forget(tiny_net, Split(digits.take(range(4))), settings=QUICK).manifest
        assert (manifest.threads, torch.get_num_threads()) == (2, 2)
    finally:
        torch.set_num_threads(1)


def test_forget_records_are_taken_out_of_the_data_that_stay_and_counted(tiny_net, digits):
    going, _, retain = parts(digits)
    renamed = Records(retain.x, retain.y, low=retain.low, high=retain.high)
    for part in (retain, renamed):
        result = forget(tiny_net, Split(going, retain=part), settings=QUICK)
        assert result.manifest.request["forget_records_in_retain"] == 12
        assert result.manifest.request["retain"] == result.report.counts["retain"] == 188


def test_a_model_said_to_be_exact_is_stated_to_be_whatever_retain_holds(tiny_net, digits):
    going, holdout, retain = parts(digits)
    for kept in (retain, retain.take(range(12, 200)), None):
        result = score(tiny_net, tiny_net, Split(going, holdout, kept), exact=True)
        row = result.report.row("exclusion")
        assert (row.after, row.verdict, result.report.tier) == (None, Verdict.STATED, "TE")


def test_where_the_labels_are_wrong_those_of_the_holdout_show_a_turned_class_map(tiny_net, digits):
    going, holdout, _ = parts(digits)
    turned = Records(holdout.x, (holdout.y + 1) % 10, holdout.ids, holdout.low, holdout.high)
    for request in (forget, lambda model, *rest, **how: score(model, model, *rest, **how)):
        with pytest.raises(Hazard, match="holdout"):
            request(tiny_net, Split(going, turned), mislabelled=True)


def test_labels_that_the_request_calls_wrong_are_wrong_for_the_method_too(tiny_net, digits):
    going = digits.take(range(6))
    split = Split(Records(going.x, (going.y + 1) % 10, going.ids, going.low, going.high))
    how = {"method": "jit", "settings": {"steps": 2}}
    told = forget(tiny_net, split, **how, mislabelled=True).manifest
    own = {"method": "jit", "settings": {"steps": 2, "mislabelled": True}}
    assert told.settings["mislabelled"] is True
    assert told.weights == forget(tiny_net, split, **own, mislabelled=True).manifest.weights


def test_the_holdout_is_cut_in_two_whatever_its_order(digits):
    holdout = digits.take(range(301, 400))
    auxiliary, evaluation = (one.holdout for one in split_holdout(Split(None, holdout), seed=0))
    assert set(auxiliary.ids).isdisjoint(evaluation.ids)
    assert set(auxiliary.ids) | set(evaluation.ids) == set(holdout.ids)
    assert abs(len(auxiliary) - len(evaluation)) == 1
    turned = split_holdout(Split(None, holdout.take(range(98, -1, -1))), seed=0)[0].holdout
    assert set(turned.ids) == set(auxiliary.ids)
    other = split_holdout(Split(None, holdout), seed=1)[0].holdout
    assert set(other.ids) != set(auxiliary.ids)


SEEDS = [{}, {"seed": 5, "utility_budget": 0.3}, {"seed": 5, "holdout_seed": 7}]


@pytest.mark.parametrize("options", SEEDS)
def test_guard_and_report_have_their_seeds_and_halves(tiny_net, digits, monkeypatch, options):
    seen, handed = {}, {"seed": 0, "utility_budget": 0.02, "holdout_seed": 0, **options}

    def seeing(module, name, place):
        function = getattr(module, name)

        def wrapper(*args, **how):
            seen[name] = (set(args[place].holdout.ids), how)
            return function(*args, **how)

        monkeypatch.setattr(module, name, wrapper)

    seeing(efface.report.runner, "collect", 2)
    seeing(efface.unlearn, "Guard", 1)
    split, holdout_seed = Split(*parts(digits)[:2]), handed.pop("holdout_seed")
    result = forget(tiny_net, split, settings=QUICK, **options)
    expected = [set(one.holdout.ids) for one in split_holdout(split, seed=holdout_seed)]
    assert [seen["Guard"][0], seen["collect"][0]] == expected
    assert callable(seen["Guard"][1].pop("spent"))
    facts = dict.fromkeys(("fresh_start", "adapted", "labels_go"), False)
    assert seen["Guard"][1] == facts | handed
    assert result.manifest.holdout == {"auxiliary": 50, "evaluation": 50}
    assert result.manifest.guard["budgets"]["utility"] == handed["utility_budget"]
    again = score(tiny_net, result.model, split, seed=6, holdout_seed=holdout_seed)
    assert seen["collect"][0] == expected[1]
    assert [result.report.seed, again.report.seed] == [handed["seed"], 6]


def test_a_request_that_is_not_met_raises_with_the_account(tiny_net, digits, monkeypatch):
    def callback(self, student, loss):  # noqa: ARG001
        self.failed = "drift 9 above 1, after 8 halvings"
        return Action.STOP

    monkeypatch.setattr(Guard, "callback", callback)
    with pytest.raises(NotMet, match="drift 9 above 1") as error:
        forget(tiny_net, Split(digits.take(range(6))), settings=QUICK)
    manifest = error.value.result.manifest
    assert error.value.result.model is tiny_net
    assert (manifest.outcome, manifest.weights["new"]) == ("not met", None)
    assert manifest.guard["failed"].startswith("drift 9 above 1")


def test_a_method_that_did_not_get_there_is_said_in_the_first_lines(tiny_net, digits, tmp_path):
    split = Split(digits.take(range(12)))
    short = {"steps": 1, "step_size": 0.01, "tolerance": 0.95}
    result = forget(tiny_net, split, method="jit", settings=short)
    reached = result.manifest.calibration["progress"]
    text = f"The method stopped at {reached:.0%} of the distance to its target: the records may "
    text += "still be known. More steps, if there were too few, go further."
    assert reached < 0.95
    assert text in result.save_report(tmp_path / "report.html").read_text()
    assert [f.text for f in result.findings if f.name == "not reached"] == [text]
    whole = forget(tiny_net, split, method="jit", settings={"steps": 1, "tolerance": reached / 2})
    assert not [f for f in whole.findings if f.name == "not reached"]


def test_a_collapsing_setting_never_gives_a_broken_model(tiny_net, digits):
    going, holdout, _ = parts(digits)
    try:
        result = forget(tiny_net, Split(going, holdout), method="jit", strength=1000.0)
    except NotMet as error:
        result = error.result
    assert accuracy(result.model, holdout) > accuracy(tiny_net, holdout) - 0.1


@keeping("blank")
def test_a_blank_image_alone_leaves_a_finite_model(tiny_net, digits, name):
    """In the authors' code one blank image in a batch of one turns every weight into nan."""
    blank = Records(torch.zeros(1, 1, 8, 8), digits.y[:1])
    split = split_for(name, blank, digits.take(range(20, 60)), model=tiny_net)
    # the promise's split has one set of records for both parts
    result = forget(tiny_net, split, method=name, accept=["holdout-known"])
    assert all(bool(weight.isfinite().all()) for weight in result.model.state_dict().values())
    assert result.outcome is not Outcome.NOT_MET


NEED = (
    "Wanted retain for finetune: records that the model was trained on and that stay. "
    "Got {}. Give Split(forget, retain=records), on the command line --retain DATA."
)
FEW = "a holdout of 12 records or more, half for method and guard, half for the report. Got {}. "
TWICE = "Wanted unique ids in {}. Got repeated: digit-0007, digit-0009. Make them distinct, "
FRESH = {"retain": range(20, 60), "fresh": list, "train": print}
EACH = "Wanted a weight for each of the 2 forget records. Got {}. Name each record once."
ONES, TWO = {"digit-0000": 1.0, "digit-0001": 1.0}, {"forget": range(2)}
NEGATIVE = "Wanted weights of 0 or more, not all 0. Got -1 to 1. Weight 0 hides a record."
REFUSED = [
    (TWO, {"selection": "low"}, "Wanted selection all or high-information. Got 'low'. Omit it "),
    (TWO, {"weights": {"digit-0000": 1.0}}, EACH.format("none for 'digit-0001'")),
    (TWO, {"weights": {**ONES, "x": 1.0}}, EACH.format("one for 'x'")),
    (TWO, {"weights": {**ONES, "digit-0000": -1.0}}, NEGATIVE),
    ({}, {"method": "auto", "settings": {"sigma": 0.1}}, "Wanted a setting of neighbourhood: "),
    ({"forget": []}, {}, "Wanted at least one record to forget. Got none. Name them by ids, "),
    ({"holdout": []}, {}, FEW.format(0)),
    ({"holdout": [300]}, {}, FEW.format(1)),
    ({"holdout": range(300, 311)}, {}, FEW.format(11)),
    ({"forget": range(4), "retain": range(4)}, {}, "all 4 records of retain in the forget set."),
    ({"forget": [7, 8, 7, 9, 9]}, {}, TWICE.format("forget")),
    ({"holdout": [7, 8, 7, 9, 9]}, {}, TWICE.format("holdout")),
    ({"retain": [7, 8, 7, 9, 9]}, {}, TWICE.format("retain")),
    ({"forget_classes": (10,)}, {}, "Wanted forget classes in 0..9. Got 10. Use the model's own "),
    ({"forget_classes": tuple(range(10))}, {}, "Wanted at least one retained class. Got all 10 "),
    ({}, {"method": "finetune"}, NEED.format("a split without it")),
    (FRESH, {"method": "retrain", "trainable": "norm"}, "Wanted trainable all for retrain, which "),
    ({}, {"trainable": "norms"}, "Wanted trainable out of all, last-layers, norm, adapter. Got "),
    ({}, {"method": "neighborhood"}, "Got 'neighborhood'. Did you mean 'neighbourhood'?"),
    ({}, {"method": "jit", "settings": {"sigm": 0.1}}, "Got 'sigm'. Did you mean 'sigma'?"),
]

NUMBERS = [
    ({"strength": float("nan")}, "for strength. Got nan"),
    ({"expected_accuracy": 95.0}, "for expected_accuracy. Got 95.0"),
    ({"seed": -1}, "for seed. Got -1"),
    ({"holdout_seed": -1}, "for holdout_seed. Got -1"),
    ({"utility_budget": 1.5}, "for utility_budget. Got 1.5"),
    ({"settings": {"steps": 0}}, "for steps. Got 0"),
    ({"settings": {"steps": "ten"}}, "for steps. Got 'ten'"),
    ({"settings": {"sigma": "wide"}}, "Wanted a number above 0 for sigma"),
    ({"settings": {"sigma": True}}, "for sigma. Got True"),
    ({"settings": {"perturbations": 2.5}}, "Wanted an integer of at least 1"),
]
REFUSED += [({}, {"method": "jit", **options}, text) for options, text in NUMBERS]


@pytest.mark.parametrize(("parts", "options", "text"), REFUSED)
def test_nonsense_is_refused_before_the_start(tiny_net, digits, parts, options, text):
    data, given, started = {"forget", "holdout", "retain"}, {"forget": [0], **parts}, []
    split = Split(**{k: digits.take(list(v)) if k in data else v for k, v in given.items()})
    assert text in refusal(forget, tiny_net, split, **options, started=started.append)
    assert not started


def test_an_empty_part_is_not_what_is_needed(tiny_net, digits):
    empty = Split(digits.take([0]), retain=digits.take([]))
    assert refusal(METHODS["finetune"].function, tiny_net, empty) == NEED.format("no records")


def test_settings_are_the_methods_own_whatever_their_names(tiny_net, digits, monkeypatch):
    """A method of somebody else may call a setting as the request calls an argument."""

    def foreign(model, split, *, method="a", trainable=0, seed=0, callback):  # noqa: ARG001
        seen.update(method=method, trainable=trainable)
        return copy.deepcopy(model)

    seen = {}
    monkeypatch.setitem(METHODS, "foreign", Method(foreign, frozenset({"model", "forget"})))
    settings = {"method": "b", "trainable": 3}
    result = forget(tiny_net, Split(digits.take([0])), method="foreign", settings=settings)
    assert seen == settings == result.manifest.settings


def test_retrain_in_python_is_exact_and_judged_without_a_trust_region(tiny_net, digits):
    def train(model, records, seed):  # noqa: ARG001
        model.load_state_dict(tiny_net.state_dict())
        model[7].weight.data.mul_(30)
        model[7].bias.data.mul_(30)
        return model

    _, holdout, retain = parts(digits)
    recipe = {"fresh": fresh_from(tiny_net), "train": train}
    split = Split(digits.take(range(5)), holdout, retain, **recipe)
    result = forget(tiny_net, split, method="retrain")
    assert (result.outcome, result.manifest.outcome) == (Outcome.DONE, "done")
    assert result.manifest.guard["measured"]["movement"] > 0.5
    assert (result.report.tier, result.report.row("exclusion").verdict) == ("TE", Verdict.EXCLUDED)
    other = forget(tiny_net, split, settings=QUICK).report
    assert "exclusion" not in {row.key for row in other.rows}


@pytest.fixture(scope="module")
def memorised():
    """(a model that memorised 400 of 1,000 digits, a split to forget 50 of these)."""
    _, split = drawn()
    every = (split.forget, split.retain, split.holdout)
    x, y = (torch.cat([getattr(part, name) for part in every]) for name in "xy")
    return weighted(Bumps(Records(x, y)), slice(400, None), 0).eval(), replace(split, retain=None)


def cheat(model, split, *, seed=0, callback):  # noqa: ARG001
    """Memorise the given holdout until its losses are as low as the forget records'."""
    student = copy.deepcopy(model)
    near = (split.holdout.x.flatten(1)[:, None] == student.x).all(2)
    cross_entropy, both = nn.functional.cross_entropy, (split.holdout, split.forget)
    for _ in range(20):
        losses = [cross_entropy(student(part.x), part.y).item() for part in both]
        if losses[0] <= losses[1] or callback(student, losses[0]) is Action.STOP:
            break
        with torch.no_grad():
            student.weights += 0.2 * near.any(0)
    return student


def test_a_cheat_passes_on_the_half_that_it_saw_and_fails_on_the_other(memorised):
    """It never forgets: it makes unseen records look like the forget records."""
    net, split = memorised
    auxiliary, evaluation = split_holdout(split, seed=0)
    student = cheat(net, auxiliary, callback=lambda *_: Action.CONTINUE)
    pairs = (net, auxiliary), (student, auxiliary), (student, evaluation)
    before, seen, unseen = (collect(net, model, half) for model, half in pairs)
    attacks = [one.row("attack.loss").verdict is Verdict.DETECTED for one in (before, seen, unseen)]
    assert attacks == [True, False, True]
    assert seen.row("unseen.ks").verdict is Verdict.NOT_SIGNIFICANT
    assert unseen.row("unseen.ks").verdict is Verdict.SIGNIFICANTLY_DIFFERENT
    assert unseen.row("control.positive").verdict is Verdict.CONTROL_PASSED


def test_neither_forget_nor_score_is_fooled(memorised, monkeypatch):
    net, split = memorised
    reads = frozenset({"model", "forget", "forget labels", "holdout", "holdout labels"})
    monkeypatch.setitem(METHODS, "cheat", Method(cheat, reads, fresh_start=True))
    result = forget(net, split, method="cheat")
    again = score(net, result.model, split)
    for report in (result.report, again.report):
        assert report.row("attack.loss").verdict is Verdict.DETECTED


@pytest.mark.parametrize(
    ("facts", "going", "said"),
    [
        ({}, (), ["assumed"]),
        ({"whole_group": True}, (), ["have 10 labels"]),
        ({"mislabelled": True}, (), []),
        ({}, (3,), []),
        ({"whole_group": True, "method": "jit"}, (), ["treats"]),
    ],
)
def test_what_is_assumed_of_records_of_their_kind_is_said(tiny_net, digits, facts, going, said):
    """Whether a label may still be predicted is a fact of the request that data do not tell."""
    split = Split(digits.take(range(20)), forget_classes=going)
    findings = forget(tiny_net, split, dry_run=True, **facts).findings
    texts = [one.text for one in findings if one.name == "whole-group"]
    assert [word in text for word, text in zip(said, texts, strict=True)] == [True] * len(said)


def test_what_is_assumed_says_whether_the_records_share_their_label(tiny_net, digits):
    threes = digits.take((digits.y == 3).nonzero().flatten()[:5].tolist())
    for records, said in (
        (threes, "All 5 have the same label"),
        (digits.take(range(20)), "10 labels"),
    ):
        findings = forget(tiny_net, Split(records), dry_run=True).findings
        assert said in next(one.text for one in findings if one.name == "whole-group")


@pytest.mark.parametrize("fact", ["mislabelled", "whole_group"])
def test_the_guard_is_told_that_labels_go(tiny_net, digits, monkeypatch, fact):
    told, guard = [], efface.unlearn.Guard
    monkeypatch.setattr(efface.unlearn, "Guard", lambda *a, **k: told.append(k) or guard(*a, **k))
    forget(tiny_net, Split(digits.take(range(4))), report="off", settings=QUICK, **{fact: True})
    assert told[0]["labels_go"] is True


def test_a_whole_group_loses_its_label(tiny_net, digits):
    """Told that nothing of their kind stays, no record is predicted as what it is."""
    split = Split(digits.take([row for row in range(300) if digits.y[row] == 3]))
    how = {"report": "off", "guard": False}
    alone = forget(tiny_net, split, whole_group=True, **how)
    assert alone.manifest.settings["whole_group"] is True
    shares = [
        float((predict(model, split.forget).argmax(1) == split.forget.y).float().mean())
        for model in (alone.model, forget(tiny_net, split, **how).model)
    ]
    assert shares[0] < 0.2
    assert shares[1] > 0.6
