"""What every probe promises; then each probe against closed forms, loops and other libraries."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.stats import ortho_group
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn.utils import prune

from efface.metrics.evaluation import Evaluation, evaluate
from efface.probes import cka as module
from efface.probes import linear_probe as lp
from efface.probes import residual as near
from efface.probes.cka import cka, cka_cost
from efface.probes.precision import precision, precision_cost, pruned, quantised, recovered
from efface.probes.relearning import Relearning, anamnesis, relearning, relearning_cost
from efface.runtime import PassCounter, Passes
from efface.testing import KINDS, model_of_kind, records_of_kind, untrained_model
from efface.types import Records
from tests.probe_promises import passes_of, same, traces, untouched
from tests.refusals import refusal
from tests.small_nets import twice

NOT_RUN = "Omit this probe, and say that it was not run."


@pytest.fixture(scope="module")
def parts(digits):
    """Forget, retain and unseen digits of the tiny net."""
    return digits.take(range(40)), digits.take(range(40, 300)), digits.take(range(300, 400))


@pytest.fixture(scope="module")
def pair(parts):
    """Forget digits, and digits that the tiny net never saw."""
    return parts[::2]


@pytest.fixture(scope="module")
def some(digits):
    """Digits that the tiny net never saw: it misses a few of them."""
    return digits.take(range(300, 360))


@pytest.fixture(scope="module")
def threes(parts, digits):
    """The threes that the tiny net saw, and a hundred digits that it never saw."""
    return digits.take((digits.y[:300] == 3).nonzero()[:, 0]), parts[2]


CURVES = {"learning_rates": (1e-3, 1e-2), "epochs": 2, "batch_size": 20}
HALF = {"bits": (8,), "shares": (0.1, 0.2)}
RESIDUAL = {
    "flips": (lambda m, s, **_: near.residual_in_flips(m, s), {"tried": 1}),
    "crops": (lambda m, s, **to: near.residual_in_crops(m, s, crops=3, **to), {"tried": 3}),
    "noise": (
        lambda m, s, **to: near.residual_in_noise(m, s, sigma=0.3, draws=4, **to),
        {"tried": 4},
    ),
    "ball": (
        lambda m, s, **to: near.residual_in_ball(m, s, radius=0.1, steps=5, **to),
        {"tried": 6, "descents": 5},
    ),
}


def relearned(on, every):
    """A probe of curves on some of the parts, and its price."""
    return (
        lambda m, on_, **to: curves(m, on_["parts"], on=on, every=every, **to),
        lambda on_: relearning_cost(on_["parts"][0], on_["parts"][on], **CURVES, every=every),
    )


PROBES = {
    "linear probe": (
        lambda m, on, **to: lp.linear_probe(m, *on["pair"], **to),
        lambda on: lp.linear_probe_cost(*on["pair"]),
    ),
    "neighbouring class": (
        lambda m, on, **to: lp.neighbouring_class(m, *on["threes"], forget_classes=(3,), **to),
        lambda on: lp.neighbouring_class_cost(*on["threes"], forget_classes=(3,)),
    ),
    "precision": (
        lambda m, on: precision(m, on["some"], **HALF),
        lambda on: precision_cost(on["some"], **HALF),
    ),
    **{f"relearning {at}": relearned(*at) for at in ((0, 1), (1, 1), (1, 5), (2, 7))},
    **{
        name: (
            lambda m, on, probe=probe, **to: probe(m, on["some"], **to),
            lambda on, price=price: near.residual_cost(on["some"], **price),
        )
        for name, (probe, price) in RESIDUAL.items()
    },
}


@pytest.fixture(scope="module")
def on(parts, pair, threes, some):
    """The records of each probe."""
    return {"parts": parts, "pair": pair, "threes": threes, "some": some}


@pytest.mark.parametrize("name", PROBES)
def test_a_probe_leaves_the_model_and_costs_the_passes_declared(
    tiny_net, on, random_state_kept, name
):
    """Weights, buffers, gradients, flags, hooks, random numbers; counted on model and copies."""
    probe, price = PROBES[name]
    untouched(lambda model: probe(model, on), tiny_net, random_state_kept)
    assert passes_of(lambda model: probe(model, on), tiny_net) == price(on)


@pytest.mark.parametrize("name", ["linear probe", "neighbouring class", "relearning (1, 1)"])
def test_another_seed_gives_other_numbers(hidden, on, name):
    """A seed that changes nothing is not the seed of what is drawn."""
    one, other = (PROBES[name][0](hidden, on, seed=seed) for seed in (0, 1))
    assert not same(one, other)


def test_the_numbers_are_those_of_a_probe_written_by_hand(tiny_net, pair):
    """Features of the layers before the head, scikit-learn, the halves, counts by class."""
    forget, unseen = pair
    found = lp.linear_probe(tiny_net, forget, unseen)
    with torch.no_grad():
        ours, theirs = (tiny_net[:-1](some.x).double().numpy() for some in pair)
    y, z = forget.y.numpy(), unseen.y.numpy()
    fit, fit_z = lp.fitted_half(y, seed=0), lp.fitted_half(z, seed=0)
    known, labels = np.concatenate([ours[fit], theirs[fit_z]]), np.concatenate([y[fit], z[fit_z]])
    regression = LogisticRegression(max_iter=10_000, class_weight="balanced")
    reader = make_pipeline(StandardScaler(), regression).fit(known, labels)
    right, other = (
        reader.predict(ours[~fit]) == y[~fit],
        reader.predict(theirs[~fit_z]) == z[~fit_z],
    )
    shares = [other[z[~fit_z] == label].mean() for label in y[~fit]]
    assert (found.accuracy, found.scored) == (right.mean(), (~fit).sum())
    assert found.unseen_accuracy == pytest.approx(np.mean(shares))
    assert found.interval[0] < found.accuracy <= found.interval[1]


def test_knowledge_behind_a_new_head_is_found_and_embeddings_of_zeros_have_none(tiny_net, pair):
    """The outputs know nothing any more; the features know the classes as before."""
    net = copy.deepcopy(tiny_net)
    nn.init.zeros_(net[-1].weight), nn.init.zeros_(net[-1].bias)
    assert evaluate(net, pair[0]).correct.mean() < 0.3
    found = lp.linear_probe(net, *pair)
    assert found.accuracy > 0.8
    assert same(found, lp.linear_probe(tiny_net, *pair))
    # a layer of zeros before the head: nothing to read, and the probe says so
    nn.init.zeros_(net[4].weight), nn.init.zeros_(net[4].bias)
    found = lp.linear_probe(net, *pair)
    assert (found.accuracy < 0.3, found.membership.auc) == (True, 0.5)


SINGLE = {"classes": np.zeros(400, int), "unseen_classes": np.zeros(400, int)}


def rows(n, classes, draw, *, shift=0.0):
    """Normal numbers around a centre of their class, moved by ``shift`` in the last column."""
    y = np.arange(n) % classes
    x = draw.normal(size=(n, 5)) + 4 * y[:, None]
    x[:, -1] += shift
    return x, y


def test_a_leak_in_the_features_is_found_and_classes_are_no_leak():
    """Members moved in one direction; without it the area is near a half, by scikit-learn too."""
    draw = np.random.default_rng(0)
    theirs, unseen_classes = rows(400, 4, draw)
    for shift in (0.0, 1.5):
        ours, classes = rows(400, 2, draw, shift=shift)
        groups = {"classes": classes, "unseen_classes": unseen_classes}
        found = lp.linear_attack(ours, theirs, **groups, seed=0)
        assert found.detected is (shift > 0)
        assert (found.unseen_n, found.forget_n) == (100, 200)
    ours, theirs = draw.normal(size=(400, 3)) + 0.7, draw.normal(size=(400, 3))
    fit = lp.fitted_half(np.zeros(400, int), seed=0)
    known, others = (np.concatenate([ours[half], theirs[half]]) for half in (fit, ~fit))
    truth = np.repeat([1, 0], 200)
    attacker = make_pipeline(StandardScaler(), LogisticRegression()).fit(known, truth)
    expected = roc_auc_score(truth, attacker.decision_function(others))
    assert lp.linear_attack(ours, theirs, **SINGLE, seed=0).auc == pytest.approx(expected)


def test_an_attacker_is_not_judged_on_what_it_was_fitted_on():
    """Two hundred records in as many dimensions can be told apart; their other half cannot."""
    ours, theirs = np.random.default_rng(1).normal(size=(2, 400, 200))
    assert not lp.linear_attack(ours, theirs, **SINGLE, seed=0).significant


def test_a_half_holds_half_of_each_class():
    """The odd record is learned from; another seed takes other records."""
    classes = np.repeat([3, 5, 9], [7, 10, 1])
    half = lp.fitted_half(classes, seed=0)
    assert [int(half[classes == label].sum()) for label in (3, 5, 9)] == [4, 5, 1]
    assert not np.array_equal(half, lp.fitted_half(classes, seed=1))


@pytest.mark.parametrize("kind", ["layer norm", "dropout", "one output", "table"])
def test_models_of_other_kinds_have_a_linear_probe(kind):
    """Whatever has a linear head; a single unit too."""
    some = records_of_kind(kind)
    found = lp.linear_probe(model_of_kind(kind), some.take(range(30)), some.take(range(30, 60)))
    assert 0 <= found.accuracy <= 1


def test_what_the_probe_does_not_serve_is_refused_in_words(tiny_net, pair):
    """No head, no classes, one class alone, too few records."""
    forget, unseen = pair
    zeros = [d.take((d.y == 0).nonzero()[:, 0]) for d in pair]
    broken, values = copy.deepcopy(tiny_net), records_of_kind("regression")
    nn.init.constant_(broken[0].weight, float("nan"))
    for text, *given in (
        (f"whose outputs are the model's. Got another step after it. {NOT_RUN}", twice(), *pair),
        (f"Got regression. {NOT_RUN}", model_of_kind("regression"), values, values),
        ("Wanted records of two classes or more. Got class 0 alone. Give uns", tiny_net, *zeros),
        ("one for each half. Got 1 and 10.", tiny_net, forget.take([0]), unseen),
        ("a model with finite weights. Got nan or inf in 0.weight.", broken, forget, unseen),
    ):
        assert text in refusal(lp.linear_probe, *given)


def test_taking_a_class_out_is_conditioning_on_the_others(tiny_net, threes):
    """p_k / (1 - p_leaving), computed from the probabilities themselves."""
    measured = evaluate(tiny_net, threes[1])
    logs = lp.retained_log_probabilities(measured, (3, 7))
    kept = measured.probabilities[:, [0, 1, 2, 4, 5, 6, 8, 9]]
    np.testing.assert_allclose(np.exp(logs), kept / kept.sum(1, keepdims=True), rtol=1e-6)


def test_the_nearest_class_is_the_second_where_the_first_has_left(tiny_net, threes):
    """Ids are those of the model, not places among the classes that stay."""
    found = lp.neighbouring_class(tiny_net, *threes, forget_classes=(3,))
    logits = evaluate(tiny_net, threes[0]).logits.copy()
    logits[:, 3] = -np.inf
    np.testing.assert_array_equal(found.forget.classes, logits.argmax(1))
    assert (found.forget.classes.max() > 3, found.forget.confidence.min() >= 1 / 9) == (True, True)


def test_a_high_score_of_the_class_that_left_does_not_hide_its_neighbours(tiny_net, threes):
    """A filter that adds to the logit of the class, or takes it away, changes nothing here."""
    pushed = copy.deepcopy(tiny_net)
    pushed[-1].bias.data[3] -= 50
    nets = tiny_net, pushed
    one, other = (lp.neighbouring_class(net, *threes, forget_classes=(3,)) for net in nets)
    np.testing.assert_allclose(one.forget.confidence, other.forget.confidence, rtol=1e-4)
    assert one.by_confidence == other.by_confidence


def leaking(n, *, sure, seed):
    """Records of class 2 whose inputs are logits of three classes."""
    draw = np.random.default_rng(seed)
    logits = np.stack([sure + draw.normal(size=n), np.zeros(n), draw.normal(size=n)], 1)
    return Records(torch.tensor(logits, dtype=torch.float32), torch.full((n,), 2))


def test_members_whose_neighbour_is_surer_are_told_apart():
    """By both attackers; the area is that of scikit-learn."""
    ours, theirs = leaking(200, sure=2.0, seed=0), leaking(300, sure=0.0, seed=1)
    found = lp.neighbouring_class(nn.Identity(), ours, theirs, forget_classes=(2,))
    assert (found.by_confidence.detected, found.by_all.detected) == (True, True)
    confidences = np.concatenate([found.forget.confidence, found.unseen.confidence])
    expected = roc_auc_score(np.repeat([1, 0], [200, 300]), confidences)
    assert found.by_confidence.auc == pytest.approx(expected)
    ours = leaking(200, sure=0.0, seed=2)
    alike = lp.neighbouring_class(nn.Identity(), ours, theirs, forget_classes=(2,))
    assert (alike.by_confidence.significant, alike.by_all.significant) == (False, False)


def test_two_models_are_compared_record_by_record():
    """Shares and means by hand, the distance by scipy."""
    one = lp.Nearest(np.array([0, 1, 1, 4]), np.array([0.9, 0.8, 0.7, 0.6]))
    other = lp.Nearest(np.array([0, 1, 2, 2]), np.array([0.5, 0.6, 0.4, 0.7]))
    found = lp.agreement(one, other)
    assert (found.same, found.difference) == (0.5, pytest.approx(0.2))
    assert (found.distance, found.p) == stats.ks_2samp(one.confidence, other.confidence)
    assert lp.agreement(one, one).distance == lp.agreement(one, one).difference == 0


def test_records_without_neighbouring_classes_are_refused(tiny_net, threes, digits):
    """Records of other classes, no class left to compare with, none unseen, no classes at all."""
    forget, unseen = threes
    others = unseen.take((unseen.y != 3).nonzero()[:, 0])
    many = model_of_kind("multilabel"), records_of_kind("multilabel")
    for text, classes, *given in (
        ("forgotten classes. Got 2 of others.", (3,), tiny_net, digits.take([0, 1, 3]), unseen),
        ("two classes or more that remain. Got 1 of 10.", range(1, 10), tiny_net, forget, unseen),
        ("at least one record. Got none.", (3,), tiny_net, forget, others),
        ("multiclass records for this probe. Got multilabel.", (3,), *many, unseen),
    ):
        assert text in refusal(lp.neighbouring_class, *given, forget_classes=tuple(classes))
    one, two = (lp.Nearest(np.arange(n), np.ones(n)) for n in (1, 2))
    text = "Wanted the same records, at least one, for both models. Got 1 and 2. Probe both"
    assert text in refusal(lp.agreement, one, two)


@pytest.fixture(scope="module")
def hidden(tiny_net):
    """The tiny net with another last layer: the knowledge is there, and not shown."""
    net = copy.deepcopy(tiny_net)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(3)
        net[-1].reset_parameters()
    return net


def curves(model, parts, *, on=0, **settings):
    """Two learning rates, two epochs on one part."""
    return relearning(model, parts[0], parts[on], original=1.0, **CURVES, **settings)


def test_dropout_and_batchnorm_work_as_in_training_unless_switched_off(
    tiny_net, parts, random_state_kept
):
    still = lambda model: curves(model, parts, training_mode=False)  # noqa: E731
    found = untouched(still, tiny_net, random_state_kept)
    assert not same(found, curves(tiny_net, parts))


def test_the_price_written_out(parts):
    """Forty records, 260 to train on, 13 steps an epoch: by hand."""
    settings = {"learning_rates": (1e-3,), "epochs": 2, "batch_size": 20, "every": 4}
    expected = Passes(forward=2 * 260 + 40 * (1 + 7), backward=2 * 260)
    assert relearning_cost(*parts[:2], **settings) == expected


def test_the_curve_is_that_of_a_loop_written_by_hand(hidden, parts):
    """Adam on the mean cross-entropy over all records of a step, in eval mode."""
    forget, how = parts[0], {"learning_rates": (3e-3,), "epochs": 4, "training_mode": False}
    (found,) = relearning(hidden, forget, forget, original=1.0, **how)
    net, shares = copy.deepcopy(hidden), []
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(5):
        logits = net(forget.x)
        shares.append(float((logits.argmax(1) == forget.y).float().mean()))
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits, forget.y).backward()
        optimizer.step()
    assert found.at == (0, 1, 2, 3, 4)
    assert found.accuracy == pytest.approx(shares)
    assert shares[-1] > shares[0]


def test_records_are_back_at_a_share_of_what_the_original_knew(hidden, parts):
    how = {"learning_rates": (1e-3,), "epochs": 1}
    (found,) = relearning(hidden, parts[0], parts[0], original=0.8, tolerance=0.25, **how)
    assert found.wanted == pytest.approx(0.6)


def test_records_that_were_hidden_come_back_from_the_retained_ones_alone(hidden, tiny_net, parts):
    """The head was replaced: at first nothing is known, and training elsewhere brings it back."""
    original = float(evaluate(tiny_net, parts[0]).correct.mean())
    settings = {"original": original, "learning_rates": (1e-2,), "epochs": 3}
    nets = hidden, untrained_model(5), tiny_net
    back, blank, known = (relearning(net, *parts[:2], **settings)[0] for net in nets)
    assert back.accuracy[0] < 0.3
    assert known.steps == 0 < back.steps < (blank.steps or math.inf)


def test_frozen_weights_move_too_and_half_precision_learns_in_single(tiny_net, parts):
    """Whoever has the model need not keep to its flags; in bfloat16 a small step rounds to none."""
    frozen = copy.deepcopy(tiny_net).requires_grad_(requires_grad=False)
    assert same(curves(frozen, parts), curves(tiny_net, parts))
    half = copy.deepcopy(tiny_net).bfloat16()
    assert same(curves(half, parts), curves(copy.deepcopy(half).float(), parts))


@pytest.mark.parametrize("kind", KINDS)
def test_models_of_other_kinds_relearn(kind):
    """Multilabel and regression too: what is read is the accuracy of the task."""
    some, how = records_of_kind(kind), {"original": 0.5, "learning_rates": (1e-2,), "epochs": 8}
    (found,) = relearning(model_of_kind(kind), some, some, **how)
    assert len(found.accuracy) == 9
    assert found.accuracy[-1] >= found.accuracy[0]


def curve(*shares, wanted=0.95, rate=1e-3):
    """A curve read after each step."""
    at = tuple(range(len(shares)))
    return Relearning(rate, at, tuple(map(float, shares)), wanted, at[-1])


@pytest.mark.parametrize(
    ("ours", "theirs", "index", "low", "high"),
    [
        ((0, 0, 1), (0, 0, 1), 1, 1, 1),
        ((0, 1, 1), (0, 0, 1), 0.5, 0.5, 0.5),
        ((1, 1, 1), (1, 1, 1), 1, 1, 1),
        ((1, 1, 1), (0, 0, 1), 0, 0, 0),
        ((0, 0, 0), (0, 1, 1), None, 2, math.inf),
        ((0, 1, 1), (0, 0, 0), None, 0, 0.5),
        ((0, 0, 0), (0, 0, 0), None, 0, math.inf),
        ((0, 0, 1), (1, 1, 1), None, 2, math.inf),
    ],
)
def test_the_anamnesis_index_is_a_ratio_of_steps(ours, theirs, index, low, high):
    """One for the same model; where a curve ended first, only bounds are known."""
    found = anamnesis(curve(*ours), curve(*theirs))
    assert (found.index, found.low, found.high) == (index, low, high)


def test_curves_that_were_made_otherwise_are_not_compared():
    """A ratio of steps at two learning rates means nothing."""
    text = "Got 0.001 and 0.01, up to 1 and 2 steps, to 0.950 and 0.950."
    assert text in refusal(anamnesis, curve(0, 1), curve(0, 1, 1, rate=1e-2))


def test_what_cannot_be_relearned_is_refused(tiny_net, parts):
    """No records, or an original that knew nothing: the first step would do."""
    for text, forget, named in (
        ("records to train on. Got 0 and 260. Give at least one of each.", parts[0].take([]), {}),
        ("a tolerance from 0 to below 1. Got 0.0 and 0.05. Evaluate", parts[0], {"original": 0.0}),
        ("Got 10 epochs, every 0. Give integers above 0.", parts[0], {"every": 0}),
    ):
        assert text in refusal(relearning, tiny_net, forget, parts[1], **{"original": 1.0, **named})


@pytest.mark.parametrize("kind", RESIDUAL)
def test_a_record_has_the_same_neighbours_in_any_batch_and_others_with_another_seed(
    tiny_net, some, kind
):
    """Draws come from the id and the seed alone; flips draw nothing."""
    probe, order = RESIDUAL[kind][0], np.random.default_rng(0).permutation(len(some))
    wide = replace(some, low=some.low - 2, high=some.high + 2)
    assert same(*(probe(tiny_net, wide, seed=seed) for seed in (0, 1))) is (kind == "flips")
    one, other = probe(tiny_net, some), probe(tiny_net, some.take(order.tolist()))
    np.testing.assert_array_equal(one.plain, evaluate(tiny_net, some).correct)
    assert 0 < one.missed < len(some)
    np.testing.assert_array_equal(one.hits[order], other.hits)


def linear(weight, bias):
    """One linear layer of these numbers."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(weight.shape[1], weight.shape[0]))
    with torch.no_grad():
        net[1].weight.copy_(torch.as_tensor(weight))
        net[1].bias.copy_(torch.as_tensor(bias))
    return net


