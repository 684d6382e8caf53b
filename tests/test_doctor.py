"""Doctor finds what would silently spoil a request, and stays quiet where all is well."""

import copy
import re
from pathlib import Path

import pytest
import torch
from refusals import refusal
from scipy.stats import binom
from small_nets import Given
from torch import nn
from torch.nn import functional

from efface import Preprocessing
from efface.errors import Hazard
from efface.hazards import FINDINGS, SAMPLE, Diagnosis, Finding, doctor
from efface.types import Records, sample_rows

ROOT = Path(__file__).parent.parent
DIGITS = Preprocessing((0.3053,), (0.3760,), 8)


def severities(findings):
    return {(finding.name, finding.severity) for finding in findings.findings}


def texts(*arguments, **named):
    """The sentence of each finding, by name."""
    return {finding.name: finding.text for finding in doctor(*arguments, **named).findings}


def refused(*arguments, **named):
    return [f.name for f in doctor(*arguments, **named).findings if f.severity == "refuse"]


class Fixed(nn.Module):
    """Predicts class 0 for everything; one weight; in eval mode."""

    def __init__(self, k=10):
        super().__init__()
        self.k, self.weight, self.training = k, nn.Parameter(torch.ones(1)), False

    def forward(self, x):
        return 3 * torch.eye(self.k)[0].repeat(len(x), 1) * self.weight


def flat(y, width=2):
    """Records with these labels."""
    return Records(torch.rand(len(y), width), torch.tensor(y))


def test_a_sound_model_and_its_data_give_notes_alone(tiny_net, digits):
    """A warning that always comes is read by nobody."""
    findings = doctor(tiny_net, DIGITS, digits, classes=[str(k) for k in range(10)])
    assert severities(findings) == {("batchnorm", "note")}
    assert findings.accuracy["records"].accuracy > 0.97
    Diagnosis((*findings.findings, Finding("a", "warn", "b")), {}).refuse()


def test_model_mode_and_random_state_stay(tiny_net, digits, random_state_kept):
    net = copy.deepcopy(tiny_net).train()
    given = Given(net)
    with random_state_kept():
        assert ("training-mode", "warn") in severities(doctor(net, DIGITS, digits))
    given.is_untouched()


SCALES = {
    "wrong but harmless": (lambda x: x * 0.3760 + 0.3053, ""),
    "mean and std of 0..255": (lambda x: (x + 0.81) / 255 - 0.81, "mean and std 0.5"),
    "white for black": (lambda x: DIGITS.low + DIGITS.high - x, "black and white exchanged"),
    "turned": (lambda x: x.transpose(2, 3), "rows and columns of the image exchanged"),
}


@pytest.mark.parametrize("scale", SCALES)
def test_inputs_in_another_scale_are_refused_with_the_one_that_is_right(tiny_net, digits, scale):
    """The commonest silent error; what is still well above chance passes."""
    change, words = SCALES[scale]
    wrong = Records(change(digits.x), digits.y)
    assert refused(tiny_net, None, wrong) == ["preprocessing"] * bool(words)
    text = texts(tiny_net, None, wrong).get("preprocessing", "")
    assert words in text
    # by the cause nearly all are right again
    assert not words or int(text.split("; on ")[1].split()[0]) > 80


class Shown(nn.Module):
    """A net that is right by construction: it shows each pixel to the output of its number."""

    def __init__(self, k, transform=lambda x: x):
        super().__init__()
        self.k, self.transform, self.weight = k, transform, nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.transform(x.flatten(1)[:, : self.k] * self.weight)


def shown(y, k, scale=5.0):
    """Inputs on which ``Shown`` answers ``y``."""
    return scale * functional.one_hot(torch.as_tensor(y), k).float() + torch.linspace(0, 0.1, k)


def classes_of(n, k):
    return torch.arange(n) % k


def known(n, k=10):
    """Records on which ``Shown`` is right."""
    return Records(shown(classes_of(n, k), k), classes_of(n, k))


