"""What ``inspect`` says of records in memory, against numbers found another way."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

import efface
from efface import Manifest
from efface.errors import Hazard
from efface.methods._head import embed
from efface.metrics.evaluation import evaluate
from efface.prepare import select_records
from efface.ranking import curvature as curves
from efface.ranking import run as module
from efface.ranking.content import noise_stability
from efface.ranking.run import Run, Settings
from efface.ranking.storage import FolderStore, MemorySource
from efface.types import Records, Split
from tests.refusals import refusal
from tests.small_nets import known, twice

SIGMA = 0.3


@pytest.fixture(scope="module")
def found(tiny_net, digits):
    """Of all 400 digits."""
    return efface.inspect(tiny_net, digits, sigma=SIGMA)


def share(model, records, sigma, **to):
    """Zero-shot α at one σ."""
    return noise_stability(model, records, (sigma,), **to).share[0]


def test_margin_loss_entropy_and_predictions_are_those_of_a_plain_evaluation(
    found, tiny_net, digits
):
    seen = evaluate(tiny_net, digits)
    assert found.ids == digits.ids
    assert np.array_equal(found["label"], digits.y.numpy())
    assert np.array_equal(found["prediction"], seen.predicted)
    for name in ("logit_margin", "loss", "entropy"):
        assert np.allclose(found[name], getattr(seen, name), atol=1e-4), name


def test_content_is_the_stability_of_each_record_alone(found, tiny_net, digits):
    """In whatever company a record is ranked: here in none."""
    alone = [share(tiny_net, digits.take([r]), SIGMA)[0] for r in range(0, 400, 40)]
    assert found.content[::40].tolist() == alone
    assert 0.2 < found.content.std() + found.content.min() < 1  # it tells records apart


@pytest.mark.parametrize("name", ["label", "prediction"])
def test_the_balls_are_those_of_scikit_learn(found, tiny_net, digits, name):
    """The record and its 20 nearest by the embeddings that go into the last layer."""
    points = embed(tiny_net, digits).x.numpy().astype(np.float64)
    near = NearestNeighbors(n_neighbors=21).fit(points).kneighbors(points)[1]
    expected = (found[name][near] == found[name][:, None]).mean(1)
    same = np.isclose(found[f"content_by_{name}"], expected)
    assert same.mean() > 0.99  # two neighbours may be equally far


def test_rank_goes_by_content_then_margin_then_place(found):
    order = sorted(
        range(400), key=lambda row: (found.content[row], found["logit_margin"][row], row)
    )
    assert found.by_rank.tolist() == order
    assert found["rank"][order].tolist() == list(range(1, 401))


def test_groups_and_thresholds_are_counted_by_hand(found):
    """High is below τ; at τ and above a record is low."""
    assert found["group"].tolist() == ["high" if a < 0.9 else "low" for a in found.content]
    assert [one.tau for one in found.thresholds()] == [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0]
    for one in found.thresholds():
        low = [row for row in range(400) if found.content[row] >= one.tau]
        assert one.low == len(low)
        assert one.wrong == sum(found["label"][row] != found["prediction"][row] for row in low)
        assert one.logit_margin == min(found["logit_margin"][row] for row in low)


def test_gradients_are_those_of_each_record_alone(found, tiny_net, digits):
    for row in (0, 17, 399):
        x = digits.x[[row]].clone().requires_grad_()
        value = torch.nn.functional.cross_entropy(tiny_net(x), digits.y[[row]])
        (slope,) = torch.autograd.grad(value, x)
        assert found["gradient_norm"][row] == pytest.approx(float(slope.norm()), rel=1e-3)
    assert np.allclose(
        found["gradient_norm"], curves.input_gradient_norm(tiny_net, digits), rtol=1e-4
    )


def test_shards_change_nothing(found, tiny_net, digits, monkeypatch):
    """A million records are read as these are: in parts."""
    monkeypatch.setattr(module, "SHARD", 37)
    notes = []

    @contextmanager
    def progress(title, total):
        yield notes.append
        assert (title, len(notes)) == ("inspect", total)

    again = efface.inspect(tiny_net, digits, sigma=SIGMA, progress=progress)
    assert (len(notes), notes[-1]) == (11, "400 of 400")
    for name, values in found.columns.items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(again[name], values, rtol=1e-3, atol=1e-5)
        else:
            np.testing.assert_array_equal(again[name], values)


def test_named_records_have_the_numbers_that_they_have_among_all(found, tiny_net, digits):
    """Only rank depends on which others are named; rows come in the order of the data."""
    some = efface.inspect(tiny_net, digits, rows=[311, 5, 5, 42], sigma=SIGMA)
    assert some.ids == tuple(digits.ids[row] for row in (5, 42, 311))
    names = ("label", "prediction", "content", "content_by_label", "content_by_prediction", "group")
    for name in names:
        assert np.array_equal(some[name], found[name][[5, 42, 311]]), name
    assert np.allclose(some["logit_margin"], found["logit_margin"][[5, 42, 311]], atol=1e-4)
    assert sorted(some["rank"]) == [1, 2, 3]


def test_without_balls_only_the_named_records_are_read(tiny_net, digits):
    """A million others cost nothing then, but for those that σ is calibrated on."""
    read = []

    class Watched(MemorySource):
        def read(self, rows):
            read.append(list(rows))
            return super().read(rows)

    settings = Settings(sigma=(SIGMA,), neighbours=0)
    found = Run(tiny_net, Watched(digits), settings, rows=(3, 9)).ranking()
    assert read[1:] == [[3, 9]]
    assert found.manifest["balls"] == {"omitted": "no neighbours were requested"}
    assert "content_by_label" not in found.columns


@pytest.mark.parametrize("accuracy", [None, 0.7])
def test_sigma_is_calibrated_to_the_target_stability(tiny_net, digits, accuracy):
    """Measured again with other draws."""
    found = efface.inspect(tiny_net, digits, expected_accuracy=accuracy, neighbours=0)
    (sigma,) = found.manifest["sigma"]
    again = share(tiny_net, digits, sigma, copies=32, seed=5).mean()
    assert (again, found.content.mean()) == pytest.approx((accuracy or 0.75,) * 2, abs=0.02)


def test_a_calibration_that_failed_is_a_finding(tiny_net, digits):
    """No noise takes the stability of this model below a share of 0.02."""
    found = efface.inspect(tiny_net, digits, expected_accuracy=0.02, copies=2, neighbours=0)
    (finding,) = [f for f in found.manifest["findings"] if f["name"] == "sigma"]
    assert finding["text"].startswith("No noise scale was found at which 2% of the copies keep the")
    assert found.manifest["stability"] > 0.07


def test_more_sigmas_are_more_columns_and_the_first_ranks(found, tiny_net, digits):
    two = efface.inspect(tiny_net, digits, sigma=(SIGMA, 0.6), neighbours=0)
    assert np.array_equal(two.content, found.content)
    assert np.array_equal(two["rank"], found["rank"])
    assert np.array_equal(two["content_at_0.6"], share(tiny_net, digits, 0.6))
    assert two["content_at_0.6"].mean() < two.content.mean()


def test_curvature_is_omitted_or_the_one_that_was_asked_for(found, tiny_net, digits):
    """Exact for a ReLU network, else estimated with 64 probes."""
    assert "curvature" not in found.columns
    some, to = digits.take(range(6)), {"sigma": SIGMA, "neighbours": 0, "curvature": "probability"}
    bent = efface.inspect(tiny_net, some, **to)
    direct = curves.piecewise_linear_curvature(tiny_net, some, of=curves.probability)
    assert bent.manifest["curvature_exact"]
    expected = direct.ratio, direct.gradient_norm, direct.hessian_norm, direct.ratio_error
    for end, values in zip(("", "_gradient", "_hessian", "_error"), expected, strict=True):
        assert np.allclose(bent[f"curvature{end}"], values, rtol=1e-4), end
    smooth = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10), torch.nn.Tanh())
    few = Records(some.x, smooth(some.x).argmax(1))
    estimated = efface.inspect(smooth, few, **to)
    assert not estimated.manifest["curvature_exact"]
    again = curves.curvature(smooth, few, of=curves.probability, probes=64)
    assert np.allclose(estimated["curvature"], again.ratio, rtol=1e-4)


def test_a_model_without_a_linear_head_has_no_balls_and_says_why(digits):
    net = twice()
    found = efface.inspect(net, known(net, digits), sigma=SIGMA)
    text = "a last linear layer whose outputs are the model's, and here is another step after it"
    assert found.manifest["balls"]["omitted"] == f"balls need {text}"
    assert len(found.content) == 60


def test_a_notebook_shows_the_most_informative(found):
    """The count and ten rows, in plain HTML."""
    shown = found._repr_html_()
    assert shown.count("<tr>") == 11
    first, last = (shown.index(f">{found.ids[found.by_rank[rank]]}<") for rank in (0, 9))
    assert first < last
    assert f"{int(found.high.sum())} of 400 records" in shown
    assert repr(found).startswith("Ranking(400 records, columns: label, prediction,")


def test_inspect_and_a_selection_agree_on_the_high_records(tiny_net, digits, random_state_kept):
    """One rule for the noise, one threshold."""
    some, manifest = digits.take(range(60)), Manifest("forget", 0, 0)
    with random_state_kept():  # the end of the session compares the weights
        found = efface.inspect(tiny_net, some, neighbours=0)
    selected, _ = select_records(tiny_net, Split(some), manifest, "high-information", None)
    high = {name for name, group in zip(found.ids, found["group"], strict=True) if group == "high"}
    assert set(selected.forget.ids) == high


def test_a_folder_of_something_else_is_not_removed(tmp_path):
    """Only what a stopped run wrote is."""
    folder = tmp_path / ".out.inspecting"
    (folder / "sub").mkdir(parents=True)
    text = f"Wanted a folder of a stopped inspection, or none, at {folder}. Got sub in it."
    assert text in refusal(FolderStore, folder, {"a": 1})
    (folder / "sub").rmdir()
    (folder / "000000.npz").write_bytes(b"")
    store = FolderStore(folder, {"a": 1})
    assert "000000" not in store
    assert folder.stat().st_mode & 0o077 == 0
    store["000000"] = {"x": torch.zeros(1).numpy()}
    assert "000000" in FolderStore(folder, {"a": 1})
    assert "000000" not in FolderStore(folder, {"a": 2})


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"sigma": 0.0}, "Wanted sigma above 0. Got (0.0,). Change sigma."),
        ({"sigma": (0.1, 0.1)}, "Wanted sigma without duplicates. Got (0.1, 0.1). Change sigma."),
        ({"copies": 0}, "Wanted copies of 1 or more, an integer. Got 0. Change copies."),
        ({"neighbours": -1}, "Wanted neighbours of 0 or more, an integer. Got -1. Change neigh"),
        ({"threshold": 1.5}, "Wanted threshold above 0 and at most 1. Got 1.5. Change threshold."),
        ({"seed": -1}, "Wanted seed of 0 or more, an integer. Got -1. Change seed."),
        ({"expected_accuracy": 0.0}, "Wanted expected_accuracy above 0 and below 1. Got 0.0. Ch"),
        ({"curvature": "logits"}, "Wanted curvature of probability, log_probability, loss (logit"),
        ({"rows": []}, "Wanted rows from 0 to 399. Got none. Name records by position."),
        ({"rows": [400]}, "Wanted rows from 0 to 399. Got 400 to 400. Name records by position."),
    ],
)
def test_settings_out_of_range_are_refused_by_name(tiny_net, digits, wrong, text):
    assert refusal(efface.inspect, tiny_net, digits, **wrong).startswith(text)


@pytest.mark.parametrize("label", [12, -1])
def test_a_label_without_an_output_is_refused_by_its_record(tiny_net, digits, label):
    """Wherever it stands: the sample that hazards are looked for in may miss it."""
    rows = np.arange(1600) % 400
    many = Records(digits.x[rows], digits.y[rows].clone())
    many.y[1503] = label
    text = "Wanted labels from 0 to 9, one for each of the model's outputs."
    assert text in refusal(efface.inspect, tiny_net, many, sigma=0.3, copies=1, neighbours=0)


def test_other_tasks_and_models_that_do_not_fit_are_refused(tiny_net, digits):
    """Multilabel records have no one class, and a model at chance misreads its inputs."""
    many = Records(digits.x, torch.ones(400, 10, dtype=torch.int64))
    text = "Wanted multiclass records. Got multilabel. Information con"
    assert refusal(efface.inspect, tiny_net, many).startswith(text)
    with pytest.raises(Hazard, match="no better than chance"):
        efface.inspect(tiny_net, Records(digits.x, (digits.y + 1) % 10))
