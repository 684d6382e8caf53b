"""What a report holds: the tier, every test as a row, errors, schema, cost, views."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator
from torch import nn

import efface.report
from efface.errors import InputError, Outcome
from efface.io.shadows import Shadows
from efface.probes.linear_probe import linear_probe
from efface.report import Row, Status, Verdict, collect, forward_passes, jsonable
from efface.report.context import Context
from efface.report.tests import TESTS
from efface.report.tests import test as declare
from efface.report.tests_unseen import linear_probe_rows, split_unseen
from efface.report.text import SECTIONS, SENTENCES, TIERS, unknown
from efface.report.views import KINDS, VIEWS, synthetic, view_of
from efface.runtime import PassCounter
from efface.types import Records, Split

SCHEMA = json.loads((Path(efface.report.__file__).parent / "schema.json").read_text())


@pytest.fixture(scope="module")
def altered(tiny_net):
    """The tiny net with its last layer changed a little."""
    student = copy.deepcopy(tiny_net)
    weight = student[-1].weight.data
    weight += 0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    return student


@pytest.fixture(scope="module")
def parts(digits):
    """30 of the learned records to forget; the unseen 100 as holdout; the rest as retain."""
    return [digits.take(rows) for rows in (range(30), range(300, 400), range(30, 300))]


@pytest.fixture(scope="module")
def split(parts):
    return Split(*parts)


@pytest.fixture(scope="module")
def whole(tiny_net, altered, split):
    """A report of tier T2, as JSON."""
    return collect(tiny_net, altered, split).to_json()


def keys(report, status):
    return {row.key for row in report.rows if row.status is status}


def linear(classes=10):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(64, classes)


ONE = {"retrained": (nn.Identity(),)}
TIER_OF = [("f", {}, "T0"), ("fh", {}, "T1"), ("fhr", {}, "T2"), ("fr", {}, "T0")]
TIER_OF += [("fhr", ONE, "T3"), ("f", ONE, "T0"), ("fhr", {"exact": True}, "TE")]


@pytest.mark.parametrize(("given", "more", "tier"), TIER_OF)
def test_the_tier_is_what_the_data_allow(tiny_net, parts, given, more, tier):
    """It needs all that lower ones need: an empty holdout is none, retain alone lifts nothing."""
    named = zip("fhr", parts, strict=True)
    split = [part if name in given else part.take([]) for name, part in named]
    assert Context(tiny_net, tiny_net, Split(*split), **more).tier == tier


@pytest.mark.parametrize("tier", ["T0", "T1", "T2"])
def test_no_test_is_missing_at_any_tier(tiny_net, altered, parts, tier):
    """What lacks its data says which; nothing crashed."""
    report = collect(tiny_net, altered, Split(*parts[: int(tier[1]) + 1]))
    assert report.tier == tier
    assert not keys(report, Status.ERROR)
    due = [t for t in TESTS if not t.needs_forget_classes and t.multiclass is not False]
    waiting = {t.key for t in due if tier < t.tier < "TE"}
    assert waiting | {"relearning"} <= keys(report, Status.NOT_RUN)
    assert all(row.note for row in report.rows if row.status is Status.NOT_RUN)
    assert all(row.tier <= tier for row in report.rows if row.status is not Status.NOT_RUN)
    assert all(row.key and row.name and row.section in SECTIONS for row in report.rows)
    # without a holdout there is no reference from unseen records
    judged = map(report.row, ("forget.accuracy", "forget.entropy", "residual.lighting"))
    without = [(row.reference, row.verdict) == (None, Verdict.NO_REFERENCE) for row in judged]
    assert without == [tier == "T0"] * 3


@pytest.mark.parametrize(("section", "tier"), [("forgotten", "T0"), ("forget", "T9")])
def test_a_test_without_a_section_or_tier_of_the_page_is_refused(section, tier):
    with pytest.raises(InputError, match=r"Wanted one of .* for the test some\.key\. Got '"):
        declare("some.key", "A test", section, tier)


def test_a_holdout_that_does_not_fit_leaves_the_lower_tier_standing(tiny_net, altered, split):
    wrong = Records(torch.zeros(20, 3, 8, 8), torch.zeros(20, dtype=torch.int64))
    report = collect(tiny_net, altered, Split(split.forget, wrong))
    assert {"attack.loss", "holdout", "control.positive"} <= keys(report, Status.ERROR)
    assert report.row("forget.accuracy").verdict is Verdict.NO_REFERENCE
    assert len(report.records) == 30


def test_outputs_that_are_not_finite_are_errors(tiny_net, split):
    """NaN would pass through ranks and counts as if it were an output."""
    student = copy.deepcopy(tiny_net)
    student[-1].bias.data[:] = torch.nan
    report = collect(tiny_net, student, split)
    assert report.row("forget.accuracy").note == (
        "InputError: Wanted finite outputs of the new model. Got 30 of 30 that are not. "
        "Check its weights and the inputs."
    )
    json.dumps(report.to_json(), allow_nan=False)


def test_a_holdout_without_the_classes_says_so(tiny_net, altered, split):
    twos, rest = split.forget.y == 2, split.holdout.y != 2
    other = split.forget.take(twos.nonzero()[:, 0]), split.holdout.take(rest.nonzero()[:, 0])
    row = collect(tiny_net, altered, Split(*other)).row("attack.loss")
    note = "the holdout has no record of the classes of the forget records"
    assert (row.status, row.note) == (Status.NOT_RUN, note)


def test_the_same_call_gives_the_same_report(tiny_net, altered, split, random_state_kept):
    """Same seed, same bytes; the models and the global random state are as they were."""
    student = copy.deepcopy(altered).train()
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    with random_state_kept():
        first, second = (collect(tiny_net, student, split).to_json() for _ in range(2))
    assert first == second
    assert student.training
    assert all(tensor.equal(before[name]) for name, tensor in student.state_dict().items())


def test_the_linear_probe_has_the_seed_of_the_report(tiny_net, altered, split, monkeypatch):
    def probe(*given, **how):
        seeds.append(how)
        return linear_probe(*given, **how)

    seeds = []
    monkeypatch.setattr("efface.report.tests_unseen.linear_probe", probe)
    list(linear_probe_rows(Context(tiny_net, altered, split, seed=7)))
    assert seeds == [{"seed": 7}] * 2


def test_the_halves_of_the_negative_control_are_drawn_by_the_seed(tiny_net, split):
    contexts = (Context(tiny_net, tiny_net, split, seed=seed) for seed in (0, 1))
    one, other = (split_unseen(ctx)[0].ids for ctx in contexts)
    assert one != other


def test_the_order_of_the_records_changes_no_row(tiny_net, altered, split):
    """Views, halves and samples are drawn by id."""
    straight = split.forget, split.holdout
    turned = (part.take(range(len(part) - 1, -1, -1)) for part in straight)
    rows = (collect(tiny_net, altered, Split(*some)).rows for some in (straight, turned))
    for one, other in zip(*rows, strict=True):
        assert (one.key, one.verdict) == (other.key, other.verdict)
        near = None if one.after is None else pytest.approx(one.after, rel=1e-4, abs=1e-5)
        assert other.after == near


@pytest.mark.parametrize("mislabelled", [False, True])
def test_unseen_records_are_those_of_the_same_classes_unless_the_labels_are_wrong(
    tiny_net, altered, split, mislabelled
):
    threes = split.forget.take((split.forget.y == 3).nonzero()[:, 0])
    context = Context(tiny_net, altered, Split(threes, split.holdout), mislabelled=mislabelled)
    expected = split.holdout.y if mislabelled else split.holdout.y[split.holdout.y == 3]
    assert context.unseen.before.y.tolist() == expected.tolist()


def test_a_large_holdout_is_sampled_by_id(tiny_net, altered, split):
    order = torch.randperm(100, generator=torch.Generator().manual_seed(2))
    holdouts = split.holdout, split.holdout.take(order)
    contexts = [Context(tiny_net, altered, Split(split.forget, one)) for one in holdouts]
    straight, mixed = (ctx.sample(ctx.holdout, 20).records.ids for ctx in contexts)
    assert len(straight) == 20
    assert set(straight) == set(mixed) != set(split.holdout.ids[:20])


def test_a_request_that_was_not_met_has_the_numbers_of_the_old_model_only(tiny_net, split):
    report = collect(tiny_net, None, split)
    assert report.outcome is Outcome.NOT_MET
    assert all(row.after is None for row in report.rows)
    assert report.row("forget.accuracy").before == 1.0
    assert report.row("weights.change").note == "there is no new model"
    assert not any("after" in key for entry in report.records for key in entry)
    assert not report.tensors


def test_without_a_new_model_no_row_is_called_not_flagged(tiny_net, split):
    report = collect(tiny_net, None, split)
    row = report.row("forget.accuracy")
    assert (row.status, row.verdict.words) == (Status.NOT_RUN, "no new model")
    assert not keys(report, Status.NOT_FLAGGED) - {"control.positive"}
    assert ">100.0\u00a0%</td>" in report.to_html(), "the old model's numbers stand"


def test_other_training_records_are_measured_before_and_after(tiny_net, altered, split, parts):
    """The same ones, without those of classes that are forgotten."""
    bare = Split(split.forget)
    report = collect(tiny_net, altered, bare, others=parts[2])
    row, kept = report.row("others.accuracy"), collect(tiny_net, altered, Split(*parts))
    assert (row.before, row.after, row.n) == (
        *((one := kept.row("retain.accuracy")).before, one.after),
        270,
    )
    assert report.counts["others"] == 270
    assert not [one for one in unknown(report) if "other training records" in one]
    threes = replace(bare, forget_classes=(3,))
    assert collect(tiny_net, altered, threes, others=parts[2]).row("others.accuracy").n < 270
    note = collect(tiny_net, altered, bare).row("others.accuracy").note
    assert note == "no other training records were given"
    made = counted(tiny_net, altered, bare, others=parts[2])
    assert made == (forward_passes(bare, others=parts[2]), 0)


def test_a_probe_that_could_judge_nothing_is_one_row(tiny_net, altered, split):
    two = (split.forget.y == split.forget.y[0]).nonzero().flatten()[:2]
    few = replace(split, forget=split.forget.take(two))
    rows = [row for row in collect(tiny_net, altered, few).rows if row.key.startswith("probe")]
    assert [row.verdict for row in rows] == [Verdict.TOO_FEW_RECORDS]
    assert rows[0].after is None


def test_views_that_the_method_used_are_left_out(tiny_net, altered, split):
    bare = Split(split.forget)
    report = collect(tiny_net, altered, bare, views_used=("lighting", "rotation"))
    found = [row.key for row in report.rows if row.key.startswith("residual")]
    assert found == ["residual.blur", "residual.any_view"]
    none = collect(tiny_net, altered, bare, views_used=KINDS).row("residual")
    assert none.note == "the method was trained on every augmentation of this test"


def test_a_changed_buffer_and_a_changed_tensor_are_named(tiny_net, altered, split):
    """BatchNorm statistics must not change; how far each weight moved is in the table."""
    student = copy.deepcopy(altered)
    student[1].running_mean += 1
    report = collect(tiny_net, student, Split(split.forget))
    assert report.row("buffers.change").note == "Of 6. 1.running_mean"
    tensors = {t["name"]: t for t in report.tensors}
    old, new = tiny_net[-1].weight, student[-1].weight
    change = ((new - old).norm() / old.norm()).item()
    assert tensors["7.weight"]["relative"] == pytest.approx(change)
    assert tensors["0.weight"]["identical"]


def test_each_forget_record_has_its_own_entry(tiny_net, altered, split):
    """Before and after, in the request's order, with the class in words."""
    names = [f"digit {c}" for c in range(10)]
    report = collect(tiny_net, altered, split, classes=names)
    assert tuple(entry["id"] for entry in report.records) == split.forget.ids
    with torch.no_grad():
        predicted = altered(split.forget.x).argmax(1)[4]
    entry = report.records[4]
    assert entry["predicted_after"] == names[predicted]
    assert {"entropy_before", "logit_margin_after", "unseen_quantile_after"} <= entry.keys()
    change = entry["logit_margin_after"] - entry["logit_margin_before"]
    assert entry["logit_margin_change"] == change
    assert [entry["name"] for entry in report.per_class] == names


