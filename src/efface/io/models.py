"""From a path to a model: the module with its weights, and the preprocessing of its inputs.

``load_model`` takes a folder of efface (recipe.json), timm or transformers, or a weights file with
its architecture named; ``LoadedModel.write`` writes another state back as the given one came.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_model
from torch import Tensor, nn

from efface.errors import InputError, abbreviate
from efface.io import architectures
from efface.io.architectures import build_model
from efface.io.atomic import atomic_folder, atomic_write
from efface.io.checkpoints import Checkpoint, load_checkpoint
from efface.io.features import FeatureSpec
from efface.io.images import Preprocessing
from efface.runtime import upcast_to_fp32
from efface.task import outputs_in

WEIGHTS, RECIPE, CONFIG = "model.safetensors", "recipe.json", "config.json"
FEATURES = "features.json"
SCHEMA = 1


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model in eval mode with what is needed to feed it and to write it back.

    ``parts``: the weights file, or all of them; ``copied_files`` are written back as they are;
    ``omitted_files`` may hold the data and are not; ``stored``: by the model's name of a tensor its
    dtype in the file (the model itself is float32).
    """

    model: nn.Module
    parts: tuple[Checkpoint, ...]
    preprocessing: Preprocessing | FeatureSpec
    architecture: str
    stored: dict[str, torch.dtype]
    classes: tuple[str, ...] | None = None
    copied_files: tuple[Path, ...] = ()
    omitted_files: tuple[str, ...] = ()
    recipe: dict[str, Any] | None = None

    @cached_property
    def num_classes(self) -> int:
        """The width of the model's output, else the rows of its last weight matrix."""
        if self.recipe:
            return self.recipe["num_classes"]
        shape = self.preprocessing.shape
        if shape and (width := outputs_in(self.model, shape)):
            return width
        return [weight for weight in self.model.parameters() if weight.ndim > 1][-1].shape[0]

    @property
    def omitted(self) -> tuple[str, ...]:
        """Entries and files that are not written back, since they may hold the records."""
        return (*(name for part in self.parts for name in part.omitted), *self.omitted_files)

    @property
    def extras(self) -> tuple[str, ...]:
        """Tensors that are not the model's own and are written back as they came."""
        return tuple(name for part in self.parts for name in part.extras)

    def write(self, model: nn.Module, folder: Path) -> None:
        """Write ``model`` as the given one came: its weights, and the files next to them."""
        state = model.state_dict()
        for part in self.parts:
            part.write(state, folder / part.path.name)
        for path in self.copied_files:
            atomic_write(folder / path.name, path.read_bytes())


@dataclass(frozen=True, eq=False)
class _Source:
    """A module still without its weights, the files that hold them, and what is known of both."""

    model: nn.Module
    parts: tuple[Checkpoint, ...]
    architecture: str
    known: Mapping[str, Any]
    copied_files: tuple[Path, ...] = ()
    omitted_files: tuple[str, ...] = ()


def load_model(
    path: str | Path,
    *,
    architecture: str | nn.Module | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | None = None,
    feature_spec: str | Path | Mapping[str, Any] | FeatureSpec | None = None,
) -> LoadedModel:
    """Load a folder of efface, transformers or timm, or a weights file with its architecture named.

    Args:
        path: the folder, or a file of safetensors or of ``torch.save``.
        architecture: of a file: ``timm:NAME``, ``package.module:factory`` (such as
            ``torchvision.models:resnet18``) or a module, which is copied and not changed.
        mean: of the pixels, 0..1, one number a channel; the folder and timm know theirs.
        std: likewise.
        size: height and width that the model takes, in pixels.
        feature_spec: how rows of a table become inputs, for a tabular model: a JSON file or its content
            (see ``FeatureSpec``); a folder may hold it as features.json.

    Raises:
        InputError: something is not named, or the weights do not fit the architecture.
        UnsafeFile: the file would have to be unpickled, or is damaged.
        MissingExtra: timm or transformers is needed and not installed.
    """
    path = Path(path)
    source = _from_folder(path, architecture) if path.is_dir() else _from_file(path, architecture)
    model, known = source.model, source.known
    state = {name: tensor for part in source.parts for name, tensor in part.state.items()}
    _refuse_misfit(model, state, source.architecture)
    for part in source.parts:
        for portion in part.portions():
            model.load_state_dict(portion, strict=False)
    classes = known.get("classes") or ()
    return LoadedModel(
        model=model.eval(),
        parts=source.parts,
        preprocessing=_preprocessing(known, {"mean": mean, "std": std, "size": size}, feature_spec),
        architecture=source.architecture,
        stored={name: tensor.dtype for name, tensor in state.items()},
        classes=tuple(classes) if len(classes) > 1 else None,  # one name is that of a sigmoid unit
        copied_files=source.copied_files,
        omitted_files=source.omitted_files,
        recipe=known.get("recipe_json"),
    )


