"""Which models are served, and what the others are told: one row a model."""

import threading
import warnings
from collections import namedtuple
from dataclasses import replace

import pytest
import torch
from refusals import refusal
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn import functional
from torch.nn.utils import parametrizations

from efface import Records, Split, forget
from efface.errors import EffaceError, Hazard
from efface.manifest import state_digest
from efface.runtime import CONTIGUOUS, check_model
from efface.task import CUSTOM, check_layout, custom, frozen_teacher, outputs, predict


class Net(nn.Module):
    """Digits 1 x 8 x 8: a convolution and two linear layers; ``answer`` is what it returns."""

    def __init__(self, answer=lambda z: z, flat=lambda z: z.flatten(1), **parts):
        super().__init__()
        self.conv, self.hidden = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4 * 16, 16)
        self.head, self.answer, self.flat = nn.Linear(16, 10), answer, flat
        for name, part in parts.items():
            setattr(self, name, part())

    def forward(self, x):
        x = functional.max_pool2d(functional.relu(self.conv(x)), 2)
        return self.answer(self.head(functional.relu(self.hidden(self.flat(x)))))


class Silent(Net):
    """As in code before torch 0.4."""

    def train(self, mode=True):
        super().train(mode)


class Falsy(Net):
    def __len__(self):
        return 0


class Ambiguous(Net):
    def __bool__(self):
        raise TypeError("neither true nor false")


class Counting(Net):
    """Writes a buffer in every forward pass, in place and as another tensor."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))
        self.register_buffer("last", torch.zeros(10))

    def forward(self, x):
        self.calls += len(x)
        out = super().forward(x)
        self.last = out.detach().mean(0)
        return out


class InPlace(Net):
    def forward(self, x):
        return super().forward(x.sub_(0.1).mul_(1.1))


class Noisy(Net):
    def forward(self, x):
        return super().forward(x + 0.05 * torch.randn_like(x))


class Masked(Net):
    def forward(self, x, mask):
        return super().forward(x * mask)


class Extra(Net):
    def get_extra_state(self):
        return {"version": 3}

    def set_extra_state(self, state):
        assert state == {"version": 3}


class Frequencies(Net):
    """Buffers of other kinds: complex, integers, booleans, one that is not written to files."""

    def __init__(self):
        super().__init__()
        self.register_buffer("turn", torch.ones(1, dtype=torch.complex64))
        self.register_buffer("order", torch.arange(64))
        self.register_buffer("mask", torch.ones(64, dtype=torch.bool), persistent=False)

    def forward(self, x):
        return super().forward(x * self.turn.real)


def twins(net):
    """One linear layer in two places, and a weight that two layers share."""
    one = nn.Linear(16, 16)
    one.weight = net.hidden_2.weight
    net.head = nn.Sequential(one, nn.ReLU(), one, nn.ReLU(), net.hidden_2, nn.Linear(16, 10))


def keep_activations(net):
    net.kept = []
    net.hidden.register_forward_hook(lambda *seen: net.kept.append(seen[-1]))
    net(torch.zeros(2, 1, 8, 8))


def in_inference_mode():
    with torch.inference_mode():
        return Net()


def old(normalise):
    """A norm of torch.nn.utils that recomputes a plain tensor in a hook; torch warns of it."""

    def quiet(module):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return normalise(module)

    return quiet


def lazy():
    """A layer that takes its width from the first batch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.LazyLinear(16)


def one_by_one(*, track=True):
    """BatchNorm on vectors; without running statistics the batch's are used in eval mode too."""
    return nn.Sequential(
        *(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16, track_running_stats=track)),
        *(nn.ReLU(), nn.Linear(16, 10)),
    )


def logits_of(z):
    return namedtuple("Output", "features logits")(z[:, :4].exp(), z)  # noqa: PYI024


def part(name, wrap):
    """The net with one of its parts wrapped."""
    return lambda net: setattr(net, name, wrap(getattr(net, name)))


def see_a_batch(net):
    net(torch.zeros(2, 1, 8, 8))


def net_with(*changes, **how):
    """A function that makes a net and changes it."""

    def make():
        net = Net(**how)
        for change in changes:
            change(net)
        return net

    return make