def test_the_repr_is_short_and_an_unknown_row_is_refused(tiny_net, altered, split):
    report = collect(tiny_net, altered, Split(split.forget))
    assert repr(report).startswith("Report(T0, changed, not judged: ")
    assert len(repr(report)) < 80
    with pytest.raises(InputError, match=r"The rows are forget\.accuracy, forget\.entropy"):
        report.row("accuracy")


# The published schema of evidence.json.


def invalid(report):
    """Where it does not fit; through text, as a reader in another language gets it."""
    form = Draft202012Validator(SCHEMA)
    plain = json.loads(json.dumps(report, allow_nan=False))
    return [error.json_path for error in form.iter_errors(plain)]


@pytest.mark.parametrize("tier", list(TIERS))
def test_reports_of_every_tier_fit_the_schema_done_and_not_met(tiny_net, altered, parts, tier):
    Draft202012Validator.check_schema(SCHEMA)
    at, ids = list(TIERS).index(tier), parts[0].ids
    split = Split(*parts[: min(at, 2) + 1])
    member = np.array([[True, False]] * len(ids)).T
    shadows = Shadows(("a", "b"), ids, member, np.zeros((2, len(ids))), "d")
    more = {"retrained": [altered] * 2 * (tier == "T3"), "exact": tier == "TE"}
    more |= {"shadows": shadows if tier == "T4" else None, "classes": list("abcdefghij")}
    report = collect(tiny_net, altered, split, **more)
    assert report.tier == tier
    assert invalid(report.to_json()) == []
    assert invalid(collect(tiny_net, None, split).to_json()) == []