def _module(architecture: str | nn.Module, num_classes: int | None = None) -> tuple[nn.Module, str]:
    """The module of a name, or a float32 copy of a given one, and what it is called."""
    if isinstance(architecture, nn.Module):
        kind = type(architecture)
        return copy.deepcopy(upcast_to_fp32(architecture)), f"{kind.__module__}.{kind.__qualname__}"
    return build_model(architecture, num_classes), architecture


def _from_file(path: Path, architecture: str | nn.Module | None) -> _Source:
    """A weights file, with its architecture named."""
    part = load_checkpoint(path)
    if architecture is None:
        raise InputError(
            f"the architecture of {path.name}",
            "none",
            "Give --architecture timm:NAME or package.module:factory, "
            "such as torchvision.models:resnet18.",
        )
    model, name = _module(architecture)
    part = part.match_prefix(model.state_dict())
    classes = architectures.num_classes_in(part.state, model)
    if isinstance(architecture, str) and classes:
        del model  # two models at once would be twice the memory
        model = build_model(architecture, classes)
    config = getattr(model, "pretrained_cfg", None)
    known = architectures.timm_preprocessing(config) if isinstance(config, dict) else {}
    return _Source(model, (part,), name, known)


def _from_folder(path: Path, architecture: str | nn.Module | None) -> _Source:
    """A folder of efface, timm or transformers: recipe.json or config.json says which."""
    if (path / RECIPE).exists() or not (path / CONFIG).exists():
        return _from_own_folder(path, architecture)
    config = architectures.read_json(path / CONFIG)
    files = architectures.weight_files(path)
    if "pretrained_cfg" in config:
        model, name = architectures.timm_model(path, config)
        known = architectures.timm_preprocessing(config["pretrained_cfg"])
        known["classes"] = config.get("label_names")
    else:
        model, name = architectures.transformers_model(path, config)
        known = architectures.transformers_preprocessing(path)
        known["classes"] = architectures.class_names(model)
    parts, own = tuple(load_checkpoint(file) for file in files), model.state_dict()
    renamed = any(tensor not in own for part in parts for tensor in part.state)
    if renamed and "pretrained_cfg" not in config:  # transformers uses other names in its files
        names = architectures.names_in_file(model)
        parts = tuple(part.rename(names) for part in parts)
    return _Source(model, parts, name, known, *architectures.other_files(path, files))


def _from_own_folder(path: Path, architecture: str | nn.Module | None) -> _Source:
    """Weights with recipe.json, features.json or both; without a recipe the architecture is named.

    Both files are copied as they are.
    """
    features = {"features": path / FEATURES} if (path / FEATURES).is_file() else {}
    if features and not (path / RECIPE).exists():
        copied, omitted = architectures.other_files(path, (path / WEIGHTS,))
        source = _from_file(path / WEIGHTS, architecture)
        return replace(source, known=features, copied_files=copied, omitted_files=omitted)
    recipe = _read_recipe(path, needs_images=not features)
    part = load_checkpoint(path / WEIGHTS)
    named = recipe["architecture"] if architecture is None else architecture
    model, name = _module(named, recipe["num_classes"])
    known = {**recipe, **features, "recipe_json": recipe}
    return _Source(model, (part,), name, known, (path / RECIPE, *features.values()))