PERMUTED = torch.tensor([3, 1, 4, 0, 5, 9, 2, 6, 8, 7])
TEXT_ORDER = torch.tensor([0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9])
NAMES = ("dog", "cat", "ape", "bee", "yak")
ORDERS = {
    # k, the label of each class, names of the classes, severity, what explains it
    "right": (10, torch.arange(10), None, None, ""),
    "text": (12, TEXT_ORDER, None, "warn", "classes sorted as text (0, 1, 10, 11, …)"),
    "text in data": (12, TEXT_ORDER.argsort(), None, "warn", "numbers sorted as text"),
    "from 1": (10, torch.arange(10) + 1, None, "refuse", "labels counted from 1"),
    "names": (5, torch.tensor([3, 2, 0, 1, 4]), NAMES, "refuse", "alphabetical order of the names"),
    "swapped": (10, torch.tensor([0, 1, 8, 3, 4, 5, 6, 7, 2, 9]), None, "warn", "2 and 8 swapped"),
    "binary": (2, torch.tensor([1, 0]), None, "refuse", "classes 0 and 1 swapped"),
    "any": (10, PERMUTED, None, "warn", "in another order (0 for 3, 2 for 6, 3 for 0, 4 for 2"),
}


@pytest.mark.parametrize("case", ORDERS)
def test_labels_that_are_numbered_otherwise_are_recognised(case):
    """What would explain the errors, and how many are right then."""
    k, label_of, names, severity, words = ORDERS[case]
    y = classes_of(240, k)
    keep = label_of[y] < k
    records = Records(shown(y, k)[keep], label_of[y][keep])
    found = doctor(Shown(k).eval(), None, records, classes=names).findings
    assert [(f.name, f.severity) for f in found] == [("class-order", severity)] * bool(words)
    right = f"on {len(records)} of {len(records)} with"
    assert all(words in finding.text and right in finding.text for finding in found)


def test_a_class_that_is_taken_for_another_is_no_order():
    """An error of the model, or of labels, has no second half that closes the exchange."""
    y = classes_of(240, 10)
    taken = torch.where(y == 2, 8, y)
    assert texts(Shown(10).eval(), None, Records(shown(taken, 10), y)) == {}


CHANCE = [
    # records, of them right, others, flagged as wrong; name, severity
    (50, 0, 0, False, ("chance", "refuse")),
    (49, 0, 0, False, ("chance", "warn")),
    (1, 0, 0, False, ("chance", "warn")),
    (1, 1, 0, False, None),
    (1, 0, 60, False, ("not-known", "warn")),
    (49, 0, 60, False, ("not-known", "warn")),
    (200, 0, 60, False, ("not-known", "warn")),
    (49, 0, 60, True, ("not-known", "note")),
    (49, 49, 60, True, None),
    (2, 1, 60, False, ("not-known", "warn")),
    (3, 2, 60, False, None),
]


