"""The head of a net, what goes into it, and nets without one."""

from dataclasses import replace

import pytest
import torch
from small_nets import Given, net, timm_vit, vit
from torch import nn

from efface.errors import InputError
from efface.methods._head import embed, find_head
from efface.task import multiclass, multilabel, outputs
from efface.types import Records

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


LAST, ONCE = "a linear layer as the last one with weights", "that each record goes through once"
WITHOUT = {
    "a convolution": (
        [nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 2), nn.Flatten()],
        LAST,
        "Conv2d",
    ),
    "a norm": ([nn.Linear(4, 3), nn.LayerNorm(3)], LAST, "LayerNorm"),
    "nothing": ([nn.Flatten()], LAST, "a model without weights"),
    "tied": (
        [_tied()],
        "a last layer with weights of its own",
        "one weight as 0.0.weight, 0.2.weight",
    ),
    "a step after it": (
        [nn.Linear(4, 3), nn.Tanh()],
        "a last linear layer whose outputs are the model's",
        "another step after it",
    ),
    "places": (
        [nn.Unflatten(1, (2, 2)), nn.Linear(2, 3), nn.Flatten()],
        f"a last linear layer {ONCE}",
        "(5, 2, 2) in it",
    ),
}


@pytest.mark.parametrize("kind", WITHOUT)
def test_a_net_without_a_head_is_refused_in_words(kind):
    """A change of another layer would not be the change of the outputs that was reckoned."""
    layers, wanted, came = WITHOUT[kind]
    records = Records(torch.randn(5, 4), torch.zeros(5, 3, dtype=torch.int64), task=multilabel)
    with pytest.raises(InputError) as error:
        embed(nn.Sequential(*layers), records)
    assert str(error.value) == f"Wanted {wanted}. Got {came}. {ANOTHER}"


def test_a_head_that_is_not_called_is_refused_in_words():
    """Its weights may be used some other way, or not at all."""

    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 3), nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.first(x)

    records = Records(torch.randn(5, 4), torch.arange(5) % 3)
    with pytest.raises(InputError) as error:
        embed(Unused(), replace(records, task=multiclass))
    assert str(error.value) == (
        "Wanted a last linear layer that each record goes through once. Got 0 calls of it. "
        + ANOTHER
    )


def test_a_frozen_head_is_refused_in_words():
    """As with trainable norm or adapter, which leave it alone."""
    head = nn.Linear(3, 2)
    assert find_head(head, trainable=True) is head
    head.bias.requires_grad_(requires_grad=False)
    with pytest.raises(InputError) as error:
        find_head(head, trainable=True)
    assert str(error.value) == (
        "Wanted a last linear layer that may move. Got a frozen one (requires_grad is False). "
        "Choose trainable 'all' or 'last-layers'."
    )
