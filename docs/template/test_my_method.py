"""The whole contract, and what the paper says of the method itself."""

import torch
from my_method import my_method

from efface.testing import check_method
from efface.types import Records, Split


def test_it_keeps_the_contract():
    """Exceptions have a reason each; a broken promise fails with a sentence."""
    for row in check_method(my_method, toy={"learning_rate": 1.0}):
        print(row.promise, row.outcome, row.reason)


def test_one_step_by_hand():
    """A linear model and one record: the gradient of the entropy, written out."""
    model = torch.nn.Linear(2, 2, bias=False).double()
    x = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    p = (x @ model.weight.detach().T).softmax(1)
    slope = p * (p.log() - (p * p.log()).sum(1, keepdim=True))
    expected = model.weight.detach() - 0.1 * slope.T @ x
    split = Split(Records(x, torch.tensor([0])))
    result = my_method(model, split, learning_rate=0.1, epochs=1)
    torch.testing.assert_close(result.weight.detach(), expected)
