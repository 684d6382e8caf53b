"""Recipes: a named net on a named data set, trained the same way each time."""

import difflib
import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from efface.errors import InputError
from efface.io.atomic import atomic_write
from efface.io.checkpoints import read_torch
from efface.io.data import DataSource
from efface.io.images import Preprocessing
from efface.io.models import SCHEMA, build_model
from efface.manifest import versions
from efface.methods._perturb import shift_and_flip, uniforms
from efface.task import logits
from efface.training import descend
from efface.types import Action, Progress, Records, no_progress


@dataclass(frozen=True)
class Recipe:
    """How a net is trained: SGD with Nesterov momentum 0.9, one-cycle learning rate.

    ``shift`` is the padding of the random crop in pixels (0: none); ``flip`` mirrors at random;
    ``half`` computes in bfloat16 where that is faster.
    """

    architecture: str
    epochs: int
    learning_rate: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    batch_size: int = 128
    weight_decay: float = 5e-4
    shift: int = 0
    flip: bool = False
    half: bool = False

    @property
    def preprocessing(self) -> Preprocessing:
        """How pixels become this net's inputs."""
        return Preprocessing(self.mean, self.std, self.size)


CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CIFAR100_MEAN, CIFAR100_STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)


def _vgg(width: str, mean: tuple[float, ...], std: tuple[float, ...]) -> Recipe:
    """For 10,000 photographs without augmentation: memorised in 18 epochs."""
    return Recipe(f"efface.nets:vgg_{width}", 18, 0.025, mean, std, 32, half=True)


_RESNET = Recipe("efface.nets:resnet_small", 10, 0.2, CIFAR_MEAN, CIFAR_STD, 32, half=True)
RECIPES = {
    "cifar10-resnet": replace(_RESNET, shift=4, flip=True),
    "faces-resnet": Recipe(
        "research.nets:resnet18_quarter", 20, 0.1, CIFAR_MEAN, CIFAR_STD, 32, half=True
    ),
    "resnet18": Recipe(
        "research.nets:resnet18", 12, 0.1, CIFAR_MEAN, CIFAR_STD, 32, shift=4, flip=True, half=True
    ),
    "resnet18-quarter": Recipe(
        "research.nets:resnet18_quarter", 15, 0.1, CIFAR_MEAN, CIFAR_STD, 32, half=True
    ),
    "vit": Recipe("research.nets:vit", 20, 0.02, CIFAR_MEAN, CIFAR_STD, 32, half=True),
    "cifar10-vgg-quarter": _vgg("quarter", CIFAR_MEAN, CIFAR_STD),
    "cifar10-vgg-small": _vgg("small", CIFAR_MEAN, CIFAR_STD),
    "cifar20-vgg-quarter": _vgg("quarter", CIFAR100_MEAN, CIFAR100_STD),
    "cifar20-vgg-small": _vgg("small", CIFAR100_MEAN, CIFAR100_STD),
    "digits-conv": Recipe("efface.nets:conv_small", 20, 0.05, (0.5,), (0.5,), 8, batch_size=64),
}


def fresh(recipe: Recipe, num_classes: int, *, seed: int) -> nn.Module:
    """The untrained net; the global random state is as it was before."""
    # weights are drawn from the global generator, which is the caller's
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_model(recipe.architecture, num_classes)


def named(name: str) -> Recipe:
    """The recipe of this name. Raises InputError with the nearest name when there is none."""
    if name not in RECIPES:
        close = difflib.get_close_matches(name, list(RECIPES), n=1)
        remedy = f"Did you mean {close[0]!r}?" if close else "Choose one of these."
        raise InputError(f"a recipe out of {', '.join(RECIPES)}", repr(name), remedy)
    return RECIPES[name]


def description(
    name: str, table: DataSource, *, seed: int, command: str, excluded: int = 0
) -> dict:
    """What recipe.json says: all that is needed to make the model again and to feed it."""
    settings = asdict(RECIPES[name])
    classes = list(table.classes) if table.classes else None
    return {
        "schema": SCHEMA,
        "recipe": name,
        "architecture": settings.pop("architecture"),
        "num_classes": len(classes) if classes else int(table.labels.max()) + 1,
        "classes": classes,
        **{part: settings.pop(part) for part in ("mean", "std", "size")},
        "seed": seed,
        "settings": settings,
        "data_digest": table.digest,
        "excluded": excluded,
        "versions": versions(),
        "command": command,
    }


