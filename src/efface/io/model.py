"""From a name or a folder to a module, its weights and the preprocessing of its inputs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_model
from torch import Tensor, nn

from efface.errors import InputError
from efface.io import folders
from efface.io.architecture import build, classes_in, net_of
from efface.io.atomic import whole_folder, write_whole
from efface.io.checkpoint import Checkpoint, load_checkpoint, some_of
from efface.io.features import FeatureSpec
from efface.io.preprocessing import Preprocessing
from efface.task import outputs_in

WEIGHTS, RECIPE, CONFIG = "model.safetensors", "recipe.json", "config.json"
FEATURES = "features.json"
SCHEMA = 1


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model in eval mode with what is needed to feed it and to write it back.

    ``parts``: the weights file, or all of them; ``copied``: files beside them that are written as
    they are; ``dropped``: names of files that may hold the data and are not written; ``stored``:
    by the model's name of a tensor, its dtype in the file (the model itself is float32).
    """

    model: nn.Module
    parts: tuple[Checkpoint, ...]
    preprocessing: Preprocessing | FeatureSpec
    architecture: str
    stored: dict[str, torch.dtype]
    classes: tuple[str, ...] | None = None
    copied: tuple[Path, ...] = ()
    dropped: tuple[str, ...] = ()
    recipe: dict[str, Any] | None = None

    @cached_property
    def num_classes(self) -> int:
        """How many classes the model tells apart: its outputs, else the rows of its last weight."""
        if self.recipe:
            return self.recipe["num_classes"]
        shape = self.preprocessing.shape
        if shape and (found := outputs_in(self.model, shape)):
            return found
        return [weight for weight in self.model.parameters() if weight.ndim > 1][-1].shape[0]

    @property
    def left_out(self) -> tuple[str, ...]:
        """What is not written back, since it may hold the records: entries and files."""
        return (*(name for part in self.parts for name in part.left_out), *self.dropped)

    @property
    def kept(self) -> tuple[str, ...]:
        """Tensors beside the model's own that are written back as they came."""
        return tuple(name for part in self.parts for name in part.kept)

    def write(self, model: nn.Module, folder: Path) -> None:
        """Write ``model`` as the given one came: its weights, and the files beside them."""
        state = model.state_dict()
        for part in self.parts:
            part.write(state, folder / part.path.name)
        for path in self.copied:
            write_whole(folder / path.name, path.read_bytes())


def load_model(
    path: str | Path,
    *,
    architecture: str | nn.Module | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | None = None,
    features: str | Path | Mapping[str, Any] | FeatureSpec | None = None,
) -> LoadedModel:
    """Load a folder of efface, transformers or timm, or a weights file with its architecture named.

    Args:
        path: the folder, or a file of safetensors or of ``torch.save``.
        architecture: of a file: ``timm:NAME``, ``package.module:factory`` (such as
            ``torchvision.models:resnet18``) or a module, which is copied and not changed.
        mean: of the pixels, 0..1, one number a channel; the folder and timm know theirs.
        std: likewise.
        size: height and width that the model takes, in pixels.
        features: how rows of a table become inputs, for a model of tables: a JSON file or what it
            holds (see ``FeatureSpec``); a folder may hold it as features.json.

    Raises:
        InputError: something is not named, or the weights do not fit the architecture.
        UnsafeFile: the file would have to be unpickled, or is damaged.
        MissingExtra: timm or transformers is asked for and not installed.
    """
    path = Path(path)
    given = {"mean": mean, "std": std, "size": size}
    read = _from_folder(path, architecture) if path.is_dir() else _from_file(path, architecture)
    model, known = read.model, read.known
    state = {name: tensor for part in read.parts for name, tensor in part.state.items()}
    _refuse_misfit(model, state, read.architecture)
    for part in read.parts:
        for portion in part.portions():
            model.load_state_dict(portion, strict=False)
    classes = known.get("classes") or ()
    return LoadedModel(
        model=model.eval(),
        parts=read.parts,
        preprocessing=_inputs(known, given, features),
        architecture=read.architecture,
        stored={name: tensor.dtype for name, tensor in state.items()},
        classes=tuple(classes) if len(classes) > 1 else None,  # one name is that of a sigmoid unit
        copied=read.copied,
        dropped=read.dropped,
        recipe=known.get("recipe_json"),
    )


@dataclass(frozen=True, eq=False)
class _Read:
    """A net still without its weights, the files that hold them, and what is known of both."""

    model: nn.Module
    parts: tuple[Checkpoint, ...]
    architecture: str
    known: Mapping[str, Any]
    copied: tuple[Path, ...] = ()
    dropped: tuple[str, ...] = ()


def _from_file(path: Path, architecture: str | nn.Module | None) -> _Read:
    """A weights file, with its architecture named."""
    part = load_checkpoint(path)
    if architecture is None:
        raise InputError(
            f"the architecture of {path.name}",
            "none",
            "Give --architecture timm:NAME or package.module:factory, "
            "such as torchvision.models:resnet18.",
        )
    model, name = net_of(architecture)
    part = part.under(model.state_dict())
    if isinstance(architecture, str) and (classes := classes_in(part.state, model)):
        del model  # two nets at once would be twice the memory
        model = build(architecture, classes)
    config = getattr(model, "pretrained_cfg", None)
    known = folders.timm_inputs(config) if isinstance(config, dict) else {}
    return _Read(model, (part,), name, known)


