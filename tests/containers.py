"""Model files as other libraries write them, and the same files read again by those libraries.

Each case makes a folder or a file with its own library's writer, how it is named to efface, and
how that library reads the result: what comes out must answer as the student answered.
"""

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import nn

SIDE = 32
TIMM = "resnet10t"


IMAGES = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "size": SIDE}


@dataclass(frozen=True)
class Case:
    """How one container is made, named to efface, and read again; what must not come along."""

    name: str
    make: Callable[[Path], Path]
    reload: Callable[[Path], nn.Module]
    architecture: str | None = None
    bytes_equal: bool = True
    omitted: frozenset[str] = frozenset()
    extras: frozenset[str] = frozenset()
    options: dict = field(default_factory=lambda: IMAGES)


def small() -> nn.Module:
    """A small net of torchvision's kind of names."""
    convolution = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*convolution, nn.Flatten(), nn.Linear(8, 5))


class Tied(nn.Module):
    """The same weight under two names; not tied, both names must be in the file."""

    def __init__(self, *, tie: bool = True) -> None:
        super().__init__()
        self.inner, self.again = nn.Linear(3 * SIDE * SIDE, 5), nn.Linear(3 * SIDE * SIDE, 5)
        if tie:
            self.again.weight = self.inner.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Both heads together."""
        return self.inner(x.flatten(1)) + self.again(x.flatten(1))


def seeded(make: Callable[..., nn.Module], *arguments: object, **options: object) -> nn.Module:
    """A net with weights that are the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make(*arguments, **options).eval()


def shuffle(dtype: torch.dtype = torch.float32) -> nn.Module:
    """A net of torchvision's, of five classes."""
    return torchvision.models.shufflenet_v2_x0_5(num_classes=5).to(dtype)


def saved(name: str, content: Callable[[], dict], **options: object) -> Callable[[Path], Path]:
    """What makes a file of this name: by safetensors or torch.save, as the suffix says."""

    def make(folder: Path) -> Path:
        save = save_file if name.endswith(".safetensors") else torch.save
        save(content(), folder / name, **options)
        return folder / name

    return make


def state_of(*arguments: object, **options: object) -> Callable[[], dict]:
    """The weights of a seeded net."""
    return lambda: seeded(*arguments, **options).state_dict()


def strictly(
    make: Callable[[], nn.Module], place: str | None = None, prefix: str = ""
) -> Callable[[Path], nn.Module]:
    """How the owner of a state dict reads it: all weights, into float32, whatever the file has."""

    def reload(path: Path) -> nn.Module:
        read = load_file if path.suffix == ".safetensors" else torch.load
        state, net = read(path), make()
        own = (state[place] if place else state).items()
        net.load_state_dict({name.removeprefix(prefix): tensor for name, tensor in own})
        return net.eval()

    return reload


def training() -> dict:
    """What a training script keeps: prefixes of DistributedDataParallel, optimizer, epoch."""
    net = seeded(small)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.randn(2, 3, SIDE, SIDE)).sum().backward()
    optimizer.step()
    state = {f"module.{name}": tensor for name, tensor in net.state_dict().items()}
    return {"epoch": 3, "model_state_dict": state, "optimizer": optimizer.state_dict()}


def compiled() -> nn.Module:
    """As torch.compile names what it wraps."""
    return torch.compile(small())


def of_lightning(folder: Path) -> Path:
    """A checkpoint that Lightning's own Trainer wrote after a step, class weights in it."""
    trainer = _trainer(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = _lightning_module()(5)
        data = torch.utils.data.TensorDataset(torch.randn(8, 3, SIDE, SIDE), torch.arange(8) % 5)
        trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=4))
        trainer.save_checkpoint(folder / "lightning.ckpt")
    return folder / "lightning.ckpt"


def _trainer(folder: Path):
    import lightning

    names = ("enable_checkpointing", "enable_progress_bar", "enable_model_summary", "logger")
    silent = dict.fromkeys(names, False)
    return lightning.Trainer(max_steps=1, accelerator="cpu", default_root_dir=folder, **silent)


def _lightning_module():
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self, classes: int) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.net = small()
            self.ema_net = small()
            self.register_buffer("class_weights", torch.ones(classes))

        def training_step(self, batch, _):
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1], self.class_weights)

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters())

    return Module


def lightning_net(path: Path) -> nn.Module:
    """By Lightning's own reader, without the average that was omitted."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that the average is not there
        return _lightning_module().load_from_checkpoint(path, strict=False).net.eval()


def timm_folder(folder: Path) -> Path:
    """As timm writes a folder for a hub."""
    out = folder / "timm"
    net = seeded(timm.create_model, TIMM, num_classes=5)
    timm.models.save_for_hf(net, out, model_config={"label_names": list("abcde")})
    return out


def timm_net(path: Path) -> nn.Module:
    """By timm's own reader of local folders."""
    return timm.create_model(f"local-dir:{path}", pretrained=True).eval()


