"""A name becomes an untrained net, and nothing else that a name could mean."""

import signal
import sys
import time
from types import ModuleType

import pytest
from torch import nn

from efface.errors import InputError, MissingExtra
from efface.io.models import build_model


def fixed():
    """A factory that takes no number of classes."""
    return nn.Linear(2, 3)


def needy(depth):
    """A factory that cannot be called without more."""
    return nn.Linear(depth, 2)


@pytest.fixture(autouse=True)
def nets(monkeypatch):
    """The nets of this file under a name that can be imported."""
    module = ModuleType("nets_of_a_user")
    vars(module).update(fixed=fixed, needy=needy, number=7, text=lambda: "no")
    monkeypatch.setitem(sys.modules, "nets_of_a_user", module)


def test_building_a_net_leaves_the_random_state_alone(random_state_kept):
    """Its first weights are random, and thrown away."""
    with random_state_kept():
        build_model("torchvision.models:squeezenet1_0", 4)


@pytest.mark.parametrize(
    ("architecture", "came", "remedy"),
    [
        ("resnet18", "'resnet18'", "Such as timm:resnet18 or torchvision.models:resnet18."),
        ("os:system('x')", "\"os:system('x')\"", "Such as timm:resnet18 or"),
        ("no_such_package:net", "No module named 'no_such_package'", "Install it, or put it on"),
        ("torchvision.models:resnet118", "'resnet118'", "Did you mean 'resnet18'?"),
        ("torchvision.models:__name__", "'__name__'", "Look the name up in its documentation."),
        ("nets_of_a_user:number", "'number'", "Look the name up in its documentation."),
        ("nets_of_a_user:text", "str", "Name a function that makes one."),
        (
            "nets_of_a_user:needy",
            "missing 1 required positional argument",
            "Write a small function",
        ),
        ("timm:vit_tiny_patch16_2244", "'vit_tiny_patch16_2244'", "Did you mean 'vit_tiny_patch16"),
    ],
)
def test_an_architecture_that_is_none_is_refused_with_the_nearest_name(architecture, came, remedy):
    """Nothing but a factory by its name is ever called."""
    with pytest.raises(InputError) as caught:
        build_model(architecture)
    assert came in caught.value.came
    assert remedy in caught.value.remedy


def test_a_factory_that_takes_no_classes_is_called_without():
    """Some nets are made for one task."""
    assert build_model("nets_of_a_user:fixed", 10).out_features == 3


def test_timm_that_is_not_installed_is_said(monkeypatch):
    """It is an extra."""
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtra) as caught:
        build_model("timm:resnet18")
    assert str(caught.value) == (
        "Wanted the package timm. Got none installed. Install it: pip install 'efface[timm]'."
    )


def raises():
    """A factory with a fault."""
    raise KeyError("layers")


def leaves():
    """A script's main function, named by mistake."""
    sys.exit(3)


def hangs():
    """Waits for what never comes."""
    time.sleep(60)


@pytest.mark.parametrize(
    ("factory", "came"),
    [
        (raises, "KeyError: 'layers'"),
        (leaves, "SystemExit: 3"),
        (hangs, "TimeoutError: no answer within 0.2 s"),
    ],
)
def test_a_factory_that_raises_leaves_or_hangs_is_refused(monkeypatch, factory, came):
    """It is a user's code, and must not take the request's words with it."""
    module = ModuleType("faulty_nets")
    module.factory = factory
    monkeypatch.setitem(sys.modules, "faulty_nets", module)
    monkeypatch.setattr("efface.io.models.LIMIT_SECONDS", 0.2)
    handler = signal.getsignal(signal.SIGALRM)
    with pytest.raises(InputError) as error:
        build_model("faulty_nets:factory")
    assert str(error.value) == (
        f"Wanted a model from faulty_nets:factory. Got {came}. "
        "Fix the factory: it must return an untrained model, and do nothing else."
    )
    assert signal.getsignal(signal.SIGALRM) is handler
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
