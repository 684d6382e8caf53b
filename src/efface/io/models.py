"""From a path to a model: the module with its weights, and the preprocessing of its inputs.

``load_model`` takes a folder of efface (recipe.json), timm (config.json with ``pretrained_cfg``) or
transformers (with ``architectures``), or a weights file with its architecture named, and
``LoadedModel.write`` writes another state back as the given one came. ``build_model`` makes an
untrained module by name. No code of a folder is run, and nothing is downloaded.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_model
from torch import Tensor, nn

from efface.errors import InputError, abbreviate
from efface.io.architectures import (
    FETCH_AGAIN,
    FORM,
    IN_PYTHON,
    MOST_CLASSES,
    build_model,
    build_registered,
    build_transformers,
    check_number,
    timm_options,
)
from efface.io.atomic import atomic_folder, atomic_write
from efface.io.checkpoints import Checkpoint, load_checkpoint
from efface.io.features import FeatureSpec, Spec
from efface.io.files import copy_mode, read_json
from efface.io.foreign import refuse_folder
from efface.io.processors import (
    PROCESSOR,
    preprocessing_by_hand,
    timm_preprocessing,
    transformers_preprocessing,
)
from efface.runtime import to_eval, upcast_to_fp32
from efface.task import outputs_in

Paths = tuple[Path, ...]

WEIGHTS, RECIPE, CONFIG = "model.safetensors", "recipe.json", "config.json"
FEATURES = "features.json"
SCHEMA = 1
GIVE_FILE = "Train again with this version, or give the weights file with --architecture."

SINGLE = ("model.safetensors", "pytorch_model.bin")

# configurations, tokenizers, processors, model cards and code: copied byte for byte
TEXTS = {".json", ".txt", ".md", ".model", ".jinja", ".vocab", ".bpe", ".tiktoken", ".spm", ".py"}
# texts about the training run, and with it about its data
TRAINING = {"trainer_state.json", "all_results.json", "train_results.json"}


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model in eval mode with what is needed to feed it and to write it back.

    ``parts``: the weights file, or all of them; ``copied_files`` are written back as they are;
    ``omitted_files`` may hold the data and are not; ``stored``: by the model's name of a tensor its
    dtype in the file (the model itself is float32).
    """

    model: nn.Module
    parts: tuple[Checkpoint, ...]
    preprocessing: Spec
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
        """Write ``model`` as the given one came: its weights, and the files next to them.

        Each file is as readable as the one it replaces; until all are written, none is by others.
        """
        state, mode = model.state_dict(), folder.stat().st_mode
        folder.chmod(0o700)
        for part in self.parts:
            part.write(state, folder / part.path.name)
        for path in self.copied_files:
            atomic_write(folder / path.name, path.read_bytes())
        for path in (*(part.path for part in self.parts), *self.copied_files):
            copy_mode(path, folder / path.name)
        folder.chmod(mode)


# a module still without its weights, the files that hold them, its name, and what is known of both
Unfilled = tuple[nn.Module, tuple[Checkpoint, ...], str, dict[str, Any]]
Untrained = tuple[nn.Module, str, dict[str, Any]]


