"""What every probe promises, asked of each in its own tests."""

import copy
from dataclasses import fields, is_dataclass

import numpy as np
import torch

from efface.runtime import PassCounter


def untouched(probe, given, random_state_kept):
    """Run ``probe(model)`` twice on a model full of traces; the same numbers, every trace left."""
    model = copy.deepcopy(given).train()
    first, *_, last = model.parameters()
    first.requires_grad_(requires_grad=False)
    last.grad = torch.ones_like(last)
    model[1].eval()
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    before = traces(model)
    with random_state_kept():
        one, other = probe(model), probe(model)
    assert same(one, other), "another run, other numbers"
    after = traces(model)
    assert not [name for name, trace in after.items() if not same(trace, before[name])]
    return one


def traces(model):
    """Everything of a model that a careless guest would move."""
    weights = dict(model.named_parameters())
    return {
        "bits": {k: v.clone() for k, v in model.state_dict().items()},
        "objects": [id(v) for v in (*weights.values(), *model.buffers())],
        "gradients": {k: None if w.grad is None else w.grad.clone() for k, w in weights.items()},
        "free": [w.requires_grad for w in weights.values()],
        "modes": [part.training for part in model.modules()],
        "hooks": [[len(v) for k, v in vars(m).items() if "_hooks" in k] for m in model.modules()],
    }


def same(one, other):
    """Equal to the bit, through dataclasses, mappings, tuples and arrays."""
    ours, theirs = list(leaves(one)), list(leaves(other))
    return len(ours) == len(theirs) and all(map(equal, ours, theirs))


def leaves(thing):
    """The numbers, words and arrays in a result, each with its kind."""
    if isinstance(thing, torch.nn.Module):
        thing = dict(thing.state_dict())
    if is_dataclass(thing):
        thing = {field.name: getattr(thing, field.name) for field in fields(thing)}
    if isinstance(thing, dict):
        thing = [part for pair in sorted(thing.items()) for part in pair]
    if isinstance(thing, list | tuple):
        yield len(thing)
        for part in thing:
            yield from leaves(part)
    else:
        yield thing


def equal(one, other):
    """Two leaves; nan is nan."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, float | np.ndarray):
        return np.array_equal(one, other, equal_nan=np.asarray(one).dtype.kind == "f")
    return one == other


def passes_of(probe, model):
    """The passes that ``probe(model)`` took, counted on the model and its copies."""
    counted = PassCounter(model)
    probe(counted.model)
    return counted.passes
