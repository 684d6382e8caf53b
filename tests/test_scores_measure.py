"""One pass over the records: the same numbers in any batch and order, the model left as it was."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from efface.metrics.evaluation import Evaluation, evaluate


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_the_batch_size_changes_nothing_beyond_rounding(tiny_net, digits, batch_size):
    """A score that moved with the batch size would measure the batch."""
    some = digits.take(range(60))
    found = evaluate(tiny_net, some, batch_size=batch_size)
    np.testing.assert_allclose(found.logits, evaluate(tiny_net, some).logits, atol=1e-4)
    assert found.logits.dtype == np.float32
    assert found.ids == some.ids


def test_the_order_of_the_records_goes_with_them(tiny_net, digits):
    """Each record keeps its own numbers wherever it stands."""
    order = np.random.default_rng(0).permutation(60)
    some = digits.take(range(60))
    found, again = evaluate(tiny_net, some), evaluate(tiny_net, some.take(order.tolist()))
    np.testing.assert_allclose(again.margin, found.margin[order], atol=1e-4)
    assert again.ids == tuple(found.ids[row] for row in order)


def test_each_part_of_the_model_keeps_its_own_flag(digits):
    """A user may have frozen one BatchNorm in eval mode; measuring must not wake it."""
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Linear(64, 10))
    net.train()
    net[1].eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    evaluate(net, digits.take(range(20)))
    assert [part.training for part in net.modules()] == [True, True, False, True, True]
    assert all(tensor.equal(before[name]) for name, tensor in net.state_dict().items())


def test_the_flags_come_back_after_an_error_too(digits):
    """A pass that breaks half way leaves a usable model behind."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(3, 10)).train()
    with pytest.raises(RuntimeError):
        evaluate(net, digits.take(range(4)))
    assert all(part.training for part in net.modules())


def test_neither_dropout_nor_the_global_random_state_takes_part(digits, random_state_kept):
    """Evaluation mode means the same answer twice, and nobody else's draws are moved."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10)).train()
    with random_state_kept():
        first, second = (evaluate(net, digits.take(range(9))) for _ in range(2))
    np.testing.assert_array_equal(first.logits, second.logits)


def test_the_derived_numbers_agree_with_torch_and_scipy(tiny_net, digits):
    """Loss, entropy and probabilities have twins in other libraries."""
    found = evaluate(tiny_net, digits)
    logits, y = torch.tensor(found.logits, dtype=torch.float64), torch.tensor(found.y)
    loss = nn.functional.cross_entropy(logits, y, reduction="none")
    np.testing.assert_allclose(found.loss, loss.numpy(), atol=1e-9)
    np.testing.assert_allclose(found.probabilities, logits.softmax(1).numpy(), atol=1e-12)
    np.testing.assert_allclose(found.entropy, stats.entropy(found.probabilities, axis=1), atol=1e-9)
    own = found.probabilities[np.arange(len(found)), found.y]
    np.testing.assert_allclose(found.margin, np.log(own) - np.log1p(-own), rtol=1e-4, atol=1e-4)


def test_known_answers_of_entropy_and_margin():
    """A uniform answer has ln k nats; a constant added to the logits changes no margin."""
    flat = np.zeros((2, 5), np.float32)
    y, ids = np.array([0, 3]), ("a", "b")
    even = Evaluation(logits=flat, y=y, ids=ids)
    np.testing.assert_allclose(even.entropy, np.log(5))
    np.testing.assert_allclose(even.margin, -np.log(4))
    np.testing.assert_allclose(Evaluation(logits=flat + 7, y=y, ids=ids).margin, even.margin)


def test_sure_answers_do_not_saturate_the_margin():
    """The loss of a very sure answer is 0 in double precision; its margin still says how sure."""
    logits = np.array([[100.0, 0, 0], [200.0, 0, 0]], np.float32)
    sure = Evaluation(logits=logits, y=np.array([0, 0]), ids=("a", "b"))
    np.testing.assert_allclose(sure.margin, [100 - np.log(2), 200 - np.log(2)])
    assert np.isfinite(sure.entropy).all()


def test_rows_are_taken_by_mask_and_by_number(tiny_net, digits):
    """Both forms are used; they must mean the same."""
    found = evaluate(tiny_net, digits.take(range(10)))
    mask = np.arange(10) % 3 == 0
    assert found.take(mask).ids == found.take([0, 3, 6, 9]).ids
    assert len(found.take([])) == 0
