"""Curvature over the plane: closed forms, whole Hessians, distances, and what the page says."""

import json

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import expit, log_expit

from efface.ranking.curvature import log_probability, probability
from efface.types import Records
from research.geometry import blobs as two
from research.geometry import curvature_maps as maps
from research.geometry.closed_form import closed_form
from research.geometry.distances import across, distance_to_boundary
from tests.refusals import refusal
from tests.small_nets import line


def of_class_1(x):
    """Points with the label 1."""
    return Records(x, torch.ones(len(x), dtype=torch.int64))


@pytest.mark.parametrize("of", [probability, log_probability])
def test_the_plane_has_the_whole_hessian_of_torch(of):
    """On a smooth net, point by point."""
    net, x = two.untrained(0), two.grid(4)

    def g(point):
        return of(net(point[None]), torch.ones(1, dtype=torch.int64))[0]

    found = maps.plane_curvature(net, of_class_1(x), of=of)
    hessians = [torch.autograd.functional.hessian(g, point) for point in x]
    slopes = [torch.autograd.functional.jacobian(g, point) for point in x]
    assert found.hessian_norm == pytest.approx([float(h.norm()) for h in hessians], rel=1e-4)
    assert found.hessian_trace == pytest.approx([float(h.trace()) for h in hessians], abs=1e-5)
    assert found.gradient_norm == pytest.approx([float(s.norm()) for s in slopes], rel=1e-4)


@pytest.mark.parametrize("name", ["probability", "log-probability of class 1"])
def test_over_a_line_the_plane_is_the_sigmoid_in_closed_form(name):
    """Log-odds w·x: slopes grow with ‖w‖, bends with its square, κ with ‖w‖."""
    weight, x = [1.5, -2.0], two.grid(9)
    found = maps.plane_curvature(line(weight), of_class_1(x), of=maps.FUNCTIONS[name])
    exact = closed_form((x @ torch.tensor(weight)).double().numpy())[name]
    assert found.gradient_norm == pytest.approx(2.5 * exact["gradient"], rel=1e-4)
    assert found.hessian_norm == pytest.approx(6.25 * exact["hessian"], rel=1e-3, abs=1e-7)
    assert found.ratio == pytest.approx(2.5 * exact["kappa"], rel=1e-3, abs=1e-5)


def test_the_closed_form_is_what_differences_say():
    """Of S and of ln S, first and second."""
    x, step = np.linspace(-5, 5, 41), 1e-4
    for name, g in (("probability", expit), ("log-probability of class 1", log_expit)):
        found = closed_form(x)[name]
        slope = (g(x + step) - g(x - step)) / (2 * step)
        bend = (g(x + step) - 2 * g(x) + g(x - step)) / step**2
        assert found["gradient"] == pytest.approx(np.abs(slope), abs=1e-6)
        assert found["hessian"] == pytest.approx(np.abs(bend), abs=1e-6)
        assert found["kappa"] == pytest.approx(found["hessian"] / found["gradient"], abs=1e-6)


def test_of_the_sigmoid_the_gradient_alone_peaks_on_the_boundary():
    """‖∇g‖ at 0, ‖∇²g‖ at ln(2 + √3) = 1.317 and 0 at 0, κ at the edge and 0 at 0."""
    found = maps.sigmoid()
    assert found["probability: gradient"]["peak_at"] == pytest.approx(0, abs=1e-9)
    assert found["probability: hessian"]["peak_at"] == pytest.approx(np.log(2 + 3**0.5), abs=0.005)
    assert found["probability: hessian"]["at_0"] == pytest.approx(0, abs=1e-12)
    assert found["probability: kappa"]["peak_at"] == pytest.approx(6)
    assert found["probability: kappa"]["rank"] == pytest.approx(1)
    assert found["probability: gradient"]["rank"] == pytest.approx(-1)
    assert found["log-probability of class 1: hessian"]["peak_at"] == pytest.approx(0, abs=1e-9)


