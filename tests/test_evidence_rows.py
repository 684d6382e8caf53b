"""What stands in the evidence: the tier, every test as a row, a crash as a red one, plain JSON."""

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn

from efface.errors import InputError
from efface.report import Row, collect, gather, tier_of
from efface.report.facts import Facts
from efface.report.rows import plain
from efface.types import Records, Split


@pytest.fixture(scope="module")
def altered(tiny_net):
    """The tiny net with its last layer moved a little."""
    student = copy.deepcopy(tiny_net)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        weight = student[-1].weight
        weight += 0.05 * torch.randn(weight.shape, generator=generator)
    return student


@pytest.fixture(scope="module")
def split(digits):
    """30 of the learned records to forget; the unseen 100 as holdout; the rest stays."""
    return Split(digits.take(range(30)), digits.take(range(300, 400)), digits.take(range(30, 300)))


def _facts(old, new, split):
    asked = {"forget_classes": (), "mislabelled": False, "classes": (), "seed": 0, "method_saw": ()}
    return Facts(old=old, new=new, split=split, **asked)


def _keys(evidence, status):
    return [row.key for row in evidence.rows if row.status == status]


def test_the_tier_is_what_the_data_allow(split):
    """An empty holdout is no holdout, and retain records alone lift nothing."""
    none = split.retain.take([])
    assert tier_of(split) == "T2"
    assert tier_of(Split(split.forget, split.holdout)) == "T1"
    assert tier_of(Split(split.forget, None, split.retain)) == "T0"
    assert tier_of(Split(split.forget, none, none)) == "T0"


@pytest.mark.parametrize("tier", ["T0", "T1", "T2"])
def test_no_test_is_missing_at_any_tier(tiny_net, altered, split, tier):
    """What lacks its data says which; nothing crashed; each row that ran has a verdict."""
    parts = {"T0": (None, None), "T1": (split.holdout, None), "T2": (split.holdout, split.retain)}
    found = collect(tiny_net, altered, Split(split.forget, *parts[tier]))
    assert found.tier == tier
    assert not _keys(found, "red")
    waiting = {t.key for t in gather.TESTS if tier < t.tier < "TE" and not t.for_classes}
    assert waiting <= set(_keys(found, "not run"))
    assert {"relearning", "retrained", "shadow"} <= set(_keys(found, "not run"))
    assert all(row.note for row in found.rows if row.status == "not run")
    assert all(row.verdict for row in found.rows)
    assert all(row.tier <= tier for row in found.rows if row.status != "not run")


def test_without_a_holdout_no_row_claims_a_target_from_unseen_records(tiny_net, altered, split):
    """At the lowest tier it is not known how a model that never saw them would answer."""
    found = collect(tiny_net, altered, Split(split.forget))
    for key in ("forget.accuracy", "forget.entropy", "residual.light"):
        assert found.row(key).target is None
        assert found.row(key).verdict == "no target at this tier"


def test_a_crashed_test_is_a_red_row_with_its_error(tiny_net, altered, split, monkeypatch):
    """A missing row would read as: nothing to see."""

    def broken(facts):  # noqa: ARG001
        raise ZeroDivisionError("by hand")

    test = gather.Test("broken", "A test that breaks", "forget", "T0", broken)
    monkeypatch.setattr(gather, "TESTS", (test, *gather.TESTS))
    row = collect(tiny_net, altered, split).row("broken")
    assert (row.status, row.verdict, row.note) == ("red", "crashed", "ZeroDivisionError: by hand")


def test_a_holdout_that_does_not_fit_leaves_the_lower_tier_standing(tiny_net, altered, split):
    """The tests that need it are red; those of the forget records run without a target."""
    wrong = Records(torch.zeros(20, 3, 8, 8), torch.zeros(20, dtype=torch.int64))
    found = collect(tiny_net, altered, Split(split.forget, wrong))
    assert {"attack.loss", "holdout", "control.positive"} <= set(_keys(found, "red"))
    assert found.row("forget.accuracy").status == "plain"
    assert len(found.records) == 30


def test_answers_that_are_no_numbers_are_red(tiny_net, split):
    """NaN would pass through ranks and counts as if it were an answer."""
    student = copy.deepcopy(tiny_net)
    with torch.no_grad():
        student[-1].bias[:] = torch.nan
    found = collect(tiny_net, student, split)
    assert found.row("forget.accuracy").note == (
        "InputError: Wanted finite answers of the new model. Got 30 of 30 that are not. "
        "Look at its weights and at the inputs."
    )
    json.dumps(found.as_json(), allow_nan=False)


def test_a_holdout_without_the_classes_says_so(tiny_net, altered, split):
    """Records of other classes are no comparison."""
    twos, rest = split.forget.y == 2, split.holdout.y != 2
    asked = Split(split.forget.take(twos.nonzero()[:, 0]), split.holdout.take(rest.nonzero()[:, 0]))
    row = collect(tiny_net, altered, asked).row("attack.loss")
    assert row.status == "not run"
    assert row.note == "the holdout has no record of the classes of the forget records"


