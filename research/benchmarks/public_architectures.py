"""Public architectures at ImageNet size: in, one record forgotten, out, and read by their library.

    python -m research.benchmarks.public_architectures           # all
    python -m research.benchmarks.public_architectures resnet18  # these, added to the record

timm, torchvision and transformers make each with random weights and 1,000 classes, and write it as
they do. ``efface forget --report quick`` takes two steps of gradient ascent on one image, with
twelve others as holdout. Then the same library reads the result, prepares the image by its own
transform, and its outputs are compared with what the report says of the forgotten record.
Writes research/results/public_architectures.json and .md.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from efface import guard
from efface.cli import main
from efface.errors import Outcome
from efface.io.models import load_model
from efface.report import context
from efface.task import logits
from research import pages
from research.pages import table
from research.tables import RESULTS, read_record, write_record

RESULT = "public_architectures"
STEPS = (
    "--method",
    "negative_gradient",
    "--setting",
    "epochs=2",
    "--setting",
    "learning_rate=1e-4",
    "--report",
    "quick",
)
# one image to forget, and the smallest holdout that is taken
IMAGES, CLASSES, SEED = 1 + 12, 1000, 0
Transform = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class Library:
    """How a library writes a model, what efface must be told, and how the library reads it again.

    ``write`` returns the file or folder; ``options``: of ``load_model``, and as flags of the
    command; ``read``: the module and the transform of its images.
    """

    write: Callable[[str, Path], Path]
    options: Callable[[str], dict[str, Any]]
    read: Callable[[str, Path], tuple[nn.Module, Transform]]


def write_timm(name: str, folder: Path) -> Path:
    """A folder, as for the hub."""
    timm: Any = import_module("timm")
    timm.models.save_for_hf(timm.create_model(name), folder / "model", safe_serialization=True)
    return folder / "model"


def read_timm(_: str, path: Path) -> tuple[nn.Module, Transform]:
    """By ``local-dir:``, with the transform that its configuration resolves to."""
    timm: Any = import_module("timm")
    model = timm.create_model(f"local-dir:{path}", pretrained=True)
    settings = timm.data.resolve_model_data_config(model)
    return model, timm.data.create_transform(**settings)


def write_torchvision(name: str, folder: Path) -> Path:
    """A state dict of ``torch.save``."""
    import torchvision

    torch.save(torchvision.models.get_model(name).state_dict(), folder / "model.pth")
    return folder / "model.pth"


def options_torchvision(name: str) -> dict[str, Any]:
    """Nothing in the file says what it is: architecture and preprocessing by hand."""
    how = _preset(name)
    numbers = {"mean": how.mean, "std": how.std, "size": how.crop_size[0]}
    scaling = {"resize": how.resize_size[0], "interpolation": how.interpolation.value}
    return {"architecture": f"torchvision.models:{name}", **numbers, **scaling}


def _preset(name: str) -> Any:
    import torchvision

    return next(iter(torchvision.models.get_model_weights(name))).transforms()


def read_torchvision(name: str, path: Path) -> tuple[nn.Module, Transform]:
    """``load_state_dict``, and the transform of the weights that torchvision has for the name."""
    import torchvision

    model = torchvision.models.get_model(name)
    model.load_state_dict(torch.load(path, weights_only=True))
    return model, _preset(name)


def write_transformers(name: str, folder: Path) -> Path:
    """``save_pretrained`` of the model and of its processor at its defaults."""
    import transformers

    kind, processor, sizes = TRANSFORMERS[name]
    config = getattr(transformers, f"{kind}Config")(num_labels=CLASSES, **sizes)
    getattr(transformers, f"{kind}ForImageClassification")(config).save_pretrained(folder / "model")
    made = getattr(transformers, f"{processor}ImageProcessor")(
        **({"size": {"shortest_edge": 224}} if processor == "ConvNext" else {})
    )
    made.save_pretrained(folder / "model")
    return folder / "model"


def read_transformers(_: str, path: Path) -> tuple[nn.Module, Transform]:
    """The two Auto classes."""
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    processor = AutoImageProcessor.from_pretrained(path)
    model = AutoModelForImageClassification.from_pretrained(path)
    return model, lambda image: processor(images=image, return_tensors="pt")["pixel_values"][0]


SMALL = {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768}
# the class of the model, that of its processor, and sizes where the default is not the smallest
TRANSFORMERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "vit-tiny": ("ViT", "ViT", SMALL),
    "deit-tiny": ("DeiT", "DeiT", SMALL),
    "convnext-tiny": ("ConvNext", "ConvNext", {}),
    "mobilevit-small": ("MobileViT", "MobileViT", {}),
}
LIBRARIES = {
    "timm": Library(write_timm, lambda _: {}, read_timm),
    "torchvision": Library(write_torchvision, options_torchvision, read_torchvision),
    "transformers": Library(write_transformers, lambda _: {}, read_transformers),
}
ARCHITECTURES = {
    "resnet50": "timm",
    "efficientnet_b0": "timm",
    "swin_tiny_patch4_window7_224": "timm",
    "vit_tiny_patch16_224": "timm",
    "resnet18": "torchvision",
    "mobilenet_v3_large": "torchvision",
    "regnet_y_400mf": "torchvision",
    "densenet121": "torchvision",
    **dict.fromkeys(TRANSFORMERS, "transformers"),
}


def write_images(folder: Path) -> tuple[Path, Path, Image.Image, int]:
    """Two tables of images of 400 by 300 pixels; the first, which has one row, its image and label."""
    random = np.random.default_rng(SEED)
    lines, images, labels = [], [], random.integers(CLASSES, size=IMAGES).tolist()
    for row, label in enumerate(labels):
        coarse = random.integers(0, 256, (9, 12, 3), dtype=np.uint8)
        images.append(Image.fromarray(coarse).resize((400, 300), Image.Resampling.BICUBIC))
        images[-1].save(folder / f"{row}.png")
        lines.append(f"r{row},{row}.png,{label}\n")
    tables = folder / "forget.csv", folder / "holdout.csv"
    for path, part in zip(tables, (lines[:1], lines[1:]), strict=True):
        path.write_text("id,image,label\n" + "".join(part))
    return *tables, images[0], labels[0]


def one(name: str) -> dict[str, Any]:
    """One architecture: written, forgotten from, and compared."""
    # Synthetic inputs of guard and report would be most of the cost (1,280 forward and backward
    # passes, 256 forward passes), and nothing of them is compared.
    vars(guard)["ENOUGH"] = 0
    vars(context).update(SYNTHETIC=4, REPEATED=4)
    library = LIBRARIES[ARCHITECTURES[name]]
    torch.manual_seed(SEED)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        data, holdout, image, label = write_images(place)
        path, out = library.write(name, place), place / "out"
        options = library.options(name)
        preprocessing: Any = load_model(path, **options).preprocessing
        words = [str(path), "--data", str(data), "--holdout", str(holdout)]
        for flag, value in options.items():
            words += [f"--{flag}", *(map(str, value) if isinstance(value, list) else [str(value)])]
        words += ["--where", "id=r0", "--out", str(out), *STEPS]
        start = time.process_time()
        forget(words)
        seconds = time.process_time() - start
        evidence = json.loads(next(out.rglob("evidence.json")).read_text())
        new = next(out.rglob(path.name if path.is_file() else "config.json"))
        before, _ = library.read(name, path)
        model, transform = library.read(name, new if path.is_file() else new.parent)
        x = transform(image)[None]
        old, outputs = (_outputs(module, x) for module in (before, model))
        return {
            "library": ARCHITECTURES[name],
            "weights": sum(weight.numel() for weight in model.parameters()),
            "input": list(x.shape[1:]),
            "inputs_equal": preprocessing(image).equal(x[0]),
            "outputs_moved": float((outputs - old).abs().max()),
            "report_off": _report_off(evidence, outputs, label),
            "cpu_seconds": round(seconds, 1),
        }


def forget(words: list[str]) -> None:
    """The command, in this process."""
    try:
        main(["forget", *words])
    except SystemExit as ended:
        # nothing was learned that could be forgotten: any result that was written will do
        if ended.code not in {outcome.exit_code for outcome in Outcome if outcome.has_new_model}:
            raise


def _outputs(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return logits(model.eval(), x)[0].double()


def _report_off(evidence: Mapping[str, Any], outputs: Tensor, label: int) -> float:
    """The largest difference from what the report says of the forgotten record's outputs."""
    after = {row["key"]: row["after"] for row in evidence["rows"]}
    log_p = outputs.log_softmax(0)
    others = torch.cat([outputs[:label], outputs[label + 1 :]])
    mine = {
        "forget.entropy": float(-(log_p.exp() * log_p).sum()),
        "forget.logit_margin": float(outputs[label] - others.logsumexp(0)),
        "forget.accuracy": float(outputs.argmax() == label),
    }
    # relative where it is large: float32 has seven digits
    return max(abs(after[key] - value) / max(1.0, abs(value)) for key, value in mine.items())