def _from_folder(path: Path, architecture: str | nn.Module | None) -> _Read:
    """A folder of efface, timm or transformers: config.json or recipe.json says which."""
    if (path / RECIPE).exists() or not (path / CONFIG).exists():
        return _from_own_folder(path, architecture)
    config = folders.read_json(path / CONFIG)
    files = folders.weight_files(path)
    copied, dropped = folders.beside(path, files)
    if "pretrained_cfg" in config:
        model, name = folders.timm_net(path, config)
        known = folders.timm_inputs(config["pretrained_cfg"])
        known["classes"] = config.get("label_names")
    else:
        model, name = folders.transformers_net(path, config)
        known = folders.transformers_inputs(path)
        known["classes"] = folders.class_names(model)
    parts = tuple(load_checkpoint(file) for file in files)
    if name.startswith("transformers:"):
        parts = _under_its_names(parts, model)
    return _Read(model, parts, name, known, copied, dropped)


def _from_own_folder(path: Path, architecture: str | nn.Module | None) -> _Read:
    """Weights with recipe.json, features.json or both; without a recipe the architecture is named.

    Both files are copied as they are.
    """
    described = {"features": path / FEATURES} if (path / FEATURES).is_file() else {}
    if described and not (path / RECIPE).exists():
        copied, dropped = folders.beside(path, (path / WEIGHTS,))
        read = _from_file(path / WEIGHTS, architecture)
        return replace(read, known=described, copied=copied, dropped=dropped)
    recipe = _read_recipe(path, described=bool(described))
    part = load_checkpoint(path / WEIGHTS)
    given = recipe["architecture"] if architecture is None else architecture
    model, name = net_of(given, recipe["num_classes"])
    known = {**recipe, **described, "recipe_json": recipe}
    return _Read(model, (part,), name, known, (path / RECIPE, *described.values()))


def _under_its_names(parts: tuple[Checkpoint, ...], model: nn.Module) -> tuple[Checkpoint, ...]:
    """The parts under the net's own names, where the files have older ones."""
    own = model.state_dict()
    if all(name in own for part in parts for name in part.state):
        return parts
    names = folders.names_in_file(model)
    return tuple(part.named(names) for part in parts)


def save_trained(folder: str | Path, model: nn.Module, recipe: Mapping[str, Any]) -> None:
    """Write model.safetensors and recipe.json, both or neither.

    Raises InputError when ``folder`` holds something, OutputError when it cannot be written.
    """
    with whole_folder(folder) as scratch:
        write_whole(scratch / WEIGHTS, lambda path: save_model(model, str(path), {"format": "pt"}))
        text = json.dumps(dict(recipe), indent=2, ensure_ascii=False)
        write_whole(scratch / RECIPE, (text + "\n").encode())


def _refuse_misfit(model: nn.Module, state: Mapping[str, Tensor], architecture: str) -> None:
    """Every tensor must be there in its shape; a tied weight may stand under one name only."""
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


def _read_recipe(folder: Path, *, described: bool) -> dict[str, Any]:
    """What recipe.json says; of a model of tables features.json says how its inputs are made."""
    path = folder / RECIPE
    needed = {"schema", "architecture", "num_classes"}
    needed |= set() if described else {"mean", "std", "size"}
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


def _inputs(
    known: Mapping[str, Any], given: Mapping[str, Any], features: Any
) -> Preprocessing | FeatureSpec:
    """The features that were given or lie in the folder, else the preprocessing of images."""
    features = known.get("features") if features is None else features
    if features is None:
        return _preprocessing(known, given)
    if said := [name for name, value in given.items() if value is not None]:
        raise InputError(
            "features of a table, or the preprocessing of images",
            f"features and {', '.join(said)}",
            "Leave one away: a model takes rows or images.",
        )
    if isinstance(features, FeatureSpec):
        return features
    return FeatureSpec.read(features) if isinstance(features, str | Path) else FeatureSpec(features)


def _preprocessing(known: Mapping[str, Any], given: Mapping[str, Any]) -> Preprocessing:
    """What the user says, else what the model knows of itself."""
    found: dict[str, Any] = dict(given)
    found = {name: known.get(name) if value is None else value for name, value in found.items()}
    if lacking := [name for name, value in found.items() if value is None]:
        raise InputError(
            "the preprocessing that the model was trained with",
            f"no {', '.join(lacking)}",
            "Give --mean --std --size, such as --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225 "
            "--size 224, or --features FILE.json for a model of tables.",
        )
    try:
        mean, std = (tuple(float(value) for value in found[name]) for name in ("mean", "std"))
        names = ("resize", "interpolation", "squash")
        own = given["size"] is None  # a size of one's own is scaled as torchvision does
        scaled = {name: known[name] for name in names if own and name in known}
        return Preprocessing(mean, std, int(found["size"]), **scaled)
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            "numbers for mean, std and size", f"{found}", "Give them, or mend recipe.json."
        ) from error
