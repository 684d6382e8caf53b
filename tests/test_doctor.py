"""Doctor finds what would silently spoil a request, and stays quiet where all is well."""

import copy

import pytest
import torch
from scipy.stats import binom
from small_nets import Given
from torch import nn

from efface import Preprocessing
from efface.errors import Hazard
from efface.hazards import Finding, doctor, refuse_hazards
from efface.types import Records

DIGITS = Preprocessing((0.3053,), (0.3760,), 8)


def severities(findings):
    return {(finding.name, finding.severity) for finding in findings}


def texts(*arguments, **named):
    """The sentence of each finding, by name."""
    return {finding.name: finding.text for finding in doctor(*arguments, **named)}


def refused(*arguments, **named):
    return [f.name for f in doctor(*arguments, **named) if f.severity == "refuse"]


class Fixed(nn.Module):
    """Predicts class 0 for everything; one weight; in eval mode."""

    def __init__(self, k=10):
        super().__init__()
        self.k, self.weight, self.training = k, nn.Parameter(torch.ones(1)), False

    def forward(self, x):
        return torch.eye(self.k)[0].repeat(len(x), 1) * self.weight


def flat(y, width=2):
    """Records with these labels."""
    return Records(torch.rand(len(y), width), torch.tensor(y))


def test_a_sound_model_and_its_data_give_notes_alone(tiny_net, digits):
    """A warning that always comes is read by nobody."""
    findings = doctor(tiny_net, DIGITS, digits, classes=[str(k) for k in range(10)])
    assert severities(findings) == {("batchnorm", "note")}
    refuse_hazards([*findings, Finding("a", "warn", "b")])


def test_model_mode_and_random_state_stay(tiny_net, digits, random_state_kept):
    net = copy.deepcopy(tiny_net).train()
    given = Given(net)
    with random_state_kept():
        assert ("training mode", "warn") in severities(doctor(net, DIGITS, digits))
    given.is_untouched()


SCALES = {
    "right": (0.3053, 0.3760, []),
    "wrong but harmless": (0.0, 1.0, []),
    "numbers for 0..255": (0.3053 * 255, 0.3760 * 255, ["chance"]),
    "white for black": (0.3053, -0.3760, ["chance"]),
}


@pytest.mark.parametrize("scale", SCALES)
def test_preprocessing_that_leaves_the_model_at_chance_is_refused(tiny_net, digits, scale):
    """The commonest silent error; what is still well above chance passes."""
    pixels, (mean, std, reasons) = digits.x * 0.3760 + 0.3053, SCALES[scale]
    assert refused(tiny_net, None, Records((pixels - mean) / std, digits.y)) == reasons


def test_a_refusal_names_the_likely_causes(tiny_net, digits):
    wrong = Records(digits.x, (digits.y + 1) % 10)
    with pytest.raises(Hazard) as caught:
        refuse_hazards(doctor(tiny_net, DIGITS, wrong))
    assert str(caught.value) == (
        "Wanted a model and data that fit each other. "
        "Got The model is right on 1 of 400 records, no better than chance (1 in 10): "
        "mean, std, size or the class map may be wrong. "
        "Nothing was changed. Look at --mean --std --size, at the order of the classes and at the "
        "label column."
    )
    assert caught.value.exit_code == 6


FEW = [(50, False, "refuse"), (49, False, "warn"), (50, True, "warn"), (1, False, "warn")]


@pytest.mark.parametrize(("n", "mislabelled", "severity"), FEW)
def test_chance_on_few_or_mislabelled_records_is_a_warning(n, mislabelled, severity):
    """One record that the model gets wrong proves nothing; wrong labels prove less."""
    findings = doctor(Fixed(), None, flat([1] * n), mislabelled=mislabelled)
    assert severities(findings) == {("chance", severity)}