def test_the_distance_to_a_straight_boundary_is_that_of_a_line():
    """|w·x + b| / ‖w‖, where the foot of the perpendicular lies inside the box."""
    weight, bias = [1.0, 0.5], -0.2
    x = np.random.default_rng(0).uniform(-2, 2, (200, 2))
    found = distance_to_boundary(line(weight, bias), x)
    exact = np.abs(x @ weight + bias) / np.linalg.norm(weight)
    assert found == pytest.approx(exact, abs=0.02)


def test_a_model_without_a_boundary_is_refused():
    """There is nothing to be far from."""
    assert refusal(distance_to_boundary, line([0.0, 0.0], 1.0), np.zeros((1, 2))) == (
        "Wanted a model with a boundary inside the box. Got the same prediction everywhere. "
        "Train it on both blobs."
    )


def test_the_rank_is_pearsons_of_the_ranks():
    """Spearman's by its definition."""
    values, away = np.random.default_rng(2).random((2, 60))
    by_hand = np.corrcoef(stats.rankdata(values), stats.rankdata(away))[0, 1]
    assert maps.rank(values, away) == pytest.approx(by_hand)
    assert maps.rank(-away, away) == pytest.approx(-1)


def test_a_peak_off_the_boundary_is_found_where_it_is():
    """Two hills at 0.3, one each side; in the valley between them e^-1.8 of their height."""
    offsets = np.linspace(-1, 1, 201)
    line = np.exp(-20 * (np.abs(offsets) - 0.3) ** 2)
    found = maps.peak(line, offsets)
    assert found["peak_at"] == pytest.approx(0.3)
    assert found["on_over_peak"] == pytest.approx(np.exp(-1.8), abs=0.01)


def test_what_falls_with_distance_is_near_over_far():
    """e⁻ˣ: medians at 0.125 and at 3."""
    away = np.linspace(0, 4, 4001)
    assert maps.near_over_far(np.exp(-away), away) == pytest.approx(np.exp(2.875), rel=0.01)
    assert maps.near_over_far(np.ones(4001), away) == 1


def test_normals_leave_the_boundary_at_a_right_angle_towards_class_1():
    """Of a straight boundary: log-odds of an offset t are t‖w‖, wherever on it one starts."""
    weight, offsets = [3.0, -4.0], np.array([-0.5, 0.0, 0.25])
    x = across(line(weight, 0.1), offsets)
    odds = x @ torch.tensor(weight) + 0.1
    assert len(x) > 20
    assert odds.numpy() == pytest.approx(np.tile(5 * offsets, (len(x), 1)), abs=1e-4)


def test_over_a_line_the_profile_peaks_as_the_sigmoid_does():
    """‖∇p‖ on the boundary, ‖∇²p‖ at 1.317 / ‖w‖ from it and 0 on it, κ at the end of the line."""
    net = line([6.0, 8.0])
    found = {k: maps.peak(v, maps.OFFSETS) for k, v in maps.profiles(net, probability).items()}
    assert found["gradient"]["peak_at"] == pytest.approx(0, abs=1e-9)
    assert found["hessian"]["peak_at"] == pytest.approx(0.1317, abs=0.01)
    assert found["hessian"]["on_over_peak"] == pytest.approx(0, abs=0.01)
    assert found["kappa"]["on_over_peak"] == pytest.approx(0, abs=0.01)


def test_the_experiment_writes_its_maps_and_a_row_for_each_quantity(tmp_path, monkeypatch):
    """Three functions, three quantities; a number for each, with distance over grid and data."""
    monkeypatch.setattr(maps, "SIDE", 31)
    found = maps.experiment(tmp_path, seeds=[0])
    stems = ("curvature", "curvature_across", "curvature_sigmoid")
    drawn = {f"{stem}.{kind}" for stem in stems for kind in ("png", "svg")}
    assert {path.name for path in tmp_path.iterdir()} == drawn | {"curvature.md"}
    assert len(found["net"]) == 9
    json.dumps(found, allow_nan=False)
    page = (tmp_path / "curvature.md").read_text()
    assert page.count("\n| probability: ") == 6
    assert found["net"]["probability: gradient"]["rank_data"]["median"] < -0.5
