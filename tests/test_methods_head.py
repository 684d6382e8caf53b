"""The head of a net, what goes into it, and nets without one."""

import pytest
import torch
from refusals import refusal
from small_nets import Given, moved, net, timm_vit, vit
from torch import nn

from efface.methods._head import embed, find_head
from efface.methods.source_free_newton import source_free_newton
from efface.methods.synthetic_embeddings import synthetic_embeddings
from efface.task import multiclass, multilabel, outputs
from efface.types import Records, Split

ANOTHER = "Choose a method that works on the whole model; `efface methods` lists them."


@pytest.mark.parametrize("make", [net, vit, timm_vit])
def test_the_features_times_the_head_are_the_outputs(make, digits):
    """What a change of the head does to the outputs can then be said without the model."""
    model, some = make(), digits.take(range(30))
    given = Given(model)
    features = embed(model, some, batch_size=7)
    head = find_head(model)
    assert features.x.shape == (30, head.in_features)
    assert features.ids == some.ids
    assert not features.x.requires_grad
    torch.testing.assert_close(head(features.x), outputs(model, some), rtol=0, atol=1e-5)
    given.is_untouched()


def test_the_head_is_the_last_of_several_linear_layers():
    """A hidden layer of the same size is not meant."""
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Dropout(0.5))
    assert find_head(model) is model[2]


def test_one_unit_is_two_classes():
    """A single sigmoid unit z answers (0, z), in the head as in the model."""
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))
    records = Records(torch.randn(5, 4), torch.tensor([0, 1, 0, 1, 1]))
    features = embed(model, records)
    expected = multiclass.outputs(model, records.x)
    torch.testing.assert_close(multiclass.outputs(model[2], features.x), expected)
    assert expected.shape == (5, 2)


def test_no_records_have_no_features():
    """A request of nothing is no error."""
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    none = Records(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    assert embed(model, none).x.shape == (0, 3)


def _tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    return model


class Unused(nn.Linear):
    """A last layer that is never called: it may be used some other way, or not at all."""

    def __init__(self) -> None:
        super().__init__(4, 3)
        self.last = nn.Linear(3, 3)


ONCE = "a last linear layer that each record goes through once"
OWN = "a last layer with weights of its own"
UNFLAT = [nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 2), nn.Flatten()]
LAST = "a linear layer as the last one with weights"


@pytest.mark.parametrize(
    ("layers", "wanted", "came"),
    [
        (UNFLAT, LAST, "Conv2d"),
        ([nn.Linear(4, 3), nn.LayerNorm(3)], LAST, "LayerNorm"),
        ([nn.Flatten()], LAST, "a model without weights"),
        ([_tied()], OWN, "one weight as 0.0.weight, 0.2.weight"),
        (
            [nn.Linear(4, 3), nn.Tanh()],
            "a last linear layer whose outputs are the model's",
            "another step after it",
        ),
        ([nn.Unflatten(1, (2, 2)), nn.Linear(2, 3), nn.Flatten()], ONCE, "(5, 2, 2) in it"),
        ([Unused()], ONCE, "0 calls of it"),
    ],
)
def test_a_net_without_a_head_is_refused_in_words(layers, wanted, came):
    """A change of another layer would not be the change of the outputs that was computed."""
    records = Records(torch.randn(5, 4), torch.zeros(5, 3, dtype=torch.int64), task=multilabel)
    text = f"Wanted {wanted}. Got {came}. {ANOTHER}"
    assert refusal(embed, nn.Sequential(*layers), records) == text


def test_a_frozen_head_is_refused_in_words():
    """As with trainable norm or adapter, which leave it alone."""
    head = nn.Linear(3, 2)
    assert find_head(head, trainable=True) is head
    head.bias.requires_grad_(requires_grad=False)
    assert refusal(find_head, head, trainable=True) == (
        "Wanted a last linear layer that may move. Got a frozen one (requires_grad is False). "
        "Choose trainable 'all' or 'last-layers'."
    )


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        (source_free_newton, {"perturbations": 50}),
        (synthetic_embeddings, {"samples_per_class": 20, "epochs": 1}),
    ],
)
def test_a_method_of_the_head_moves_only_the_head(method, settings, tiny_net, digits):
    """Embeddings stay: a probe on them still knows the records."""
    result = method(tiny_net, Split(digits.take(range(20)), forget_classes=(3,)), **settings)
    assert moved(tiny_net, result) == {"7.weight", "7.bias"}
