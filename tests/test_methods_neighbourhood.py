"""Neighbourhood: where its targets lie, what is masked, and what follows from its law."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from efface import forget
from efface.errors import InputError
from efface.io.data import load_data
from efface.io.models import load_model
from efface.methods.neighbourhood import (
    FLOOR,
    Law,
    NeighbourhoodLoss,
    Unseen,
    _by_draw,
    _by_rank,
    _masking,
    _never_surer,
    _values,
    distance,
    log_odds,
    neighbourhood,
    neighbourhood_loss,
    place_targets,
    schedule_for,
    set_values,
)
from efface.metrics.retrain_gap import gap
from efface.task import frozen_teacher, multiclass, multilabel, predict, regression
from efface.types import Action, Records, Split, split_holdout
from examples import demo
from research.recipes import RECIPES, fresh, train


def test_the_divergence_is_torchs_own():
    """A second implementation: torch's kl_div, with and without classes of probability nought."""
    generator = torch.Generator().manual_seed(0)
    target, output = torch.randn(2, 5, 4, generator=generator)
    masked = target.clone()
    masked[:, 1] = -torch.inf
    for one in (target, masked):
        theirs = nn.functional.kl_div(output.log_softmax(1), one.softmax(1), reduction="none")
        torch.testing.assert_close(multiclass.divergence(one, output), theirs.sum(1))


def test_the_divergence_of_labels_and_values_is_torchs_own():
    """Coins and normal distributions have their own closed forms in torch.distributions."""
    generator = torch.Generator().manual_seed(0)
    pair = torch.randn(2, 5, 3, generator=generator)
    coins = [torch.distributions.Bernoulli(logits=outputs) for outputs in pair]
    bells = [torch.distributions.Normal(outputs, 2.5) for outputs in pair]
    for task, theirs in ((multilabel, coins), (regression(scale=2.5), bells)):
        expected = torch.distributions.kl_divergence(*theirs).mean(1)
        torch.testing.assert_close(task.divergence(*pair), expected)


def test_masking_renormalises_the_rest():
    """Masked distillation: the leaving class gets nothing, the others keep their ratios."""
    output = torch.tensor([[0.7, 0.2, 0.1]]).log()
    batch = Records(torch.zeros(1, 1), torch.tensor([1]))
    for forget_classes, labels, expected in (
        ((0,), False, [0.0, 2 / 3, 1 / 3]),
        ((), True, [7 / 8, 0.0, 1 / 8]),
        ((), False, [0.7, 0.2, 0.1]),
    ):
        mask = _masking(Split(batch, forget_classes=forget_classes), labels=labels)
        torch.testing.assert_close(mask(output, batch).exp(), torch.tensor([expected]))


def test_a_value_is_placed_where_it_is_read_and_the_others_keep_their_proportions():
    """Log-odds by their definition, ln p - ln(1 - p); a placed output has the value given."""
    base = torch.randn(6, 4, generator=torch.Generator().manual_seed(1)).double()
    y, wanted = torch.tensor([0, 1, 2, 3, 0, 1]), torch.linspace(-8, 8, 6).double()[:, None]
    p = base.softmax(1).gather(1, y[:, None])
    np.testing.assert_allclose(_values("multiclass", base, y), (p / (1 - p)).log(), atol=1e-9)
    placed = set_values("multiclass", base, y, wanted)
    np.testing.assert_allclose(_values("multiclass", placed, y), wanted, atol=1e-6)
    for row, label in enumerate(y.tolist()):
        others = [one for one in range(4) if one != label]
        before, after = (logits[row, others].softmax(0) for logits in (base, placed))
        torch.testing.assert_close(before, after)


@pytest.mark.parametrize("kind", ["multilabel", "regression"])
def test_labels_and_errors_are_placed_where_they_are_read(kind):
    base, wanted = torch.zeros(3, 2).double(), torch.arange(6.0).reshape(3, 2).double() - 2
    y = torch.tensor([[0, 1], [1, 1], [0, 0]])
    y = y if kind == "multilabel" else y.double() * 3
    placed = set_values(kind, base, y, wanted)
    np.testing.assert_allclose(_values(kind, placed, y), wanted)


