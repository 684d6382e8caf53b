"""Preprocessing that comes with a model: the transforms of timm and transformers, as they are.

A configuration sets numbers and chooses among the processors that its library has for image
classifiers. A key that the library would ignore, and a processor that does more than scale, crop
and normalise, is refused by name. Nothing of the folder is executed, and nothing is fetched.
"""

import json
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import index
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from efface.errors import InputError, abbreviate, import_extra
from efface.io.images import MODES, Preprocessing

Transform = Callable[[Image.Image], Tensor]
Settings = Mapping[str, Any]

GIVE_PREPROCESSING = (
    "Give --mean --std --size, such as --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225 --size "
    "224, or --feature-spec FILE.json for a tabular model."
)
BY_HAND = "Give --mean --std --size, with --resize and --interpolation where they matter."
PROCESSOR = "preprocessor_config.json"
# a transform is tried on images, and a stranger's numbers must not take all the memory
MAX_SIDE, MIN_CROP = 4096, 0.1
# names of classes, a list of the other keys, and what concerns maps of labels
INERT = {"image_processor_type", "feature_extractor_type", "processor_class"}
INERT |= {"_valid_processor_keys", "reduce_labels"}
# older names of what transformers does today without being asked
STANDARD = {"do_resize_and_center_crop": True}


@dataclass(frozen=True, repr=False)
class LibraryPreprocessing(Preprocessing):
    """A transform of timm or transformers.

    ``mean`` and ``std`` are what it amounts to, measured on images of one colour; ``settings``: the
    library's configuration; ``transform``: an image to an input; ``input_shape``: (c, h, w), None
    where it depends on the image's; ``bgr``: it gives blue, green, red.
    """

    settings: str = ""
    transform: Transform = field(default=torch.as_tensor, compare=False)
    input_shape: tuple[int, ...] | None = None
    bgr: bool = False

    def __call__(self, image: Image.Image) -> Tensor:
        """The library's input of an image."""
        return self.transform(image)

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Of one input; None where it depends on the image's."""
        return self.input_shape

    def pixels(self, x: Tensor) -> Tensor:
        """Inputs (…, c, h, w) back to bytes, red first."""
        pixels = super().pixels(x)
        return pixels.flip(-3) if self.bgr else pixels

    def __repr__(self) -> str:
        return self.settings


