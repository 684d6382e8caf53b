"""Models that state their preprocessing get the very inputs that their own library makes."""

import json
import socket

import numpy as np
import pytest
import torch
from PIL import Image

from efface.io.images import Preprocessing
from efface.io.models import load_model
from efface.io.processors import (
    preprocessing_by_hand,
    timm_preprocessing,
    transformers_preprocessing,
)
from tests.refusals import refusal

timm = pytest.importorskip("timm", reason="NOT RUN: it needs timm")
transformers = pytest.importorskip("transformers", reason="NOT RUN: it needs transformers")
from timm.data import create_transform, resolve_data_config  # noqa: E402
from timm.models import save_for_hf  # noqa: E402
from transformers.models.auto import image_processing_auto, modeling_auto  # noqa: E402

COARSE = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
PHOTO = Image.fromarray(COARSE).resize((130, 90), Image.Resampling.BICUBIC)
# black and white, where filters overshoot most
PRINT = Image.fromarray((COARSE > 127).astype(np.uint8) * 255).resize((90, 130), 0)
STATED = ("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std")
HALF = [0.5] * 3


def timm_configurations():
    """By the name of a model each distinct way in which timm's models have images prepared."""
    named = {
        name: timm.get_pretrained_cfg(name) for name in timm.list_models() + timm.list_pretrained()
    }
    configs = {name: config.to_dict() for name, config in named.items() if config}
    distinct = {str([config[key] for key in STATED]): name for name, config in configs.items()}
    return {name: configs[name] for name in distinct.values()}


def assert_equal_inputs(ours, theirs):
    """Bit for bit on two images, and within the bounds of the report."""
    for image in (PHOTO, PRINT):
        x = ours(image)
        assert x.equal(theirs(image))
        assert ours.outside(x[None]) == ""
        assert ours.shape in {None, tuple(x.shape)}