def line(*, flat=False, bias=0.5):
    """Two classes of one pixel that lies in 0..1: class 1 from 0.5 on (never where it is flat)."""
    return linear(np.array([[0.0], [0.0 if flat else 1.0]]), [bias, 0.0])


def pixels(*values):
    """Records of class 1."""
    x = torch.tensor(values).reshape(-1, 1, 1, 1)
    y = torch.ones(len(values), dtype=torch.int64)
    return Records(x, y, low=torch.tensor(0.0), high=torch.tensor(1.0))


def test_the_ball_reaches_exactly_as_far_as_its_radius_in_units_of_the_range():
    """On a line the label begins at 0.5: found from 0.42 with a radius of 0.1, not from 0.38."""
    found = near.residual_in_ball(line(), pixels(0.38, 0.42, 0.45, 0.6), radius=0.1, steps=10)
    assert found.plain.tolist() == [False, False, False, True]
    assert found.recovered.tolist() == [False, True, True, False]
    assert (found.missed, found.share) == (3, pytest.approx(2 / 3))
    assert found.interval == pytest.approx((0.0943, 0.9916), abs=1e-4)
    # the same pixels as numbers of 0..10, for a net that takes these
    net, some = line(), replace(pixels(3.8, 4.2), high=torch.tensor(10.0))
    with torch.no_grad():
        net[1].weight.mul_(0.1)
    assert near.residual_in_ball(net, some, radius=0.1, steps=10).recovered.tolist() == [
        False,
        True,
    ]


