"""What a request does with methods of every kind: what they need, fresh starts, the table."""

import pytest

from efface import Split, forget
from efface.errors import InputError
from efface.methods import METHODS
from efface.methods._base import _EXACT
from efface.testing import fresh_from


def test_methods_lists_every_method_with_what_it_needs_and_costs(efface, capfd):
    """One table, from the same data that the tests hold the methods to."""
    assert efface("methods") == 0
    printed = " ".join(capfd.readouterr().out.split())
    for word in ("zero-shot", "needs", "may use", "labels of", *METHODS):
        assert word in printed


def test_a_method_that_needs_what_stays_is_refused_before_anything_happens(tiny_net, digits):
    """Not after the guard has asked the model a thousand questions."""
    told = []
    with pytest.raises(InputError) as error:
        forget(tiny_net, Split(digits.take([0])), method="finetune", started=told.append)
    assert not told
    assert str(error.value) == (
        "Wanted retain for finetune: records that the model was trained on and that stay. "
        "Got a split without it. "
        "Give Split(forget, retain=records), on the command line --retain DATA."
    )


def test_an_empty_part_is_not_what_is_needed(tiny_net, digits):
    """A loop over nothing would give the old model back as if it had been changed."""
    with pytest.raises(InputError) as error:
        METHODS["finetune"].function(tiny_net, Split(digits.take([0]), retain=digits.take([])))
    assert str(error.value) == (
        "Wanted retain for finetune: records that the model was trained on and that stay. "
        "Got no records. Give Split(forget, retain=records), on the command line --retain DATA."
    )


def test_retrain_on_the_command_line_says_what_to_do(efface, capfd):
    """A recipe is a function, and a command line has none to give."""
    code = efface(
        "forget", "model", "--data", "data", "--ids", "ids.csv", "--out", "out",
        "--method", "retrain", "--retain", "data",
    )  # fmt: skip
    assert code == 2
    said = " ".join(capfd.readouterr().err.split())
    assert "Wanted fresh for retrain: a function that makes an untrained model." in said
    assert _EXACT in said


def test_retrain_in_python_is_judged_without_a_trust_region(tiny_net, digits):
    """Every weight is drawn anew: what counts is what the result can do."""

    def train(model, records, seed):  # noqa: ARG001
        model.load_state_dict(tiny_net.state_dict())
        model[7].weight.data.mul_(30)
        model[7].bias.data.mul_(30)
        return model

    split = Split(
        digits.take(range(5)),
        holdout=digits.take(range(300, 400)),
        retain=digits.take(range(20, 60)),
        fresh=fresh_from(tiny_net),
        train=train,
    )
    result = forget(tiny_net, split, method="retrain")
    assert result.manifest.outcome == "done"
    assert result.manifest.guard["measured"]["movement"] > 0.5


def test_a_fresh_start_with_some_weights_closed_is_refused(tiny_net, digits):
    """Weights that are drawn anew cannot stay as they are."""
    retain = digits.take(range(20, 60))
    parts = {"retain": retain, "fresh": fresh_from(tiny_net), "train": lambda model, *_: model}
    with pytest.raises(InputError) as error:
        forget(tiny_net, Split(digits.take([0]), **parts), method="retrain", trainable="norm")
    assert str(error.value) == (
        "Wanted trainable all for retrain, which starts from an untrained model. Got 'norm'. "
        "Leave trainable out."
    )


def test_methods_of_one_name_is_its_page(efface, capfd):
    """What it does, its paper, what it needs, and each setting with its default and meaning."""
    assert efface("methods", "ssd") == 0
    printed = " ".join(capfd.readouterr().out.split())
    for word in ("2308.07707", "needs retain", "selection 10.0 the paper's α", "seed 0 draws who"):
        assert word in printed


def test_methods_of_an_unknown_name_says_the_nearest(efface, capfd):
    """A slip of the pen."""
    assert efface("methods", "sdd") == 2
    assert "Did you mean 'ssd'?" in capfd.readouterr().err
