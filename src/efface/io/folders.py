"""Folders that other libraries write: which files hold the weights, what else is copied, inputs.

A transformers folder has config.json with ``architectures``, a timm folder one with
``pretrained_cfg``. Weights are one file or several behind an index, of safetensors or torch.save.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from efface.errors import InputError, MissingExtra
from efface.io.architecture import build

INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SINGLE = ("model.safetensors", "pytorch_model.bin")

TEXTS = frozenset(
    {".json", ".txt", ".md", ".model", ".jinja", ".vocab", ".bpe", ".tiktoken", ".spm", ".py"}
)
"""Configurations, tokenizers, processors, model cards and code: copied byte for byte."""

TRAINING = frozenset({"trainer_state.json", "all_results.json", "train_results.json"})
"""Texts that tell of the training run, and with it of its data."""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises InputError when there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"a JSON object in {path}", type(error).__name__, "Fetch or write the folder again."
        ) from error
    if not isinstance(found, dict):
        raise InputError(f"a JSON object in {path}", type(found).__name__, "Write it again.")
    return found


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The files that hold the weights, in the order of their names.

    Raises InputError when there are none, one is missing, or the index names one elsewhere.
    """
    for index in INDEXES:
        if (folder / index).is_file():
            names = sorted(set(read_json(folder / index).get("weight_map", {}).values()))
            break
    else:
        names = [name for name in SINGLE if (folder / name).is_file()][:1]
    strange = [name for name in names if Path(name).name != name]
    missing = [name for name in names if not strange and not (folder / name).is_file()]
    if not names or strange or missing:
        raise InputError(
            f"weights in {folder}: {' or '.join(SINGLE)}, whole or with its index and all parts",
            f"a part named {strange[0]!r}" if strange else f"no {', '.join(missing or SINGLE)}",
            "Save the model again with safetensors (save_pretrained does), or fetch all its files.",
        )
    return tuple(folder / name for name in names)


def beside(folder: Path, weights: tuple[Path, ...]) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Files that are copied as they are, and names of what is left out.

    Left out is whatever may hold the data or other weights: the state of the training run,
    exports, further weights, folders.
    """
    others = [path for path in sorted(folder.iterdir()) if path not in weights]
    copied = tuple(
        path
        for path in others
        if path.is_file() and path.suffix.lower() in TEXTS and path.name not in TRAINING
    )
    return copied, tuple(path.name for path in others if path not in copied)


def transformers_net(folder: Path, config: Mapping[str, Any]) -> tuple[nn.Module, str]:
    """The untrained net that config.json names, and that name; no code of the folder is run.

    Raises InputError for a net that does not classify, MissingExtra for transformers.
    """
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra(
            "the package transformers",
            "none installed",
            "Install it: pip install 'efface[transformers]'.",
        ) from error
    name = str((config.get("architectures") or ["no architecture"])[0])
    kind = getattr(transformers, name, None)
    if kind is None or "ImageClassification" not in name:
        raise InputError(
            f"an image classifier of transformers in {folder / 'config.json'}",
            name,
            "Other tasks are served in Python: efface.forget(model, Split(…)) takes any module "
            "that answers with logits.",
        )
    read = transformers.AutoConfig.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    with torch.random.fork_rng(devices=[]):
        return kind(read).float(), f"transformers:{name}"


def class_names(model: nn.Module) -> list[str] | None:
    """The names of a transformers net's classes; None for those that it makes up itself."""
    config: Any = model.config
    names = [name for _, name in sorted(config.id2label.items())]
    return None if names == [f"LABEL_{place}" for place in range(len(names))] else names


