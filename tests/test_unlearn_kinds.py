"""Whole requests on the data people bring: tables, binary, multilabel, regression."""

import pytest
import torch
from by_hand import same
from refusals import refusal
from scikit_tables import LOSSES, fitted, net
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

from efface import Hazard, Records, Split, forget
from efface.task import custom, multilabel, regression

BOTH = pytest.mark.parametrize("method", ["jit", "neighbourhood"])
QUICK = {"method": "jit", "settings": {"steps": 2}}


def trained(records, outputs, kind, steps=400):
    """A small net that memorised the records."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = net(records.x[0].numel(), outputs)
    return fitted(nn.Sequential(nn.Flatten(), *body), records.x, records.y, LOSSES[kind], steps)


def table(load, *, numbers=False):
    """A real table of scikit-learn's, standardised, its rows in a seeded order."""
    x, y = load(return_X_y=True)
    x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
    y = ((y - y.mean()) / y.std()).float() if numbers else y.long()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return Records((x - x.mean(0)) / x.std(0), y).take(order)


def described(digits):
    """Digits with three labels each instead of one: even, above 4, drawn with a closed loop."""
    loop = torch.isin(digits.y, torch.tensor([0, 6, 8, 9]))
    y = torch.stack([digits.y % 2 == 0, digits.y > 4, loop], 1).long()
    return Records(digits.x, y, digits.ids, digits.low, digits.high)


def parts(records, forgotten=20):
    """The records trained on, and the split: some of them to forget, the other half unseen."""
    half = len(records) // 2
    unseen, stay = records.take(range(half, len(records))), records.take(range(forgotten, half))
    return records.take(range(half)), Split(records.take(range(forgotten)), unseen, stay)


def no_error(report):
    """No test crashed."""
    return not [(row.key, row.note) for row in report.rows if row.status == "error"]


@BOTH
def test_a_table_of_numbers_with_one_label_of_three(method):
    """Wines: rows of 13 numbers have no perspective, and noise takes its place."""
    seen, split = parts(table(load_wine))
    report = forget(trained(seen, 3, "wine"), split, method=method).report
    assert no_error(report)
    assert report.tier == "T2"
    assert report.row("holdout.accuracy").after > 0.9


def test_one_sigmoid_unit_is_one_class_of_two():
    """The unit z and the logits (0, z) are one model: the same request gives the same weights."""
    seen, split = parts(table(load_breast_cancer))

    class Pair(nn.Module):
        def __init__(self, body):
            super().__init__()
            self.body = body

        def forward(self, x):
            z = self.body(x)
            return torch.cat([torch.zeros_like(z), z], 1)

    unit = trained(seen, 1, "cancer")
    alone, pair = (forget(model, split, settings={"steps": 20}) for model in (unit, Pair(unit)))
    assert same(alone.model, pair.model.body)
    rows = ({r.key: r.after for r in found.report.rows} for found in (alone, pair))
    assert {key for key, _ in next(rows).items() ^ next(rows).items()} <= {"weights.change"}


@BOTH
def test_values_are_predicted_less_closely_after_they_were_forgotten(method):
    """Diabetes: the model memorised the values, and must come nearer to unseen ones."""
    seen, split = parts(table(load_diabetes, numbers=True))
    report = forget(trained(seen, 1, "diabetes", steps=1500), split, method=method).report
    assert no_error(report)
    row = report.row("forget.accuracy")
    assert row.before > 0.9 > row.reference
    assert row.after < row.before - 0.05
    assert abs(report.row("holdout.accuracy").after - row.reference) < 0.05
    assert report.records[0].keys() >= {"accuracy_before", "predicted_after", "logit_margin_after"}


@BOTH
def test_many_labels_are_served_from_door_to_page(method, digits, tmp_path):
    """Three labels each, on real images: no softmax anywhere."""
    seen, split = parts(described(digits))
    how = {"method": method, "classes": ("even", "above 4", "loop"), "settings": {"steps": 40}}
    result = forget(trained(seen, 3, "digits"), split, **how)
    assert no_error(result.report)
    name = result.report.row("forget.accuracy").name
    assert "label" in name
    assert name in result.save_report(tmp_path / "r.html").read_text()
    words = {word for entry in result.report.records for word in entry["label"].split(", ")}
    assert words <= {"even", "above 4", "loop", "none"}


def test_outputs_and_a_loss_of_ones_own_are_served(digits):
    """Here a model that reconstructs its input, as segmenters and autoencoders do."""
    x = digits.x.flatten(1)
    loss = lambda answer, y: (answer - y).square().mean(1)  # noqa: E731
    task = custom("reconstruction", outputs=lambda model, x: model(x), loss=loss)
    records = Records(x, x.clone(), digits.ids, task=task)
    model = nn.Sequential(nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 64))
    model = fitted(model, x[:300], x[:300], nn.functional.mse_loss, steps=200)
    split = Split(records.take(range(20)), records.take(range(300, 400)))
    report = forget(model, split, method="jit").report
    assert no_error(report)
    assert "reconstruction" in report.row("forget.accuracy").name


TASKS = [
    (ssdlite320_mobilenet_v3_large, "boxes (object detection)"),
    (lraspp_mobilenet_v3_large, "each pixel of shape (1, 2, 64, 64)"),
    (lambda **_: nn.Unflatten(0, (1, 1)), "each place of shape (1, 1, 3, 64, 64)"),
    (lambda **_: nn.Flatten(0), "(12288,) for 1 records"),
]