def load_model(
    path: str | Path,
    *,
    architecture: str | nn.Module | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | None = None,
    resize: int | None = None,
    interpolation: str | None = None,
    feature_spec: str | Path | Mapping[str, Any] | FeatureSpec | None = None,
    weights_in: str | None = None,
    classes: Sequence[str] | None = None,
) -> LoadedModel:
    """Load a folder of efface, transformers or timm, or a weights file with its architecture named.

    Args:
        path: the folder, or a file of safetensors or of ``torch.save``.
        architecture: of a file: ``timm:NAME``, ``package.module:factory`` (such as
            ``torchvision.models:resnet18``), ``path/to/file.py:factory``, or a module, which is
            copied and not changed.
        mean: of the pixels, 0..1, one number a channel; recipe.json, timm and transformers state
            theirs.
        std: likewise.
        size: height and width that the model takes, in pixels.
        resize: the shorter side before the centre is cropped; by default ``size``.
        interpolation: ``nearest``, ``bilinear`` (the default), ``bicubic`` or ``lanczos``.
        feature_spec: how rows of a table become inputs, for a tabular model: a JSON file or its
            content (see ``FeatureSpec``); a folder may hold it as features.json.
        weights_in: of a file with several copies of the weights (raw and averaged) the one to take,
            by its entries and prefix, such as ``state_dict.ema``; ``.`` is the top.
        classes: names of the classes in the order of the model's outputs; the folder's otherwise.

    Raises:
        InputError: something is not named, or the weights do not fit the architecture.
        UnsafeFile: the file would have to be unpickled, or is damaged.
        MissingExtra: timm or transformers is needed and not installed.
    """
    path = Path(path)
    if path.is_dir():
        if weights_in is not None:
            came, remedy = f"the folder {path}", "Omit it, or name the weights file."
            raise InputError(f"a weights file that holds {weights_in!r}", came, remedy)
        model, parts, name, known = _from_folder(path, architecture)
    else:
        model, parts, name, known = _from_file(path, architecture, weights_in)
    state = {name: tensor for part in parts for name, tensor in part.state.items()}
    _refuse_misfit(model, state, name)
    # a portion at a time: a large model must not be in memory twice
    for part in parts:
        for portion in part.portions():
            model.load_state_dict(portion, strict=False)
    by_hand = {"mean": mean, "std": std, "size": size}
    by_hand |= {"resize": resize, "interpolation": interpolation}
    preprocessing = _preprocessing(known, by_hand, feature_spec)
    stored = {name: tensor.dtype for name, tensor in state.items()}
    classes = tuple(classes or _class_names(known.get("classes")))
    # one name is that of a sigmoid unit
    classes = classes if len(classes) > 1 else None
    copied, omitted = known.get("files", ((), ()))
    model, recipe = to_eval(model), known.get("recipe_json")
    return LoadedModel(model, parts, preprocessing, name, stored, classes, copied, omitted, recipe)


def _class_names(given: Any) -> tuple[str, ...]:
    """The names that a folder states, none where it does not. Raises InputError."""
    names = given or ()
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise InputError("a list of texts as names of the classes", f"{given!r:.60}", FETCH_AGAIN)
    return tuple(names)


def _module(architecture: str | nn.Module, num_classes: int | None = None) -> tuple[nn.Module, str]:
    """The module of a name, or a float32 copy of a given one, and what it is called."""
    if isinstance(architecture, nn.Module):
        kind = type(architecture)
        return copy.deepcopy(upcast_to_fp32(architecture)), f"{kind.__module__}.{kind.__qualname__}"
    return build_model(architecture, num_classes), architecture


def _from_file(
    path: Path, architecture: str | nn.Module | None, weights_in: str | None = None
) -> Unfilled:
    """A weights file, with its architecture named."""
    if architecture is None:
        # a file that cannot serve is refused for that first
        load_checkpoint(path)
        raise InputError(f"the architecture of {path.name}", "none", f"Give --architecture {FORM}.")
    model, name = _module(architecture)
    part = load_checkpoint(path, model.state_dict(), weights_in=weights_in)
    classes = num_classes_in(part.state, model)
    if isinstance(architecture, str) and classes:
        # two models at once would be twice the memory
        del model
        model = build_model(architecture, classes)
    config = getattr(model, "pretrained_cfg", None)
    known = {"stated": partial(timm_preprocessing, config)} if isinstance(config, dict) else {}
    return model, (part,), name, known


def _from_folder(path: Path, architecture: str | nn.Module | None) -> Unfilled:
    """A folder of efface, timm or transformers: recipe.json or config.json says which."""
    if (path / RECIPE).exists() or not (path / CONFIG).exists():
        return _from_own_folder(path, architecture)
    config = read_json(path / CONFIG)
    files = weight_files(path)
    build = _timm_model if "pretrained_cfg" in config else _transformers_model
    nbytes = sum(file.stat().st_size for file in files)
    model, name, known = build(path, config, nbytes)
    # the model first: an unsupported architecture is refused before gigabytes are read
    parts, own = tuple(map(load_checkpoint, files)), model.state_dict()
    # transformers uses other names in its files
    if "pretrained_cfg" not in config and any(name not in own for p in parts for name in p.state):
        names = names_in_file(model)
        parts = tuple(part.rename(names) for part in parts)
    return model, parts, name, {**known, "files": other_files(path, files)}