def test_other_tasks_and_broken_models_fit_the_schema_too(tiny_net, digits, parts):
    """Multilabel, regression, a forget class, and outputs that are not finite."""
    flat = digits.x.flatten(1)
    for y in (nn.functional.one_hot(digits.y % 3, 3), digits.y.float().unsqueeze(1)):
        net = linear(y.shape[1])
        split = Split(*(Records(flat[a:b], y[a:b]) for a, b in ((0, 20), (300, 360), (20, 90))))
        report = collect(net, net, split)
        assert report.attacks[0].coverage == "tested"
        assert invalid(report.to_json()) == []
    threes = parts[0].take((parts[0].y == 3).nonzero()[:, 0])
    broken = copy.deepcopy(tiny_net)
    broken[-1].bias.data[:] = torch.nan
    report = collect(tiny_net, broken, Split(threes, parts[1], forget_classes=(3,)))
    assert keys(report, Status.ERROR)
    assert invalid(report.to_json()) == []


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda e: e.pop("attacks"), "$"),
        (lambda e: e.update(extra=1), "$"),
        (lambda e: e.update(tier="T9"), "$.tier"),
        (lambda e: e["rows"][0].pop("reference"), "$.rows[0]"),
        (lambda e: e["rows"][0].update(status="fine"), "$.rows[0].status"),
        (lambda e: e["rows"][0].update(verdict="fine"), "$.rows[0].verdict"),
        (lambda e: e["rows"][0].update(interval=[0.1]), "$.rows[0].interval"),
        (lambda e: e["rows"][0].update(after="97 %"), "$.rows[0].after"),
        (lambda e: e["rows"][0].update(verdict="not_run"), "$.rows[0].before"),
        (lambda e: e["attacks"].pop(), "$.attacks"),
        (lambda e: e["attacks"][1].update(why=""), "$.attacks[1].why"),
        (lambda e: e["attacks"][0].update(rows=[]), "$.attacks[0].rows"),
        (lambda e: e["records"][0].pop("id"), "$.records[0]"),
        (lambda e: e["counts"].update(forget=0), "$.counts.forget"),
    ],
)
def test_what_is_odd_does_not_fit_the_schema(whole, change, where):
    odd = copy.deepcopy(whole)
    change(odd)
    assert where in invalid(odd)
    assert invalid(whole) == []


