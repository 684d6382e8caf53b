"""The entropy histogram: its parts do not mix, and retrained models decide its verdict."""

import numpy as np
import pytest
import torch

from efface.metrics.equivalence import compare_with_retrained
from efface.metrics.evaluation import Evaluation, evaluate
from research.geometry import entropy
from research.geometry.entropy import draw, experiment, judged, parts, trained
from tests.refusals import refusal


def measured(scale, seed, n=60):
    """Answers that are surer with a greater scale; its own draw for each model."""
    draws = np.random.default_rng(seed)
    y = draws.integers(0, 10, n)
    logits = scale * np.eye(10)[y] + draws.normal(size=(n, 10))
    return Evaluation(logits.astype(np.float32), y, tuple(str(row) for row in range(n)))


@pytest.fixture
def found():
    """Surer before than the axis reaches, too unsure after jit, ten retrained models between."""
    retrained = [measured(6, seed) for seed in range(10, 20)]
    return {"before": [measured(25, 1)], "jit": [measured(1, 2)], "retrained": retrained}


def test_a_third_is_held_out_and_a_tenth_of_the_rest_is_forgotten():
    """No digit is in two parts; the originals see the forget records, the retrained do not."""
    data = parts()
    ids = [set(part.ids) for part in (data.forget, data.retain, data.holdout)]
    assert [len(one) for one in (*ids, set.union(*ids))] == [119, 1079, 599, 1797]
    assert set(data.training.ids) == ids[0] | ids[1]
    assert torch.stack(data.training.x.aminmax()).tolist() == [-1, 1]


def test_the_verdict_is_that_of_the_variability_of_retrained_models(found):
    """Worked out again with scipy's own statistics, pair by pair, in the scores' tests."""
    facts = judged(found)
    others = np.array([model.entropy for model in found["retrained"]])
    by_hand = compare_with_retrained(found["jit"][0].entropy, others)
    assert facts["jit"][0]["percentile"] == by_hand.percentile
    assert facts["jit"][0]["like_retrained"] == "unlike"
    assert facts["before"][0]["like_retrained"] == "unlike"
    assert facts["retrained"]["like_the_others"].count("unlike") <= 2


def test_a_model_of_the_same_kind_is_not_called_unlike(found):
    """The verdict must be able to go the other way."""
    facts = judged(found | {"jit": [measured(6, 99)]})
    assert facts["jit"][0]["like_retrained"] != "unlike"


def test_the_bars_of_each_lane_sum_to_all_records(found):
    """None falls off either end of the axis."""
    figure = draw(found, judged(found))
    for axes in figure.axes:
        heights = [patch.get_data().values.sum() for patch in axes.patches]
        assert heights == pytest.approx([1] * len(heights))


@pytest.fixture
def trainings(monkeypatch):
    """The trainings of an experiment whose nets are untrained and whose jit changes nothing."""
    seen = []

    def short(records, seed):
        seen.append((len(records), seed))
        torch.manual_seed(seed)
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()

    monkeypatch.setattr(entropy, "trained", short)
    monkeypatch.setattr(entropy, "jit", lambda model, *_, **__: model)
    with torch.random.fork_rng(devices=[]):
        yield seen


def test_the_experiment_compares_models_that_it_made(tmp_path, trainings):
    facts = experiment(tmp_path, seeds=range(4))
    assert {path.name for path in tmp_path.iterdir()} == {"entropy.png", "entropy.svg"}
    assert facts["n"] == 119
    assert facts["retrained_models"] == 4
    retrained = [(1079, 1000), (1079, 1001), (1079, 1002), (1079, 1003)]
    assert trainings == [*retrained, (1198, 0), (1198, 1), (1198, 2)]


def test_one_seed_is_refused_by_the_metric_in_its_words(tmp_path, trainings):
    text = refusal(experiment, tmp_path, seeds=range(1))
    assert text.startswith("Wanted at least two retrained models. Got 1. ")
    assert len(trainings) == 2


def test_a_net_learns_what_it_is_given_and_draws_from_no_global_state(random_state_kept):
    """300 digits, of which the answers are then right."""
    with random_state_kept():
        some = parts().retain.take(range(300))
        model = trained(some, 0)
    assert evaluate(model, some).correct.mean() > 0.95