def test_the_same_question_has_the_same_answer_and_moves_nothing(
    tiny_net, altered, split, random_state_kept
):
    """Same seed, same bytes; the models and the global random state are as they were."""
    student = copy.deepcopy(altered).train()
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    with random_state_kept():
        first, second = (collect(tiny_net, student, split).as_json() for _ in range(2))
    assert first == second
    assert student.training
    assert all(tensor.equal(before[name]) for name, tensor in student.state_dict().items())


def test_the_order_of_the_records_changes_no_row(tiny_net, altered, split):
    """Views, halves and samples are drawn by id."""
    turned = Split(
        *(part.take(list(range(len(part)))[::-1]) for part in (split.forget, split.holdout))
    )
    straight = Split(split.forget, split.holdout)
    for one, other in zip(
        *(collect(tiny_net, altered, s).rows for s in (straight, turned)), strict=True
    ):
        assert (one.key, one.verdict) == (other.key, other.verdict)
        near = None if one.after is None else pytest.approx(one.after, rel=1e-4, abs=1e-5)
        assert other.after == near


def test_a_large_holdout_is_sampled_by_id(tiny_net, altered, split):
    """The views are looked at on some unseen records only; which, must not depend on the file."""
    order = torch.randperm(100, generator=torch.Generator().manual_seed(2))
    straight, mixed = (
        facts.sample(facts.holdout, 20).records.ids
        for holdout in (split.holdout, split.holdout.take(order))
        for facts in [_facts(tiny_net, altered, Split(split.forget, holdout))]
    )
    assert len(straight) == 20
    assert set(straight) == set(mixed) != set(split.holdout.ids[:20])


def test_a_request_that_was_not_met_shows_the_old_model_alone(tiny_net, split):
    """No number of a new model may appear, since there is none."""
    found = collect(tiny_net, None, split, outcome="not met")
    assert found.outcome == "not met"
    assert all(row.after is None for row in found.rows)
    assert found.row("forget.accuracy").before == 1.0
    assert found.row("moved.weights").note == "there is no new model"
    assert not any("after" in key for entry in found.records for key in entry)
    assert not found.tensors


def test_views_that_the_method_saw_are_left_out(tiny_net, altered, split):
    """Evidence does not use what the method has trained on."""
    found = collect(tiny_net, altered, Split(split.forget), method_saw=("light", "turn"))
    assert [row.key for row in found.rows if row.key.startswith("residual")] == [
        "residual.focus",
        "residual.again",
    ]
    none = collect(tiny_net, altered, Split(split.forget), method_saw=("light", "turn", "focus"))
    assert none.row("residual").note == "the method was trained on every view that this test has"


def test_tables_have_no_views(digits):
    """Rows of numbers cannot be turned or blurred: the row says so."""
    flat = Records(digits.x[:20].flatten(1), digits.y[:20])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Linear(64, 10)
    found = collect(net, copy.deepcopy(net), Split(flat))
    assert (
        found.row("residual").note == "the views are those of images (n, channels, height, width)"
    )
    assert found.row("drift.divergence").after == 0


def test_a_changed_buffer_and_a_moved_tensor_are_named(tiny_net, altered, split):
    """BatchNorm statistics must stand still; how far each weight went is in the table."""
    student = copy.deepcopy(altered)
    student[1].running_mean += 1
    found = collect(tiny_net, student, Split(split.forget))
    assert found.row("moved.buffers").note == "Of 6. 1.running_mean"
    moved = {t["name"]: t for t in found.tensors}
    old, new = tiny_net[-1].weight, student[-1].weight
    assert moved["7.weight"]["relative"] == pytest.approx(((new - old).norm() / old.norm()).item())
    assert moved["0.weight"]["identical"]


def test_each_forget_record_has_its_own_entry(tiny_net, altered, split):
    """Before and after, in the request's order, with the class in words."""
    names = [f"digit {c}" for c in range(10)]
    found = collect(tiny_net, altered, split, classes=names)
    assert tuple(entry["id"] for entry in found.records) == split.forget.ids
    with torch.no_grad():
        answer = altered(split.forget.x).argmax(1)[4]
    assert found.records[4]["predicted_after"] == names[answer]
    assert {"entropy_before", "margin_after", "placement_after"} <= found.records[4].keys()
    assert [entry["name"] for entry in found.per_class] == names


def test_the_json_is_plain_and_holds_no_nan(tiny_net, altered, split):
    """Another program must be able to read it."""
    found = json.loads(json.dumps(collect(tiny_net, altered, split).as_json(), allow_nan=False))
    assert found["schema"] == 1
    assert found["tier"] == "T2"
    assert len(found["rows"]) == len({row["key"] for row in found["rows"]})
    odd = {1: np.float32("nan"), "t": torch.tensor([1.0, torch.inf]), "r": Row("k", "n", "s", "T0")}
    assert plain(odd)["1"] is None
    assert plain(odd)["t"] == [1.0, None]
    assert plain(odd)["r"]["key"] == "k"


def test_an_unknown_row_is_refused_with_the_known_ones(tiny_net, altered, split):
    """Whoever asks for a number must not get nothing."""
    with pytest.raises(InputError, match=r"The rows are forget\.accuracy, forget\.entropy"):
        collect(tiny_net, altered, Split(split.forget)).row("accuracy")
