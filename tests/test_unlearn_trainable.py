"""A request with less than full gradients: its model, its manifest, its adapter, its refusals."""

import pytest
import torch
from refusals import refusal
from small_nets import LESS, Given, known, moved, net, timm_vit, vit
from torch import nn

from efface import Split, forget
from efface.task import outputs


def jit(model, records, steps=2, **options):
    """A short request for the first eight records."""
    split, options["settings"] = Split(known(model, records).take(range(8))), {"steps": steps}
    return forget(model, split, method="jit", mislabelled=True, **options)


@pytest.mark.parametrize("trainable", ["all", *LESS])
def test_a_choice_and_a_seed_give_the_same_bits_and_others_do_not(trainable, digits):
    model = net()
    one, again, other = (jit(model, digits, trainable=trainable, seed=s).model for s in (3, 3, 4))
    assert not moved(one, again)
    assert moved(one, other)
    # all is the default, and less is another model
    assert bool(moved(one, jit(model, digits, seed=3).model)) == (trainable != "all")


def test_the_seed_of_a_request_draws_the_first_weights_of_its_adapter(digits):
    """The first step leaves these as they were drawn: what they are multiplied with is 0."""
    how = {"steps": 1, "trainable": "adapter"}
    one, again, other = (jit(net(), digits, **how, seed=s).adapter for s in (3, 3, 4))
    assert not moved(one, again)
    assert {name.split(".")[-3] for name in moved(one, other)} == {"lora_A", "lora_B"}


@pytest.mark.parametrize("trainable", LESS)
def test_tied_weights_stay_tied_in_the_result(trainable, digits):
    shared = nn.Linear(16, 16)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 16), nn.Linear(16, 16), nn.LayerNorm(16), shared, nn.ReLU(),
        shared, nn.Linear(16, 10),
    ).eval()  # fmt: skip
    result = jit(model, digits, trainable=trainable)
    assert result.model[4].weight is result.model[6].weight
    adapted = {"1.weight", "2.weight"}
    assert trainable != "adapter" or moved(model, result.model) == adapted


@pytest.mark.parametrize("make", [vit, timm_vit], ids=["transformers", "timm"])
@pytest.mark.parametrize("trainable", LESS)
def test_models_of_transformers_and_timm_are_served(make, trainable, digits):
    model = make()
    given, result = Given(model), jit(model, digits, trainable=trainable)
    given.is_untouched()
    assert moved(model, result.model)
    assert type(result.model) is type(model)


@pytest.mark.parametrize("trainable", LESS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_come_back_as_they_were(trainable, dtype, digits):
    model = net().to(dtype)
    given, result = Given(model), jit(model, digits, steps=8, trainable=trainable)
    given.is_untouched()
    assert moved(model, result.model)
    assert {weight.dtype for weight in result.model.parameters()} == {dtype}


def test_the_separate_adapter_answers_as_the_merged_model_and_taken_off_as_the_old(digits):
    model, records = net(), known(net(), digits)
    result = jit(model, digits, steps=32, trainable="adapter")
    apart, now, old = (outputs(m, records).detach() for m in (result.adapter, result.model, model))
    torch.testing.assert_close(apart, now, rtol=0, atol=1e-5)
    assert (now - old).abs().max() > 0.01
    with result.adapter.disable_adapter():
        torch.testing.assert_close(outputs(result.adapter, records).detach(), old, rtol=0, atol=0)
    assert not any(module._forward_hooks for module in result.adapter.modules())
    (note,) = [f for f in result.manifest.findings if f["name"] == "adapter"]
    assert note["text"] == (
        "Whoever takes a separate adapter off again has the old model back: the records are still "
        "in the base. The merged model is the one to hand on."
    )
    assert jit(model, digits, steps=1).adapter is None


def test_the_guard_of_a_request_measures_an_adapter_by_the_merged_weights(digits):
    model = net()
    result = jit(model, digits, steps=8, trainable="adapter")
    pair = result.model, model
    now, old = (nn.utils.parameters_to_vector(m.parameters()).detach() for m in pair)
    expected = float((now - old).norm() / old.norm())
    assert result.manifest.guard["measured"]["movement"] == pytest.approx(expected, rel=1e-3)


def test_the_manifest_says_what_could_change_and_the_memory_needed_follows(digits):
    """Frozen weights have no gradient, which is one state less."""
    model = net()
    total = sum(weight.numel() for weight in model.parameters())
    models = {}
    for name, count in {"all": total, "norm": 32, "adapter": 8 * (64 + 16 + 16 + 16)}.items():
        manifest = jit(model, digits, steps=1, trainable=name).manifest
        assert manifest.trainable == {"name": name, "numbers": count, "of": total}
        models[name] = manifest.memory["models_bytes"]
    assert models["all"] - models["norm"] == 4 * (total - 32)


LACKING = {
    ("norm", "adapter"): "normalisation layers with weights",
    ("adapter", "norm"): "a linear layer besides the output, called as a module and not tied",
}


@pytest.mark.parametrize(("trainable", "other"), LACKING)
def test_what_the_model_does_not_have_is_refused_by_name(trainable, other, digits):
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 10)).eval()
    assert refusal(jit, model, digits, trainable=trainable) == (
        f"Wanted {LACKING[trainable, other]}, for trainable={trainable!r}. Got a model without any."
        f" Choose 'all' or 'last-layers' or {other!r}."
    )


def test_torchs_own_encoder_layer_is_left_alone_by_the_adapter(digits):
    """It runs fused without gradients, from the weights, and would answer without the adapter."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    body = (nn.Identity(), nn.Flatten(1, 2), nn.Linear(8, 8), layer)
    model = nn.Sequential(*body, nn.Flatten(), nn.Linear(64, 10)).eval()
    assert moved(model, jit(model, digits, trainable="adapter").model) == {"2.weight"}