def test_a_holdout_shows_where_the_records_cannot_and_the_worst_comes_first():
    """Its labels are right, and there are enough of them."""
    few, net = flat([1] * 3), nn.Sequential(nn.Dropout(), Fixed())
    findings = doctor(net.train(), None, few, mislabelled=True, holdout=flat([1] * 60))
    assert [finding.severity for finding in findings] == ["refuse", "warn", "warn", "note"]
    assert "60 holdout" in findings[0].text


@pytest.mark.parametrize("k", [2, 10, 100])
def test_chance_is_a_binomial_test_at_one_in_a_thousand(k):
    """Against the tail of the distribution itself."""
    n = 60
    for right in range(n + 1):
        records = flat([0] * right + [1] * (n - right))
        above = binom.sf(right - 1, n, 1 / k) < 1e-3
        assert (refused(Fixed(k), None, records) == []) == above, right


def test_class_names_of_another_number_are_refused():
    """As when the coarse labels meet the fine model."""
    found = texts(Fixed(), None, flat([0] * 9), classes=["a", "b"])
    assert found["class map"] == "The model has 10 outputs, and there are 2 class names."


def test_inputs_that_are_not_finite_are_refused_by_id_and_raw_pixels_noticed():
    """One such record would make every weight nan."""
    x = torch.tensor([[0.0, 1], [float("nan"), 0], [0, float("inf")]])
    nan = Records(x, torch.tensor([0, 0, 0]), ("a", "b", "c"))
    assert refused(Fixed(), None, nan) == ["non-finite inputs"]
    assert texts(Fixed(), None, nan)["non-finite inputs"] == "nan or inf in the records b, c."
    pixels = Records(torch.full((9, 2), 255.0), torch.zeros(9, dtype=torch.int64))
    text = "Inputs of the records reach 255: raw pixels, not normalised?"
    assert texts(Fixed(), None, pixels)["input range"] == text


def test_inputs_outside_black_and_white_are_a_warning(tiny_net, digits):
    """They were not made by this preprocessing."""
    findings = doctor(tiny_net, Preprocessing((0.0,), (1.0,), 8), digits)
    assert ("input range", "warn") in severities(findings)


def test_inputs_of_another_shape_are_refused_in_a_sentence(tiny_net, digits):
    """Not by a traceback from within a layer."""
    colour = Records(digits.x.repeat(1, 3, 1, 1), digits.y)
    text = texts(tiny_net, None, colour)["forward"]
    assert text.startswith(
        "The model fails on inputs of shape (3, 8, 8): RuntimeError in layer 0 (Conv2d): Given "
    )
    assert refused(tiny_net, None, colour) == ["forward"]


def test_outputs_that_overflow_are_refused():
    """Finite weights can still overflow."""
    net = Fixed()
    net.weight.data.fill_(3e38)
    assert refused(net, None, flat([0] * 9)) == []
    overflow = nn.Sequential(net, nn.Linear(10, 10))
    overflow[1].weight.data.fill_(3e38)
    assert refused(overflow, None, flat([0] * 9)) == ["non-finite outputs"]


def test_tied_frozen_and_broken_weights_are_named():
    net = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.Linear(2, 2))
    net[2].weight = net[0].weight
    net[0].bias.requires_grad_(requires_grad=False)
    found = texts(net, None, flat([0, 1]))
    assert found["tied weights"] == "Tied weights move together: 2.weight."
    assert found["frozen"] == "Frozen weights stay as they are: 0.bias."
    assert "dropout" in found
    net[0].bias.data[0] = float("inf")
    assert texts(net, None, flat([0, 1]))["non-finite weights"] == "nan or inf in 0.bias."


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_a_model_that_cannot_learn_is_refused():
    """Otherwise it would run for an hour and change nothing."""
    models = {"frozen": nn.Linear(2, 2).requires_grad_(requires_grad=False)}
    models |= {"no weights": nn.Identity(), "dtype": nn.Linear(2, 2, dtype=torch.complex64)}
    models["quantised"] = torch.ao.nn.quantized.Linear(2, 2)
    for reason, model in models.items():
        assert reason in refused(model, None, flat([0, 1]))
