"""What a notebook shows: plain tables that leave the page around them alone."""

import torch
from torch import nn

from efface.types import Records, Split
from efface.unlearn import forget


def test_a_split_says_how_many_records_of_what_shape(digits):
    """The first thing that one looks at in a notebook."""
    values = Records(torch.rand(3, 5), torch.rand(3, 2))
    shown = Split(digits.take(range(20)), holdout=values, forget_classes=(3,))._repr_html_()
    for word in ("forget", "20", "1 x 8 x 8", "10 classes", "2 labels each", "none", "classes: 3"):
        assert word in shown


def test_parts_that_are_not_read_yet_are_named_by_their_kind(digits):
    """Showing a split must not load a data set."""

    class Stream:
        """Something of a user's own."""

    shown = Split(Stream(), retain=(digits.x, digits.y))._repr_html_()
    assert "Stream" in shown
    assert "not counted" in shown


def test_one_class_is_one_class(digits):
    """The usual forget set of a class that leaves."""
    shown = Split(digits.take(torch.nonzero(digits.y == 3).flatten()))._repr_html_()
    assert ">1 class<" in shown


def test_a_result_shows_its_sentences_and_rows_with_every_text_escaped(tiny_net, digits):
    """Class names and ids come from anybody."""
    split = Split(digits.take(range(12)), digits.take(range(300, 400)))
    names = ("<script>alert(1)</script>", *map(str, range(1, 10)))
    result = forget(tiny_net, split, settings={"steps": 2}, classes=names)
    shown = result._repr_html_()
    assert "<script" not in shown
    assert "Accuracy on the holdout" in shown
    assert "Tier T1, done" in shown
    assert isinstance(result.model, nn.Module)
