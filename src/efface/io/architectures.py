"""Which module a checkpoint belongs to: a factory by its name, a timm or a transformers folder.

A transformers folder has config.json with ``architectures``, a timm folder one with
``pretrained_cfg``. Their weights are one file, or several with an index. Nothing here loads
weights or runs code out of a folder; the preprocessing that a folder states is returned as keyword
arguments of ``Preprocessing``.
"""

import importlib
import inspect
import json
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, cast

import torch
from torch import Tensor, nn

from efface.errors import EffaceError, InputError, did_you_mean, import_extra

LIMIT_SECONDS = 120.0  # importing and calling a factory may take so long
LOOK_UP = "Look the name up in its documentation."

INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SINGLE = ("model.safetensors", "pytorch_model.bin")

# configurations, tokenizers, processors, model cards and code: copied byte for byte
TEXTS = {".json", ".txt", ".md", ".model", ".jinja", ".vocab", ".bpe", ".tiktoken", ".spm", ".py"}
# texts about the training run, and with it about its data
TRAINING = {"trainer_state.json", "all_results.json", "train_results.json"}

RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # PIL's numbers


def build_model(architecture: str, num_classes: int | None = None) -> nn.Module:
    """An untrained model of ``timm:NAME`` or ``package.module:factory``; nothing is downloaded.

    ``num_classes`` None is the model's own default. The global random state is unchanged.
    Raises InputError for an unknown name, for a factory that raises, hangs or returns no module;
    MissingExtra for timm.
    """
    with _supervise(architecture, LIMIT_SECONDS):
        factory = _factory(architecture)
        parameters = inspect.signature(factory).parameters.values()
        takes = any(p.name == "num_classes" or p.kind is p.VAR_KEYWORD for p in parameters)
        options = {} if num_classes is None or not takes else {"num_classes": num_classes}
        with torch.random.fork_rng(devices=[]):
            try:
                model = factory(**options)
            except TypeError as error:
                wanted = f"a factory that needs nothing but num_classes: {architecture}"
                remedy = "Write a small function that returns your model, and name that."
                raise InputError(wanted, str(error), remedy) from error
        if not isinstance(model, nn.Module):
            remedy = "Name a function that makes one."
            raise InputError(f"a torch module from {architecture}", type(model).__name__, remedy)
        return model


