"""Whole requests on what people bring: tables, one sigmoid unit, many labels, values, and more."""

import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

from efface import Hazard, InputError, Records, Split, forget
from efface.task import custom, multilabel, regression

LOSSES = {
    "labels": nn.functional.cross_entropy,
    "unit": lambda z, y: nn.functional.binary_cross_entropy_with_logits(z[:, 0], y.float()),
    "many": lambda z, y: nn.functional.binary_cross_entropy_with_logits(z, y.float()),
    "values": lambda z, y: nn.functional.mse_loss(z[:, 0], y),
}


def fitted(records, outputs, loss, steps=400):
    """A small net that has learned its records by heart."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        width = records.x[0].numel()
        net = nn.Sequential(
            nn.Flatten(), nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(),
            nn.Linear(64, outputs),
        )  # fmt: skip
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        LOSSES[loss](net(records.x), records.y).backward()
        optimizer.step()
    return net.eval()


def table(load, *, numbers=False):
    """A real table of scikit-learn's, standardised, its rows in a seeded order."""
    x, y = load(return_X_y=True)
    x = torch.tensor(x, dtype=torch.float32)
    x = (x - x.mean(0)) / x.std(0)
    y = torch.tensor(y, dtype=torch.float32 if numbers else torch.int64)
    y = (y - y.mean()) / y.std() if numbers else y
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return Records(x, y).take(order)


def parts(records, forgotten=20):
    """The records trained on, and the split: some of them to forget, the other half unseen."""
    half = len(records) // 2
    trained = records.take(range(half))
    split = Split(
        records.take(range(forgotten)),
        holdout=records.take(range(half, len(records))),
        retain=records.take(range(forgotten, half)),
    )
    return trained, split


def described(digits):
    """Digits with three labels each instead of one: even, above 4, drawn with a closed loop."""
    loop = torch.isin(digits.y, torch.tensor([0, 6, 8, 9]))
    y = torch.stack([digits.y % 2 == 0, digits.y > 4, loop], 1).long()
    return Records(digits.x, y, digits.ids, digits.low, digits.high)


def nothing_red(evidence):
    """No test crashed."""
    return not [(row.key, row.note) for row in evidence.rows if row.status == "error"]


@pytest.mark.parametrize("method", ["jit", "neighbourhood"])
def test_a_table_of_numbers_with_one_label_of_three(method):
    """Wines: rows of 13 numbers have no perspective, and noise takes its place."""
    trained, split = parts(table(load_wine))
    model = fitted(trained, 3, "labels")
    result = forget(model, split, method=method)
    assert nothing_red(result.report)
    assert result.report.tier == "T2"
    assert result.report.row("holdout.accuracy").after > 0.9


def test_one_sigmoid_unit_is_one_class_of_two():
    """The unit z and the logits (0, z) are one model: the same request gives the same weights."""
    trained, split = parts(table(load_breast_cancer))
    unit = fitted(trained, 1, "unit")

    class Pair(nn.Module):
        def __init__(self, body):
            super().__init__()
            self.body = body

        def forward(self, x):
            z = self.body(x)
            return torch.cat([torch.zeros_like(z), z], 1)

    alone, pair = (forget(model, split, settings={"steps": 20}) for model in (unit, Pair(unit)))
    for a, b in zip(alone.model.parameters(), pair.model.parameters(), strict=True):
        assert torch.equal(a, b)
    rows = [[(row.key, row.after) for row in found.report.rows if row.key != "weights.change"]
            for found in (alone, pair)]  # fmt: skip
    assert rows[0] == rows[1]


@pytest.mark.parametrize("method", ["jit", "neighbourhood"])
def test_values_are_answered_less_closely_after_they_were_forgotten(method):
    """Diabetes: the net knew the values by heart, and must come nearer to unseen ones."""
    trained, split = parts(table(load_diabetes, numbers=True))
    model = fitted(trained, 1, "values", steps=1500)
    result = forget(model, split, method=method)
    assert nothing_red(result.report)
    row = result.report.row("forget.accuracy")
    assert row.before > 0.9 > row.reference
    assert row.after < row.before - 0.05
    assert abs(result.report.row("holdout.accuracy").after - row.reference) < 0.05
    assert result.report.records[0].keys() >= {"accuracy_before", "predicted_after", "logit_margin_after"}


@pytest.mark.parametrize("method", ["jit", "neighbourhood"])
def test_many_labels_are_served_from_door_to_page(method, digits, tmp_path):
    """Three labels each, on real images: no softmax anywhere."""
    trained, split = parts(described(digits))
    model = fitted(trained, 3, "many")
    result = forget(
        model, split, method=method, classes=("even", "above 4", "loop"), settings={"steps": 40}
    )
    assert nothing_red(result.report)
    assert (
        "Forget records: labels answered rightly"
        in result.save_report(tmp_path / "r.html").read_text()
    )
    spoken = {word for entry in result.report.records for word in entry["label"].split(", ")}
    assert spoken <= {"even", "above 4", "loop", "none"}


def test_outputs_and_a_loss_of_ones_own_are_served(digits):
    """The hook: here a net that draws its input again, as segmenters and autoencoders answer."""
    x = digits.x.flatten(1)
    net = nn.Sequential(nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 64))
    task = custom(
        "a picture drawn again",
        outputs=lambda model, x: model(x),
        loss=lambda answer, y: (answer - y).square().mean(1),
    )
    records = Records(x, x.clone(), digits.ids, task=task)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.mse_loss(net(x[:300]), x[:300]).backward()
        optimizer.step()
    split = Split(records.take(range(20)), records.take(range(300, 400)))
    result = forget(net.eval(), split, method="jit")
    assert nothing_red(result.report)
    assert "a picture drawn again" in result.report.row("forget.accuracy").name