def test_no_input_is_tried_beyond_the_data():
    """A label that lies outside what an input can be is not found."""
    net = line(bias=1.05)
    assert not near.residual_in_ball(net, pixels(0.9), radius=0.5, steps=10).recovered.any()
    assert not near.residual_in_noise(net, pixels(0.9), sigma=0.5, draws=50).recovered.any()


def test_noise_is_as_wide_as_said():
    """Of many draws a normal share crosses the line, which scipy knows in closed form."""
    some = pixels(*[0.4] * 400)
    found = near.residual_in_noise(line(), some, sigma=0.08, draws=20)
    assert found.recognised == pytest.approx(stats.norm.sf(0.1 / 0.08), abs=0.01)
    assert near.residual_in_noise(line(flat=True), some, sigma=0.3).recognised == 0


class Corner(nn.Module):
    """Says class 1 where the pixel in the middle of the left edge is lit."""

    def forward(self, x):
        lit = x[:, 0, x.shape[2] // 2, 0]
        return torch.stack([torch.full_like(lit, 0.5), lit], 1)


def lit(column):
    """One image, 5 x 5, one pixel lit in its middle row."""
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 2, column] = 1
    return Records(x, torch.tensor([1]))


def test_flips_and_crops_are_what_they_say():
    """Lit on the right edge: seen when mirrored; lit one off the left edge: seen when shifted."""
    assert near.residual_in_flips(Corner(), lit(4)).recovered.all()
    assert not near.residual_in_flips(Corner(), lit(1)).recovered.any()
    shifted = near.residual_in_crops(Corner(), lit(1), crops=60)
    assert shifted.recognised == pytest.approx(1 / 9, abs=0.08)
    assert not near.residual_in_crops(Corner(), lit(3), crops=60).recovered.any()


