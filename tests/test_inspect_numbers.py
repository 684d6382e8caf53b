"""What an inspection says of records in memory, beside numbers found another way."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

import efface
from efface.errors import Hazard, InputError
from efface.methods.parts.head import features_of
from efface.metrics.measure import evaluate
from efface.ranking import keeping, looking
from efface.ranking.copies import kept_share
from efface.ranking.curvature import curvature, probability
from efface.ranking.curvature_exact import piecewise_linear_curvature
from efface.ranking.found import groups
from efface.ranking.reading import InMemory
from efface.ranking.settings import Settings
from efface.ranking.sigma import sigma_keeping
from efface.ranking.slopes import input_gradient_norm
from efface.types import Records

SIGMA = 0.3


@pytest.fixture(scope="module")
def found(tiny_net, digits):
    """Of all 400 digits."""
    return efface.inspect(tiny_net, digits, sigma=SIGMA)


def test_margin_loss_entropy_and_answers_are_those_of_a_plain_measurement(found, tiny_net, digits):
    """One pass by ``evaluate``, which the scores read."""
    seen = evaluate(tiny_net, digits)
    assert found.ids == digits.ids
    assert np.array_equal(found["label"], digits.y.numpy())
    assert np.array_equal(found["answer"], seen.predicted)
    for name in ("margin", "loss", "entropy"):
        assert np.allclose(found[name], getattr(seen, name), atol=1e-4), name


def test_content_is_the_share_of_kept_answers_of_each_record_alone(found, tiny_net, digits):
    """In whatever company a record is inspected: here in none."""
    alone = [kept_share(tiny_net, digits.take([r]), sigma=SIGMA)[0] for r in range(0, 400, 40)]
    assert found.content[::40].tolist() == alone
    assert 0.2 < found.content.std() + found.content.min() < 1  # it tells records apart


@pytest.mark.parametrize("name", ["label", "answer"])
def test_the_balls_are_those_of_scikit_learn(found, tiny_net, digits, name):
    """The record and its 20 nearest in what goes into the last layer."""
    points = features_of(tiny_net, digits).x.numpy().astype(np.float64)
    near = NearestNeighbors(n_neighbors=21).fit(points).kneighbors(points)[1]
    classes = found[name]
    expected = (classes[near] == classes[:, None]).mean(1)
    same = np.isclose(found[f"content_by_{name}"], expected)
    assert same.mean() > 0.99  # two neighbours may be equally far


def test_rank_goes_by_content_then_margin_then_place(found):
    """A sort of Python's own."""
    order = sorted(range(400), key=lambda row: (found.content[row], found["margin"][row], row))
    assert found.by_rank.tolist() == order
    assert found["rank"][order].tolist() == list(range(1, 401))


def test_groups_and_thresholds_are_counted_by_hand(found):
    """High is below τ; at τ and above a record is left alone."""
    assert groups(np.array([0.5, 0.75, 1.0]), 0.75).tolist() == ["high", "low", "low"]
    assert found["group"].tolist() == ["high" if a < 0.9 else "low" for a in found.content]
    assert [one.tau for one in found.thresholds()] == [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0]
    for one in found.thresholds():
        left = [row for row in range(400) if found.content[row] >= one.tau]
        assert one.left_alone == len(left)
        assert one.wrong == sum(found["label"][row] != found["answer"][row] for row in left)
        assert one.margin == min(found["margin"][row] for row in left)


def test_gradients_are_those_of_each_record_alone(found, tiny_net, digits):
    """By automatic differentiation of one record's loss."""
    net = tiny_net
    for row in (0, 17, 399):
        x = digits.x[[row]].clone().requires_grad_()
        value = torch.nn.functional.cross_entropy(net(x), digits.y[[row]])
        (slope,) = torch.autograd.grad(value, x)
        assert found["gradient_norm"][row] == pytest.approx(float(slope.norm()), rel=1e-3)
    assert np.allclose(found["gradient_norm"], input_gradient_norm(net, digits), rtol=1e-4)