LOGITS = {
    "squeeze": torch.squeeze,
    "one unit, squeezed": lambda z: z[:, :1].squeeze(),
    "maps of one pixel": lambda z: z[:, :, None, None],
    "a mapping": lambda z: {"features": z.exp(), "logits": z},
    "a named tuple": logits_of,
    "the one part with rows": lambda z: (z.sum(), z, [z]),
    "the one part with rows of a mapping": lambda z: {"loss": z.sum(), "y": z},
}
SERVED = {
    **{name: net_with(answer=answer) for name, answer in LOGITS.items()},
    "as torch's tutorials write it": net_with(flat=lambda z: z.view(-1, 64)),
    "squeeze of the activations": net_with(flat=lambda z: z.flatten(1).squeeze()),
    "weights in channels_last": lambda: Net().to(memory_format=torch.channels_last),
    "train() returns nothing": Silent,
    "no length": Falsy,
    "no truth value": Ambiguous,
    "compiled": lambda: torch.compile(Net()),
    "compiled in place": net_with(nn.Module.compile),
    "compiled in part": net_with(part("head", torch.compile)),
    "data parallel": lambda: nn.DataParallel(Net()),
    "checkpoint-wrapped in part": net_with(part("hidden", checkpoint_wrapper)),
    "weight_norm": net_with(part("hidden", parametrizations.weight_norm)),
    "spectral_norm": net_with(part("hidden", parametrizations.spectral_norm)),
    "weight_norm of old": net_with(part("hidden", old(nn.utils.weight_norm)), see_a_batch),
    "spectral_norm of old": net_with(part("hidden", old(nn.utils.spectral_norm)), see_a_batch),
    "a hook that keeps activations": net_with(keep_activations),
    "a lazy layer that has seen a batch": net_with(see_a_batch, hidden=lazy),
    "tied weights": net_with(twins, hidden_2=lambda: nn.Linear(16, 16)),
    "buffers written in forward": Counting,
    "inputs changed in place": InPlace,
    "random numbers in forward": Noisy,
    "buffers of every kind": Frequencies,
    "a state of its own": Extra,
    "a part frozen": net_with(lambda net: net.conv.requires_grad_(requires_grad=False)),
    "float64": lambda: Net().double(),
    "bfloat16": lambda: Net().bfloat16(),
    "float16": lambda: Net().half(),
    "made in inference mode": in_inference_mode,
    "BatchNorm of vectors": one_by_one,
    "BatchNorm without running statistics": lambda: one_by_one(track=False),
}


def fails(_):
    raise KeyError("no such key")


def scripted(net):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(net)


def on_meta():
    with torch.device("meta"):
        return Net()


TRAINED = "Wanted a torch.nn.Module that can be copied and trained. Got "
SCRIPTED = "Give the module that was scripted or traced, with the state_dict() of this."
LAZY = "lazy layers without weights yet, such as hidden.weight. "
META = "weights without values, on the meta device, such as conv.weight. "
ROWS = "Wanted a model that returns one row of numbers a record. Got "
FIT = "Wanted a model and data that fit each other. Got "
FAILS = f"{FIT}The model fails on inputs of shape (1, 8, 8): "
NOTHING = "Nothing was changed. "
SHAPE = "look at --size and at the channels of --mean --std."
UNCOPIED = "Wanted a model that copy.deepcopy copies. Got TypeError: cannot pickle '_thread.lock' "
REMOVE = "Remove it from the module for the run, or define __deepcopy__."
MASK = "TypeError: Masked.forward() missing 1 required positional argument: 'mask'. "
SIZES = "RuntimeError in layer hidden (Linear): mat1 and mat2 shapes cannot be multiplied "
WRAP = "Wrap the model in a module that returns the logits alone."
INPUTS = f"Give inputs of the shape that the model was trained on: {SHAPE}"
MEND = "Call model(x) on such a batch in eval mode, and mend what it raises."
REFUSED = {
    "scripted": (
        lambda: scripted(nn.Sequential(nn.Flatten(), nn.Linear(64, 10))),
        f"{TRAINED}a ScriptModule. {SCRIPTED}",
    ),
    "scripted in part": (
        lambda: Net(extra=lambda: scripted(nn.Linear(2, 2))),
        f"{TRAINED}a ScriptModule at extra. {SCRIPTED}",
    ),
    "lazy": (
        net_with(hidden=lazy),
        f"{TRAINED}{LAZY}Load the trained weights, or call model(x) once before.",
    ),
    "on the meta device": (
        on_meta,
        f"{TRAINED}{META}Load the trained weights: load_state_dict(…, assign=True).",
    ),
    "with a lock": (
        net_with(lambda net: setattr(net.hidden, "lock", threading.Lock())),
        f"{UNCOPIED}object (hidden.lock). {REMOVE}",
    ),
    "more arguments": (
        Masked,
        f"{FAILS}{MASK}{NOTHING}Wrap the model in a module whose forward takes the inputs alone.",
    ),
    "another shape": (
        net_with(hidden=lambda: nn.Linear(99, 16)),
        f"{FAILS}{SIZES}(9x64 and 99x16). {NOTHING}{INPUTS}",
    ),
    "an error of its own": (
        net_with(answer=fails),
        f"{FAILS}KeyError: 'no such key'. {NOTHING}{MEND}",
    ),
    "two heads": (
        net_with(answer=lambda z: (z, z[:, :2])),
        f"{ROWS}a tuple of several tensors: 0 (9, 10), 1 (9, 2). {WRAP}",
    ),
    "two heads of a mapping": (
        net_with(answer=lambda z: {"kind": z, "side": z[:, 0]}),
        f"{ROWS}a dict of several tensors: kind (9, 10), side (9,). {WRAP}",
    ),
    "predictions": (
        net_with(answer=lambda z: z.argmax(1)),
        f"{ROWS}int64 numbers. Return logits, as the loss takes them, and not predictions.",
    ),
    "no tensor": (net_with(answer=str), f"{ROWS}str without logits for 9 records. {CUSTOM}"),
}