def measure_transform(settings: str, transform: Transform, channels: int) -> LibraryPreprocessing:
    """A transform with its mean, std and the shape of its inputs.

    Raises ValueError unless it is (pixel / 255 - mean) / std of each channel, scaled, cropped, and
    padded with colours between black and white.
    """

    def of_colour(*colour: int, size: tuple[int, int] = (48, 32)) -> Tensor:
        x = transform(Image.new(MODES[channels], size, colour[:channels]))
        if x.ndim != 3 or len(x) != channels:  # noqa: PLR2004
            raise ValueError(f"arrays of shape {tuple(x.shape)} from {channels} channels")
        return x.double()

    def centre(x: Tensor) -> Tensor:
        # around it may be padding
        return x[:, x.shape[1] // 2, x.shape[2] // 2]

    if channels not in MODES:
        raise ValueError(f"images of {channels} channels")
    levels = [of_colour(level, level, level) for level in (0, 128, 255)]
    black, grey, white = map(centre, levels)
    span = white - black
    bend = (black + span * 128 / 255 - grey).abs().max()
    ends = (black.view(-1, 1, 1), white.view(-1, 1, 1))
    spill = max((x - x.clamp(*ends)).abs().max() for x in levels)
    # "not <" is true of nan, too
    if not max(bend, spill) < 1e-3 * span.min():
        raise ValueError("inputs that are not in proportion to the pixels")
    shape = tuple(levels[0].shape)
    depends = shape != tuple(of_colour(0, 0, 0, size=(32, 48)).shape)
    red = centre(of_colour(255, 0, 0))[0]
    return LibraryPreprocessing(
        tuple(round(mean, 9) for mean in (-black / span).tolist()),
        tuple(round(std, 9) for std in (1 / span).tolist()),
        settings=settings,
        transform=transform,
        input_shape=None if depends else shape,
        bgr=bool((red - black[0]).abs() < (red - white[0]).abs()),
    )


def preprocessing_by_hand(values: Settings) -> Preprocessing:
    """What the user or a recipe says. Raises InputError when it says too little."""
    values = {name: value for name, value in values.items() if value is not None}
    if missing := [name for name in ("mean", "std", "size") if name not in values]:
        wanted = "the preprocessing that the model was trained with"
        raise InputError(wanted, f"no {', '.join(missing)}", GIVE_PREPROCESSING)
    try:
        mean, std = (tuple(map(float, values[name])) for name in ("mean", "std"))
        sides = {name: index(values[name]) for name in ("size", "resize") if name in values}
    except (TypeError, ValueError, OverflowError) as error:
        wanted = "numbers for mean and std, integers for size"
        raise InputError(wanted, f"{values}", "Give them, or fix recipe.json.") from error
    return Preprocessing(mean, std, **sides, interpolation=values.get("interpolation", "bilinear"))


def timm_preprocessing(config: Settings) -> LibraryPreprocessing | None:
    """The transform that timm evaluates with; None where ``pretrained_cfg`` says too little.

    Raises InputError for what timm cannot use.
    """
    if not all(config.get(name) for name in ("mean", "std", "input_size")):
        return None
    data = import_extra("timm.data")
    with _refuse_errors("a pretrained_cfg that timm makes a transform of"):
        settings = data.resolve_data_config({}, pretrained_cfg=dict(config))
        _refuse_huge(settings)
        transform = data.create_transform(**settings, is_training=False)
        channels, text = settings["input_size"][0], f"timm {json.dumps(settings)}"

        def converted(image: Image.Image) -> Tensor:
            return transform(image.convert(MODES[channels]))

        return measure_transform(text, converted, channels)


def transformers_preprocessing(stated: Settings, config: Settings) -> LibraryPreprocessing | None:
    """The image processor of preprocessor_config.json; None where it is empty.

    ``config``: the model's, which has the number of channels. Raises InputError for a processor of
    no image classifier, for keys that it ignores, and for what it cannot use.
    """
    if not stated:
        return None
    name = _processor_name(stated, config)
    with _refuse_errors(f"a {PROCESSOR} that {name} can use"):
        _refuse_huge(stated)
        kind = getattr(import_extra("transformers"), name)
        known = INERT | set(kind.valid_kwargs.__annotations__)
        unknown = {key: value for key, value in stated.items() if key not in known}
        if ignored := sorted(key for key in unknown if unknown[key] != STANDARD.get(key, ...)):
            raise ValueError(f"{abbreviate(ignored)}, which it ignores")
        processor, channels = kind(**stated), int(config.get("num_channels", 3))
        # some lay transparent images on white, which convert would not
        as_it_is = channels > 1 and getattr(processor, "do_convert_rgb", False)

        def transform(image: Image.Image) -> Tensor:
            image = image if as_it_is else image.convert(MODES[channels])
            made = processor(images=image, return_tensors="pt")
            if set(made) != {"pixel_values"}:
                raise ValueError(f"{', '.join(made)} of an image")
            return made["pixel_values"][0].float()

        # every setting, those by default too: two files may say the same in other words
        settings = json.dumps(processor.to_dict(), sort_keys=True, default=str)
        return measure_transform(f"{name} {settings}", transform, channels)


def _processor_name(stated: Settings, config: Settings) -> str:
    """The class that the file names, by its own or an older name, or that the model's type has.

    Raises InputError unless transformers has it for image classifiers: others may fetch files.
    """
    import_extra("transformers")
    from transformers.models.auto import image_processing_auto, modeling_auto

    classifiers = modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
    # with PIL there is a second class of each, which AutoImageProcessor takes without torchvision
    entries = image_processing_auto.IMAGE_PROCESSOR_MAPPING_NAMES
    of_type = {kind: entries.get(kind, {}).get("torchvision") for kind in classifiers}
    keys = ("image_processor_type", "feature_extractor_type")
    named = next((str(stated[key]) for key in keys if stated.get(key)), "").removesuffix("Fast")
    name = (
        named.replace("FeatureExtractor", "ImageProcessor")
        or of_type.get(str(config.get("model_type")))
        or ""
    )
    if name not in of_type.values():
        wanted = f"an image processor of transformers' image classifiers in {PROCESSOR}"
        raise InputError(wanted, f"{name:.80}" or "none", BY_HAND)
    return name


def _refuse_huge(stated: Settings) -> None:
    """Sizes are those of images, and crops are no tiny part of them."""

    def numbers(value: Any) -> list[Any]:
        if isinstance(value, Mapping | list | tuple):
            inner = value.values() if isinstance(value, Mapping) else value
            return [number for one in inner for number in numbers(one)]
        return [value] if isinstance(value, int | float) else []

    sides = [side for name in stated if "size" in name for side in numbers(stated[name])]
    if sides and max(sides) > MAX_SIDE:
        raise ValueError(f"images of {max(sides):g} pixels a side")
    if any(not number >= MIN_CROP for number in numbers([stated.get("crop_pct")])):
        raise ValueError(f"crop_pct {stated['crop_pct']}")


@contextmanager
def _refuse_errors(wanted: str) -> Generator[None]:
    """Whatever a configuration makes a library raise becomes an InputError."""
    try:
        yield
    except Exception as error:
        text = f"{error}".partition("\n")[0][:200].rstrip(".")
        came = text if isinstance(error, ValueError) else f"{type(error).__name__} {text}"
        raise InputError(wanted, came, BY_HAND) from error
