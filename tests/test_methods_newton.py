"""The source-free Newton step: exact with the true Hessian, and how far the estimate is from it."""

import pytest
import torch
from by_hand import near, same
from torch import nn

from efface.methods.source_free_newton import (
    fit_psd,
    max_directions,
    output_curvature,
    solve_kronecker,
    source_free_newton,
)
from efface.task import multiclass, multilabel, regression
from efface.types import Action, Records, Split

GONE, ALL = 40, 400


def least_squares(outputs=1, features=8, *, seed=0, bias=False):
    """A linear model that is the least-squares fit of all records in float64, and these."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(features, features, generator=generator, dtype=torch.float64)
    x = torch.randn(ALL, features, generator=generator, dtype=torch.float64) @ mixing
    if bias:
        x = x + 1
    y = torch.randn(ALL, outputs, generator=generator, dtype=torch.float64)
    y = y + x @ torch.randn(features, outputs, generator=generator, dtype=torch.float64)
    model = nn.Linear(features, outputs, bias=bias).double().eval()
    put(model, fitted(x, y, bias=bias))
    return model, Records(x, y, task=regression(scale=1.0))


def fitted(x, y, *, ridge=0.0, bias=False):
    """Least mean ½ |W x − y|² / k + ½ ridge |W|², solved and not descended."""
    x = with_one(x) if bias else x
    hessian = x.T @ x / len(x) + ridge * y.shape[1] * torch.eye(x.shape[1], dtype=x.dtype)
    return torch.linalg.solve(hessian, x.T @ y / len(x)).T


def with_one(x):
    """The bias as one more weight."""
    return torch.cat([x, torch.ones_like(x[:, :1])], 1)


def put(model, weights):
    """Weights, and the bias as the last column."""
    with torch.no_grad():
        model.weight.copy_(weights[:, : model.in_features])
        if model.bias is not None:
            model.bias.copy_(weights[:, -1])


def weights_of(model):
    """As one table, the bias as the last column."""
    parts = [model.weight] if model.bias is None else [model.weight, model.bias[:, None]]
    return torch.cat(parts, 1).detach()


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_with_the_true_hessian_one_step_is_retraining(outputs, ridge):
    """The step itself is exact where the loss is quadratic: what is missed is the estimate's."""
    _, records = least_squares(outputs)
    x, y = records.x, records.y
    best, wanted = fitted(x, y, ridge=ridge), fitted(x[GONE:], y[GONE:], ridge=ridge)
    gone, stay = x[:GONE], x[GONE:]
    gradient = (gone @ best.T - y[:GONE]).T @ gone / GONE / outputs + ridge * best
    hessian = (torch.eye(outputs).double() / outputs, stay.T @ stay / len(stay), ridge)
    step = GONE / (ALL - GONE) * solve_kronecker(*hessian, gradient)
    near(best + step, wanted, atol=1e-10)
    assert (best - wanted).norm() > 1e-3


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("bias", [False, True])
def test_the_estimate_is_the_hessian_of_the_forget_records(outputs, bias):
    """So the step is w* + n_f/n_r H_f⁻¹ ∇_f to the last digit: no losses of D_f say more."""
    model, records = least_squares(outputs, bias=bias)
    settings = {"retained_records": ALL - GONE, "damping": 0.0, "perturbations": 100}
    result = source_free_newton(model, Split(records.take(range(GONE))), **settings)
    x, y = records.x[:GONE], records.y[:GONE]
    x = with_one(x) if bias else x
    best = weights_of(model)
    gradient = (x @ best.T - y).T @ x / GONE / outputs
    hessian = x.T @ x / GONE / outputs
    by_hand = best + GONE / (ALL - GONE) * torch.linalg.solve(hessian, gradient.T).T
    near(weights_of(result), by_hand, atol=1e-9)


def misses(share, seeds=20):
    """|w_u − w_retrain| / |w* − w_retrain| of the source-free step, a mean over problems."""
    found = []
    for seed in range(seeds):
        model, records = least_squares(seed=seed)
        gone = round(share * ALL)
        settings = {"retained_records": ALL - gone, "damping": 0.0, "perturbations": 80}
        result = source_free_newton(model, Split(records.take(range(gone))), **settings)
        wanted = fitted(records.x[gone:], records.y[gone:])
        off, whole = ((weights_of(one) - wanted).norm() for one in (result, model))
        found.append(float(off / whole))
    return sum(found) / len(found)


