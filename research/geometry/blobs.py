"""Two Gaussian blobs, and a small model that separates them.

Centres, standard deviation and the two points that are removed are read off figure 2 of
https://arxiv.org/abs/2402.01401, which gives no numbers (100 to 120 points in a class, a standard
deviation of about 1). The model is ours: two hidden layers of 32 tanh units. It is smooth, so that
its second derivatives are its own; the logits of a ReLU net are made of planes and have none.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional

from efface.task import logits
from efface.types import Records

# Of class 0 and of class 1; the standard deviation is 1 each way.
CENTRES = ((-2.0, -1.7), (2.3, 2.0))

# In each class.
POINTS = 110

# The two points of class 1 to forget, one in each case; they are part of every draw.
FORGOTTEN = {"boundary": (0.6, 0.1), "core": (1.3, 2.1)}

# The blobs' box: three standard deviations around the centres.
LOW, HIGH = (-5.0, -4.7), (5.3, 5.0)

STEPS, RATE, DECAY = 400, 0.01, 1e-3


def blobs(seed: int) -> Records:
    """110 points a class; the last two, of class 1, are ``boundary`` and ``core``."""
    draw = np.random.default_rng(seed)
    counts = (POINTS, POINTS - len(FORGOTTEN))
    drawn = [draw.normal(centre, 1, (n, 2)) for centre, n in zip(CENTRES, counts, strict=True)]
    x = np.concatenate([*drawn, list(FORGOTTEN.values())])
    ids = (*(str(row) for row in range(sum(counts))), *FORGOTTEN)
    y = np.repeat([0, 1], POINTS)
    return Records(
        torch.tensor(x, dtype=torch.float32),
        torch.tensor(y),
        ids,
        low=torch.tensor(LOW),
        high=torch.tensor(HIGH),
    )


def parted(records: Records, point: str) -> tuple[Records, Records]:
    """The record of this id alone, and all others."""
    row = records.ids.index(point)
    return records.take([row]), records.take([r for r in range(len(records)) if r != row])


def untrained(seed: int) -> nn.Module:
    """The model before training; the global random state is as it was before."""
    # nn.Linear draws from the global generator, which is the caller's
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 2)
        )


def trained(
    models: Sequence[nn.Module], records: Records, *, kept: Bool[Tensor, " m n"]
) -> list[nn.Module]:
    """Each model trained by the recipe on its own rows of ``kept``; the given ones stay untrained.

    The recipe: 400 steps of AdamW on all its records at once, so that no order is drawn. The models
    are stacked and take each step together, which changes nothing but the time.
    """
    weights, buffers = stack_module_state(list(models))
    # functional_call reads the structure alone; these weights are not used
    form = copy.deepcopy(models[0])
    # each model's loss is the mean over its own rows, as if it were trained alone
    share = kept / kept.sum(1, keepdim=True)
    answers = vmap(lambda w, b: functional_call(form, (w, b), (records.x,)))
    target = records.y.expand(len(models), -1)
    optimizer = torch.optim.AdamW(weights.values(), lr=RATE, weight_decay=DECAY)
    for _ in range(STEPS):
        optimizer.zero_grad()
        answer = answers(weights, buffers).movedim(2, 1)
        loss = functional.cross_entropy(answer, target, reduction="none")
        (loss * share).sum().backward()
        optimizer.step()
    return [_unstacked(form, weights, place) for place in range(len(models))]


def _unstacked(form: nn.Module, weights: dict[str, Tensor], place: int) -> nn.Module:
    """One model out of the stack."""
    model = copy.deepcopy(form)
    model.load_state_dict({name: weight[place].detach() for name, weight in weights.items()})
    return model.eval()


def grid(
    side: int, *, low: Sequence[float] = LOW, high: Sequence[float] = HIGH
) -> Float[Tensor, " n 2"]:
    """Points of a box, the blobs' own unless given, ``side`` each way, row by row from below."""
    across, up = (torch.linspace(*ends, side) for ends in zip(low, high, strict=True))
    return torch.stack(torch.meshgrid(across, up, indexing="xy"), -1).reshape(-1, 2)


def density(x: Float[Tensor, " n 2"]) -> Float[Tensor, " n 2"]:
    """How likely each blob is to draw a point here, up to one factor for both."""
    return torch.stack(
        [torch.exp(-0.5 * (x - torch.tensor(centre)).square().sum(1)) for centre in CENTRES], 1
    )


def sureness(model: nn.Module, x: Float[Tensor, " n 2"]) -> Float[Tensor, " n"]:
    """The logit of class 1 over class 0: above 0 the prediction is class 1."""
    with torch.no_grad():
        answer = logits(model, x)
    return answer[:, 1] - answer[:, 0]


@dataclass(frozen=True, eq=False)
class Family:
    """The models of one seed: one draw of the blobs, with each point and without it.

    ``untouched``: trained on all records; ``retrained``: by the removed point, models of three
    other starts; ``same_start``: by the point, the model that starts from the weights from which
    ``untouched`` started. That is no retrained model: nobody who retrains has these weights.
    """

    seed: int
    records: Records
    untouched: nn.Module
    retrained: dict[str, list[nn.Module]]
    same_start: dict[str, nn.Module]


# Retrained models of each point.
AGAIN = 3


def family(seed: int) -> Family:
    """Draw the blobs and train every model of this seed."""
    records, order = blobs(seed), [seed] + [1000 * (1 + again) + seed for again in range(AGAIN)]
    rows = [records.ids.index(point) for point in FORGOTTEN]
    kept = torch.ones(1 + len(rows) * len(order), len(records), dtype=torch.bool)
    for place, row in enumerate(rows):
        kept[1 + place * len(order) : 1 + (place + 1) * len(order), row] = False
    # the first start of each point is that of ``untouched``: its twin from the same weights
    starts = [untrained(start) for start in [seed, *order * len(rows)]]
    untouched, *others = trained(starts, records, kept=kept)
    parts = [others[place * len(order) : (place + 1) * len(order)] for place in range(len(rows))]
    return Family(
        seed,
        records,
        untouched,
        retrained={point: part[1:] for point, part in zip(FORGOTTEN, parts, strict=True)},
        same_start={point: part[0] for point, part in zip(FORGOTTEN, parts, strict=True)},
    )
