"""What a notebook shows: plain tables that leave the page around them alone."""

import torch
from torch import nn

from efface.types import Records, Split
from efface.unlearn import forget


class Stream:
    """Something of a user's own."""


def test_a_split_shows_what_is_known_of_each_part_without_reading_it(digits):
    """The first thing that one looks at in a notebook."""
    threes, values = digits.take(torch.nonzero(digits.y == 3).flatten()), torch.rand(3, 2)
    for split, words in (
        (Split(digits.take(range(20)), Records(torch.rand(3, 5), values), forget_classes=(3,)),
         ("forget", "20", "1 x 8 x 8", "10 classes", "2 labels each", "none", ": 3<")),
        (Split(Stream(), retain=(digits.x, digits.y)), ("Stream", "not counted")),
        (Split(threes), (">1 class<",)),
    ):  # fmt: skip
        assert not [word for word in words if word not in split._repr_html_()]
    assert repr(Split(Stream(), threes)) == (
        f"Split(forget=Stream, holdout=Records({len(threes)} of shape (1, 8, 8), "
        "labels torch.int64), forget_classes=())"
    )


def test_a_result_shows_its_sentences_and_rows_with_every_text_escaped(tiny_net, digits):
    """Class names and ids come from anybody."""
    split = Split(digits.take(range(12)), digits.take(range(300, 400)))
    names = ("<script>alert(1)</script>", *map(str, range(1, 10)))
    result = forget(tiny_net, split, settings={"steps": 2}, classes=names)
    shown = result._repr_html_()
    assert not [tag for tag in ("<script", "<style") if tag in shown]
    expected = ("Partly (tier T1): ", "Accuracy on the holdout", "&lt;script&gt;alert(1)&lt;")
    assert not [words for words in expected if words not in shown]
    assert isinstance(result.model, nn.Module)