@pytest.mark.parametrize(("n", "right", "others", "mislabelled", "finding"), CHANCE)
def test_records_that_the_model_gets_wrong_count_beside_others(
    n, right, others, mislabelled, finding
):
    """One that it gets wrong proves nothing; that others are right says that inputs are."""
    y = classes_of(n, 10)
    labels = torch.where(torch.arange(n) < right, y, (y + 3 + torch.arange(n) // 10) % 10)
    named, rest = Records(shown(y, 10), labels), known(others)
    found = doctor(Shown(10).eval(), None, named, others=rest, mislabelled=mislabelled)
    assert severities(found) == ({finding} if finding else set())


def test_the_accuracy_of_each_part_is_that_of_a_sample():
    parts = {n: Records(shown(classes_of(n, 10), 10), classes_of(n, 10)) for n in (3, 60, 4000)}
    found = doctor(Shown(10).eval(), None, parts[3], others=parts[4000], holdout=parts[60])
    counts = {part: (str(one), one.of) for part, one in found.accuracy.items()}
    assert counts == {
        "records": ("3 of 3", 3),
        "others": ("250 of 250", 4000),
        "holdout": ("60 of 60", 60),
    }
    # 4000 records of ten different ones
    assert severities(found) == {("holdout-known", "refuse")}


def test_a_holdout_at_chance_is_refused_and_the_worst_comes_first():
    """Its labels are right, and there are enough of them; few that are named say nothing."""
    few, net = flat([1] * 3), nn.Sequential(nn.Dropout(), Fixed())
    found = doctor(net.train(), None, few, mislabelled=True, holdout=flat([1] * 60)).findings
    assert [finding.severity for finding in found] == ["refuse", "warn", "note", "note"]
    assert "on 0 of 60 holdout records" in found[0].text


@pytest.mark.parametrize("k", [2, 10, 100])
def test_chance_is_a_binomial_test_at_one_in_a_thousand(k):
    """Against the tail of the distribution itself."""
    n = 60
    for right in range(n + 1):
        records = flat([0] * right + [1] * (n - right))
        above = binom.sf(right - 1, n, 1 / k) < 1e-3
        assert ("chance" in refused(Fixed(k), None, records)) != above, right


def test_class_names_of_another_number_are_refused():
    """As when the coarse labels meet the fine model."""
    found = texts(Fixed(), None, flat([0] * 9), classes=["a", "b"])
    assert found["class-map"] == "The model has 10 outputs, and there are 2 class names."


def test_inputs_that_are_not_finite_are_refused_by_id_and_raw_pixels_noticed():
    """One such record would make every weight nan."""
    x = torch.tensor([[0.0, 1], [float("nan"), 0], [0, float("inf")]])
    nan = Records(x, torch.tensor([0, 0, 0]), ("a", "b", "c"))
    assert refused(Fixed(), None, nan) == ["non-finite-inputs"]
    assert texts(Fixed(), None, nan)["non-finite-inputs"] == "nan or inf in the records b, c."
    pixels = Records(torch.full((9, 2), 255.0), torch.zeros(9, dtype=torch.int64))
    text = "Inputs of the records reach 255: raw pixels, not normalised?"
    assert texts(Fixed(), None, pixels)["input-range"] == text


def test_inputs_outside_black_and_white_are_a_warning(tiny_net, digits):
    """They were not made by this preprocessing."""
    findings = doctor(tiny_net, Preprocessing((0.0,), (1.0,), 8), digits)
    assert ("input-range", "warn") in severities(findings)


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
    net.weight.data.fill_(1e38)
    assert refused(net, None, flat([0] * 9)) == []
    overflow = nn.Sequential(net, nn.Linear(10, 10))
    overflow[1].weight.data.fill_(3e38)
    assert refused(overflow, None, flat([0] * 9)) == ["non-finite-outputs"]


def test_tied_frozen_and_broken_weights_are_named():
    net = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.Linear(2, 2))
    net[2].weight = net[0].weight
    net[0].bias.requires_grad_(requires_grad=False)
    found = texts(net, None, flat([0, 1]))
    assert found["tied-weights"] == "Tied weights move together: 2.weight."
    assert found["frozen"] == "Frozen weights stay as they are: 0.bias."
    assert "dropout" in found
    net[0].bias.data[0] = float("inf")
    assert texts(net, None, flat([0, 1]))["non-finite-weights"] == "nan or inf in 0.bias."


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_a_model_that_cannot_learn_is_refused():
    """Otherwise it would run for an hour and change nothing."""
    models = {"frozen": nn.Linear(2, 2).requires_grad_(requires_grad=False)}
    models |= {"no-weights": nn.Identity(), "dtype": nn.Linear(2, 2, dtype=torch.complex64)}
    models["quantised"] = torch.ao.nn.quantized.Linear(2, 2)
    for reason, model in models.items():
        assert reason in refused(model, None, flat([0, 1]))


def test_a_refusal_has_the_cause_and_its_own_remedy(tiny_net, digits):
    wrong = Records(digits.x, PERMUTED[digits.y].roll(7))
    with pytest.raises(Hazard) as caught:
        doctor(tiny_net, DIGITS, wrong).refuse()
    text = (
        r"Wanted a model and data that fit each other. Got The model is right on \d+ of 250 "
        r"records, no better than chance \(1 in 10\): mean, std, size or the class map may be "
        r"wrong. Nothing was changed. Look at --mean --std --size, at the order of the classes and "
        r"at the label column. Where this is meant: --accept chance."
    )
    assert re.fullmatch(text, str(caught.value))
    assert (caught.value.exit_code, caught.value.diagnosis.accuracy["records"].of) == (6, 400)


def softmax(x):
    return x.softmax(1)


OUTPUTS = {
    "probabilities": (softmax, "refuse"),
    "half-precision probabilities": (lambda x: x.softmax(1).half().float(), "refuse"),
    "log-probabilities": (lambda x: x.log_softmax(1), "note"),
    "logits": (lambda x: x, None),
    "logits from 0 to 1": (lambda x: x / 10, None),
}


@pytest.mark.parametrize("case", OUTPUTS)
def test_probabilities_are_refused_and_log_probabilities_are_right(case):
    """Of a softmax that is applied twice every loss and entropy is wrong."""
    transform, severity = OUTPUTS[case]
    records = Records(shown([3], 10), torch.tensor([3]))
    found = doctor(Shown(10, transform).eval(), None, records)
    assert severities(found) == ({(case.split()[-1], severity)} if severity else set())


def test_sigmoids_of_a_class_each_are_no_logits():
    model = Shown(10, lambda x: (2 * x - 4).sigmoid()).eval()
    assert texts(model, None, known(40)) == {
        "probabilities": "All 400 outputs are from 0 to 1: probabilities, and not logits."
    }


def test_a_holdout_that_was_trained_on_is_no_measure_of_unseen(tiny_net, digits):
    holdout, parts = digits.take(range(300, 400)), {}
    for name, rows in {"refuse": range(300, 400), "warn": range(200, 302), "": range(300)}.items():
        parts[name] = severities(
            doctor(tiny_net, None, digits, holdout=holdout, others=digits.take(rows))
        )
    assert parts[""] == {("batchnorm", "note")}
    assert parts["warn"] - parts[""] == {("holdout-known", "warn")}
    assert parts["refuse"] - parts[""] == {("holdout-known", "refuse")}


def test_a_wrong_label_outside_the_sample_is_found(tiny_net, digits):
    y = digits.y.repeat(2)
    y[0 if 0 not in sample_rows(800, SAMPLE) else 1] = -1
    twice = Records(digits.x.repeat(2, 1, 1, 1), y)
    assert refused(tiny_net, None, twice) == ["labels"]


@pytest.mark.parametrize(("n", "reasons"), [(40, ["probabilities"]), (9, [])])
@pytest.mark.parametrize("width", [1, 2])
def test_sigmoids_are_recognised_by_many_numbers_between_0_and_1(n, reasons, width):
    """Twenty numbers or more: a few logits may lie there by chance."""
    x = 8.0 * torch.randint(0, 2, (n, width), generator=torch.Generator().manual_seed(0)) - 4
    y = (x > 0).long()
    records = Records(x, y[:, 0] if width == 1 else y)
    assert refused(Shown(width, torch.sigmoid).eval(), None, records) == (
        reasons if n * width > 19 else []
    )
    assert refused(Shown(width).eval(), None, records) == []


def test_one_hot_integers_of_a_softmax_are_refused_with_the_remedy():
    y = classes_of(40, 10)
    records = Records(shown(y, 10), functional.one_hot(y, 10))
    (finding,) = doctor(Shown(10).eval(), None, records).findings
    assert finding == Finding(
        "one-hot",
        "refuse",
        "Each of 40 label vectors has exactly one 1, and the highest output is that one for 40: "
        "a class each, of a softmax.",
        "Give the class itself: y.argmax(1).",
    )
    sigmoids = Shown(10, lambda x: x - 1).eval()
    assert severities(doctor(sigmoids, None, records)) == {("one-hot", "warn")}
    assert severities(doctor(sigmoids, None, records.take(range(9)))) == set()


LABELS = {
    "-1 and 1": ([-1, 1, 1], 2, "outside the model's 2 outputs: -1", "(y + 1) // 2"),
    "from 1": ([1, 2, 3], 3, "outside the model's 3 outputs: 3, counted from 1, as it", "y - 1"),
    "0 and 1": ([0, 1], 2, "", ""),
    "a column": ([[0], [1]], 2, "1 labels each, and the model has 2 outputs", "y[:, 0]"),
}


@pytest.mark.parametrize("case", LABELS)
def test_labels_that_no_output_has_are_refused_with_the_likely_cause(case):
    y, k, text, remedy = LABELS[case]
    records = Records(torch.rand(len(y), k), torch.tensor(y))
    found = {f.name: f for f in doctor(Shown(k).eval(), None, records).findings}
    assert ("labels" in found) == bool(text)
    assert not text or (text in found["labels"].text and remedy in found["labels"].remedy)


def test_another_part_of_the_answer_that_is_right_is_named():
    """A mapping whose entry of that name is not the logits."""
    y = classes_of(100, 10)
    records = Records(shown(y, 10), y)
    other = lambda x: torch.linspace(0, 1, 10).expand(len(x), 10) * x[:, :1]  # noqa: E731
    found = texts(Shown(10, lambda x: {"logits": other(x), "class": x}).eval(), None, records)
    assert "on 100 of 100 by the entry 'class' of what it returns." in found["output-part"]


class Averaged(nn.Module):
    """Evaluation answers by a frozen average of the weights."""

    def __init__(self):
        super().__init__()
        self.net, self.average = nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False)  # noqa: FBT003

    def forward(self, x):
        return (self.net if self.training else self.average)(x)