def test_residual_knowledge_is_a_ratio_of_shares():
    """One against itself; by hand else."""
    counts = np.array([[0, 0, 0, 0], [1, 0, 2, 0], [5, 1, 0, 0]], float)
    nothing, few, many = (near.Residual(np.zeros(4, bool), hits, tried=5) for hits in counts)
    assert near.residual_knowledge(many, few) == pytest.approx(2)
    assert near.residual_knowledge(few, few) == near.residual_knowledge(nothing, nothing) == 1
    assert near.residual_knowledge(few, nothing) == float("inf")
    other = near.Residual(np.ones(2, bool), np.ones(2), tried=1)
    assert (other.share, other.interval) == (None, (0, 1))  # none is missed: a share of none
    text = "Wanted two probes of the same records with the same settings. Got 4 and 2 records, "
    text += "5 and 1 inputs tried. Probe both models alike."
    assert refusal(near.residual_knowledge, few, other) == text


def test_inputs_that_a_probe_does_not_serve_are_refused_in_words(tiny_net, some):
    """A row of a table cannot be mirrored; a value has no label to be said."""
    for name, kind, text in (
        (
            "flips",
            "table",
            "Wanted images, (n, c, h, w), which can be flipped and cropped. Got inp",
        ),
        (
            "crops",
            "table",
            "Wanted images, (n, c, h, w), which can be flipped and cropped. Got inp",
        ),
        (
            "ball",
            "regression",
            f"Wanted multiclass records for this probe. Got regression. {NOT_RUN}",
        ),
        (
            "ball",
            "multilabel",
            f"Wanted multiclass records for this probe. Got multilabel. {NOT_RUN}",
        ),
    ):
        assert text in refusal(RESIDUAL[name][0], model_of_kind(kind), records_of_kind(kind))
    text = "Wanted at least one record. Got none. Give the records to be probed."
    assert refusal(near.residual_in_flips, tiny_net, some.take([])) == text
    text = "Wanted a sigma above 0. Got 0.0. Give it as a share of the data's range."
    assert refusal(near.residual_in_noise, tiny_net, some, sigma=0.0) == text


