"""From a name or a folder to a module, its weights and the preprocessing of its inputs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_model
from torch import Tensor, nn

from efface.errors import InputError
from efface.io.architecture import build, build_to_fit
from efface.io.atomic import whole_folder, write_whole
from efface.io.checkpoint import Checkpoint, load_checkpoint, some_of
from efface.io.preprocessing import Preprocessing

WEIGHTS, RECIPE = "model.safetensors", "recipe.json"
SCHEMA = 1


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model in eval mode with what is needed to feed it and to write it back."""

    model: nn.Module
    checkpoint: Checkpoint
    preprocessing: Preprocessing
    architecture: str
    classes: tuple[str, ...] | None = None
    recipe: dict[str, Any] | None = None

    @property
    def num_classes(self) -> int:
        """How many classes the model tells apart: the rows of its last weight."""
        weights = [weight for weight in self.model.parameters() if weight.ndim > 1]
        return self.recipe["num_classes"] if self.recipe else weights[-1].shape[0]

    def write(self, model: nn.Module, folder: Path) -> None:
        """Write ``model`` as the given one came: a weights file and, from a folder, its recipe."""
        self.checkpoint.write(model.state_dict(), folder / self.checkpoint.path.name)
        if self.recipe is not None:
            recipe = (self.checkpoint.path.parent / RECIPE).read_bytes()
            write_whole(folder / RECIPE, recipe)


def load_model(
    path: str | Path,
    *,
    architecture: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | None = None,
) -> LoadedModel:
    """Load a folder that ``efface train`` wrote, or a weights file with its architecture named.

    Args:
        path: the folder, or a file of safetensors or of ``torch.save``.
        architecture: ``timm:NAME`` or ``package.module:factory`` (``torchvision.models:resnet18``).
        mean: of the pixels, 0..1, one number a channel; the folder and timm know theirs.
        std: likewise.
        size: height and width that the model takes, in pixels.

    Raises:
        InputError: something is not named, or the weights do not fit the architecture.
        UnsafeFile: the file would have to be unpickled, or is damaged.
        MissingExtra: timm is asked for and not installed.
    """
    path = Path(path)
    if path.is_dir():
        recipe = _read_recipe(path)
        checkpoint = load_checkpoint(path / WEIGHTS)
        architecture = architecture or recipe["architecture"]
        model = build(architecture, recipe["num_classes"])
        known: Mapping[str, Any] = recipe
    else:
        recipe = None
        checkpoint = load_checkpoint(path)
        if architecture is None:
            raise InputError(
                f"the architecture of {path.name}",
                "none",
                "Give --architecture timm:NAME or package.module:factory, "
                "such as torchvision.models:resnet18.",
            )
        model = build_to_fit(architecture, checkpoint.state)
        known = _timm_preprocessing(model)
    _load_strictly(model, checkpoint.state, architecture)
    classes = known.get("classes")
    return LoadedModel(
        model=model.eval(),
        checkpoint=checkpoint,
        preprocessing=_preprocessing(known, mean, std, size),
        architecture=architecture,
        classes=tuple(classes) if classes else None,
        recipe=recipe,
    )


def save_trained(folder: str | Path, model: nn.Module, recipe: Mapping[str, Any]) -> None:
    """Write model.safetensors and recipe.json, both or neither.

    Raises InputError when ``folder`` holds something, OutputError when it cannot be written.
    """
    with whole_folder(folder) as scratch:
        write_whole(scratch / WEIGHTS, lambda path: save_model(model, str(path), {"format": "pt"}))
        text = json.dumps(dict(recipe), indent=2, ensure_ascii=False)
        write_whole(scratch / RECIPE, (text + "\n").encode())


def _load_strictly(model: nn.Module, state: Mapping[str, Tensor], architecture: str) -> None:
    """Fill the model; a tied weight may stand under one of its names only."""
    own = model.state_dict()
    filled = {own[name].data_ptr() for name in state if name in own}
    missing = [n for n in own if n not in state and own[n].data_ptr() not in filled]
    unexpected = [name for name in state if name not in own]
    bent = [
        f"{name} {tuple(state[name].shape)} in the file, {tuple(own[name].shape)} in the net"
        for name in state
        if name in own and state[name].shape != own[name].shape
    ]
    if missing or unexpected or bent:
        raise InputError(
            f"weights that fit {architecture}",
            f"missing: {some_of(missing)}; unexpected: {some_of(unexpected)}; "
            f"other shapes: {some_of(bent)}",
            "Name the architecture that these weights were trained with.",
        )
    model.load_state_dict(dict(state), strict=False)


def _read_recipe(folder: Path) -> dict[str, Any]:
    path = folder / RECIPE
    needed = {"schema", "architecture", "num_classes", "mean", "std", "size"}
    try:
        recipe = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"a folder with {WEIGHTS} and {RECIPE}, as efface train writes it",
            f"{folder}: {type(error).__name__} at {RECIPE}",
            "Give such a folder, or a weights file with --architecture.",
        ) from error
    lacking = sorted(needed - set(recipe)) if isinstance(recipe, dict) else sorted(needed)
    if lacking or recipe["schema"] != SCHEMA:
        raise InputError(
            f"a recipe of schema {SCHEMA} in {path}",
            f"one that lacks {some_of(lacking)}" if lacking else f"schema {recipe['schema']!r}",
            "Train again with this efface, or give the weights file with --architecture.",
        )
    return recipe


def _timm_preprocessing(model: nn.Module) -> dict[str, Any]:
    """What timm knows of the inputs of its nets; nothing for others."""
    config = getattr(model, "pretrained_cfg", None)
    if not isinstance(config, dict) or not {"mean", "std", "input_size"} <= set(config):
        return {}
    return {"mean": config["mean"], "std": config["std"], "size": config["input_size"][-1]}


def _preprocessing(
    known: Mapping[str, Any],
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    size: int | None,
) -> Preprocessing:
    """What the user says, else what the model knows of itself."""
    found: dict[str, Any] = {"mean": mean, "std": std, "size": size}
    found = {name: known.get(name) if value is None else value for name, value in found.items()}
    if lacking := [name for name, value in found.items() if value is None]:
        raise InputError(
            "the preprocessing that the model was trained with",
            f"no {', '.join(lacking)}",
            "Give --mean --std --size, such as --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225 "
            "--size 224.",
        )
    try:
        mean, std = (tuple(float(value) for value in found[name]) for name in ("mean", "std"))
        return Preprocessing(mean, std, int(found["size"]))
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            "numbers for mean, std and size", f"{found}", "Give them, or mend recipe.json."
        ) from error