def _read_recipe(folder: Path, *, needs_images: bool) -> dict[str, Any]:
    """What recipe.json says; a tabular model has its preprocessing in features.json instead."""
    path = folder / RECIPE
    required = {"schema", "architecture", "num_classes"}
    required |= {"mean", "std", "size"} if needs_images else set()
    try:
        recipe = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"a folder with {WEIGHTS} and {RECIPE}, as python -m research.train writes it",
            f"{folder}: {type(error).__name__} at {RECIPE}",
            "Give such a folder, or a weights file with --architecture.",
        ) from error
    missing = sorted(required - set(recipe)) if isinstance(recipe, dict) else sorted(required)
    if missing or recipe["schema"] != SCHEMA:
        wanted = f"a recipe of schema {SCHEMA} in {path}"
        came = f"no {abbreviate(missing)}" if missing else f"schema {recipe['schema']!r}"
        remedy = "Train again with this version, or give the weights file with --architecture."
        raise InputError(wanted, came, remedy)
    return recipe


def save_trained(folder: str | Path, model: nn.Module, recipe: Mapping[str, Any]) -> None:
    """Write model.safetensors and recipe.json, both or neither.

    Raises InputError when ``folder`` is not empty, OutputError when it cannot be written.
    """
    with atomic_folder(folder) as scratch:
        atomic_write(scratch / WEIGHTS, lambda path: save_model(model, str(path), {"format": "pt"}))
        text = json.dumps(dict(recipe), indent=2, ensure_ascii=False)
        atomic_write(scratch / RECIPE, (text + "\n").encode())


def _refuse_misfit(model: nn.Module, state: Mapping[str, Tensor], architecture: str) -> None:
    """Every tensor must be there in its shape; a tied weight may stand under one name only."""
    own = model.state_dict()
    filled = {own[name].data_ptr() for name in state if name in own}
    missing = [n for n in own if n not in state and own[n].data_ptr() not in filled]
    unexpected = [name for name in state if name not in own]
    shapes = [
        f"{name} {tuple(tensor.shape)} in the file, {tuple(own[name].shape)} in the model"
        for name, tensor in state.items()
        if name in own and tensor.shape != own[name].shape
    ]
    if missing or unexpected or shapes:
        raise InputError(
            f"weights that fit {architecture}",
            f"missing: {abbreviate(missing)}; unexpected: {abbreviate(unexpected)}; "
            f"other shapes: {abbreviate(shapes)}",
            "Name the architecture that these weights were trained with.",
        )


def _preprocessing(
    known: Mapping[str, Any], given: Mapping[str, Any], features: Any
) -> Preprocessing | FeatureSpec:
    """What the user gives, else what the model states: a feature spec, or how to read images."""
    features = known.get("features") if features is None else features
    if features is not None:
        if flags := [name for name, value in given.items() if value is not None]:
            wanted = "features of a table, or the preprocessing of images"
            remedy = "Omit one of them: a model takes rows or images."
            raise InputError(wanted, f"features and {', '.join(flags)}", remedy)
        if isinstance(features, str | Path):
            return FeatureSpec.read(features)
        return features if isinstance(features, FeatureSpec) else FeatureSpec(features)
    values = {name: known.get(name) if value is None else value for name, value in given.items()}
    if missing := [name for name, value in values.items() if value is None]:
        raise InputError(
            "the preprocessing that the model was trained with",
            f"no {', '.join(missing)}",
            "Give --mean --std --size, such as --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225 "
            "--size 224, or --feature-spec FILE.json for a tabular model.",
        )
    try:
        mean, std = (tuple(float(value) for value in values[name]) for name in ("mean", "std"))
        # a size of the user's own is scaled as torchvision does, not as the model states
        names = ("resize", "interpolation", "squash") if given["size"] is None else ()
        scaling = {name: known[name] for name in names if name in known}
        return Preprocessing(mean, std, int(values["size"]), **scaling)
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        remedy = "Give them, or fix recipe.json."
        raise InputError("numbers for mean, std and size", f"{values}", remedy) from error