@pytest.mark.parametrize("kind", ["table", "one output", "tied"])
def test_noise_and_the_ball_serve_any_inputs(kind):
    """Tables and single units too."""
    for name in ("noise", "ball"):
        found = RESIDUAL[name][0](model_of_kind(kind), records_of_kind(kind))
        assert len(found.hits) == 60


def test_the_copies_are_named_and_the_first_is_the_model_itself(tiny_net, some):
    found = precision(tiny_net, some)
    names = ["unchanged", "int8", "int4", "pruned 30 %", "pruned 50 %", "pruned 70 %"]
    assert [one.name for one in found] == names
    np.testing.assert_array_equal(found[0].evaluation.logits, evaluate(tiny_net, some).logits)
    assert precision_cost(some).forward == 6 * len(some)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_weights_are_rounded_to_a_symmetric_grid_of_each_output(tiny_net, bits):
    """Written out in numpy, one output at a time."""
    top = 2 ** (bits - 1) - 1
    given, found = tiny_net.state_dict(), quantised(tiny_net, bits=bits).state_dict()
    for name, weight in given.items():
        if weight.ndim < 2:
            assert found[name].equal(weight)
            continue
        for row, new in zip(weight.numpy(), found[name].numpy(), strict=True):
            scale = np.abs(row).max() / top
            expected = np.clip(np.round(row / scale), -top, top) * scale
            np.testing.assert_allclose(new, expected, atol=1e-6)
            assert len(np.unique(new)) <= 2 * top + 1