def _from_own_folder(path: Path, architecture: str | nn.Module | None) -> Unfilled:
    """Weights with recipe.json, features.json or both; without a recipe the architecture is named.

    Both files are copied as they are.
    """
    features = {"features": path / FEATURES} if (path / FEATURES).is_file() else {}
    if features and not (path / RECIPE).exists():
        model, parts, name, _ = _from_file(path / WEIGHTS, architecture)
        return model, parts, name, {**features, "files": other_files(path, (path / WEIGHTS,))}
    if (path / "model").is_dir() and not (path / WEIGHTS).exists():
        raise InputError("the folder of a model", f"{path}, of a run", f"Give {path / 'model'}.")
    if not any((path / name).exists() for name in (RECIPE, WEIGHTS)):
        refuse_folder(path)
    recipe = _read_recipe(path, needs_images=not features)
    part = load_checkpoint(path / WEIGHTS)
    if architecture is None:
        name, size = recipe["architecture"], (path / WEIGHTS).stat().st_size
        model = build_registered(name, recipe["num_classes"], size)
    else:
        model, name = _module(architecture, recipe["num_classes"])
    files = ((path / RECIPE, *features.values()), ())
    return model, (part,), name, {**recipe, **features, "recipe_json": recipe, "files": files}


def _read_recipe(folder: Path, *, needs_images: bool) -> dict[str, Any]:
    """What recipe.json says; a tabular model has its preprocessing in features.json instead."""
    required = {"schema", "architecture", "num_classes"}
    required |= {"mean", "std", "size"} if needs_images else set()
    recipe = read_json(folder / RECIPE, f"{WEIGHTS} and {RECIPE} in {folder}", GIVE_FILE)
    missing = sorted(required - set(recipe))
    if missing or recipe["schema"] != SCHEMA:
        came = f"no {abbreviate(missing)}" if missing else f"schema {recipe['schema']!r}"
        raise InputError(f"a recipe of schema {SCHEMA} in {folder / RECIPE}", came, GIVE_FILE)
    check_number("num_classes", recipe["num_classes"], 1, MOST_CLASSES)
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
    # tied weights share an address
    filled = {own[name].data_ptr() for name in state if name in own}
    missing = [n for n in own if n not in state and own[n].data_ptr() not in filled]
    # a counter that nothing reads in eval mode; checkpoints before torch 0.4.1 have none
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in own]
    pairs = [(n, tuple(t.shape), tuple(own[n].shape)) for n, t in state.items() if n in own]
    shapes = [f"{n} {a} in the file, {b} in the model" for n, a, b in pairs if a != b]
    groups = {"missing": missing, "unexpected": unexpected, "other shapes": shapes}
    if any(groups.values()):
        came = "; ".join(f"{what}: {abbreviate(names)}" for what, names in groups.items())
        remedy = "Name their architecture."
        if any(0 in in_file for _, in_file, in_model in pairs if in_file != in_model):
            remedy = "DeepSpeed keeps them in partitions: join them with its zero_to_fp32.py."
        raise InputError(f"weights that fit {architecture}", came, remedy)


def _preprocessing(known: Mapping[str, Any], given: Mapping[str, Any], features: Any) -> Spec:
    """What the user gives, else what the model states: a feature spec, or how to read images."""
    features = known.get("features") if features is None else features
    flags = {name: value for name, value in given.items() if value is not None}
    if features is not None:
        if flags:
            wanted = "features of a table, or the preprocessing of images"
            raise InputError(wanted, f"features and {', '.join(flags)}", "Omit one of them.")
        if isinstance(features, str | Path):
            return FeatureSpec.read(features)
        return features if isinstance(features, FeatureSpec) else FeatureSpec(features)
    if "stated" not in known or {"mean", "std", "size"} <= set(flags):
        return preprocessing_by_hand({**known.get("recipe_json", {}), **flags})
    stated = known["stated"]()
    if stated is None or not flags:
        return stated or preprocessing_by_hand(flags)
    # what the library does besides is then not done
    if "size" not in flags or stated.bgr:
        wanted = "--mean --std --size, or none of them where the model states its preprocessing"
        raise InputError(wanted, f"{', '.join(flags)} alone", "Give all three, or omit them.")
    return preprocessing_by_hand({"mean": stated.mean, "std": stated.std, **flags})


def num_classes_in(state: Mapping[str, Tensor], model: nn.Module) -> int | None:
    """The number of classes of the weights, where the model was built with another number.

    Read from the model's last tensor of another shape, when it differs in its length alone.
    """
    own = model.state_dict()
    last = [n for n in own if n in state and state[n].ndim and state[n].shape != own[n].shape]
    if not last or state[last[-1]].shape[1:] != own[last[-1]].shape[1:]:
        return None
    return state[last[-1]].shape[0]