def test_shards_change_nothing(found, tiny_net, digits, monkeypatch):
    """A million records are read as these are: in parts."""
    monkeypatch.setattr(looking, "SHARD", 37)
    told = []

    @contextmanager
    def counted(title, total):
        yield told.append
        assert (title, len(told)) == ("inspect", total)

    again = efface.inspect(tiny_net, digits, sigma=SIGMA, counted=counted)
    assert (len(told), told[-1]) == (11, "400 of 400")
    for name, values in found.columns.items():
        if values.dtype.kind == "f":
            assert np.allclose(again[name], values, rtol=1e-3, atol=1e-5), name
        else:
            assert np.array_equal(again[name], values), name


def test_named_records_have_the_numbers_that_they_have_among_all(found, tiny_net, digits):
    """Only rank depends on who else is asked about; places come in the order of the data."""
    some = efface.inspect(tiny_net, digits, rows=[311, 5, 5, 42], sigma=SIGMA)
    assert some.ids == tuple(digits.ids[row] for row in (5, 42, 311))
    same = ("label", "answer", "content", "content_by_label", "content_by_answer", "group")
    for name in same:
        assert np.array_equal(some[name], found[name][[5, 42, 311]]), name
    assert np.allclose(some["margin"], found["margin"][[5, 42, 311]], atol=1e-4)
    assert sorted(some["rank"]) == [1, 2, 3]


def test_without_balls_only_the_named_records_are_read(tiny_net, digits):
    """A million others cost nothing then, but for those that σ is found on."""
    read = []

    class Watched(InMemory):
        def read(self, rows):
            read.append(list(rows))
            return super().read(rows)

    job = looking.Job(
        tiny_net, Watched(digits), Settings(sigma=(SIGMA,), neighbours=0), asked=(3, 9)
    )
    found = looking.looked(job, keeping.InMemory())
    assert read[1:] == [[3, 9]]
    assert found.record["balls"] == {"left out": "no neighbours were asked for"}
    assert "content_by_label" not in found.columns


@pytest.mark.parametrize("wanted", [None, 0.7])
def test_sigma_is_found_where_the_wanted_share_keeps_the_answer(tiny_net, digits, wanted):
    """Asked again with other draws."""
    found = efface.inspect(tiny_net, digits, expected_accuracy=wanted, neighbours=0)
    (sigma,) = found.record["sigma"]
    again = kept_share(tiny_net, digits, sigma=sigma, copies=32, seed=5).mean()
    assert again == pytest.approx(wanted or 0.75, abs=0.02)
    assert found.content.mean() == pytest.approx(wanted or 0.75, abs=0.02)


def test_a_deaf_model_ends_the_search_for_sigma(digits):
    """It answers everything alike, so no noise changes an answer."""
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    with torch.no_grad():
        net[1].weight.zero_()
    assert sigma_keeping(net, digits.take(range(40)), 0.9, seed=0) == (0.05, 1.0)


def test_more_sigmas_are_more_columns_and_the_first_ranks(found, tiny_net, digits):
    """α as a function of σ."""
    two = efface.inspect(tiny_net, digits, sigma=(SIGMA, 0.6), neighbours=0)
    assert np.array_equal(two.content, found.content)
    assert np.array_equal(two["rank"], found["rank"])
    wide = kept_share(tiny_net, digits, sigma=0.6)
    assert np.array_equal(two["content_at_0.6"], wide)
    assert wide.mean() < two.content.mean()


