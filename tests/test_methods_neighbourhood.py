"""Neighbourhood: what the target is, and that the student comes to answer it."""

import pytest
import torch
from torch import nn

from efface.errors import InputError
from efface.methods.neighbourhood import _masking, neighbourhood
from efface.task import multiclass, multilabel, regression
from efface.types import Records, Split


def _probabilities(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(x).softmax(1)


def test_the_divergence_is_torchs_own():
    """A second implementation: torch's kl_div, with and without classes of probability nought."""
    generator = torch.Generator().manual_seed(0)
    held = torch.randn(5, 4, generator=generator).log_softmax(1)
    answer = torch.randn(5, 4, generator=generator)
    theirs = nn.functional.kl_div(
        answer.log_softmax(1), held, reduction="none", log_target=True
    ).sum(1)
    torch.testing.assert_close(multiclass.divergence(held, answer), theirs)
    masked = held.clone()
    masked[:, 1] = -torch.inf
    masked = masked.log_softmax(1)
    p = masked.exp()
    by_hand = (p * (masked.clamp_min(-99) - answer.log_softmax(1))).sum(1)
    torch.testing.assert_close(multiclass.divergence(masked, answer), by_hand)


def test_the_divergence_of_labels_and_values_is_torchs_own():
    """Coins and normal distributions have their own closed forms in torch.distributions."""
    generator = torch.Generator().manual_seed(0)
    held, answer = (torch.randn(5, 3, generator=generator) for _ in range(2))
    coins = [torch.distributions.Bernoulli(logits=o) for o in (held, answer)]
    theirs = torch.distributions.kl_divergence(*coins).mean(1)
    torch.testing.assert_close(multilabel.divergence(held, answer), theirs)
    bells = [torch.distributions.Normal(o, 2.5) for o in (held, answer)]
    theirs = torch.distributions.kl_divergence(*bells).mean(1)
    torch.testing.assert_close(regression(scale=2.5).divergence(held, answer), theirs)


def test_masking_renormalises_the_rest():
    """Masked distillation: the leaving class gets nothing, the others keep their ratios."""
    answer = torch.tensor([[0.7, 0.2, 0.1]]).log()
    batch = Records(torch.zeros(1, 1), torch.tensor([1]))
    forget_classes = _masking(Split(batch, forget_classes=(0,)), mislabelled=False)(
        answer, batch
    ).exp()
    torch.testing.assert_close(forget_classes, torch.tensor([[0.0, 2 / 3, 1 / 3]]))
    own = _masking(Split(batch), mislabelled=True)(answer, batch).exp()
    torch.testing.assert_close(own, torch.tensor([[7 / 8, 0.0, 1 / 8]]))
    same = _masking(Split(batch), mislabelled=False)(answer, batch).exp()
    torch.testing.assert_close(same, torch.tensor([[0.7, 0.2, 0.1]]))


def test_a_wrong_label_is_no_longer_answered(tiny_net, digits):
    """Told that the labels are wrong, the student stops to give them."""
    wrong = digits.take(range(20))
    student = neighbourhood(tiny_net, Split(wrong), mislabelled=True, steps=400, seed=0)
    assert float(_probabilities(student, wrong.x).gather(1, wrong.y[:, None]).mean()) < 0.2


@pytest.mark.parametrize("told", [{"forget_classes": (0,)}, {"mislabelled": True}])
def test_a_class_cannot_leave_where_there_are_none(told):
    """Multilabel outputs and values have no class to mask."""
    split = Split(
        Records(torch.ones(2, 4), torch.ones(2, 3).long()),
        forget_classes=told.get("forget_classes", ()),
    )
    with pytest.raises(InputError) as error:
        neighbourhood(nn.Linear(4, 3), split, mislabelled="mislabelled" in told)
    assert str(error.value) == (
        "Wanted a multiclass task, for forget classes and wrong labels. Got multilabel. "
        "Name the records alone, without forget_classes and mislabelled."
    )