# Folders


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The files that hold the weights, in the order of their names.

    Raises InputError when there are none, one is missing, the index names one elsewhere, or there
    is a whole file besides the parts.
    """
    names = [name for name in SINGLE if (folder / name).is_file()][:1]
    indexes = [folder / f"{name}.index.json" for name in SINGLE]
    if index := [path for path in indexes if path.is_file()]:
        names = sorted(set(read_json(index[0]).get("weight_map", {}).values()))
        whole = index[0].name.removesuffix(".index.json")
        if (folder / whole).is_file() and whole not in names:
            came = f"{whole}, and other parts in {index[0].name}"
            raise InputError(f"one set of weights in {folder}", came, "Remove what is not meant.")
    # an index from a stranger may name any file of this machine
    outside = [name for name in names if Path(name).name != name]
    missing = [name for name in names if not outside and not (folder / name).is_file()]
    if not names or outside or missing:
        wanted = f"{' or '.join(SINGLE)} in {folder}, whole or with its index and all parts"
        came = f"a part named {outside[0]!r}" if outside else f"no {', '.join(missing or SINGLE)}"
        raise InputError(wanted, came, "Fetch all files, or save again (save_pretrained).")
    return tuple(folder / name for name in names)


def other_files(folder: Path, weights: Paths) -> tuple[Paths, tuple[str, ...]]:
    """The files to copy as they are, and the names of what is omitted.

    Omitted is whatever may hold the data or other weights: training state, exports, folders.
    """
    others = [path for path in sorted(folder.iterdir()) if path not in weights]
    texts = [path for path in others if path.is_file() and path.suffix.lower() in TEXTS]
    copied = tuple(path for path in texts if path.name not in TRAINING)
    return copied, tuple(path.name for path in others if path not in copied)


def _timm_model(folder: Path, config: Mapping[str, Any], nbytes: int) -> Untrained:
    """The untrained model of timm's config.json.

    Raises InputError when there is no name, MissingExtra for timm.
    """
    name = config.get("architecture")
    if not isinstance(name, str):
        wanted = f"an 'architecture' in {folder / CONFIG}"
        raise InputError(wanted, repr(name), "Save it again with timm's save_for_hf.")
    stated = partial(timm_preprocessing, config["pretrained_cfg"])
    known = {"stated": stated, "classes": config.get("label_names")}
    options = timm_options(config)
    model = build_registered(f"timm:{name}", config.get("num_classes"), nbytes, options)
    return model, f"timm:{name}", known


def _transformers_model(folder: Path, config: Mapping[str, Any], nbytes: int) -> Untrained:
    """The untrained model that config.json names; no code of the folder is run.

    Raises InputError for a model that is no image classifier, MissingExtra for transformers.
    """
    model, name = build_transformers(config, nbytes)
    settings = cast("Any", model).config
    classes = [name for _, name in sorted(settings.id2label.items())]
    # the default names carry no meaning and would be matched with the data's by accident
    made_up = classes == [f"LABEL_{place}" for place in range(len(classes))]
    stated = partial(transformers_preprocessing, _stated_processor(folder), config)
    known = {"stated": stated, "classes": None if made_up else classes}
    return model, f"transformers:{name}", known


def _stated_processor(folder: Path) -> dict[str, Any]:
    """What transformers reads of an image processor: its own file, else that of all processors."""
    everything = folder / "processor_config.json"
    stated = read_json(everything).get("image_processor") if everything.is_file() else None
    if isinstance(stated, dict):
        return stated
    path = folder / PROCESSOR
    return read_json(path) if path.is_file() else {}


def names_in_file(model: nn.Module) -> dict[str, str]:
    """By the model's name of a tensor the name that save_pretrained gives it.

    transformers 5 keeps the names of older files and uses new ones in its models. Raises InputError
    where it also joins or splits tensors, so that no tensor of the file is one of the model's.
    """
    try:
        from transformers.core_model_loading import revert_weight_conversion
    except ImportError:
        # an older transformers, whose names are those of its files
        return {}
    # tensors are recognised by their addresses: each is one number expanded to its shape
    state = {n: t.new_empty(()).expand(t.shape) for n, t in model.state_dict().items()}
    reverted = revert_weight_conversion(cast("Any", model), dict(state))
    names = {tensor.data_ptr(): name for name, tensor in reverted.items()}
    if joined := [name for name, tensor in state.items() if tensor.data_ptr() not in names]:
        came = f"{type(model).__name__}, which joins {joined[0]} with others"
        raise InputError("a transformers model of the file's own tensors", came, IN_PYTHON)
    return {name: names[tensor.data_ptr()] for name, tensor in state.items()}