def test_fewer_bits_move_the_answers_more(tiny_net, digits):
    """Eight bits hardly show, four do."""
    some, nets = digits.take(range(60)), (tiny_net, *(quantised(tiny_net, bits=b) for b in (8, 4)))
    plain, *copies = (evaluate(net, some).logits for net in nets)
    eight, four = (np.abs(logits - plain).mean() for logits in copies)
    assert 0 < 5 * eight < four


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_the_weights_nearest_to_zero_go_as_in_torchs_own_pruning(tiny_net, share):
    """Over all layers at once."""
    twin = copy.deepcopy(tiny_net)
    layers = [(part, "weight") for part in twin if isinstance(part, nn.Conv2d | nn.Linear)]
    prune.global_unstructured(layers, pruning_method=prune.L1Unstructured, amount=share)
    for layer, name in layers:
        prune.remove(layer, name)
    found = pruned(tiny_net, share=share).state_dict()
    for name, weight in twin.state_dict().items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=0)


def test_a_change_that_rounding_swallows_is_undone(tiny_net, digits):
    """A nudge of every weight, far below a step of the grid: the rounded copy is the old one's."""
    old, some = quantised(tiny_net, bits=8), digits.take(range(20))
    nudged = copy.deepcopy(old)
    with torch.no_grad():
        for layer in (part for part in nudged if isinstance(part, nn.Conv2d | nn.Linear)):
            flat = layer.weight.flatten(1)
            small = flat.abs() < flat.abs().amax(1, keepdim=True)
            layer.weight.add_((1e-4 * small).reshape(layer.weight.shape))
    again = quantised(nudged, bits=8)
    for name, weight in old.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], weight, rtol=1e-4, atol=1e-6)
    assert not torch.equal(nudged[0].weight, old[0].weight)
    back = recovered(evaluate(nudged, some), evaluate(again, some))
    assert back.missed == (~evaluate(nudged, some).correct).sum()


