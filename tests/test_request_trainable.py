"""A request with less than full gradients: its model, its record, its adapter, its refusals."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from efface import Split, forget
from efface.errors import InputError
from efface.task import outputs

sys.path.insert(0, str(Path(__file__).parent))
from small_nets import LESS, Given, known, moved, net, timm_vit, vit


@pytest.mark.parametrize("trainable", LESS)
def test_all_is_what_it_was_and_less_is_another_model(trainable, tiny_net, digits):
    """The default must not change a bit of any earlier run."""
    split = Split(digits.take(range(8)))
    plain = forget(tiny_net, split, method="jit", settings={"steps": 2}).model
    assert not moved(
        plain, forget(tiny_net, split, method="jit", settings={"steps": 2}, trainable="all").model
    )
    if trainable != "adapter":
        assert moved(
            plain,
            forget(tiny_net, split, method="jit", settings={"steps": 2}, trainable=trainable).model,
        )


@pytest.mark.parametrize("trainable", LESS)
def test_the_same_seed_gives_the_same_bits_and_another_does_not(trainable, digits):
    """The first weights of an adapter are drawn too."""
    model = net()
    split = Split(known(model, digits).take(range(8)))

    def run(seed):
        return forget(
            model,
            split,
            method="jit",
            mislabelled=True,
            settings={"steps": 2},
            trainable=trainable,
            seed=seed,
        ).model

    one = run(3)
    assert not moved(one, run(3))
    assert moved(one, run(4))


@pytest.mark.parametrize("trainable", LESS)
def test_tied_weights_stay_tied_in_the_result(trainable, digits):
    """Two places with one weight must not come back as two weights."""
    shared = nn.Linear(16, 16)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 16), nn.Linear(16, 16), nn.LayerNorm(16), shared, nn.ReLU(),
        shared, nn.Linear(16, 10),
    ).eval()  # fmt: skip
    split = Split(known(model, digits).take(range(8)))
    result = forget(
        model, split, method="jit", mislabelled=True, settings={"steps": 2}, trainable=trainable
    )
    assert result.model[4].weight is result.model[6].weight
    adapted = {"1.weight", "2.weight"}
    assert trainable != "adapter" or moved(model, result.model) == adapted


@pytest.mark.parametrize("make", [vit, timm_vit], ids=["transformers", "timm"])
@pytest.mark.parametrize("trainable", LESS)
def test_nets_of_transformers_and_timm_are_served(make, trainable, digits):
    """What people bring; the keys come back as they were."""
    model = make()
    given, split = Given(model), Split(known(model, digits).take(range(8)))
    result = forget(
        model, split, method="jit", mislabelled=True, settings={"steps": 2}, trainable=trainable
    )
    given.is_untouched()
    assert moved(model, result.model)
    assert type(result.model) is type(model)


@pytest.mark.parametrize("trainable", LESS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_come_back_as_they_were(trainable, dtype, digits):
    """Half precision moves in float32 and is rounded once, after the adapter is merged."""
    model = net().to(dtype)
    given, split = Given(model), Split(known(model, digits).take(range(8)))
    result = forget(
        model, split, method="jit", mislabelled=True, settings={"steps": 8}, trainable=trainable
    )
    given.is_untouched()
    assert moved(model, result.model)
    assert {weight.dtype for weight in result.model.parameters()} == {dtype}


def test_the_adapter_kept_apart_answers_as_the_merged_model_and_taken_off_as_the_old(digits):
    """What is said of it: the base still holds the records."""
    model = net()
    records = known(model, digits)
    result = forget(
        model, Split(records.take(range(8))), method="jit", mislabelled=True, trainable="adapter"
    )
    apart, now, old = (outputs(m, records).detach() for m in (result.adapter, result.model, model))
    torch.testing.assert_close(apart, now, rtol=0, atol=1e-5)
    assert (now - old).abs().max() > 0.01
    with result.adapter.disable_adapter():
        torch.testing.assert_close(outputs(result.adapter, records).detach(), old, rtol=0, atol=0)
    (note,) = [f for f in result.manifest.findings if f["name"] == "adapter"]
    assert note["text"] == (
        "Whoever takes an adapter that is kept apart off again has the old model back: the records "
        "are still in the base. The merged model is the one to hand on."
    )
    assert (
        forget(model, Split(records.take(range(8))), method="jit", settings={"steps": 1}).adapter
        is None
    )


def test_the_record_says_what_could_move(digits):
    """Gap against cost is read from here."""
    model = net()
    split = Split(known(model, digits).take(range(4)))
    total = sum(weight.numel() for weight in model.parameters())

    def told(trainable):
        return forget(
            model, split, method="jit", mislabelled=True, settings={"steps": 1}, trainable=trainable
        ).manifest.trainable

    assert told("all") == {"name": "all", "numbers": total, "of": total}
    assert told("norm") == {"name": "norm", "numbers": 32, "of": total}
    assert told("adapter") == {"name": "adapter", "numbers": 8 * (64 + 16 + 16 + 16), "of": total}


def test_gradients_of_frozen_weights_are_not_in_the_memory_needed(digits):
    """The need follows what may move, and is not said too low: one state less, what is frozen."""
    model = net()
    split = Split(known(model, digits).take(range(4)))

    def need(trainable):
        record = forget(
            model, split, method="jit", mislabelled=True, settings={"steps": 1}, trainable=trainable
        ).record
        return record["memory"]["models_bytes"]

    total = 4 * sum(weight.numel() for weight in model.parameters())
    assert need("all") - need("norm") == total - 4 * 32


WORD = "Wanted trainable out of all, last-layers, norm, adapter. Got 'norms'. Choose one of these."
NORMS = (
    "Wanted normalisation layers with weights, for trainable='norm'. Got a model without any. "
    "Choose 'all' or 'last-layers' or 'adapter'."
)
LINEAR = (
    "Wanted a linear layer besides the output, called as a module and not tied, for "
    "trainable='adapter'. Got a model without any. Choose 'all' or 'last-layers' or 'norm'."
)


@pytest.mark.parametrize(
    ("trainable", "message"),
    [
        ("norms", WORD), ("norm", NORMS), ("adapter", LINEAR),
    ],
)  # fmt: skip
def test_what_the_model_does_not_have_is_refused_by_name(trainable, message, digits):
    """A request that moved nothing would say done."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 10)).eval()
    with pytest.raises(InputError) as error:
        forget(model, Split(known(model, digits).take(range(4))), trainable=trainable)
    assert str(error.value) == message


def test_torchs_own_encoder_layer_is_left_alone_by_the_adapter(digits):
    """Without gradients it runs fused, from the weights, and would answer without the adapter."""
    model = nn.Sequential(
        nn.Flatten(2), nn.Flatten(0, 1), nn.Linear(8, 8), nn.Unflatten(0, (-1, 8)),
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Flatten(), nn.Linear(64, 10),
    ).eval()  # fmt: skip
    model[0] = nn.Flatten(1, 2)  # (n, 1, 8, 8) to (n, 8, 8)
    model[1], model[3] = nn.Identity(), nn.Identity()
    records = known(model, digits)
    result = forget(model, Split(records.take(range(8))), method="jit", settings={"steps": 2},
                    mislabelled=True, trainable="adapter")  # fmt: skip
    assert moved(model, result.model) == {"2.weight"}