def records(digits, model, rows):
    """Digits with the labels that the model gives them, so that it is right on most."""
    part = digits.take(rows)
    y = part.y % 2 if model == "one unit, squeezed" else part.y
    return Records(part.x, y, part.ids)


@pytest.fixture
def given(digits):
    """(model, split) by the name of a row: 9 records to forget and 24 unseen ones."""

    def make(name, forget=9):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = (SERVED.get(name) or REFUSED[name][0])()
        model.eval()
        split = Split(records(digits, name, range(forget)), records(digits, name, range(300, 324)))
        return model, split

    return make


def state(model):
    """Digest of the tensors of a model, and the mode of each module."""
    own = {
        name: part for name, part in model.state_dict().items() if isinstance(part, torch.Tensor)
    }
    return state_digest(own), [part.training for part in model.modules()]


# where a batch of one record could matter
ALONE = ["squeeze", "squeeze of the activations", "one unit, squeezed", "maps of one pixel"]
ALONE += ["as torch's tutorials write it", "train() returns nothing", "BatchNorm of vectors"]
# of fewer than 20 records all may keep their answers, and no step be taken
MANY = "a lazy layer that has seen a batch"
RUNS = [*((n, 20 if n == MANY else 9) for n in SERVED), *((name, 1) for name in ALONE)]


@pytest.mark.parametrize(("name", "count"), RUNS)
def test_a_good_model_is_served_and_left_alone(name, count, given, random_state_kept):
    model, split = given(name, count)
    before = state(model)
    with random_state_kept():
        result = forget(model, split, method="neighbourhood", settings={"steps": 2})
    assert state(model) == before
    assert type(result.model) is type(model)
    assert list(result.model.state_dict()) == list(model.state_dict())
    assert state(result.model) != before
    buffers = dict(result.model.named_buffers())
    assert all(buffers[name].equal(buffer) for name, buffer in model.named_buffers())
    assert not [(row.key, row.note) for row in result.report.rows if row.status == "error"]


@pytest.mark.parametrize("name", REFUSED)
def test_other_models_are_refused_with_the_true_reason(name, given):
    assert refusal(forget, *given(name), kind=EffaceError) == REFUSED[name][1]


@pytest.mark.parametrize("name", ["inputs changed in place", "squeeze"])
def test_a_pass_leaves_its_inputs_alone(name, given):
    """Student and teacher are given the same batch one after the other."""
    model, split = given(name)
    x = split.forget.x.clone()
    first = outputs(model, split.forget)
    assert first.equal(outputs(model, split.forget))
    assert split.forget.x.equal(x)


def test_outputs_of_ones_own_are_refused_in_the_same_way(given):
    model, split = given("another shape")
    task = custom("own", outputs=lambda model, x: model(x), loss=lambda z, y: z.sum(1) + 0 * y)
    split = Split(replace(split.forget, task=task))
    assert refusal(forget, model, split, kind=Hazard) == REFUSED["another shape"][1]


def test_a_single_record_has_no_statistics(given):
    text = refusal(forget, *given("BatchNorm without running statistics", 1), kind=Hazard)
    assert text == (
        f"{FAILS}ValueError in layer 2 (BatchNorm1d): Expected more than 1 value per channel "
        "when training, got input size torch.Size([1, 16]). Nothing was changed. BatchNorm "
        "uses the statistics of the batch there, and one record has none: give more records, or "
        "choose another method."
    )


OUTSIDE = {
    "no_grad": torch.no_grad,
    "inference mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "another default device": lambda: torch.device("meta"),
    "a random state": lambda: torch.random.fork_rng([]),
}


@pytest.mark.parametrize("outside", OUTSIDE)
def test_what_the_caller_switched_on_changes_nothing(outside, given):
    """A cell of a notebook may have left any of them on."""
    how = {"method": "neighbourhood", "settings": {"steps": 2}, "report": "off"}
    plain = forget(*given("random numbers in forward"), **how).model
    model, split = given("random numbers in forward")
    with OUTSIDE[outside]():
        if outside == "a random state":
            torch.manual_seed(7)
        new = forget(model, split, **how).model
        assert torch.is_grad_enabled() == (outside not in {"no_grad", "inference mode"})
    assert state(new) == state(plain)


class Strided(nn.Module):
    """Reads the memory of its input as data loaders lay it out, whatever the strides say."""

    def forward(self, x):
        return x.as_strided((len(x), 3 * 64), (3 * 64, 1))


def test_a_model_that_depends_on_the_layout_gets_that_of_data_loaders():
    """In channels_last, which is faster, it would read the channels as columns."""
    seen = Records(torch.rand(7, 3, 8, 8), torch.zeros(7, dtype=torch.int64))
    model = nn.Sequential(nn.Identity(), Strided())
    check_layout(model, seen)
    assert predict(frozen_teacher(model), seen).equal(seen.x.flatten(1))
    other = nn.Flatten()
    check_layout(other, seen)
    assert (model in CONTIGUOUS, other in CONTIGUOUS) == (True, False)


def test_what_is_no_module_is_refused():
    assert refusal(check_model, Net().forward) == f"{TRAINED}method. Give the model itself."