def told(*answers):
    """Records of class 1, each answered with a class."""
    logits, ids = np.eye(3, dtype=np.float32)[list(answers)], tuple(map(str, range(len(answers))))
    return Evaluation(logits, np.ones(len(answers), np.int64), ids)


def test_recovered_records_are_counted_among_the_missed():
    """Four missed, one of them back; the one that was right all along does not count."""
    found = recovered(told(0, 0, 2, 2, 1), told(0, 1, 2, 0, 1))
    assert (found.missed, found.share) == (4, 0.25)
    assert found.recovered.tolist() == [False, True, False, False, False]


@pytest.mark.parametrize("kind", KINDS)
def test_copies_of_models_of_other_kinds(kind):
    """Tied weights stay tied, a row of zeros stays one."""
    net = model_of_kind(kind)
    with torch.no_grad():
        net[1].weight[0] = 0
    found = precision(net, records_of_kind(kind))
    assert all(np.isfinite(one.evaluation.logits).all() for one in found)
    assert not quantised(net, bits=4)[1].weight[0].any()
    if kind == "tied":
        tied = [part for part in quantised(net, bits=4) if isinstance(part, nn.Linear)]
        assert tied[1] is tied[2]


def test_of_equal_weights_no_more_than_the_share_is_pruned():
    layer = nn.Linear(5, 4)
    nn.init.constant_(layer.weight, -2.0)
    assert pruned(layer, share=0.3).weight.count_nonzero() == 14


def test_half_precision_keeps_its_dtype(tiny_net):
    """The copy can stand in the place of the model."""
    half = copy.deepcopy(tiny_net).bfloat16()
    copies = quantised(half, bits=4), pruned(half, share=0.5)
    assert {t.dtype for net in copies for t in net.parameters()} == {torch.bfloat16}


def test_what_cannot_be_changed_is_refused_in_words(tiny_net):
    """Bits, shares, models without weights, and records that have no class."""
    values = evaluate(model_of_kind("regression"), records_of_kind("regression"))
    for text, call, *given, settings in (
        ("Wanted 2 to 8 bits. Got 16. Take 8 or 4.", quantised, tiny_net, {"bits": 16}),
        ("Wanted a share from 0 to 1. Got 1.5. Take", pruned, tiny_net, {"share": 1.5}),
        ("weights of two or more dimensions. Got none.", pruned, nn.Flatten(), {"share": 0.5}),
        ("Got 1 and 2 records. Take them from one", recovered, told(1), told(1, 1), {}),
        ("Got 60 and 60 records, of another task.", recovered, values, values, {}),
    ):
        assert text in refusal(call, *given, **settings)