def _brute_force(score, group, value, value_group, own):
    """By sorting each group by hand and reading its quantiles one by one."""
    placed = [0.0] * len(score)
    for one in set(group):
        rows = sorted(
            (row for row in range(len(score)) if group[row] == one), key=lambda r: score[r]
        )
        pool = sorted(
            v for v, g in zip(value, value_group, strict=True) if g == one or one not in own
        )
        for rank, row in enumerate(rows):
            place = (rank + 0.5) / len(rows) * (len(pool) - 1)
            low = int(place)
            high = min(low + 1, len(pool) - 1)
            placed[row] = pool[low] + (place - low) * (pool[high] - pool[low])
    return placed


def test_quantiles_are_those_of_a_brute_force_twin():
    """Two classes with laws of their own, and one (-1) that takes that of all."""
    generator = np.random.default_rng(0)
    score, group = generator.normal(size=(60, 1)), generator.integers(-1, 2, (60, 1))
    value, own = generator.normal(size=(90, 1)), generator.integers(0, 3, (90, 1))
    placed = _by_rank(score, group, Law(value, own), np.arange(60)[:, None])
    expected = _brute_force(*(a[:, 0].tolist() for a in (score, group, value, own)), own={0, 1})
    np.testing.assert_allclose(placed[:, 0], expected)


def test_equal_scores_are_ranked_by_their_keys_and_not_by_their_rows():
    score, group, keys = np.zeros((5, 1)), np.full((5, 1), -1), np.array([[3], [1], [4], [0], [2]])
    law = Law(np.arange(5.0)[:, None], np.zeros((5, 1), int))
    placed = _by_rank(score, group, law, keys)
    assert (placed[:, 0].argsort() == keys[:, 0].argsort()).all()


def test_a_draw_given_the_score_is_the_regression_and_one_of_its_residuals():
    """By hand: v = 1 + 2 s exactly, so nothing is drawn; then residuals of -1 and 1 about it."""
    score, none = np.array([[0.0], [1.0], [2.0], [3.0]]), np.full((4, 1), -1)
    exact = Law(1 + 2 * score, np.zeros((4, 1), int), score)
    draws = np.array([[0.1], [0.9], [0.0], [1.0]])
    np.testing.assert_allclose(_by_draw(score, none, exact, draws), 1 + 2 * score)
    scores = np.repeat(score, 2, 0)
    noisy = Law(1 + 2 * scores + np.tile([[-1.0], [1.0]], (4, 1)), np.zeros((8, 1), int), scores)
    placed = _by_draw(score, none, noisy, draws) - (1 + 2 * score)
    assert placed[2, 0] == pytest.approx(-1)
    assert placed[3, 0] == pytest.approx(1)
    unscored = _by_draw(score, none, Law(noisy.value, noisy.group), draws)
    assert unscored[2, 0] == noisy.value.min()


def _targets(model, split, **how):
    teacher = frozen_teacher(model)
    return place_targets(teacher, split, Unseen.of(teacher, split), **how).outputs


def test_the_law_of_the_targets_is_that_of_unseen_records(tiny_net, digits):
    """100 of the digits that the net has seen, by the 100 that it has not: at each quantile."""
    split = Split(digits.take(range(100)), digits.take(range(300, 400)))
    target = _values("multiclass", _targets(tiny_net, split), split.forget.y)
    unseen = _values("multiclass", predict(tiny_net, split.holdout), split.holdout.y)
    known = _values("multiclass", predict(tiny_net, split.forget), split.forget.y)
    places = np.linspace(0.05, 0.95, 19)
    # the spacing of 100 values is the error of a quantile
    spacing = np.diff(np.sort(unseen[:, 0])[4:-4]).max()
    apart = [np.quantile(one, places) - np.quantile(unseen, places) for one in (target, known)]
    assert abs(apart[0]).max() <= spacing < abs(apart[1]).max()


def test_a_wrong_label_leaves_the_best_of_the_others_as_sure_as_unseen_answers(tiny_net, digits):
    split = Split(digits.take(range(60)), digits.take(range(300, 400)))
    unseen, target = predict(tiny_net, split.holdout), _targets(tiny_net, split, mislabelled=True)
    assert float(target.gather(1, split.forget.y[:, None]).max()) < -20
    medians = [np.median(_values("multiclass", one, one.argmax(1))) for one in (unseen, target)]
    assert medians[1] == pytest.approx(medians[0], abs=0.3)


def test_a_class_or_a_group_leaves_the_given_answer_without_it(tiny_net, digits):
    """Masked distillation: a kind that the model lacks is no unseen record of those it has."""
    threes = digits.take([row for row in range(300) if digits.y[row] == 3])
    holdout = digits.take(range(300, 400))
    expected = predict(tiny_net, threes)
    expected[:, 3] = -torch.inf
    for facts, going in (({}, (3,)), ({"whole_group": True}, ())):
        target = _targets(tiny_net, Split(threes, holdout, forget_classes=going), **facts)
        torch.testing.assert_close(target.softmax(1), expected.softmax(1))