def timm_file_net(path: Path) -> nn.Module:
    """By timm's own argument for it."""
    return timm.create_model(TIMM, num_classes=5, checkpoint_path=str(path)).eval()


def transformers_folder(kind: str, **saving) -> Callable[[Path], Path]:
    """A folder by save_pretrained, with processor, tokenizer file and a training's leavings."""

    def make(folder: Path) -> Path:
        import transformers

        out = folder / f"{kind}{len(saving)}"
        net = seeded(_transformers_net, kind)
        net.save_pretrained(out, **saving)
        stated = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        size = {"height": SIDE, "width": SIDE}
        transformers.ViTImageProcessor(size=size, **stated).save_pretrained(out)
        (out / "tokenizer.json").write_text(json.dumps({"version": "1.0"}))
        torch.save({"state": {}}, out / "optimizer.pt")
        (out / "trainer_state.json").write_text("{}")
        return out

    return make


def transformers_bin(folder: Path) -> Path:
    """The older form: pytorch_model.bin."""
    out = transformers_folder("vit")(folder)
    torch.save(load_file(out / "model.safetensors"), out / "pytorch_model.bin")
    (out / "model.safetensors").unlink()
    return out


def _transformers_net(kind: str) -> nn.Module:
    import transformers

    labels = {"num_labels": 5, "id2label": dict(enumerate("abcde"))}
    if kind == "vit":
        sizes = {"hidden_size": 32, "intermediate_size": 64, "image_size": SIDE, "patch_size": 8}
        depth = {"num_hidden_layers": 2, "num_attention_heads": 2}
        config = transformers.ViTConfig(**sizes, **depth, **labels)
        return transformers.ViTForImageClassification(config)
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
    config = transformers.ResNetConfig(**sizes, layer_type="basic", **labels)
    return transformers.ResNetForImageClassification(config)


def transformers_net(path: Path) -> nn.Module:
    """By from_pretrained, which finds the weights by itself."""
    import transformers

    return transformers.AutoModelForImageClassification.from_pretrained(path).float().eval()


FOLDER: dict = {"options": {}, "omitted": frozenset({"optimizer.pt", "trainer_state.json"})}
TRAINED: dict = {"bytes_equal": False, "omitted": frozenset({"optimizer"})}
LIGHTNING: dict = {
    "bytes_equal": False,
    "omitted": frozenset({"optimizer_states", "lr_schedulers", "ema_net.0.weight"}),
    "extras": frozenset({"class_weights"}),
    "options": {**IMAGES, "weights_in": "state_dict.net"},
}
SHUFFLE = "torchvision.models:shufflenet_v2_x0_5"
SMALL, TIED = "tests.containers:small", "tests.containers:Tied"
NESTED = ("model_state_dict", "module.")
NOTED = {"metadata": {"format": "pt", "note": "ours"}}


def _torchvision(name: str, file: str, dtype: torch.dtype, **options: object) -> Case:
    make = saved(file, state_of(shuffle, dtype), **options)
    return Case(f"torchvision, {name}", make, strictly(shuffle), SHUFFLE)


def _plain(name: str, make: Callable, *how: object, architecture: str = SMALL, **facts) -> Case:
    return Case(f"plain torch, {name}", make, strictly(*how), architecture, **facts)


def _transformers(name: str, make: Callable[[Path], Path]) -> Case:
    return Case(f"transformers {name}", make, transformers_net, **FOLDER)


OLD = saved("old.pth", state_of(small), _use_new_zipfile_serialization=False)
COMPILED, TIED_FILE = saved("compiled.pt", state_of(compiled)), saved("tied.pt", state_of(Tied))
TIMM_FILE = saved("net.safetensors", state_of(timm.create_model, TIMM, num_classes=5))
LAST = saved("last.pt", training)
UNTIED = partial(Tied, tie=False)
CASES = (
    _torchvision("safetensors float32", "weights.safetensors", torch.float32, **NOTED),
    _torchvision("safetensors bfloat16", "weights.safetensors", torch.bfloat16, **NOTED),
    _torchvision("safetensors float16", "weights.safetensors", torch.float16, **NOTED),
    _torchvision(".pth of torch.save", "weights.pth", torch.float32),
    _plain(".pth before zip", OLD, small, bytes_equal=False),
    _plain("training checkpoint under module.", LAST, small, *NESTED, **TRAINED),
    _plain("torch.compile", COMPILED, small, None, "_orig_mod."),
    _plain("tied weights", TIED_FILE, UNTIED, architecture=TIED),
    Case("Lightning .ckpt with an average", of_lightning, lightning_net, SMALL, **LIGHTNING),
    Case("timm, weights file", TIMM_FILE, timm_file_net, f"timm:{TIMM}", options={}),
    Case("timm, hub folder", timm_folder, timm_net, options={}),
    _transformers("ViT, safetensors", transformers_folder("vit")),
    _transformers("ViT, sharded", transformers_folder("vit", max_shard_size="40KB")),
    _transformers("ViT, pytorch_model.bin", transformers_bin),
    _transformers("ResNet, safetensors", transformers_folder("resnet")),
)