class Wrapped(nn.Module):
    """A linear layer whose outputs go through ``how``."""

    def __init__(self, how):
        super().__init__()
        self.net, self.how = nn.Linear(2, 2), how

    def forward(self, x):
        return self.how(self.net, x)


UNDIFFERENTIABLE = {
    "its forward runs under torch.no_grad()": lambda: Wrapped(torch.no_grad()(lambda f, x: f(x))),
    "its forward runs under torch.no_grad() or torch.inference_mode()": lambda: Wrapped(
        torch.inference_mode()(lambda f, x: f(x))
    ),
    "in eval mode frozen weights answer: average": Averaged,
    "they are detached on the way": lambda: Wrapped(lambda f, x: f(x).detach()),
}


@pytest.mark.parametrize("why", UNDIFFERENTIABLE)
def test_outputs_without_a_gradient_are_refused_with_the_true_reason(why):
    """Otherwise autograd raises from within, after minutes."""
    (finding,) = [
        f
        for f in doctor(UNDIFFERENTIABLE[why]().eval(), None, flat([0, 1])).findings
        if f.name == "no-gradient"
    ]
    assert finding.severity == "refuse"
    assert finding.text.startswith(f"The outputs have no gradient: {why}")


def test_a_head_that_no_output_depends_on_is_noted():
    two = nn.ModuleDict({"net": nn.Linear(2, 2), "other": nn.Linear(2, 2)})
    net = Wrapped(lambda f, x: f["net"](x))
    net.net = two
    text = "No output depends on net.other.weight, net.other.bias: they stay as they are."
    assert texts(net.eval(), None, flat([0, 1]))["unused-weights"] == text