@pytest.mark.parametrize("large", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_images_are_what_timm_makes_of_them(large):
    """Each distinct default configuration; those of more than 256 pixels a side take seconds."""
    configs = timm_configurations()
    assert len(configs) > 100
    for config in configs.values():
        settings = resolve_data_config({}, pretrained_cfg=config)
        if (max(settings["input_size"]) > 256) == large:
            ours = timm_preprocessing(config)
            assert_equal_inputs(ours, create_transform(**settings))
            assert ours.mean == pytest.approx(settings["mean"], abs=1e-6)
            assert ours.std == pytest.approx(settings["std"], abs=1e-6)


def processor_names():
    """The class of each image processor of transformers, with torchvision where it has two."""
    entries = image_processing_auto.IMAGE_PROCESSOR_MAPPING_NAMES.values()
    return sorted({name for entry in entries if (name := entry.get("torchvision"))})


def saved(folder, processor):
    """What save_pretrained writes of it."""
    processor.save_pretrained(folder)
    return json.loads((folder / "preprocessor_config.json").read_text())


# what classifiers have that do not take one array of one image
OTHER = {
    "Gemma3ImageProcessor": "pixel_values, num_crops of an image",
    "ImageGPTImageProcessor": "Clusters must be provided for color quantization",
    "Siglip2ImageProcessor": "pixel_values, pixel_attention_mask, spatial_shapes of an image",
}
BY_HAND = "Give --mean --std --size, with --resize and --interpolation where they matter."


def classifiers():
    """The processors that transformers has for its image classifiers."""
    entries = image_processing_auto.IMAGE_PROCESSOR_MAPPING_NAMES
    kinds = modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
    return {entries[kind].get("torchvision") for kind in kinds if kind in entries} - {None}


@pytest.mark.parametrize("name", sorted(classifiers() - set(OTHER)))
def test_images_are_what_transformers_makes_of_them(name, tmp_path):
    """At the defaults of its constructor, through the file, as AutoImageProcessor reads it."""
    stated = saved(tmp_path, getattr(transformers, name)())
    theirs = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    assert_equal_inputs(
        transformers_preprocessing(stated, {}),
        lambda image: theirs(images=image, return_tensors="pt")["pixel_values"][0],
    )


@pytest.mark.parametrize("name", [n for n in processor_names() if n not in classifiers()])
def test_processors_of_other_models_are_refused(name):
    """Some of their constructors fetch files."""
    assert refusal(transformers_preprocessing, {"image_processor_type": name}, {}) == (
        "Wanted an image processor of transformers' image classifiers in preprocessor_config.json. "
        f"Got {name}. {BY_HAND}"
    )


@pytest.mark.parametrize(("name", "why"), OTHER.items())
def test_processors_that_make_more_than_one_array_are_refused(name, why):
    assert refusal(transformers_preprocessing, {"image_processor_type": name}, {}) == (
        f"Wanted a preprocessor_config.json that {name} can use. Got {why}. {BY_HAND}"
    )


OLD = {"do_normalize": True, "do_resize": True, "size": 64, "image_mean": HALF, "image_std": HALF}
OLDER = {
    "ViT": (OLD | {"feature_extractor_type": "ViTFeatureExtractor", "resample": 2}, "vit"),
    "ConvNext": (OLD | {"feature_extractor_type": "ConvNextFeatureExtractor", "crop_pct": 0.8,
                        "size": 96}, "resnet"),
    "PoolFormer": (OLD | {"feature_extractor_type": "PoolFormerFeatureExtractor", "crop_pct": 0.9,
                          "do_resize_and_center_crop": True}, "poolformer"),
    "fast": (OLD | {"image_processor_type": "ViTImageProcessorFast", "device": None,
                    "data_format": "channels_first", "do_reduce_labels": None}, "vit"),
    "of the model": (OLD | {"do_center_crop": True, "crop_size": 60}, "deit"),
    "no scaling": (OLD | {"image_processor_type": "ViTImageProcessor", "do_rescale": False}, ""),
    "pixels": (OLD | {"image_processor_type": "ViTImageProcessor", "do_normalize": False}, ""),
    "two sides": (OLD | {"image_processor_type": "ViTImageProcessor",
                         "size": {"height": 48, "width": 80}}, ""),
    "as they come": (OLD | {"image_processor_type": "ViTImageProcessor", "do_resize": False}, ""),
}  # fmt: skip


@pytest.mark.parametrize(("stated", "kind"), OLDER.values(), ids=OLDER)
def test_configurations_of_every_age_are_read_as_transformers_reads_them(stated, kind, tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(stated))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind} if kind else {}))
    theirs = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    stated.pop("do_reduce_labels", None)
    assert_equal_inputs(
        transformers_preprocessing(stated, {"model_type": kind}),
        lambda image: theirs(images=image, return_tensors="pt")["pixel_values"][0],
    )


def test_two_files_that_say_the_same_are_one_preprocessing():
    """Scores are of models with the same inputs, whatever version wrote their folders."""
    short = {"feature_extractor_type": "ViTFeatureExtractor", "size": 64}
    long = {"image_processor_type": "ViTImageProcessor", "size": {"height": 64, "width": 64}}
    one, two = (transformers_preprocessing(stated, {}) for stated in (short, long))
    assert one == two != transformers_preprocessing(long | {"resample": 3}, {})


REFUSED = {
    "a key of another class": ({"crop_pct": 0.9}, "crop_pct, which it ignores"),
    "code of the folder": (
        {"auto_map": {"AutoImageProcessor": "mine.My"}},
        "auto_map, which it ignores",
    ),
    "an older way": (
        {"do_resize_and_center_crop": False},
        "do_resize_and_center_crop, which it ignores",
    ),
    "huge images": ({"size": 10**6}, "images of 1e+06 pixels a side"),
    "a nested number": ({"pad_size": {"height": 5000, "width": 8}}, "images of 5000 pixels a side"),
    "an unknown filter": ({"resample": 99}, "KeyError 99"),
    "two numbers": ({"image_mean": [0.5, 0.5]}, None),
    "words": ({"size": "large"}, None),
    "no numbers": (
        {"image_std": [float("nan")] * 3},
        "inputs that are not in proportion to the pixels",
    ),
    "nothing divided": ({"image_std": [0.0] * 3}, None),
    "a device": ({"device": "meta"}, None),
}