def by_gram(x, y):
    """The definition by centred n x n Gram matrices."""
    centre = np.eye(len(x)) - 1 / len(x)
    ours, theirs = (centre @ one @ one.T @ centre for one in (x, y))
    return (ours * theirs).sum() / np.linalg.norm(ours) / np.linalg.norm(theirs)


def test_cka_leaves_both_models_draws_nothing_and_costs_the_passes_declared(
    tiny_net, digits, random_state_kept
):
    """Weights, buffers, gradients, flags, hooks, random numbers; counted on both models."""
    other, some = untrained_model(1), digits.take(range(40))
    before = {k: str(v) for k, v in traces(other).items()}
    untouched(lambda model: cka(model, other, some), tiny_net, random_state_kept)
    untouched(lambda model: cka(other, model, some), tiny_net, random_state_kept)
    assert {k: str(v) for k, v in traces(other).items()} == before
    counted = PassCounter(tiny_net)
    cka(counted.model, counted.attach(other), some)
    assert counted.passes == cka_cost(some)


def test_a_model_is_like_itself(tiny_net, digits):
    """One in each layer that holds weights."""
    found = cka(tiny_net, tiny_net, digits.take(range(100)))
    assert found.layers == ("0", "1", "3", "4", "7")
    np.testing.assert_allclose(found.values, 1, atol=1e-9)


@pytest.mark.parametrize("at_once", [7, 1000])
def test_each_layer_has_the_value_that_the_gram_matrices_give(
    tiny_net, digits, at_once, monkeypatch
):
    """The last layer and a convolution averaged over its places, in batches of any size."""
    monkeypatch.setattr(module, "BATCH_SIZE", at_once)
    other, some = untrained_model(3).eval(), digits.take(range(80))
    found = dict(zip(*cka(tiny_net, other, some), strict=True))
    with torch.no_grad():
        for layer in (0, 3, 7):
            x, y = (net[: layer + 1](some.x).double() for net in (tiny_net, other))
            if layer < 7:
                x, y = x.mean((2, 3)), y.mean((2, 3))
            assert found[str(layer)] == pytest.approx(by_gram(x.numpy(), y.numpy()), abs=1e-5)
    assert found["7"] < 0.9


def test_turns_scale_and_shift_of_a_layer_change_nothing_and_a_stretch_does(digits):
    """The invariances that define it; any other linear map is no invariance."""
    draw = np.random.default_rng(0)
    weight, some = draw.normal(size=(6, 64)), digits.take(range(90))
    turned = ortho_group.rvs(6, random_state=0) @ weight
    plain = linear(weight, np.zeros(6))
    alike = cka(plain, linear(3 * turned, draw.normal(size=6)), some)
    assert alike.values == pytest.approx([1], abs=1e-6)
    stretched = cka(plain, linear(weight * np.array([[9, 1, 1, 1, 1, 1]]).T, np.zeros(6)), some)
    assert stretched.values[0] < 0.95
    # a great bias would drown the products of columns that are not centred
    far = linear(weight, np.full(6, 1e4))
    assert cka(plain, far, some).values == pytest.approx([1], abs=1e-4)
    # constant answers have no direction: nan, not 0
    flat = linear(np.zeros((6, 64)), np.zeros(6))
    assert np.isnan(cka(flat, flat, some).values).all()


def test_a_layer_is_read_before_the_next_works_in_place(digits):
    """ReLU in place overwrites what its layer said."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(inplace=True), nn.Linear(8, 10))
    twin = nn.Sequential(*net[:2], nn.ReLU(), net[3])
    some, other = digits.take(range(40)), nn.Sequential(nn.Flatten(), nn.Linear(64, 8))
    in_place, apart = (cka(one, other, some).values for one in (net, twin))
    np.testing.assert_array_equal(in_place, apart)


@pytest.mark.parametrize("kind", KINDS)
def test_models_of_other_kinds_are_aligned(kind):
    """Labels play no part."""
    found = cka(model_of_kind(kind), copy.deepcopy(model_of_kind(kind)), records_of_kind(kind))
    np.testing.assert_allclose(found.values, 1, atol=1e-9)


def test_what_cannot_be_compared_is_refused_in_words(tiny_net, digits):
    """One record has no spread; two architectures no common layer."""
    text = "Wanted two records or more. Got 1. Give more records."
    assert refusal(cka, tiny_net, tiny_net, digits.take([0])) == text
    other = nn.Sequential(nn.Flatten(), nn.Identity(), nn.Linear(64, 10))
    text = "Wanted two models with layers of the same names. Got 0, 1, 3 and 2. Compare models of o"
    assert text in refusal(cka, tiny_net, other, digits.take(range(9)))