def test_outputs_that_differ_when_asked_twice_are_a_warning(random_state_kept):
    """Dropout that is always on; the same numbers each time, and the caller's state stays."""
    net = Wrapped(lambda f, x: functional.dropout(f(x), 0.3)).eval()
    records = Records(torch.rand(40, 2) * 4, torch.zeros(40, dtype=torch.int64))
    with random_state_kept():
        text = texts(net, None, records)["random-outputs"]
    assert text.startswith("In a second pass the same 32 records get outputs that differ by up to ")
    assert texts(net, None, records)["random-outputs"] == text


@pytest.mark.parametrize("tracked", [True, False])
def test_outputs_that_depend_on_the_batch_are_a_warning(tracked):
    """BatchNorm without running statistics; only of one with them the note is true."""
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=tracked)).eval()
    found = texts(net, None, flat([0, 1] * 20))
    assert ("batchnorm" in found, "batch-dependent" in found) == (tracked, not tracked)
    if not tracked:
        assert "(1)" in found["batch-dependent"]


def test_two_classes_of_one_name_and_images_of_one_colour_are_a_warning(tiny_net, digits):
    names = ["crane", "dog", "crane", *"defghij"]
    black = Records(digits.x.clone(), digits.y, digits.ids)
    black.x[[3, 5]] = -0.5
    found = texts(tiny_net, DIGITS, black, classes=names)
    assert found["class-names"] == "The classes 0 and 2 are both called crane."
    text = "2 of 400 records are of one colour: digit-0003, digit-0005."
    assert found["constant-inputs"] == text