@pytest.mark.parametrize(("keys", "why"), REFUSED.values(), ids=REFUSED)
def test_what_a_processor_ignores_or_cannot_use_is_refused_by_name(keys, why):
    stated = OLD | {"image_processor_type": "ViTImageProcessor"} | keys
    sentence = refusal(transformers_preprocessing, stated, {})
    start, _, rest = sentence.partition(" Got ")
    assert start == "Wanted a preprocessor_config.json that ViTImageProcessor can use."
    assert rest == f"{why}. {BY_HAND}" or (why is None and rest.endswith(f". {BY_HAND}"))


TIMM = {"mean": HALF, "std": HALF, "input_size": [3, 32, 32], "interpolation": "bilinear"}
UNUSABLE = {
    "crop_pct 1e-09": {"crop_pct": 1e-9},
    "images of 100000 pixels a side": {"input_size": [3, 10**5, 10**5]},
    "images of 5 channels": {"input_size": [5, 32, 32], "mean": [0.5] * 5, "std": [0.5] * 5},
    "KeyError 'random'": {"interpolation": "random"},
}


@pytest.mark.parametrize(("why", "keys"), UNUSABLE.items())
def test_what_timm_cannot_use_is_refused(why, keys):
    assert refusal(timm_preprocessing, TIMM | keys) == (
        f"Wanted a pretrained_cfg that timm makes a transform of. Got {why}. {BY_HAND}"
    )


def test_grey_models_and_those_of_blue_green_red_are_recognised():
    grey = timm_preprocessing(TIMM | {"input_size": [1, 32, 32], "mean": [0.5], "std": [0.25]})
    assert (grey.shape, grey.mean, grey.std) == ((1, 32, 32), (0.5,), (0.25,))
    stated = OLD | {"image_processor_type": "ViTImageProcessor", "image_mean": [0.5]}
    stated |= {"image_std": [0.25]}
    assert transformers_preprocessing(stated, {"num_channels": 1}).mean == (0.5,)
    stated = {"image_processor_type": "MobileViTImageProcessor"}
    swapped, red = transformers_preprocessing(stated, {}), Image.new("RGB", (256, 256), (255, 0, 0))
    assert swapped(red)[:, 128, 128].tolist() == [0, 0, 1]
    assert swapped.pixels(swapped(red))[:, 128, 128].tolist() == [255, 0, 0]


def test_transparent_images_are_laid_on_white_where_the_processor_does():
    clear = Image.new("RGBA", (64, 64), (9, 8, 7, 0))
    for converts, expected in ((True, [255, 255, 255]), (False, [9, 8, 7])):
        stated = OLD | {"image_processor_type": "ViTImageProcessor", "do_convert_rgb": converts}
        ours = transformers_preprocessing(stated, {})
        assert ours.pixels(ours(clear))[:, 0, 0].tolist() == expected


