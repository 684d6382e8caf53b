"""Less than full gradients: what may move moves, and everything else keeps its bits."""

import sys

import pytest
import timm
import torch
import transformers
from method_promises import CASES, keeping
from refusals import refusal
from small_nets import LESS, Given, known, moved, net, trainable_names
from torch import nn

from efface import Split, forget
from efface.errors import MissingExtra
from efface.trainable import count_trainable, merge_adapter, select_trainable


@pytest.mark.parametrize("trainable", LESS)
@keeping("trainable")
def test_every_method_moves_the_chosen_weights_alone(name, trainable, digits, random_state_kept):
    """The promise of every way, over every method that there is."""
    model = net()
    model[4].bias.requires_grad_(requires_grad=False)
    given, records = Given(model), known(model, digits)
    with random_state_kept():
        start = select_trainable(model, records.take([0]), trainable)
        parts = records.take(range(8)), records.take(range(8, 40))
        # an untrained model predicts as its neighbours do; wrong labels it can still forget
        split, settings = CASES[name].split_of(*parts, start), {"learning_rate": 1e-3}
        student = CASES[name].run(start, split, **settings, mislabelled=True)
        result = merge_adapter(student, model)
    given.is_untouched()
    may = {"norm": {"2.weight", "2.bias"}, "adapter": {"1.weight", "4.weight"}}
    may["last-layers"] = {"4.weight", "6.weight", "6.bias"}
    assert set() < moved(model, result) <= may[trainable]
    assert type(result) is type(model)
    assert trainable_names(result) == trainable_names(model)
    assert not any(hasattr(module, "peft_config") for module in result.modules())


class Backwards(nn.Module):
    """Registered in another order than used; one weight is a plain tensor."""

    def __init__(self):
        super().__init__()
        self.head, self.middle = nn.Linear(8, 10), nn.Linear(8, 8)
        self.first, self.scale = nn.Linear(64, 8), nn.Parameter(torch.ones(8))

    def forward(self, x):
        return self.head(self.middle(self.first(x.flatten(1))) * self.scale)


class Bare(nn.Module):
    """Uses the weights of its output layer without calling it, as attention does."""

    def __init__(self):
        super().__init__()
        self.out, self.body = nn.Linear(16, 10), nn.Linear(64, 16)

    def forward(self, x):
        return nn.functional.linear(self.body(x.flatten(1)), self.out.weight, self.out.bias)


ORDERS = [(Backwards, ["scale", "head.weight", "head.bias"]), (Bare, ["out.weight", "out.bias"])]


@pytest.mark.parametrize(("model", "names"), ORDERS)
def test_the_last_layers_are_those_used_last_and_not_those_registered_last(model, names, digits):
    """A net may be built in any order; attributes say nothing of the way through it."""
    view = select_trainable(model().eval(), digits.take([0]), "last-layers")
    assert trainable_names(view) == names


def test_tied_weights_count_where_they_are_used_last(digits):
    """An embedding that is the output too moves with the output, and with nothing before it."""
    early, late = nn.Linear(16, 16), nn.Linear(16, 16)
    late.weight = early.weight
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), early, nn.ReLU(), late).eval()
    view = select_trainable(model, digits.take([0]), "last-layers")
    assert trainable_names(view) == ["2.weight", "4.bias"]
    assert view[4].weight is view[2].weight


NORMS = [nn.BatchNorm1d(8), nn.LayerNorm(8), nn.GroupNorm(2, 8), nn.RMSNorm(8)]
NORMS += [nn.InstanceNorm1d(8, affine=True)]
NORMS += [timm.layers.LayerNorm2d(8), timm.layers.BatchNormAct2d(8)]
NORMS += [transformers.models.llama.modeling_llama.LlamaRMSNorm(8)]
NORMS += [transformers.models.t5.modeling_t5.T5LayerNorm(8)]


@pytest.mark.parametrize("layer", NORMS, ids=lambda layer: type(layer).__name__)
def test_norms_of_every_library_are_known_and_nothing_else_is(layer, digits):
    """What transformers and timm call a norm is one, whatever it is derived from."""
    model = nn.ModuleDict({"norm": layer, "not": nn.Linear(8, 2)})
    names = trainable_names(select_trainable(model, digits.take([0]), "norm"))
    assert names == [f"norm.{name}" for name, _ in layer.named_parameters()]


@pytest.mark.parametrize("trainable", LESS)
def test_a_frozen_part_of_the_given_model_stays_frozen(trainable, digits):
    """Who froze a weight meant it."""
    model = net()
    for layer in (1, 2, 4):
        model[layer].requires_grad_(requires_grad=False)
    how = model, digits.take([0]), trainable
    if trainable == "last-layers":
        assert trainable_names(select_trainable(*how)) == ["6.weight", "6.bias"]
    else:
        text = "Got only frozen ones (requires_grad is False)."
        assert text in refusal(select_trainable, *how)


def test_a_model_that_carries_an_adapter_already_is_told_to_merge_it(digits):
    """Two adapters over each other could not be told apart in the folder that is written."""
    model = net()
    twice = select_trainable(model, digits.take([0]), "adapter")
    assert refusal(select_trainable, twice, digits.take([0]), "adapter") == (
        "Wanted a model without adapters, for trainable='adapter'. Got one with PEFT's own. "
        "Merge them first: model.merge_and_unload()."
    )
    split = Split(known(model, digits).take(range(4)))
    new = forget(twice, split, method="jit", settings={"steps": 1}).model
    assert type(new) is type(twice)
    assert list(new.state_dict()) == list(twice.state_dict())


def test_an_adapter_without_peft_names_the_extra(digits, monkeypatch):
    """The exit code is that of a missing package."""
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtra) as error:
        select_trainable(net(), digits.take([0]), "adapter")
    assert error.value.exit_code == 7
    assert str(error.value) == (
        "Wanted the package peft. Got none installed. Install it: pip install 'efface[peft]'."
    )


def test_modes_hooks_and_flags_of_the_given_model_stand(digits, random_state_kept):
    """A model in training mode, with a hook and a gradient of its owner's."""
    model = net().train()
    model[1].register_forward_hook(lambda *_: None)
    model[1].weight.grad = torch.ones_like(model[1].weight)
    given = Given(model)
    for trainable in LESS:
        with random_state_kept():
            view = select_trainable(model, digits.take([0]), trainable)
        given.is_untouched()
        assert all(weight.grad is None for weight in view.parameters())
        assert count_trainable(view, trainable)["numbers"] > 0


def test_an_adapters_first_weights_are_the_seeds_whatever_was_drawn_before(digits):
    """A run must be made again in another program, at another place of it."""

    def first(seed):
        with torch.random.fork_rng():
            torch.rand(seed + 1)
            view = select_trainable(net(), digits.take([0]), "adapter", seed=seed)
        return dict(view.named_parameters())["base_model.model.1.lora_A.default.weight"].detach()

    with torch.random.fork_rng():
        torch.manual_seed(99)
        one = first(1)
    assert one.equal(first(1))
    assert not one.equal(first(2))