def test_curvature_is_left_out_or_the_one_that_was_asked_for(found, tiny_net, digits):
    """It costs far more than all else."""
    assert "curvature" not in found.columns
    some = digits.take(range(6))
    bent = efface.inspect(tiny_net, some, sigma=SIGMA, neighbours=0, curvature="probability")
    direct = piecewise_linear_curvature(tiny_net, some, of=probability)
    assert bent.record["curvature_exact"]
    for name, part in (
        ("curvature", "ratio"),
        ("curvature_gradient", "gradient_norm"),
        ("curvature_hessian", "hessian_norm"),
        ("curvature_error", "ratio_error"),
    ):
        assert np.allclose(bent[name], getattr(direct, part), rtol=1e-4), name
    smooth = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10), torch.nn.Tanh())
    few = Records(some.x, smooth(some.x).argmax(1))
    guessed = efface.inspect(smooth, few, sigma=SIGMA, neighbours=0, curvature="probability")
    assert not guessed.record["curvature_exact"]
    again = curvature(smooth, few, of=probability, probes=64)
    assert np.allclose(guessed["curvature"], again.ratio, rtol=1e-4)


def test_a_model_without_a_linear_head_has_no_balls_and_says_why(digits):
    """The rest is told all the same."""

    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.only = torch.nn.Linear(64, 10)

        def forward(self, x):
            return 2 * self.only(x.flatten(1))

    net = Twice()
    with torch.no_grad():
        y = net(digits.x).argmax(1)
    some = Records(digits.x, y, digits.ids).take(range(60))
    found = efface.inspect(net, some, sigma=SIGMA)
    assert found.record["balls"]["left out"] == (
        "balls need a last linear layer whose answers are the outputs, "
        "and here is another step after it"
    )
    assert len(found.content) == 60


def test_the_model_and_the_global_random_state_stay(tiny_net, digits, random_state_kept):
    """The end of the session looks at the weights."""
    with random_state_kept():
        efface.inspect(tiny_net, digits.take(range(40)))


def test_a_notebook_shows_the_most_informative(found):
    """The count and ten rows, in plain HTML."""
    shown = found._repr_html_()
    assert shown.count("<tr>") == 11
    first = shown.index(f">{found.ids[found.by_rank[0]]}<")
    assert first < shown.index(f">{found.ids[found.by_rank[9]]}<")
    assert f"{int(found.high.sum())} of 400 records" in shown


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"sigma": 0.0}, "Wanted sigma above 0. Got 0.0. Change sigma."),
        ({"sigma": (0.1, 0.1)}, "Wanted each sigma once. Got (0.1, 0.1). Leave the others out."),
        ({"copies": 0}, "Wanted copies of 1 or more, a whole number. Got 0. Change copies."),
        ({"neighbours": -1}, "Wanted neighbours of 0 or more, a whole number. Got -1. Ch"),
        ({"threshold": 1.5}, "Wanted threshold above 0 and up to 1. Got 1.5. Change threshold."),
        ({"seed": -1}, "Wanted seed of 0 or more, a whole number. Got -1. Change seed."),
        (
            {"expected_accuracy": 0.0},
            ("Wanted expected_accuracy above 0 and below 1. Got 0.0. Change expected_accuracy."),
        ),
        (
            {"curvature": "logits"},
            (
                "Wanted the curvature of one of probability, log_probability, loss. "
                "Got 'logits'. Logits of a net of ReLUs have none."
            ),
        ),
        ({"rows": []}, "Wanted rows from 0 to 399. Got none. Name records by their places."),
        ({"rows": [400]}, "Wanted rows from 0 to 399. Got 400 to 400. Name records by "),
    ],
)
def test_what_no_number_can_come_of_is_refused(tiny_net, digits, wrong, text):
    """By name, before anything is measured."""
    with pytest.raises(InputError) as refused:
        efface.inspect(tiny_net, digits, **wrong)
    assert str(refused.value).startswith(text)


def test_other_kinds_and_misfits_are_refused(tiny_net, digits):
    """Values have no class, and a model at chance misreads its inputs."""
    many = Records(digits.x, torch.ones(400, 10, dtype=torch.int64))
    with pytest.raises(InputError) as refused:
        efface.inspect(tiny_net, many)
    assert str(refused.value) == (
        "Wanted records of one class of several each. Got many labels. Information content counts "
        "the neighbours of a record's class, and these have none."
    )
    wrong = Records(digits.x, (digits.y + 1) % 10)
    with pytest.raises(Hazard, match="no better than chance"):
        efface.inspect(tiny_net, wrong)