def test_schema_and_code_say_the_same(whole):
    assert set(SCHEMA["properties"]) == set(whole)
    assert set(SCHEMA["$defs"]["tier"]["enum"]) == set(TIERS)
    assert SCHEMA["$defs"]["status"]["enum"] == list(Status)
    assert SCHEMA["$defs"]["verdict"]["enum"] == [verdict.name.lower() for verdict in Verdict]
    assert list(SENTENCES["statuses"]) == list(Status)
    assert len(whole["rows"]) == len({row["key"] for row in whole["rows"]})


def test_what_is_not_finite_becomes_null():
    odd = {1: np.float32("nan"), "t": torch.tensor([1.0, torch.inf]), "r": Row(key="k")}
    plain = jsonable(odd)
    assert (plain["1"], plain["t"], plain["r"]["key"]) == (None, [1.0, None], "k")


# What the tests cost.


def counted(old, new, split, **options):
    """Forward passes of all tests, and the backward ones."""
    counters = PassCounter(old), PassCounter(new)
    collect(*(counter.model for counter in counters), split, **options)
    passes = [counter.passes for counter in counters]
    return sum(p.forward for p in passes), sum(p.backward for p in passes)


OPTIONS = [(1, {}), (2, {}), (3, {}), (3, {"probes": False})]
OPTIONS += [(2, {"mislabelled": True, "views_used": ("lighting", "blur")})]