def test_no_processor_connects(monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a connection"))
    assert transformers_preprocessing({"image_processor_type": "CLIPImageProcessor"}, {})


def folder_of(path, **stated):
    """A tiny ViT of transformers with its processor."""
    sizes = {"image_size": 32, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 1,
             "num_attention_heads": 2, "intermediate_size": 16}  # fmt: skip
    with torch.random.fork_rng():
        config = transformers.ViTConfig(**sizes, num_labels=3)
        transformers.ViTForImageClassification(config).save_pretrained(path)
    size = {"height": 32, "width": 32}
    transformers.ViTImageProcessor(size=size, **stated).save_pretrained(path)
    return path


ALL_OR_NONE = (
    "Wanted --mean --std --size, or none of them where the model states its preprocessing. "
    "Got mean alone. Give all three, or omit them."
)


def test_flags_replace_what_a_folder_states(tmp_path):
    folder = folder_of(tmp_path, resample=3, image_mean=[0.1, 0.2, 0.3])
    own, by_size = load_model(folder), load_model(folder, size=16, interpolation="nearest")
    assert own.preprocessing.shape == (3, 32, 32)
    assert by_size.preprocessing.mean == pytest.approx((0.1, 0.2, 0.3), abs=1e-6)
    assert (by_size.preprocessing.size, by_size.preprocessing.interpolation) == (16, "nearest")
    assert refusal(load_model, folder, mean=HALF) == ALL_OR_NONE
    (folder / "preprocessor_config.json").write_text('{"image_processor_type": "Trainer"}')
    by_hand = load_model(folder, mean=HALF, std=HALF, size=8, resize=9).preprocessing
    assert by_hand == Preprocessing((0.5,) * 3, (0.5,) * 3, 8, 9)


def test_the_processor_within_the_file_of_all_processors_comes_first(tmp_path):
    """As transformers reads it: newer folders have both."""
    folder = folder_of(tmp_path)
    stated = json.loads((folder / "preprocessor_config.json").read_text()) | {"size": 16}
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": stated}))
    theirs = transformers.AutoImageProcessor.from_pretrained(folder)
    x = theirs(images=PHOTO, return_tensors="pt")["pixel_values"][0]
    assert load_model(folder).preprocessing(PHOTO).equal(x)


def timm_folder(path, name, **arguments):
    """As timm writes it for the hub, and the model that timm reads out of it."""
    with torch.random.fork_rng():
        save_for_hf(timm.create_model(name, **arguments), path, safe_serialization=True)
    return timm.create_model(f"local-dir:{path}", pretrained=True).eval()


@pytest.mark.parametrize(
    ("name", "arguments", "channels"),
    [
        ("test_resnet", {"in_chans": 1, "num_classes": 5}, 1),
        ("test_vit", {"num_classes": 3, "img_size": 96, "global_pool": "avg"}, 3),
    ],
)
def test_a_folder_of_timm_is_built_with_the_arguments_it_states(
    tmp_path, name, arguments, channels
):
    theirs, loaded = timm_folder(tmp_path, name, **arguments), load_model(tmp_path)
    assert loaded.preprocessing.shape[0] == channels
    x = loaded.preprocessing(PHOTO)[None]
    assert loaded.model(x).equal(theirs(x))


TIMMS_OWN = (
    "Wanted model_args of the class of the model. Got 'checkpoint_path', of timm. Where you "
)
TIMMS_OWN += "trust it, type it: --architecture package.module:factory."
NO_WORD = (
    "Wanted numbers, plain words and lists of at most 1000 as act_layer. Got '../x'. In Python "
)
NO_WORD += "efface.forget(model, Split(…)) takes any module that returns logits."
NO_OBJECT = "Wanted objects as pretrained_cfg and model_args. Got dict, list. Fetch or write the "
NO_OBJECT += "folder again."
ARGUMENTS = [({"checkpoint_path": "x.pth"}, TIMMS_OWN), ({"act_layer": "../x"}, NO_WORD)]


@pytest.mark.parametrize(("arguments", "sentence"), [*ARGUMENTS, ([1], NO_OBJECT)])
def test_arguments_of_timm_itself_are_refused(tmp_path, arguments, sentence):
    timm_folder(tmp_path, "test_resnet")
    config = json.loads((tmp_path / "config.json").read_text()) | {"model_args": arguments}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert refusal(load_model, tmp_path) == sentence


@pytest.mark.parametrize("size", [float("inf"), float("nan"), 28.5, "28", [28]])
def test_a_size_that_is_no_integer_is_refused(size):
    wanted = "Wanted numbers for mean and std, integers for size. Got {"
    assert refusal(preprocessing_by_hand, {"mean": [0], "std": [1], "size": size}).startswith(
        wanted
    )