def test_the_source_free_step_misses_what_the_docs_say():
    """The true Hessian misses nothing; the estimate from a tenth of 400 records most of the way."""
    found = [misses(share) for share in (0.1, 0.2, 0.5)]
    assert found == pytest.approx([0.79, 0.40, 0.43], abs=0.01)


def test_the_perturbations_are_enough_and_fewer_are_not():
    """The fit of 8 directions has 36 entries, and takes no more directions than 72 losses tell."""
    assert [max_directions(m) for m in (1, 3, 72, 500, 1000)] == [1, 1, 8, 21, 31]


def test_the_fit_finds_a_form_and_cuts_off_what_is_below_0():
    """Least squares by hand, and the eigenvalues of the best form at 0 where they are below."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(60, 3, generator=generator, dtype=torch.float64)
    forms = drawn[:, :, None] * drawn[:, None]
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64)).Q
    given = turn @ torch.diag(torch.tensor([2.0, 0.5, -0.3]).double()) @ turn.T
    changes = 0.5 * (forms * given).sum((1, 2))
    cut = turn @ torch.diag(torch.tensor([2.0, 0.5, 0.0]).double()) @ turn.T
    near(fit_psd(forms, changes), cut, atol=1e-10)


def test_the_bends_of_cross_entropy_are_p_minus_its_square():
    """A = mean of diag(p) − p pᵀ, and the slope p − 1_y."""
    generator = torch.Generator().manual_seed(0)
    answers = torch.randn(9, 4, generator=generator, dtype=torch.float64)
    y = torch.arange(9) % 4
    slopes, bends = output_curvature(lambda z: multiclass.loss(z, y), answers)
    p = answers.softmax(1)
    by_hand = (torch.diag_embed(p) - p[:, :, None] * p[:, None]).mean(0)
    near(slopes, p - nn.functional.one_hot(y, 4))
    near(bends, by_hand)


def test_strength_multiplies_the_step_and_without_a_count_a_tenth_is_forgotten():
    """n_r is nine n_f then; strength 0 is the given model."""
    model, records = least_squares(3)
    split = Split(records.take(range(GONE)))
    whole = weights_of(source_free_newton(model, split, retained_records=9 * GONE))
    half, none = (weights_of(source_free_newton(model, split, strength=s)) for s in (0.5, 0.0))
    torch.testing.assert_close(half - weights_of(model), (whole - weights_of(model)) / 2)
    assert none.equal(weights_of(model))


def test_the_guard_is_asked_once_and_halves_the_step():
    """It has put the student back; half the step is tried next."""
    model, records = least_squares()
    split, seen = Split(records.take(range(GONE))), []
    actions = iter([Action.HALVE_LR, Action.HALVE_LR, Action.CONTINUE])

    def callback(student, loss):
        seen.append((weights_of(student).clone(), loss))
        action = next(actions)
        if action is Action.HALVE_LR:
            put(student, weights_of(model))
        return action

    source_free_newton(model, split, callback=callback)
    steps = [weights - weights_of(model) for weights, _ in seen]
    torch.testing.assert_close(steps[1], steps[0] / 2)
    torch.testing.assert_close(steps[2], steps[0] / 4)
    loss = records.task.loss(model(split.forget.x).detach(), split.forget.y).mean()
    assert [value for _, value in seen] == pytest.approx([float(loss)] * 3)


def test_multilabel_and_one_unit_are_served():
    """What one row of numbers can mean."""
    x = torch.randn(30, 5, generator=torch.Generator().manual_seed(0))
    several = torch.arange(90).reshape(30, 3) % 2
    for k, y, task in ((1, torch.arange(30) % 2, multiclass), (3, several, multilabel)):
        model = nn.Linear(5, k)
        result = source_free_newton(model, Split(Records(x, y, task=task)))
        assert weights_of(result).isfinite().all()
        assert not same(result, model)


@pytest.mark.parametrize("decay", [0.0, 1e-3, 0.1])
def test_with_weight_decay_the_method_is_retraining_where_both_hessians_are_one(decay):
    """The decay pulls at the given weights too; without that, at 0.1, worse than nothing done."""
    model, records = least_squares(features=6)
    x, y = records.x[:GONE].repeat(ALL // GONE, 1), records.y
    put(model, fitted(x, y, ridge=decay))
    split = Split(Records(x[:GONE], y[:GONE], task=regression(scale=1.0)))
    settings = {"retained_records": ALL - GONE, "damping": decay, "perturbations": 200}
    result = source_free_newton(model, split, **settings)
    near(result.weight, fitted(x[GONE:], y[GONE:], ridge=decay), atol=1e-9)
