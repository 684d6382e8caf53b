"""The two drawings: dots that are the declarations, arrows that are where the boundary goes."""

import numpy as np
import pytest
import torch

from efface.methods import BUILT_IN
from efface.methods._base import READABLE
from research.geometry import drawings
from research.geometry.drawings import boundary_moves, facts, one_step
from research.geometry.needs import DATA, MARKS, draw_needs, group_of, mark_of, matrix
from tests.small_nets import line


def test_every_method_stands_in_one_group_and_every_part_in_one_column():
    """A method or a part that is declared later must not be lost."""
    found = [name for methods in matrix(BUILT_IN).values() for name in methods]
    assert sorted(found) == sorted(BUILT_IN)
    assert {*DATA, "model"} == set(READABLE)


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_marks_say_what_the_entry_declares(name):
    """What is needed is black; what is not seen is blank."""
    entry, marks = BUILT_IN[name], matrix(BUILT_IN)[group_of(BUILT_IN[name])][name]
    assert {part for part, mark in marks.items() if mark == "needs"} == entry.needs
    assert set(marks) == entry.reads - {"model"}
    assert {mark for part, mark in marks.items() if part == "forget"} <= {"comes along"}


def test_zero_shot_methods_have_no_black_dot_beyond_the_class_to_forget():
    """The group's name is a promise about its rows."""
    for group, methods in matrix(BUILT_IN).items():
        needed = {p for marks in methods.values() for p, m in marks.items() if m == "needs"}
        if group.startswith("zero-shot"):
            assert needed <= {"forget_classes"}
        if group == "needs retain records":
            assert all(marks["retain"] == "needs" for marks in methods.values())


def test_the_picture_has_a_dot_where_the_matrix_has_one():
    """Counted mark by mark; three more stand in the key."""
    lines = draw_needs(BUILT_IN).axes[0].lines
    drawn = [line.get_markerfacecolor() for line in lines if len(line.get_xdata())]
    marks = [mark_of(entry, part) for entry in BUILT_IN.values() for part in DATA]
    for name, (_, fill, _) in MARKS.items():
        assert drawn.count(fill) == marks.count(name)


def test_the_arrows_end_on_the_new_boundary():
    """Of a linear net the first order is all there is."""
    at = torch.tensor([[0.0, -2.0], [0.0, 0.0], [0.0, 3.0]])
    ends = at + boundary_moves(line([1.0, 1.0], -1.0), at)
    np.testing.assert_allclose(ends.sum(1), [1, 1, 1], atol=1e-6)


@pytest.fixture(scope="module")
def step():
    """The net that the drawing shows."""
    return one_step(0)


def test_the_step_lowers_the_slope_at_the_point_that_it_was_taken_on(step):
    """The copies that are drawn are the ones that the method perturbed with."""
    found = facts(step)
    assert found["mean_slope"]["after"] < found["mean_slope"]["before"]
    assert 0 < found["area_that_changed"] < 0.1


def test_the_drawn_copies_are_the_methods_own(step):
    """A plain step by hand with the drawn copies gives the method's weights."""
    state = {k: v.detach().clone().requires_grad_() for k, v in step.before.named_parameters()}
    weights = list(state.values())
    near = torch.func.functional_call(step.before, state, (step.copies,))
    own = torch.func.functional_call(step.before, state, (step.point[None],))
    loss = ((near - own).norm(dim=1) / (step.copies - step.point).norm(dim=1)).mean()
    slopes = torch.autograd.grad(loss, weights)
    for weight, slope, after in zip(weights, slopes, step.after.parameters(), strict=True):
        stepped = weight.detach() - drawings.RATE * slope
        torch.testing.assert_close(stepped, after.detach(), atol=1e-5, rtol=1e-4)


def test_both_drawings_are_written(tmp_path, monkeypatch, step):
    """The facts hold the matrix itself."""
    monkeypatch.setattr(drawings, "one_step", lambda _: step)
    found = drawings.experiment(tmp_path, seeds=range(2))
    names = {f"{name}.{kind}" for name in ("needs", "one_step") for kind in ("png", "svg")}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert found["needs"]["zero-shot; no labels"]["jit_paper"] == {"forget": "comes along"}