@contextmanager
def _supervise(architecture: str, seconds: float) -> Iterator[None]:
    """Refuse user code that raises, exits the program, or does not return in time."""

    def expire(number: int, frame: object) -> NoReturn:  # noqa: ARG001
        raise TimeoutError(f"no answer within {seconds:g} s")

    # the alarm of the system may be set in the main thread only; elsewhere there is no limit
    timed = threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGALRM")
    before = signal.signal(signal.SIGALRM, expire) if timed else None
    if timed:
        signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except EffaceError:
        raise
    except (Exception, SystemExit) as error:
        came = f"{type(error).__name__}: {error}".splitlines()[0]
        remedy = "Fix the factory: it must return an untrained model, and do nothing else."
        raise InputError(f"a model from {architecture}", came, remedy) from error
    finally:
        if timed:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def _factory(architecture: str) -> Callable[..., Any]:
    if architecture.startswith("timm:"):
        return _timm_factory(architecture.removeprefix("timm:"))
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", architecture):
        wanted = "an architecture as timm:NAME or package.module:factory"
        remedy = "Such as timm:resnet18 or torchvision.models:resnet18."
        raise InputError(wanted, repr(architecture), remedy)
    module_name, name = architecture.split(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        remedy = "Install it, or put it on PYTHONPATH."
        raise InputError(f"a module named {module_name}", str(error), remedy) from error
    factory = getattr(module, name, None)
    if not callable(factory):
        known = [n for n, value in vars(module).items() if n[0] != "_" and callable(value)]
        remedy = did_you_mean(name, known, LOOK_UP)
        raise InputError(f"a function or class of {module_name}", repr(name), remedy)
    return factory


def _timm_factory(name: str) -> Callable[..., Any]:
    timm = import_extra("timm")
    if not timm.is_model(name.split(".", maxsplit=1)[0]):
        remedy = did_you_mean(name, timm.list_models(), LOOK_UP)
        raise InputError("a model that timm knows", repr(name), remedy)
    return lambda **options: timm.create_model(name, pretrained=False, **options)


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


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises InputError when there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        remedy = "Fetch or write the folder again."
        raise InputError(f"a JSON object in {path}", type(error).__name__, remedy) from error
    if not isinstance(value, dict):
        raise InputError(f"a JSON object in {path}", type(value).__name__, "Write it again.")
    return value


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The files that hold the weights, in the order of their names.

    Raises InputError when there are none, one is missing, or the index names one elsewhere.
    """
    index = next((folder / name for name in INDEXES if (folder / name).is_file()), None)
    if index:
        names = sorted(set(read_json(index).get("weight_map", {}).values()))
    else:
        names = [name for name in SINGLE if (folder / name).is_file()][:1]
    # an index from a stranger may name any file of this machine
    outside = [name for name in names if Path(name).name != name]
    missing = [name for name in names if not outside and not (folder / name).is_file()]
    if not names or outside or missing:
        raise InputError(
            f"weights in {folder}: {' or '.join(SINGLE)}, whole or with its index and all parts",
            f"a part named {outside[0]!r}" if outside else f"no {', '.join(missing or SINGLE)}",
            "Save the model again with safetensors (save_pretrained does), or fetch all its files.",
        )
    return tuple(folder / name for name in names)


def other_files(
    folder: Path, weights: tuple[Path, ...]
) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """The files to copy as they are, and the names of what is omitted.

    Omitted is whatever may hold the data or other weights: training state, exports, folders.
    """
    others = [path for path in sorted(folder.iterdir()) if path not in weights]
    texts = [path for path in others if path.is_file() and path.suffix.lower() in TEXTS]
    copied = tuple(path for path in texts if path.name not in TRAINING)
    return copied, tuple(path.name for path in others if path not in copied)


def timm_model(folder: Path, config: Mapping[str, Any]) -> tuple[nn.Module, str]:
    """The untrained model of timm's config.json, and its name.

    Raises InputError when there is no name, MissingExtra for timm.
    """
    name = config.get("architecture")
    if not isinstance(name, str):
        wanted = f"the name of a model under 'architecture' in {folder / 'config.json'}"
        raise InputError(wanted, repr(name), "Save the folder again with timm.models.save_for_hf.")
    return build_model(f"timm:{name}", config.get("num_classes")), f"timm:{name}"


def transformers_model(folder: Path, config: Mapping[str, Any]) -> tuple[nn.Module, str]:
    """The untrained model that config.json names, and that name; no code of the folder is run.

    Raises InputError for a model that is no image classifier, MissingExtra for transformers.
    """
    transformers = import_extra("transformers")
    name = str((config.get("architectures") or ["no architecture"])[0])
    model_class = getattr(transformers, name, None)
    if model_class is None or "ImageClassification" not in name:
        raise InputError(
            f"an image classifier of transformers in {folder / 'config.json'}",
            name,
            "Other tasks are served in Python: efface.forget(model, Split(…)) takes any module "
            "that returns logits.",
        )
    options = {"local_files_only": True, "trust_remote_code": False}
    config = transformers.AutoConfig.from_pretrained(folder, **options)
    with torch.random.fork_rng(devices=[]):
        return model_class(config).float(), f"transformers:{name}"


def class_names(model: nn.Module) -> list[str] | None:
    """The names of a transformers model's classes; None for those that it makes up itself."""
    config: Any = model.config
    names = [name for _, name in sorted(config.id2label.items())]
    return None if names == [f"LABEL_{place}" for place in range(len(names))] else names


def names_in_file(model: nn.Module) -> dict[str, str]:
    """By the model's name of a tensor the name that save_pretrained gives it.

    transformers 5 keeps the names of older files and uses new ones in its models. Raises InputError
    where it also joins or splits tensors, so that no tensor of the file is one of the model's.
    """
    try:
        from transformers.core_model_loading import revert_weight_conversion
    except ImportError:  # an older transformers, whose names are those of its files
        return {}
    # tensors are recognised by their addresses: each is one number expanded to its shape
    state = {n: t.new_empty(()).expand(t.shape) for n, t in model.state_dict().items()}
    reverted = revert_weight_conversion(cast("Any", model), dict(state))
    names = {tensor.data_ptr(): name for name, tensor in reverted.items()}
    if joined := [name for name, tensor in state.items() if tensor.data_ptr() not in names]:
        raise InputError(
            "a transformers model whose tensors stand one by one in its files",
            f"{type(model).__name__}, which joins {joined[0]} with others",
            "Load it with transformers and pass the module to efface.forget in Python.",
        )
    return {name: names[tensor.data_ptr()] for name, tensor in state.items()}


# Preprocessing that a folder states


def timm_preprocessing(config: Mapping[str, Any]) -> dict[str, Any]:
    """From timm's ``pretrained_cfg``; nothing where it does not say.

    Raises InputError for a crop mode other than center and squash.
    """
    if not {"mean", "std", "input_size"} <= set(config):
        return {}
    size, crop = config["input_size"][-1], config.get("crop_pct") or 0.875
    mode = config.get("crop_mode") or "center"
    if mode not in {"center", "squash"}:
        remedy = "Give --mean --std --size."
        raise InputError("a centre crop or squashed images", f"crop_mode {mode!r}", remedy)
    scaling = {"size": size, "resize": int(size / crop), "squash": mode == "squash"}
    scaling["interpolation"] = config.get("interpolation") or "bicubic"
    return {"mean": config["mean"], "std": config["std"], **scaling}


def transformers_preprocessing(folder: Path) -> dict[str, Any]:
    """From preprocessor_config.json; nothing without that file.

    Raises InputError, with the flags to give, for what ``Preprocessing`` cannot reproduce.
    """
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return {}
    config = read_json(path)
    factor = config.get("rescale_factor", 1 / 255)
    if not config.get("do_rescale", True) or abs(factor - 1 / 255) > 1e-6:  # noqa: PLR2004
        raise _unsupported(path, f"do_rescale {config.get('do_rescale')}, rescale_factor {factor}")
    normalize = config.get("do_normalize", True)
    return {
        "mean": config.get("image_mean") if normalize else [0.0] * 3,
        "std": config.get("image_std") if normalize else [1.0] * 3,
        "interpolation": RESAMPLE.get(config.get("resample", 2), str(config.get("resample"))),
        **_scaling(config, path),
    }


def _scaling(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Both sides squashed to one size, or the shorter side scaled and the centre cropped."""
    size, crop = config.get("size", 224), config.get("crop_size", 224)
    size = {"height": size, "width": size} if isinstance(size, int) else dict(size)
    crop = crop if isinstance(crop, int) else crop.get("height")
    if "shortest_edge" in size:
        side = size["shortest_edge"]
        if "crop_pct" in config:
            crops = side < 384  # noqa: PLR2004  # from 384 on ConvNextImageProcessor squashes
            resize = int(side / (config["crop_pct"] or 0.875)) if crops else side
            return {"size": side, "resize": resize, "squash": not crops}
        if not config.get("do_center_crop"):
            raise _unsupported(path, "a shortest edge without a centre crop")
        return {"size": crop, "resize": side}
    if size.get("height") != size.get("width") or config.get("do_center_crop"):
        raise _unsupported(path, f"size {size}, do_center_crop {config.get('do_center_crop')}")
    return {"size": size["height"], "squash": True}


def _unsupported(path: Path, came: str) -> InputError:
    remedy = "Give --mean --std --size, or pass inputs as tensors in Python."
    return InputError(f"preprocessing that efface can do as {path.name} has it", came, remedy)