def train(
    model: nn.Module,
    records: Records,
    recipe: Recipe,
    *,
    seed: int,
    state: Path | None = None,
    progress: Progress = no_progress,
) -> nn.Module:
    """Train an untrained ``model`` in place by the recipe and return it in eval mode.

    With ``state`` (a file) training goes on where it was stopped, bit for bit; the file is written
    after each epoch and left for the caller to remove. The global random state is not touched
    (nets with dropout excepted: they draw from it). Raises InputError when ``state`` is of another
    training, UnsafeFile when it is damaged.
    """
    steps_an_epoch = math.ceil(len(records) / recipe.batch_size)
    steps = recipe.epochs * steps_an_epoch
    model.train().to(memory_format=torch.channels_last)
    kind = {"momentum": 0.9, "nesterov": True, "weight_decay": recipe.weight_decay}
    optimizer = torch.optim.SGD(model.parameters(), lr=recipe.learning_rate, **kind)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _one_cycle(step / steps))
    known = _known(recipe, records, seed=seed) if state else {}
    done = _resume(state, model, optimizer, schedule, known=known)

    def callback(student: nn.Module, loss: float) -> Action:
        nonlocal done
        done += 1
        schedule.step()
        if state and done % steps_an_epoch == 0:
            _save(state, student, optimizer, schedule, of=known, done=done)
        shown(done, loss, "")
        return Action.CONTINUE

    with progress(f"train on {len(records)} records", steps) as shown:
        how: dict[str, Any] = {"batch_size": recipe.batch_size, "micro_batch": recipe.batch_size}
        how |= {"optimizer": optimizer, "steps": steps, "first_step": done, "callback": callback}
        how["seed"] = seed
        return descend(model, _loss_of(recipe, seed), records, **how).eval()


def _one_cycle(progress: float, warm_up: float = 0.2) -> float:
    """Up in a straight line, down in a straight line to nothing."""
    # not quite 0 at either end: the first and the last step would change nothing
    return min(progress / warm_up, (1 - progress) / (1 - warm_up)) + 1e-3


def _loss_of(recipe: Recipe, seed: int) -> Callable[[nn.Module, Records, int], Tensor]:
    """Cross-entropy of one shifted and mirrored copy of each record."""

    def loss(student: nn.Module, batch: Records, step: int) -> Tensor:
        x = batch.x
        if recipe.shift or recipe.flip:
            draws = uniforms(batch.ids, 3, seed=seed, step=step)
            # drawn also when not used: the shifts stay the same
            draws[:, 2] *= recipe.flip
            x = shift_and_flip(x, draws, recipe.shift)
        if x.ndim == 4:  # noqa: PLR2004
            # the memory order of the weights, in which convolutions are faster on a CPU
            x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=recipe.half):
            answer = logits(student, x)
        return functional.cross_entropy(answer.float(), batch.y, reduction="none")

    return loss


def _known(recipe: Recipe, records: Records, *, seed: int) -> dict[str, str]:
    """What makes a training this one: to go on with another's weights would be neither's model."""
    # a training resumed on other records would still contain the first ones
    held = hashlib.sha256(repr(records.ids).encode())
    for tensor in (records.x, records.y):
        held.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return {"recipe": repr(recipe), "seed": str(seed), "set of records": held.hexdigest()}


def _save(
    state: Path,
    student: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    *,
    of: dict[str, str],
    done: int,
) -> None:
    """Keep what the next epoch needs, whole or not at all."""
    parts = {
        "of": of,
        "model": student.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "done": done,
    }
    state.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(state, lambda scratch: torch.save(parts, scratch))


def _resume(
    state: Path | None,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    *,
    known: dict[str, str],
) -> int:
    """Steps done before; 0 when there is nothing to go on from."""
    if state is None or not state.exists():
        return 0
    parts = read_torch(state)
    of = parts.get("of", {})
    if other := [name for name, value in known.items() if of.get(name) != value]:
        raise InputError(
            f"the progress of this training in {state}",
            f"that of one with another {' and '.join(other)}",
            "Remove that file to start again, or give another --out.",
        )
    model.load_state_dict(parts["model"])
    optimizer.load_state_dict(parts["optimizer"])
    schedule.load_state_dict(parts["schedule"])
    return int(parts["done"])
