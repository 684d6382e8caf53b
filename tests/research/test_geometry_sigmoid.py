"""The sigmoid: closed forms against gradients, forms against the paper's figure."""

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.special import expit

from efface.methods.jit_forms import jit_paper_loss
from research.geometry import sigmoid, tangent
from research.geometry import sigmoid_forms as forms
from research.geometry.sigmoid import as_the_paper, closed_form, forgotten, net_moves, rmse
from research.geometry.sigmoid_forms import FORMS, POINTS, down, unit, up

X = np.array([-4.0, -1.0, -0.3, 0.0, 0.5, 1.2, 2.0, 3.0])


def test_the_units_pull_is_the_gradient_of_its_slope():
    """Autograd differentiates the slope S'(wx + b) w with respect to w and b."""
    for x, pull in zip(X, np.stack(tangent.unit_pull(X), 1), strict=True):
        w, b = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (1.0, 0.0))
        answer = torch.sigmoid(w * x + b)
        by_hand = torch.autograd.grad(w * answer * (1 - answer), (w, b))
        assert pull == pytest.approx([-float(g) for g in by_hand], abs=1e-12)


def test_the_units_tangent_kernel_is_its_closed_form_and_a_small_step_moves_down_its_slope():
    """K(x) = s² (x² + 1), s = S'(x); −K'(x) / 2 per η is s times the move of wx + b."""
    x, s = torch.tensor(X), expit(X) * (1 - expit(X))
    np.testing.assert_allclose(tangent.tangent_norm(unit().double(), x), s**2 * (X**2 + 1))
    slope = tangent.tangent_slope(unit().double(), x)
    np.testing.assert_allclose(-0.5 * slope, s * tangent.unit_move(X))


def test_the_turning_points_are_where_the_closed_forms_say():
    """(x² + 1) tanh(x / 2) = x with a bias, x tanh(x / 2) = 1 without."""
    with_bias = brentq(lambda x: (x * x + 1) * np.tanh(x / 2) - x, 1, 2)
    without = brentq(lambda x: x * np.tanh(x / 2) - 1, 1, 2)
    assert tangent.turning_point() == pytest.approx(with_bias)
    assert tangent.turning_point(bias=False) == pytest.approx(without)


def test_of_equation_1_the_answer_itself_falls_out():
    """E |f(x + ξ) − f(x)| / |ξ| = E (f(x + ξ) − f(x − ξ)) / 2ξ for a function that rises."""
    x, sigma, copies = 0.7, 1.5, 200_000
    found = jit_paper_loss(unit(), forms.record(x), sigma=sigma, perturbations=copies)
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    noise = sigma * nodes
    slopes = (expit(x + noise) - expit(x - noise)) / 2 / noise
    assert float(found.detach()) == pytest.approx(weights @ slopes / weights.sum(), abs=5e-4)


@pytest.mark.parametrize("squashed", [True, False])
def test_nets_that_are_the_same_function_move_as_their_own_kernels_foretell(squashed):
    """Step by step through the method on one side, derivatives of derivatives on the other."""
    net = forms.small_net(0, squashed=squashed)
    outputs = net(torch.tensor(POINTS, dtype=torch.float32)[:, None])[:, 0].detach().numpy()
    assert np.abs(outputs - expit(POINTS)).max() < 0.01
    moves = net_moves(net, 0)
    assert np.corrcoef(moves["moved"], moves["foretold"])[0, 1] > 0.999
    positive = np.array(POINTS) > 0.3
    assert (np.sign(moves["moved"][positive]) == (1 if squashed else -1)).mean() > 0.8


def test_one_step_up_gives_the_papers_figure_and_one_step_down_its_mirror():
    """Every read-off within 0.01 of the mean, as well as it can be read; no change: 0.062."""
    above = np.mean([forgotten(unit(), up, seed) for seed in range(2)], axis=0)
    below = np.mean([forgotten(unit(), down, seed) for seed in range(2)], axis=0)
    assert rmse(above) < 0.005
    assert as_the_paper(above) == 9
    assert as_the_paper(below) == 0
    assert rmse(expit(POINTS)) == pytest.approx(0.062, abs=5e-4)


def test_the_closed_form_fits_read_offs_that_had_no_part_in_its_fit():
    """One number for eight values; 0.0058 is the error of reading alone."""
    found = closed_form()
    assert found["rate"] == pytest.approx(4.9, abs=0.1)
    assert found["rmse"] < 0.004
    assert found["rmse_halves"] < 0.0058


def test_through_one_branch_alone_the_pull_has_no_side():
    """Its mean is −E[1/ξ], whose two sides cancel: as many seeds go up as down."""
    after = [FORMS["one branch"](unit(), 1.0, seed)(torch.ones(1, 1)) for seed in range(40)]
    assert 10 <= sum(one.item() > expit(1.0) for one in after) <= 30


def test_the_authors_code_has_no_number_for_inputs_of_one_feature():
    """Their clamp leaves the maximum and the minimum of a batch without noise: 0 / 0."""
    assert all(forms.answers_of_the_code(x, 0).isnan().all() for x in ([1.0], list(POINTS)))


def test_the_experiment_writes_its_figures_and_says_what_they_show(tmp_path, monkeypatch):
    """With the forms that take no time."""
    monkeypatch.setattr(sigmoid, "FORMS", {"down": down, "up": up})
    moves = dict.fromkeys(("moved", "foretold"), np.arange(len(POINTS)) / 10)
    monkeypatch.setattr(sigmoid, "net_moves", lambda *_, **__: moves)
    facts = sigmoid.experiment(tmp_path, seeds=range(2))
    names = {f"sigmoid_{name}.{kind}" for name in ("forms", "why") for kind in ("png", "svg")}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert facts["forms"]["up"]["as_the_paper_of_9"] == 9
    assert facts["seeds"] == 2
    assert facts["jit_reference_all_nan"]
