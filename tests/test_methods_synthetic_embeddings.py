"""Synthetic embeddings: the draw, the step by hand, what it does to digits, refusals."""

import pytest
import torch
from by_hand import near, sgd_steps
from refusals import refusal
from torch import nn

from efface.methods.synthetic_embeddings import draw_embeddings, mask_classes, synthetic_embeddings
from efface.task import multiclass
from efface.types import Records, Split

RATE, GONE, SEED = 0.3, 2, 3


def linear(classes=4, features=5):
    """f(x) = W x + b in float64: a model that is its own last layer."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Linear(features, classes).double().eval()
    for weight in model.parameters():
        weight.data = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    return model


def with_bias(model):
    """The weights, and the bias as the last column."""
    return torch.cat([model.weight, model.bias[:, None]], 1).detach()


def split_of(*forget_classes):
    """A request for a class, with records that nobody may read."""
    unread = Records(torch.full((1, 5), torch.nan), torch.tensor([0]))
    return Split(unread, forget_classes=forget_classes)


@pytest.mark.parametrize("forget_classes", [(GONE,), (0, GONE)])
@pytest.mark.parametrize("epochs", [1, 2])
def test_epochs_are_the_steps_by_hand(forget_classes, epochs):
    """Gradient (q − p)ᵀ e of a mean over all embeddings, p without what leaves where that leads."""
    model = linear()
    settings = {"samples_per_class": 30, "batch_size": 60, "momentum": 0.0, "seed": SEED}
    settings |= {"learning_rate": RATE / 2, "strength": 2.0, "epochs": epochs}
    result = synthetic_embeddings(model, split_of(*forget_classes), **settings)
    e = draw_embeddings(model, 30, forget_classes=forget_classes, seed=SEED)
    # the bias as the weight of one more feature
    x, start = torch.cat([e.x, torch.ones(len(e), 1)], 1), with_bias(model)
    p = torch.softmax(x @ start.T, 1)
    p[:, list(forget_classes)] = 0
    p = p / p.sum(1, keepdim=True)
    slopes = [lambda w: (torch.softmax(x @ w.T, 1) - p).T @ x / len(x)] * epochs
    assert len(e) == 30 * len(forget_classes)
    near(with_bias(result), sgd_steps(start, slopes, RATE, momentum=0.0), atol=1e-9)


def test_each_class_has_its_draws_and_the_label_is_the_given_answer():
    """Standard normal numbers, as many of each class, drawn by the seed alone."""
    model = linear()
    drawn = draw_embeddings(model, 500, forget_classes=(GONE, 0), seed=1)
    assert torch.bincount(drawn.y).tolist() == [500, 0, 500]
    assert model(drawn.x).argmax(1).equal(drawn.y)
    assert draw_embeddings(model, 500, forget_classes=(GONE, 0), seed=1).x.equal(drawn.x)
    assert not draw_embeddings(model, 500, forget_classes=(GONE, 0), seed=2).x.equal(drawn.x)
    model.weight.data.zero_()
    model.bias.data = torch.tensor([0.0, 0.0, 1.0, 0.0]).double()
    alone = draw_embeddings(model, 9_000, forget_classes=(GONE,), seed=1)
    assert len(alone) == 9_000
    assert float(alone.x.mean().abs()) < 0.02
    assert abs(float(alone.x.std()) - 1) < 0.02


def test_a_class_that_no_embedding_is_answered_with_is_refused():
    """The authors' loop would go on for ever."""
    model = linear()
    model.bias.data[GONE] = -60.0
    assert refusal(synthetic_embeddings, model, split_of(GONE), samples_per_class=20) == (
        "Wanted random embeddings that the last layer classifies as 2. Got none among 1600. "
        "Choose a method that reads the records; `efface methods` lists them."
    )


def test_a_layer_that_never_says_the_class_stands_still():
    """KL from what it answers already is 0, and so is its slope."""
    model = linear()
    drawn = draw_embeddings(model, 20, forget_classes=(GONE,), seed=0)
    model.weight.data[GONE], model.bias.data[GONE] = 0.0, -200.0
    target = mask_classes(model, drawn.x, (GONE,))
    loss = multiclass.divergence(target, multiclass.outputs(model, drawn.x))
    assert float(loss.detach().abs().max()) < 1e-12


def test_one_unit_is_two_classes():
    """Of which one may leave."""
    model = linear(classes=1)
    result = synthetic_embeddings(model, split_of(1), samples_per_class=200, epochs=200)
    x = torch.randn(500, 5, generator=torch.Generator().manual_seed(9)).double()
    share = [multiclass.outputs(net, x).argmax(1).float().mean() for net in (model, result)]
    assert share[0] > 0.2
    assert share[1] == 0


@pytest.mark.parametrize("forget_classes", [(4,), (-1,), (0, 1, 2, 3)])
def test_classes_that_the_model_does_not_have_or_all_are_refused(forget_classes):
    """The last layer says how many there are."""
    assert refusal(synthetic_embeddings, linear(), split_of(*forget_classes)) == (
        "Wanted forget classes out of 0 to 3, and one that is retained. "
        f"Got {', '.join(map(str, forget_classes))}. Give Split(forget, forget_classes=(class,))."
    )