COLUMNS = torch.randn(200, 3, generator=torch.Generator().manual_seed(1))
CONSTANT = {
    "multilabel order": ((COLUMNS.roll(1, 1) > 0).long(), "class-order"),
    "value order": (COLUMNS.roll(1, 1), "class-order"),
    "value unit": (COLUMNS * 20 + 50, "units"),
    "multilabel chance": ((COLUMNS.flip(0) > 0).long(), "chance"),
}


@pytest.mark.parametrize("case", CONSTANT)
def test_labels_and_values_in_another_order_or_unit_are_recognised(case):
    y, name = CONSTANT[case]
    assert refused(Shown(3).eval(), None, Records(COLUMNS, y)) == [name]


def test_what_is_accepted_warns_and_what_cannot_be_is_refused_with_the_list():
    records = Records(shown([3], 10), torch.tensor([3]))
    net = Shown(10, softmax).eval()
    accepted = doctor(net, None, records, accept=["probabilities"])
    assert severities(accepted) == {("probabilities", "warn")}
    accepted.refuse()
    with pytest.raises(Hazard, match="Where this is meant: --accept probabilities"):
        doctor(net, None, records).refuse()
    known = "findings to accept out of probabilities, one-hot, output-part, class-order, "
    known += "preprocessing, units, chance, holdout-known. Got "
    for name, remedy in {"chanse": "Did you mean 'chance'?", "labels": "cannot be right"}.items():
        text = refusal(doctor, net, None, records, accept=[name])
        assert text.startswith(f"Wanted {known}{name!r}.")
        assert remedy in text


def test_every_finding_of_the_source_is_in_the_table():
    """A name that stands nowhere has no page and no remedy."""
    source = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    names = set(re.findall(r'Finding\(\s*"([^"]+)"', source))
    assert names <= set(FINDINGS), names - set(FINDINGS)


def test_the_page_of_findings_is_the_table_of_the_code():
    rows = [line for line in (ROOT / "docs/findings.md").read_text().splitlines() if "| `" in line]
    expected = [
        f"| `{name}` | {kind.severity}{', can be accepted' * kind.accept} | {kind.cause} | "
        f"{kind.remedy} |".replace("|  |", "| |")
        for name, kind in FINDINGS.items()
    ]
    assert [line.replace("  ", " ") for line in rows] == [
        line.replace("  ", " ") for line in expected
    ]