def page(record: Mapping[str, Any]) -> str:
    """The table, one architecture a row."""
    rows = [
        (
            f"`{name}`", cell["library"], f"{cell['weights'] / 1e6:.1f}",
            "×".join(map(str, cell["input"])), "equal" if cell["inputs_equal"] else "differ",
            f"{cell['outputs_moved']:.2g}", f"{cell['report_off']:.1g}", f"{cell['cpu_seconds']:.0f}",
        )
        for name, cell in record["architectures"].items()
    ]  # fmt: skip
    head = "architecture | library | weights (million) | input | inputs | outputs moved by"
    head += " | report off by | CPU seconds"
    explained = (
        "Random weights and 1,000 classes. Inputs: those of the library's own transform against "
        "efface's, bit for bit. Outputs moved by: the largest change of a logit of the forgotten "
        "record, in the library that wrote the model. Report off by: the largest difference "
        "between entropy, logit margin and accuracy in the report and the same of the written "
        "file's outputs in that library. CPU seconds: of the command, with one thread, without the synthetic inputs "
        "of guard and report."
    )
    return pages.page("Public architectures", pages.origin(record), table(head, rows), explained)


def run() -> None:
    """Each architecture of the arguments, or all."""
    names = sys.argv[1:] or list(ARCHITECTURES)
    known = read_record(RESULT)["architectures"] if (RESULTS / f"{RESULT}.json").exists() else {}
    for name in names:
        known[name] = one(name)
        print(name, known[name], flush=True)
        ordered = {name: known[name] for name in ARCHITECTURES if name in known}
        write_record(RESULT, RESULT, {"seed": SEED, "architectures": ordered})


if __name__ == "__main__":
    run()