REMEDY = (
    "Segmentation, detection and sequences need outputs and a loss of your own: "
    "Records(…, task=efface.task.custom(name, outputs, loss)), see docs/tasks.md."
)


@pytest.mark.parametrize(
    ("make", "came"),
    [
        (ssdlite320_mobilenet_v3_large, "boxes (object detection)"),
        (lraspp_mobilenet_v3_large, "an output for each pixel of shape (1, 2, 64, 64)"),
        (
            lambda **_: nn.Unflatten(0, (1, 1)),
            "an output for each place of shape (1, 1, 3, 64, 64)",
        ),
        (lambda **_: nn.Flatten(0), "(12288,) for 1 records"),
    ],
    ids=["detection", "segmentation", "places", "one row for all"],
)
def test_other_tasks_are_refused_by_name_with_the_hook(make, came):
    """A box is no label; half serving it would be a report about nothing."""
    net = make(weights=None, weights_backbone=None, num_classes=2).eval()
    records = Records(torch.rand(1, 3, 64, 64), torch.tensor([0]))
    with pytest.raises(InputError) as error:
        forget(net, Split(records))
    assert str(error.value) == (
        f"Wanted a model that returns one row of numbers a record. Got {came}. {REMEDY}"
    )


def test_a_few_values_alone_do_not_tell_their_own_scale():
    """An error of 3 may be nothing or everything."""
    records = Records(torch.rand(2, 4), torch.tensor([10.0, 200.0]))
    with pytest.raises(InputError) as error:
        forget(nn.Linear(4, 1), Split(records))
    assert str(error.value) == (
        "Wanted a scale of the values, or at least 10 records to estimate it from. Got 2 records. "
        "Give Records(…, task=efface.task.regression(scale=their standard deviation))."
    )
    scaled = Records(records.x, records.y, task=regression(scale=50.0))
    assert (
        forget(nn.Linear(4, 1), Split(scaled), method="jit", settings={"steps": 2}).report.tier
        == "T0"
    )


@pytest.mark.parametrize(
    ("split", "options", "message"),
    [
        ({"forget_classes": (1,), "adapter": multilabel}, {},
         ("Wanted a multiclass task, for forget classes and wrong labels. Got multilabel. Name the "
         "records alone, by ids or an expression.")),
        ({"adapter": multilabel}, {"mislabelled": True},
         ("Wanted a multiclass task, for forget classes and wrong labels. Got multilabel. Name the "
         "records alone, by ids or an expression.")),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused_in_a_sentence(split, options, message):
    """Each would otherwise end in a broken model or a traceback."""
    task = split.pop("adapter", None)
    y = torch.ones(4, 3).long() if task else torch.tensor([0, 1, 2, 0])
    records = Records(torch.rand(4, 5), y, task=task)
    with pytest.raises(InputError) as error:
        forget(nn.Linear(5, 3), Split(records, **split), **options)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("y", "outputs", "text"),
    [
        (torch.tensor([[0, 1], [1, 0]]), 3,
         "The records have 2 labels each, and the model has 3 outputs"),
        (torch.tensor([[0, 2], [1, 0]]), 2, "The records have labels that are not 0 or 1: 2"),
        (torch.tensor([0, 5]), 3,
         "The records have labels that the model with 3 outputs does not: 5"),
        (torch.tensor([0, 2]), 1,
         "The records have labels that the model with 2 outputs does not: 2"),
        (torch.arange(24.0).reshape(12, 2), 3,
         "The records have 2 values each, and the model has 3 outputs"),
    ],
)  # fmt: skip
def test_labels_that_the_outputs_cannot_say_are_refused(y, outputs, text):
    """The wrong column was taken, or the wrong model."""
    with pytest.raises(Hazard) as error:
        forget(nn.Linear(5, outputs), Split(Records(torch.rand(len(y), 5), y)))
    assert str(error.value) == (
        f"Wanted a model and data that fit each other. Got {text}. Nothing was changed. Look at "
        "--mean --std --size, at the order of the classes and at the label column."
    )


@pytest.mark.parametrize("kind", ["values", "many"])
@pytest.mark.parametrize(
    "form",
    [
        lambda r: (r.x, r.y),
        lambda r: TensorDataset(r.x, r.y),
        lambda r: DataLoader(TensorDataset(r.x, r.y), batch_size=7),
    ],
    ids=["tensors", "a data set", "a loader"],
)
def test_values_and_many_labels_are_forgotten_out_of_whatever_holds_them(digits, kind, form):
    """Against the same request made of Records."""
    whole = table(load_diabetes, numbers=True) if kind == "values" else described(digits)
    trained, split = parts(Records(whole.x, whole.y).take(range(60)))
    model = fitted(trained, whole.y.reshape(len(whole), -1).shape[1], kind, steps=50)
    three = (split.forget, split.holdout, split.retain)
    given = Split(*(form(part) for part in three))
    plain = Split(*(Records(part.x, part.y) for part in three))
    one, other = (forget(model, s, method="jit", settings={"steps": 2}) for s in (given, plain))
    for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert nothing_red(one.report)


def test_classes_written_with_a_point_are_told_to_be_whole():
    """As values they cannot be answered by three outputs."""
    trained, split = parts(table(load_wine))
    model = fitted(trained, 3, "labels", steps=1)
    with pytest.raises(Hazard) as caught:
        forget(model, Split((split.forget.x, split.forget.y.float())))
    assert str(caught.value) == (
        "Wanted a model and data that fit each other. Got The records have 1 values each, and the "
        "model has 3 outputs: if they are classes, write them as integers, 1 and not 1.0 (in "
        "Python y.long()). Nothing was changed. Look at the label column."
    )