def test_without_a_holdout_the_expected_accuracy_places_and_without_it_too_little_is_asked(
    tiny_net, digits
):
    """The share above 0 is the accuracy; without one the targets are surer than unseen answers."""
    split = Split(digits.take(range(100)))
    shares = {}
    for accuracy in (0.9, 0.6, None):
        target = _targets(tiny_net, split, expected_accuracy=accuracy)
        shares[accuracy] = (_values("multiclass", target, split.forget.y) > 0).mean()
    assert shares[0.9] == pytest.approx(0.9, abs=0.01)
    assert shares[0.6] == pytest.approx(0.6, abs=0.01)
    right = predict(tiny_net, digits.take(range(300, 400))).argmax(1) == digits.y[300:400]
    assert shares[None] > float(right.float().mean()) - 0.05


def test_wrong_labels_without_a_holdout_take_the_law_of_their_masked_copies(tiny_net, digits):
    """Copies that lost it are as sure of another one as unseen records are; no accuracy counts."""
    wrong = replace(digits.take(range(100)), y=(digits.y[:100] + 1) % 10)
    found = [
        _targets(tiny_net, Split(wrong), mislabelled=True, expected_accuracy=accuracy)
        for accuracy in (None, 0.6)
    ]
    assert torch.equal(*found)
    unseen = predict(tiny_net, digits.take(range(300, 400)))
    medians = [np.median(_values("multiclass", one, one.argmax(1))) for one in (unseen, found[0])]
    assert medians[1] == pytest.approx(medians[0], abs=0.7)


def test_without_a_holdout_anchors_are_warped_records_and_means_of_two(tiny_net, digits):
    """In an order of the ids; no label of a source is held; a record alone has no mean."""
    forget = digits.take(range(30))
    mask = _masking(Split(forget), labels=True)
    found = Unseen.around(tiny_net, Split(forget), mask)
    halves = (forget.x[:, None] + forget.x[None]) / 2
    means = [(halves - x).abs().flatten(2).amax(2) for x in found.records.x[90:]]
    assert all(float(off.min()) < 1e-6 for off in means)
    pairs = [divmod(int(off.argmin()), 30) for off in means]
    assert len(pairs) == 90
    assert all(one != other for one, other in pairs)
    for (one, other), answer in zip(pairs, found.outputs[90:], strict=True):
        assert answer[[int(forget.y[one]), int(forget.y[other])]].max() == FLOOR
    assert (found.outputs[:90] == FLOOR).sum() == 90
    back = Unseen.around(tiny_net, Split(forget.take(range(29, -1, -1))), mask)
    torch.testing.assert_close(back.records.x, found.records.x)
    assert len(Unseen.around(tiny_net, Split(forget.take([0])), mask).records) == 64


def test_one_record_ends_at_the_log_odds_that_it_drew(tiny_net, digits):
    """On its way there, and not past it, where KL would leave it: too bad is seen as well."""
    holdout = digits.take(range(300, 400))
    for row in range(4):
        split = Split(digits.take([row]), holdout)
        given, wanted = predict(tiny_net, split.forget), _targets(tiny_net, split)
        found = predict(neighbourhood(tiny_net, split), split.forget)
        before, goal, after = (
            float(_values("multiclass", one, split.forget.y)[0, 0])
            for one in (given, wanted, found)
        )
        assert abs(after - goal) < abs(before - goal) or after == before == pytest.approx(goal)
        assert min(before, goal) - 0.5 < after < max(before, goal) + 0.5


def test_a_record_draws_its_own_target_among_few(tiny_net, digits):
    """Of three records each target is the same next to others as alone."""
    holdout = digits.take(range(300, 400))
    three = _targets(tiny_net, Split(digits.take(range(3)), holdout))
    for row in range(3):
        alone = _targets(tiny_net, Split(digits.take([row]), holdout))
        torch.testing.assert_close(three[row : row + 1], alone, atol=1e-4, rtol=1e-4)


