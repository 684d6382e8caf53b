"""What a run says that it did: outcomes, how far it came, and what nobody may change on the way."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from bumps import drawn, weighted
from refusals import refusal
from small_nets import Given, moved
from torch import nn

from efface import EffaceError, NotMet, Outcome, Split, forget, inspect, score
from efface.guard import Guard
from efface.methods import METHODS, Method
from efface.metrics.equivalence import progress_to_unseen
from efface.report import collect
from efface.report.context import Context
from efface.report.outcome import outcome_of
from efface.report.report import Report, Row
from efface.report.text import outcome_sentence
from efface.report.verdicts import Verdict
from efface.runtime import as_stored
from efface.task import trainable_copy

QUICK = {"settings": {"steps": 3}}


def over_forgotten(net, split, n):
    """A copy that predicts another class for each forget record."""
    student = copy.deepcopy(net)
    student.classes[:n] = nn.functional.one_hot((split.forget.y + 1) % 10, 10).float()
    return student


def without(net, split, n):  # noqa: ARG001
    """Exactly what retraining without the records gives."""
    return weighted(net, range(n), 0)


def half(net, split, n):  # noqa: ARG001
    return weighted(net, range(n), 0.5)


def same(net, *_):
    return copy.deepcopy(net)


# forget records, the new model, parts of the split, the outcome, progress at least and at most
TRUTHS = {
    "retrained": (50, without, {}, Outcome.DONE, 0.8, 1.2),
    "halfway": (50, half, {}, Outcome.PARTLY, 0.1, 0.5),
    "too far": (50, over_forgotten, {}, Outcome.PARTLY, 1.5, 9),
    "nothing": (50, same, {}, Outcome.UNCHANGED, 0, 0),
    "two records": (2, without, {}, Outcome.PARTLY, 0, 9),
    "no holdout": (50, without, {"holdout": None}, Outcome.NOT_JUDGED, None, None),
    "nothing, no holdout": (50, same, {"holdout": None}, Outcome.UNCHANGED, None, None),
    "not met": (50, lambda *_: None, {}, Outcome.NOT_MET, None, None),
}


@pytest.mark.parametrize("case", TRUTHS)
def test_an_outcome_is_what_is_known_to_be_true(case):
    n, make, parts, outcome, least, most = TRUTHS[case]
    net, split = drawn(n=n)
    report = collect(net, make(net, split, n), replace(split, **parts), reason="why")
    assert report.outcome is outcome
    assert (report.progress is None) == (least is None)
    assert least is None or least <= report.progress <= most
    assert report.summary.startswith(f"{outcome.capitalize()} (tier {report.tier}): ")
    assert ("why" in report.reason) == (outcome in (Outcome.UNCHANGED, Outcome.NOT_MET))
    written = report.to_json()
    assert (written["outcome"], written["summary"]) == (outcome, report.summary)


def of_forget(verdict=Verdict.NOT_SIGNIFICANT, p=None, section="forget"):
    return Row(key=f"{section} {p}", section=section, verdict=verdict, p=p)


PASSED = Row(key="attack.loss", section="unseen", interval=(0.45, 0.55), p=0.5)
PASSED = replace(PASSED, verdict=Verdict.NOT_DETECTED)
DETECTED = replace(PASSED, verdict=Verdict.DETECTED, interval=(0.51, 0.58), p=0.04)
FAR = of_forget(Verdict.BEYOND_FLOOR, section="retrained")
SLIGHT, LIKELY = of_forget(Verdict.ABOVE_REFERENCE, 0.04), of_forget(p=0.9)
CLASS = Row(key="forget_classes.accuracy", section="unseen", verdict=Verdict.NEVER_PREDICTED)
# whether the weights are the old ones, the rows, the classes that are forgotten, the outcome
RULES = {
    "nothing to forget": (True, [PASSED], (), Outcome.LIKE_UNSEEN),
    "unchanged and far from retraining": (True, [PASSED, FAR], (), Outcome.UNCHANGED),
    "unchanged and just detected": (True, [DETECTED, LIKELY], (), Outcome.UNCHANGED),
    "passed": (False, [PASSED], (), Outcome.DONE),
    "far from retraining": (False, [PASSED, FAR], (), Outcome.PARTLY),
    "crashed": (False, [PASSED, of_forget(Verdict.CRASHED)], (), Outcome.PARTLY),
    "lost utility": (False, [PASSED, replace(FAR, section="utility")], (), Outcome.DONE),
    "one test": (False, [PASSED, SLIGHT], (), Outcome.PARTLY),
    "one of two tests": (False, [PASSED, SLIGHT, LIKELY], (), Outcome.DONE),
    "just detected": (False, [DETECTED, LIKELY], (), Outcome.PARTLY),
    "a class": (False, [replace(PASSED, verdict=Verdict.NOT_RUN), CLASS], (3,), Outcome.DONE),
    "records": (False, [replace(PASSED, verdict=Verdict.NOT_RUN), CLASS], (), Outcome.PARTLY),
}


@pytest.mark.parametrize("case", RULES)
def test_which_rows_decide_the_outcome(case):
    unchanged, rows, classes, outcome = RULES[case]
    net, split = drawn(n=20)
    new = same(net) if unchanged else without(net, split, 20)
    ctx = Context(net, new, split, forget_classes=classes)
    assert outcome_of(ctx, rows, made=True, reason="")["outcome"] is outcome


OUT, LEFT, STATED = (
    Row(key="exclusion", section="exclusion", verdict=verdict)
    for verdict in (Verdict.EXCLUDED, Verdict.NOT_EXCLUDED, Verdict.STATED)
)
FEW = replace(PASSED, verdict=Verdict.TOO_FEW_RECORDS, smallest_p=0.1, needed=9)
# the rows, the outcome, of its reason, of the sentence in bold
RETRAINED = {
    "checked": ([OUT, PASSED], Outcome.DONE, "; no test flags", "the tests do not tell"),
    "checked, few": ([OUT, FEW], Outcome.DONE, "could not have shown", "could have shown"),
    "checked, flagged": ([OUT, DETECTED], Outcome.DONE, "all the same", "all the same"),
    "stated": ([STATED, PASSED], Outcome.DONE, "not checked; no test", "the tests do not tell"),
    "stated, few": ([STATED, FEW], Outcome.DONE, "could not have shown", "could have shown"),
    "stated, flagged": ([STATED, DETECTED], Outcome.PARTLY, "flag the records", "leaves them out"),
    "left": ([LEFT, PASSED], Outcome.PARTLY, "on some of the records", "found in its training"),
    "crashed": ([replace(OUT, verdict=Verdict.CRASHED), PASSED], Outcome.DONE, "no test", "do not"),
}


@pytest.mark.parametrize("case", RETRAINED)
def test_a_retrained_model_is_done_by_what_is_known_and_says_what_is_not(case):
    """And a row in error stands in the first sentence and in the bold one."""
    rows, outcome, reason, bold = RETRAINED[case]
    net, split = drawn(n=20)
    found = outcome_of(
        Context(net, without(net, split, 20), split, exact=True), rows, made=True, reason=""
    )
    assert found["outcome"] is outcome
    assert reason in found["reason"]
    utility = Row(name="Utility", section="utility", verdict=Verdict.CRASHED)
    report = Report("TE", (*rows, utility), outcome=outcome, reason=found["reason"])
    assert bold in outcome_sentence(report)
    for sentence in (outcome_sentence(report), report.summary):
        assert "Utility (crashed)" in sentence


@pytest.mark.parametrize(
    ("n", "outcome"), [(200, Outcome.LIKE_UNSEEN), (20, Outcome.UNCHANGED), (1, Outcome.UNCHANGED)]
)
def test_only_enough_records_show_that_an_unchanged_model_never_knew_them(n, outcome):
    net, split = drawn(n=n)
    never = weighted(net, range(n), 0)
    report = collect(never, copy.deepcopy(never), replace(split, retain=None))
    assert report.outcome is outcome


def test_a_whole_class_comes_as_far_as_it_is_no_longer_predicted():
    net, split = drawn()
    rows = (split.forget.y == 3).nonzero().flatten()
    whole = Split(split.forget.take(rows), split.holdout, forget_classes=(3,))
    every = (net.classes.argmax(1) == 3).nonzero().flatten()
    new = weighted(net, every, 0)
    for parts in (whole, replace(whole, holdout=None)):
        assert collect(net, new, parts).progress == 1
    assert collect(net, copy.deepcopy(net), whole).progress == 0


def test_a_wrong_label_comes_as_far_as_unseen_records_of_other_classes():
    net, split = drawn(n=30)
    wrong = replace(split.forget, y=(split.forget.y + 1) % 10)
    taught = over_forgotten(net, split, 30)
    request = Split(wrong, split.holdout)
    untaught = collect(taught, weighted(taught, range(30), 0), request, mislabelled=True)
    assert 0.8 < untaught.progress < 1.3
    assert collect(taught, copy.deepcopy(taught), request, mislabelled=True).progress == 0


def test_progress_is_the_class_matched_share_by_hand():
    """Against a loop; a class without unseen records counts for nothing."""
    draw = np.random.default_rng(0)
    classes, unseen_classes = draw.integers(0, 4, 40), draw.integers(0, 3, 60)
    before, after, unseen = draw.normal(5, 1, 40), draw.normal(3, 1, 40), draw.normal(2, 1, 60)
    known = [row for row in range(40) if classes[row] < 3]
    reference = [unseen[unseen_classes == classes[row]].mean() for row in known]
    moved = sum(before[row] - after[row] for row in known)
    expected = moved / sum(before[row] - one for row, one in zip(known, reference, strict=True))
    groups = {"classes": classes, "unseen_classes": unseen_classes}
    found = progress_to_unseen(before, after, unseen, **groups)
    assert found == pytest.approx(expected, rel=1e-12)
    assert progress_to_unseen(before, before, unseen, **groups) == 0
    level = before[known].mean() - np.mean(reference)
    for nothing in (unseen + level + 1, unseen + level - 0.05):
        assert np.isnan(progress_to_unseen(before, after, nothing, **groups))
    other = {"classes": classes + 9, "unseen_classes": unseen_classes}
    assert np.isnan(progress_to_unseen(before, after, unseen, **other))


@pytest.fixture
def method(monkeypatch):
    """Register a function as the method ``strange`` for this test."""

    def register(function):
        reads = frozenset({"model", "forget", "holdout", "retain"})
        monkeypatch.setitem(METHODS, "strange", Method(function, reads))
        return {"method": "strange"}

    return register


def nudged(model):
    student = trainable_copy(model)
    student[0].weight.data.add_(1e-3)
    return student


def hooked(model, split):  # noqa: ARG001
    student = nudged(model)
    student[3].register_forward_hook(lambda *_: None)
    return student


def forwarded(model, split):  # noqa: ARG001
    student = nudged(model)
    student[5].forward = torch.tanh
    return student


def reshaped(model, split):  # noqa: ARG001
    student = nudged(model)
    student[7] = nn.Linear(256, 9)
    return student


def regrown(model, split):  # noqa: ARG001
    student = nudged(model)
    student[5] = nn.GELU()
    return student


def in_place(model, split):  # noqa: ARG001
    model[0].weight.data.add_(1e-3)
    return copy.deepcopy(model)


def spoiling(part, of):
    def spoil(model, split):
        getattr(getattr(split, part), of).mul_(0)
        return nudged(model)

    return spoil


ANOTHER = "another name, shape, class, hook or forward of"
STRANGERS = [
    (lambda *_: None, "a NoneType"),
    (lambda model, _: dict(model.state_dict()), "a dict"),
    (lambda model, _: model, "the very model that it was given"),
    (in_place, "0.weight, changed in place"),
    (hooked, f"{ANOTHER} 3"),
    (forwarded, f"{ANOTHER} 5"),
    (regrown, f"{ANOTHER} 5"),
    (reshaped, f"{ANOTHER} 7.bias"),
    (spoiling("forget", "x"), "x of the forget records, changed in place"),
    (spoiling("holdout", "y"), "y of the holdout records, changed in place"),
    (spoiling("retain", "low"), "low of the retain records, changed in place"),
]


@pytest.mark.parametrize("guard", [True, False])
@pytest.mark.parametrize(("strange", "came"), STRANGERS)
def test_what_a_method_may_not_do_is_refused_by_name(
    tiny_net, digits, method, strange, came, guard
):
    parts = digits.take(range(8)), digits.take(range(300, 340)), digits.take(range(8, 40))
    given, were = Given(tiny_net), [copy.deepcopy(part.tensors()) for part in parts]
    how = method(lambda model, split, **_: strange(model, split))
    assert refusal(forget, tiny_net, Split(*parts), **how, guard=guard, report="off") == (
        "Wanted a changed copy of the given model from strange, and nothing else. Got "
        f"{came}. Change a copy and return it, efface.task.trainable_copy(model): "
        "docs/your_own_method.md."
    )
    given.is_untouched()
    for part, was in zip(parts, were, strict=True):
        assert all(tensor.equal(was[name]) for name, tensor in part.tensors().items())


def test_what_is_not_finite_is_refused_by_the_guard_alone(tiny_net, digits, method):
    def broken(model, split, *, seed, callback):  # noqa: ARG001
        student = trainable_copy(model)
        student[7].bias.data[0] = torch.nan
        return student

    split = Split(digits.take(range(8)))
    with pytest.raises(NotMet, match="weights not finite") as caught:
        forget(tiny_net, split, **method(broken))
    result = caught.value.result
    assert (result.outcome, result.outcome.exit_code) == (Outcome.NOT_MET, NotMet.exit_code)
    assert result.manifest.summary.startswith("Not met (tier T0): one that exceeds the limits")
    assert forget(tiny_net, split, **method(broken), guard=False).outcome is Outcome.NOT_JUDGED


def test_why_nothing_changed_is_said_with_the_steps_and_the_guards_violations(
    tiny_net, digits, method
):
    def still(model, split, *, seed, callback):  # noqa: ARG001
        student = trainable_copy(model)
        callback(student, 1.0)
        callback(student, float("nan"))
        return student

    for report in ("full", "off"):
        result = forget(tiny_net, Split(digits.take(range(8))), **method(still), report=report)
        why = "strange took 1 step, and the guard took back 1 step (loss not finite); no weight is"
        assert why in result.manifest.summary
        assert result.outcome is Outcome.UNCHANGED
        assert (result.manifest.steps, result.outcome.exit_code) == (1, 12)
    bare = forget(tiny_net, Split(digits.take(range(8))), **QUICK, report="off")
    assert bare.manifest.summary == "Changed, not judged: no report was wanted."
    assert bare.progress is None


class Counting(nn.Module):
    """Writes in forward: a buffer, or a weight, which no copy can be made of by sharing."""

    def __init__(self, net, *, weight):
        super().__init__()
        self.net, self.weight = net, weight
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x):
        self.seen += len(x)
        if self.weight:
            self.net[0].weight.data.mul_(0.999)
        return self.net(x)


RUNS = {
    "forget": lambda model, split: forget(model, split, **QUICK),
    "score": lambda model, split: score(copy.deepcopy(model), model, split),
    "inspect": lambda model, split: inspect(model, split.forget, sigma=0.1, neighbours=0),
}


@pytest.mark.parametrize("run", RUNS)
def test_a_model_that_writes_in_forward_is_given_back_as_it_was_or_named(tiny_net, digits, run):
    split = Split(digits.take(range(20)), digits.take(range(300, 340)))
    model = Counting(copy.deepcopy(tiny_net), weight=False).eval()
    RUNS[run](model, split)
    assert model.seen == 0
    writing = Counting(copy.deepcopy(tiny_net), weight=True).eval()
    text = refusal(RUNS[run], writing, split, kind=EffaceError)
    assert "as it was given. Got another net.0.weight. Its own code writes it" in text


class Odd(nn.Sequential):
    """False wherever Python asks for its truth."""

    def __len__(self):
        return 0

    def __iter__(self):
        return iter(self._modules.values())


def compiled(*modules):
    return torch.compile(nn.Sequential(*modules), backend="eager")


@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch's own tracing
@pytest.mark.parametrize("wrap", [Odd, compiled])
def test_a_compiled_model_and_one_of_no_length_are_served(tiny_net, digits, wrap):
    model = wrap(*copy.deepcopy(tiny_net)).eval()
    result = forget(model, Split(digits.take(range(8)), digits.take(range(300, 340))), **QUICK)
    assert type(result.model) is type(model)
    assert result.model is not model
    assert moved(model, result.model)


def test_the_guard_judges_the_model_that_is_written(tiny_net, digits):
    """Rounded to 8 bits: what was inside in float32 may be outside, and half of it too."""
    guard = Guard(tiny_net, Split(digits.take(range(8))), drift=1e-9)
    student, half = trainable_copy(tiny_net), copy.deepcopy(tiny_net).bfloat16()
    guard.settle(student)
    with pytest.raises(
        NotMet, match="too much even with an eighth of the change; with all of it the model changed"
    ):
        guard.settle(student, lambda model: as_stored(model, half).float())


def test_a_request_hands_the_guard_what_will_be_written(tiny_net, digits, monkeypatch):
    """A student in float32 is judged as the bfloat16 that goes to disk."""

    def settle(self, result, written):  # noqa: ARG001
        judged.append((result, written(result)))
        return result

    judged = []
    monkeypatch.setattr(Guard, "settle", settle)
    model = copy.deepcopy(tiny_net).bfloat16()
    result = forget(model, Split(digits.take(range(8))), **QUICK, report="off")
    ((student, written),) = judged
    assert {weight.dtype for weight in student.parameters()} == {torch.float32}
    assert not moved(written, result.model)