def names_in_file(model: nn.Module) -> dict[str, str]:
    """By the model's name of a tensor the name that save_pretrained gives it.

    transformers 5 keeps the names of older files beside new ones in its nets. Raises InputError
    where tensors are joined or cut as well, so that no name in the file is one of the model's.
    """
    try:
        from transformers.core_model_loading import revert_weight_conversion
    except ImportError:  # an older transformers, whose names are those of its files
        return {}
    # names are told by addresses, so that one number of its own stands for each tensor
    state = {n: t.new_empty(()).expand(t.shape) for n, t in model.state_dict().items()}
    reverted = revert_weight_conversion(cast("Any", model), dict(state))
    places = {tensor.data_ptr(): name for name, tensor in reverted.items()}
    joined = [name for name, tensor in state.items() if tensor.data_ptr() not in places]
    if joined:
        raise InputError(
            "a transformers net whose tensors stand one by one in its files",
            f"{type(model).__name__}, which joins {joined[0]} with others",
            "Load it with transformers and hand the module to efface.forget in Python.",
        )
    return {name: places[tensor.data_ptr()] for name, tensor in state.items()}


def timm_net(folder: Path, config: Mapping[str, Any]) -> tuple[nn.Module, str]:
    """The untrained net that timm's config.json names. Raises InputError, MissingExtra for timm."""
    name = config.get("architecture")
    if not isinstance(name, str):
        raise InputError(
            f"the name of a net under 'architecture' in {folder / 'config.json'}",
            repr(name),
            "Save the folder again with timm.models.save_for_hf.",
        )
    return build(f"timm:{name}", config.get("num_classes")), f"timm:{name}"


def timm_inputs(config: Mapping[str, Any]) -> dict[str, Any]:
    """What timm knows of a net's inputs; nothing where it knows nothing."""
    if not {"mean", "std", "input_size"} <= set(config):
        return {}
    size, share = config["input_size"][-1], config.get("crop_pct") or 0.875
    mode = config.get("crop_mode") or "center"
    if mode not in {"center", "squash"}:
        raise InputError(
            "images cut to the middle or squashed",
            f"crop_mode {mode!r}",
            "Give --mean --std --size.",
        )
    return {
        "mean": config["mean"],
        "std": config["std"],
        "size": size,
        "resize": int(size / share),
        "interpolation": config.get("interpolation") or "bicubic",
        "squash": mode == "squash",
    }


RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


def transformers_inputs(folder: Path) -> dict[str, Any]:
    """What preprocessor_config.json says of the inputs; nothing without that file.

    Raises InputError, with the flags to give, for what cannot be done here as it is done there.
    """
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return {}
    said = read_json(path)
    factor = said.get("rescale_factor", 1 / 255)
    if not said.get("do_rescale", True) or abs(factor - 1 / 255) > 1e-6:  # noqa: PLR2004
        raise _other(path, f"do_rescale {said.get('do_rescale')}, rescale_factor {factor}")
    normal = said.get("do_normalize", True)
    return {
        "mean": said.get("image_mean") if normal else [0.0] * 3,
        "std": said.get("image_std") if normal else [1.0] * 3,
        **_scaled(said, path),
    }


def _scaled(said: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """How images become one size: squashed, or scaled by the shorter side and cut to the middle."""
    how = {"interpolation": RESAMPLE.get(said.get("resample", 2), str(said.get("resample")))}
    size = said.get("size", 224)
    size = {"height": size, "width": size} if isinstance(size, int) else dict(size)
    crop = said.get("crop_size", 224)
    crop = crop if isinstance(crop, int) else crop.get("height")
    if "shortest_edge" in size:
        side = size["shortest_edge"]
        if "crop_pct" in said:
            few = side < 384  # noqa: PLR2004  # as ConvNextImageProcessor has it
            resize = int(side / (said["crop_pct"] or 0.875))
            return {**how, "size": side, "resize": resize if few else side, "squash": not few}
        if not said.get("do_center_crop"):
            raise _other(path, "a shortest edge and no middle to cut out")
        return {**how, "size": crop, "resize": side}
    if size.get("height") != size.get("width") or said.get("do_center_crop"):
        raise _other(path, f"size {size}, do_center_crop {said.get('do_center_crop')}")
    return {**how, "size": size["height"], "squash": True}


def _other(path: Path, came: str) -> InputError:
    return InputError(
        f"preprocessing that efface can do as {path.name} has it",
        came,
        "Give --mean --std --size, or hand over inputs as tensors in Python.",
    )