def test_few_records_keep_their_answer_where_the_model_would_come_to_be_surer(tiny_net, digits):
    """Of the unseen records that make the law about half would."""
    holdout, below, kept = digits.take(range(300, 400)), [], []
    for first in range(300, 400, 10):
        some = holdout.take(range(first - 300, first - 290))
        given = predict(tiny_net, some).log_softmax(1)
        target = _targets(tiny_net, Split(some, holdout))
        below.append(_values("multiclass", given, some.y) - _values("multiclass", target, some.y))
        kept.append((target - given).abs().amax(1) < 1e-5)
    assert np.concatenate(below).min() > -1e-4
    assert 0.2 < torch.cat(kept).float().mean() < 0.8


def test_labels_and_errors_of_few_are_never_placed_nearer_the_truth_than_they_are():
    y = torch.zeros(3, 1)
    placed, own = torch.tensor([[0.5], [-3.0], [2.0]]), torch.tensor([[1.0], [1.0], [-1.0]])
    assert _never_surer("regression", placed, own, y).tolist() == [[1.0], [-3.0], [2.0]]
    # of an absent label a higher logit is the less sure one
    assert _never_surer("multilabel", placed, own, y).tolist() == [[1.0], [1.0], [2.0]]


def test_where_every_record_keeps_its_answer_no_step_is_taken(tiny_net, digits):
    holdout = digits.take(range(300, 400))
    values = _values("multiclass", predict(tiny_net, holdout), holdout.y)[:, 0]
    worst = Split(holdout.take([int(values.argmin())]), holdout)
    new = neighbourhood(tiny_net, worst)
    pairs = zip(new.parameters(), tiny_net.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    said = forget(tiny_net, worst, report="off").manifest.summary
    assert "0 steps, since the target of each record is the answer that the model already" in said


def test_the_schedule_follows_the_number_of_records():
    rules = {n: schedule_for(n, holdout=True) for n in (1, 5, 20, 93, 500, 2000, 10_000)}
    steps = {n: (rule.steps, rule.batch_size) for n, rule in rules.items()}
    expected = {1: (32, 1), 5: (32, 2), 20: (64, 5), 93: (64, 24), 500: (80, 50)}
    assert steps == expected | {2000: (160, 100), 10_000: (358, 224)}
    rates = {n: rule.learning_rate for n, rule in rules.items()}
    assert rates[1] < rates[5] < rates[20] == rates[10_000] == 5e-3
    assert rates[1] == pytest.approx(5e-3 * 20**-0.6)
    assert schedule_for(500, holdout=False).learning_rate == 3e-3
    given = schedule_for(500, holdout=True, steps=7, batch_size=9, learning_rate=0.0)
    assert (given.steps, given.batch_size, given.learning_rate) == (7, 9, 0.0)


def test_steps_that_leave_too_much_are_taken_again_at_twice_the_rate(tiny_net, digits, monkeypatch):
    """Until little is left, three times at most; at a given rate, or once refused, never."""
    rates, split = [], Split(digits.take(range(30)))

    def idle(student, *_loss_and_records, callback, **_how):
        rates.append(_loss_and_records[2].param_groups[0]["lr"])
        callback(student, 1.0)
        return student

    monkeypatch.setattr(sys.modules["efface.methods.neighbourhood"], "descend", idle)
    neighbourhood(tiny_net, split)
    assert rates == pytest.approx([3e-3, 6e-3, 1.2e-2])
    neighbourhood(tiny_net, split, learning_rate=1e-3)
    neighbourhood(tiny_net, split, callback=lambda *_: Action.HALVE_LR)
    assert rates[3:] == pytest.approx([1e-3, 3e-3])
    monkeypatch.setattr(NeighbourhoodLoss, "apart", lambda *_: 0.09 ** (len(rates) - 5))
    neighbourhood(tiny_net, split)
    assert len(rates) == 6


def test_500_records_cost_at_most_40_forward_and_20_backward_passes_each(
    tiny_net, digits, monkeypatch
):
    """All passes but the evidence's, the guard's too, next to one forward pass of the holdout."""
    # this net needs its steps again
    monkeypatch.setattr(sys.modules["efface.methods.neighbourhood"], "TURNS", 1)
    several = Records(torch.cat([digits.x, digits.x[:100] + 0.01]), digits.y.repeat(2)[:500])
    holdout = Records(digits.x[300:400] + 0.02, digits.y[300:400])
    for given in (holdout, None):
        found = forget(tiny_net, Split(several, given), report="off").manifest
        own = found.passes["forward"] + found.guard["passes"] - (50 if given else 0)
        assert own / 500 <= 40
        assert found.passes["backward"] / 500 <= 20


@pytest.mark.parametrize(("count", "most"), [(20, 0.2), (5, 0.4)])
def test_a_wrong_label_is_no_longer_answered(tiny_net, digits, count, most):
    """Told that the labels are wrong, the student stops to give them."""
    wrong = digits.take(range(count))
    student = neighbourhood(tiny_net, Split(wrong), mislabelled=True)
    probabilities = student(wrong.x).softmax(1).detach()
    assert float(probabilities.gather(1, wrong.y[:, None]).mean()) < most


def test_with_nothing_to_do_no_step_is_taken(tiny_net, digits):
    """Muon's step has a length of its own: strength 0 must not take it."""
    student = neighbourhood(tiny_net, Split(digits.take(range(30))), strength=0.0)
    for old, new in zip(tiny_net.parameters(), student.parameters(), strict=True):
        assert torch.equal(old, new)


def test_the_loss_is_the_distance_to_the_target_and_the_anchors(tiny_net, digits):
    """Of the given model itself no anchor moves: what is left is the way to the target."""
    split = Split(digits.take(range(10)), digits.take(range(300, 400)))
    teacher = frozen_teacher(tiny_net)
    target, batch = _targets(tiny_net, split), split.forget.take([3, 1, 8])
    found = neighbourhood_loss(teacher, split)(teacher, batch, 0)
    target, now = target[[3, 1, 8]], teacher(batch.x)
    scale = _values("multiclass", predict(tiny_net, split.holdout), split.holdout.y).std()
    off = torch.stack([
        log_odds(target.double(), y) - log_odds(now.double(), y)
        for y in (*torch.arange(10)[:, None].expand(10, 3), batch.y)
    ])  # fmt: skip
    off = (off / scale).square()
    expected = multiclass.divergence(target, now) + 5 * (off[10] + off[:10].mean(0))
    torch.testing.assert_close(found.double(), expected.double(), atol=1e-3, rtol=1e-3)


def test_a_masked_class_has_no_square_and_its_mass_counts_in_the_others():
    given = torch.tensor([[2.0, 0.0, -1.0, 0.5]])
    masked = given.log_softmax(1).index_fill(1, torch.tensor([3]), -torch.inf).log_softmax(1)
    masked = masked.clamp_min(FLOOR)
    without = multiclass.divergence(masked, given)
    squares = distance(multiclass, 2.0, 10.0, masked, given, torch.tensor([0])) - without
    off = [
        log_odds(masked, torch.tensor([c])) - log_odds(given, torch.tensor([c])) for c in range(3)
    ]
    off = torch.stack(off).square()[:, 0] / 4
    torch.testing.assert_close(squares, 5 * (off[0] + off.mean())[None])
    # one class is left: nothing to place
    alone = torch.tensor([[0.0, FLOOR]])
    two = torch.tensor([[1.0, 2.0]])
    torch.testing.assert_close(
        distance(multiclass, 2.0, 10.0, alone, two, None), multiclass.divergence(alone, two)
    )


def test_a_whole_group_of_a_task_without_classes_is_refused(tiny_net, digits):
    values = Records(digits.x[:30], torch.randn(30, 10, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(InputError, match="Wanted a multiclass task"):
        forget(tiny_net, Split(values), whole_group=True)


@pytest.mark.slow
def test_the_demos_three_requests_end_near_where_retraining_ends(tmp_path):
    """With a holdout, the gap to two retrained models is at most their own and two points."""
    model = load_model(demo.write_demo(tmp_path) / "model").model
    recipe, data = RECIPES[demo.RECIPE], str(tmp_path / "data")
    training, unseen = (
        load_data(data + part).records(None, recipe.preprocessing) for part in ("", ":test")
    )
    for request in demo._requests(training):
        rows = [row for row in range(len(training)) if row not in set(request.rows)]
        going, retain = training.take(request.rows), training.take(rows)
        # the half that the method does not see
        split = Split(going, unseen, forget_classes=request.forget_classes)
        parts = (going, split_holdout(split, seed=0)[1].holdout, retain)
        retrained = [train(fresh(recipe, 10, seed=s), retain, recipe, seed=s) for s in (1, 2)]
        goals = [demo._columns(one, parts, request) for one in retrained]
        student = forget(model, split, mislabelled=request.mislabelled, report="off").model
        found = demo._columns(student, parts, request)
        assert np.mean([gap(found, goal) for goal in goals]) <= gap(*goals) + 0.02, request.name
