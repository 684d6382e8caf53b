"""Neighbourhood: what the target is, and that the student comes to answer it."""

import torch
from torch import nn

from efface.methods.neighbourhood import _masking, neighbourhood
from efface.task import multiclass, multilabel, regression
from efface.types import Records, Split


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
    for forget_classes, mislabelled, expected in (
        ((0,), False, [0.0, 2 / 3, 1 / 3]),
        ((), True, [7 / 8, 0.0, 1 / 8]),
        ((), False, [0.7, 0.2, 0.1]),
    ):
        mask = _masking(Split(batch, forget_classes=forget_classes), mislabelled=mislabelled)
        torch.testing.assert_close(mask(output, batch).exp(), torch.tensor([expected]))


def test_a_wrong_label_is_no_longer_answered(tiny_net, digits):
    """Told that the labels are wrong, the student stops to give them."""
    wrong = digits.take(range(20))
    student = neighbourhood(tiny_net, Split(wrong), mislabelled=True, steps=400, seed=0)
    probabilities = student(wrong.x).softmax(1).detach()
    assert float(probabilities.gather(1, wrong.y[:, None]).mean()) < 0.2