@pytest.mark.parametrize(("n", "options"), OPTIONS)
def test_the_declared_passes_are_those_that_are_made(tiny_net, altered, parts, n, options):
    """Without probes each record once through each model, and noise inputs, a few of them twice."""
    split = Split(*parts[:n])
    forward, backward = counted(tiny_net, altered, split, **options)
    assert (forward, backward) == (forward_passes(split, **options), 0)
    assert "probes" not in options or forward == 2 * (30 + 100 + 270) + 2 * 160


def test_the_rows_say_which_probes_were_left_out(tiny_net, altered, split):
    rows = collect(tiny_net, altered, split, probes=False).rows
    off = {row.key for row in rows if row.note == "probes were turned off"}
    assert off == {"residual", "precision", "probe"}


def test_tables_have_no_views_to_make_or_to_pay_for(digits):
    """30 records through each model, noise, and three copies of each."""
    net, split = linear(), Split(Records(digits.x[:30].flatten(1), digits.y[:30]))
    assert counted(net, copy.deepcopy(net), split) == (60 + 2 * 160 + 2 * 30 * 3, 0)
    assert forward_passes(split) == 60 + 2 * 160 + 2 * 30 * 3
    report = collect(net, copy.deepcopy(net), split)
    note = "the augmentations are those of images (n, channels, height, width)"
    assert (report.row("residual").note, report.row("synthetic.divergence").after) == (note, 0)


# Views of an image that no method trains on, and noise inputs.


@pytest.mark.parametrize("kind", KINDS)
def test_a_view_depends_on_the_record_the_number_and_the_seed_alone(digits, kind):
    """Not on its place among others: then the order of a file would change the report."""
    some, order = digits.take(range(12)), torch.randperm(12)
    seen = []
    for view in range(VIEWS):
        straight = view_of(some, kind, view=view, seed=3).x
        turned = view_of(some.take(order), kind, view=view, seed=3).x
        assert torch.allclose(straight[order], turned, atol=1e-6)
        assert not any(torch.allclose(straight, other) for other in seen)
        seen.append(straight)
    if kind != "blur":
        assert not torch.allclose(seen[0], view_of(some, kind, view=0, seed=1).x)
        twins = Records(some.x[:1].expand(4, -1, -1, -1), some.y[:4], tuple("abcd"))
        assert len(view_of(twins, kind, view=0, seed=0).x.flatten(1).unique(dim=0)) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_view_is_near_the_record_and_not_the_record(digits, kind):
    """It changes something, stays within the bounds, and is still nearest to its own record."""
    some = digits.take(range(30))
    seen = view_of(some, kind, view=1, seed=0).x
    assert seen.min() >= some.low - 1e-5
    assert seen.max() <= some.high + 1e-5
    assert (seen != some.x).flatten(1).any(1).all()
    nearest = torch.cdist(seen.flatten(1), some.x.flatten(1)).argmin(1)
    assert (nearest == torch.arange(30)).float().mean() > 0.9


@pytest.mark.parametrize("kind", ["blur", "rotation"])
def test_a_constant_image_stays_constant(kind):
    """No dark corner comes into view, and a blur keeps the sum."""
    even = Records(torch.full((2, 3, 16, 16), 0.3), torch.zeros(2, dtype=torch.int64))
    assert torch.allclose(view_of(even, kind, view=2, seed=0).x, even.x, atol=1e-5)


def test_synthetic_inputs_lie_within_the_bounds_of_each_channel(random_state_kept):
    low, high = (torch.tensor(one).view(3, 1, 1) for one in ([-1.0, 0, 5], [1.0, 2, 6]))
    y = torch.zeros(4, dtype=torch.int64)
    records = Records(torch.zeros(4, 3, 8, 8), y, low=low, high=high)
    with random_state_kept():
        found, again = (synthetic(records, n=10, seed=1) for _ in range(2))
    assert found.x.shape == (10, 3, 8, 8)
    assert bool((found.x >= low).all() & (found.x <= high).all())
    assert found.x.equal(again.x)
    assert found.x.std((0, 2, 3)).min() > 0.1