@pytest.mark.parametrize(("make", "came"), TASKS)
def test_other_tasks_are_refused_by_name_with_the_hook(make, came):
    """A box is no label; half serving it would be a report about nothing."""
    net = make(weights=None, weights_backbone=None, num_classes=2).eval()
    text = refusal(forget, net, Split(Records(torch.rand(1, 3, 64, 64), torch.tensor([0]))))
    assert text.startswith("Wanted a model that returns one row of numbers a record. ")
    assert text.endswith(
        f"{came}. Segmentation, detection and sequences need outputs and a loss of your own: "
        "Records(…, task=efface.task.custom(name, outputs, loss)), see docs/tasks.md."
    )


def test_a_few_values_alone_do_not_tell_their_own_scale():
    """An error of 3 may be nothing or everything."""
    records = Records(torch.rand(2, 4), torch.tensor([10.0, 200.0]))
    assert refusal(forget, nn.Linear(4, 1), Split(records)) == (
        "Wanted a scale of the values, or at least 10 records to estimate it from. Got 2 records. "
        "Give Records(…, task=efface.task.regression(scale=their standard deviation))."
    )
    scaled = Split(Records(records.x, records.y, task=regression(scale=50.0)))
    assert forget(nn.Linear(4, 1), scaled, **QUICK).report.tier == "T0"


@pytest.mark.parametrize(
    ("facts", "options"), [({"forget_classes": (1,)}, {}), ({}, {"mislabelled": True})]
)
def test_classes_and_wrong_labels_are_of_multiclass_tasks(facts, options):
    """Each would otherwise end in a broken model or a traceback."""
    records = Records(torch.rand(4, 5), torch.ones(4, 3).long(), task=multilabel)
    assert refusal(forget, nn.Linear(5, 3), Split(records, **facts), **options) == (
        "Wanted a multiclass task, for forget classes and wrong labels. Got multilabel. "
        "Name the records alone, by ids or an expression."
    )


FLOATS = ": if they are classes, write them as integers, 1 and not 1.0 (in Python y.long())"
ZERO = "Number the classes from 0, in the order of the model's outputs."
MISFITS = [
    (
        [[0, 1], [1, 0]],
        3,
        "The records have 2 labels each, and the model has 3 outputs",
        "Give one an output.",
    ),
    ([[0, 2], [1, 0]], 2, "The records have labels that are not 0 or 1: 2", "Write 0 and 1."),
    ([0, 5], 3, "The records have labels outside the model's 3 outputs: 5", ZERO),
    ([0, 3, 10, -1], 10, "The records have labels outside the model's 10 outputs: -1, 10", ZERO),
    ([0, 2], 1, "The records have labels outside the model's 2 outputs: 2", ZERO),
    (
        [[0.1, 1.0]] * 12,
        3,
        "The records have 2 values each, and the model has 3 outputs",
        "Give one an output.",
    ),
    (
        [0.0, 1.0, 2.0] * 4,
        3,
        "The records have 1 values each, and the model has 3 outputs" + FLOATS,
        "Look at the label column.",
    ),
]


@pytest.mark.parametrize(("y", "outputs", "text", "remedy"), MISFITS)
def test_labels_that_the_outputs_cannot_say_are_refused(y, outputs, text, remedy):
    """The wrong column was taken, or the wrong model."""
    records = Records(torch.rand(len(y), 5), torch.tensor(y))
    with pytest.raises(Hazard) as error:
        forget(nn.Linear(5, outputs), Split(records))
    wanted = f"Wanted a model and data that fit each other. Got {text}. Nothing was changed."
    assert str(error.value) == f"{wanted} {remedy}"


FORMS = {
    "tensors": lambda r: (r.x, r.y),
    "a data set": lambda r: TensorDataset(r.x, r.y),
    "a loader": lambda r: DataLoader(TensorDataset(r.x, r.y), batch_size=7),
}


@pytest.mark.parametrize("kind", ["wine", "diabetes", "digits"])
@pytest.mark.parametrize("form", FORMS)
def test_records_are_forgotten_out_of_whatever_holds_them(digits, kind, form):
    """Against the same request made of Records."""
    made = {"wine": lambda: (digits, 10), "digits": lambda: (described(digits), 3)}
    made["diabetes"] = lambda: (table(load_diabetes, numbers=True), 1)
    whole, outputs = made[kind]()
    seen, split = parts(Records(whole.x, whole.y).take(range(60)))
    model = trained(seen, outputs, kind, steps=50)
    three = (split.forget, split.holdout, split.retain)
    one = forget(model, Split(*(FORMS[form](part) for part in three)), **QUICK)
    other = forget(model, Split(*(Records(part.x, part.y) for part in three)), **QUICK)
    assert same(one.model, other.model)
    assert no_error(one.report)


def test_other_values_are_judged_at_the_scale_of_the_request(monkeypatch):
    def stop(*given, others, **_):
        tasks.extend([given[2].task, others.task])
        raise Hazard("a request", "enough", "Stop here.")

    tasks = []
    monkeypatch.setattr("efface.unlearn.doctor", stop)
    x = torch.arange(20.0)[:, None]
    with pytest.raises(Hazard):
        forget(nn.Linear(1, 1), Split(Records(x, x[:, 0])), others=Records(x, 100 * x[:, 0]))
    assert tasks[0] is not None
    assert tasks[0] is tasks[1]
