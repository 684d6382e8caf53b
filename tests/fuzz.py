"""Broken files and arguments by the thousand: each must end well or in an error with words.

``python -m tests.fuzz N`` prints for each kind of input how many there were, and how many ended in
a sentence, in a traceback or too late. A child is forked for each batch, so that a crash in a C
library is seen; it looks whether anything was run, connected to or written that should not be.
"""

import contextlib
import copy
import io
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.csv
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file

from efface import cli
from efface.cli.forget import read_settings
from efface.cli.score import differences, leaves
from efface.errors import EffaceError, NotMet, Outcome
from efface.io.checkpoints import load_checkpoint
from efface.io.data import load_data, read_ids, read_record_weights
from efface.io.features import FeatureSpec
from efface.io.files import read_json
from efface.io.images import read_images
from efface.io.models import load_model
from efface.io.shadows import read_shadows
from efface.manifest import Manifest, versions
from efface.methods import check_settings
from efface.nets import conv_small
from efface.task import trainable_copy

BATCH = 100
# the exit codes of a request that made a new model
MADE = {outcome.exit_code for outcome in Outcome} - {NotMet.exit_code}
SLOW_SECONDS = 20
RUNS_CODE = {"os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "socket.connect"}
RUNS_CODE |= {"socket.getaddrinfo", "os.fork", "pickle.find_class"}
# drawn three times as often as the others
FIRST = 2 * ["recipe.json", "config.json", "preprocessor_config.json", "manifest.json"]
# what stands in a JSON file where something else was meant
ODD = [None, True, False, 0, -1, 7, 10**5, 10**9, 10**30, 0.5, -1e308, 1e309, float("nan"), "", "x"]
ODD += ["timm:resnet18", "os:getcwd", "huggingface_hub:logout", "http://127.0.0.1:9/x", "../../x"]
ODD += ["\ud800", "a" * 5000, "\x1b[31m", [], [[]], [1], [-1, 2], ["a", "a"], [None] * 2000, {}]
ODD += [{"a": 1}, {"x": {"y": [1]}}, {"height": 8}, {"shortest_edge": 10**9}, [0.5] * 3]
WORDS = """--data --ids --out --where --forget-class --holdout --setting --seed --strength --size
--mean --device --feature-spec --features --label-column --method --selection --mislabelled
--architecture --utility-budget --expected-accuracy
nan -1 1e309 steps=x steps=-1 sigma=0 model=1 label=(3 id=1
__import__('os').system('x') ../../etc/passwd jit ssd os:system cuda:9 0.5 2 = -- label
timm:nothing forget doctor train""".split()
WORDS += ["", "\0", "label=dog or", "\N{SNOWMAN}", "9" * 400]


def mutated(content, draw):
    """Bytes with bits turned, pieces cut, doubled, swapped, or numbers of the header changed."""
    data = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        at, n = draw.randrange(len(data) or 1), draw.randint(1, 64)
        kind = draw.randrange(6)
        if kind == 0 and data:
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del data[at : at + n]
        elif kind == 2:
            data[at:at] = data[at : at + n]
        elif kind == 3:
            number = draw.choice([0, 1, 2**31, 2**63 - 1, 2**64 - 1])
            data[at : at + 8] = number.to_bytes(8, "little")
        elif kind == 4:
            data = data[:at]
        else:
            data[at : at + n] = bytes(draw.randrange(256) for _ in range(n))
    return bytes(data)


def mutated_json(content, draw):
    """A value of the object replaced, removed or doubled, at any depth; else broken as bytes."""
    if draw.random() < 0.2:
        return mutated(content, draw)
    whole = json.loads(content)
    for _ in range(draw.randint(1, 3)):
        part = whole
        while True:
            keys = list(part) if isinstance(part, dict) else list(range(len(part)))
            if not keys:
                break
            key = draw.choice(keys)
            if isinstance(part[key], dict | list) and part[key] and draw.random() < 0.7:
                part = part[key]
                continue
            if draw.random() < 0.15:
                del part[key]
            else:
                part[key] = copy.deepcopy(draw.choice(ODD))
            break
    return json.dumps(whole).encode()


def seeds(folder):
    """The sound files that are broken, by the reader that must bear it; every kind of container."""
    net = conv_small(width=2)
    state = net.state_dict()
    save_file(state, folder / "net.safetensors")
    torch.save(state, folder / "zip.pt")
    torch.save(state, folder / "old.pt", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": state, "optimizer": {"lr": 1.0}, "epoch": 1}, folder / "nested.ckpt")
    parquet = next((folder / "work/data").glob("train*"))
    (folder / "ids.csv").write_text("id\n" + "\n".join(f"digit-{n:04d}" for n in range(9)))
    wines = folder / "wines"
    wines.mkdir(exist_ok=True)
    tables = _tables(wines)
    (folder / "weights.csv").write_text("id,weight\n" + "digit-0001,0.5\ndigit-0002,2\n")
    _write_vit(folder / "vit")
    np.savez(folder / "one.npz", ids=["a", "b"], member=[True, False], log_odds=[0.5, -1.0])
    evidence = folder / "work/run/evidence"
    weights = [folder / name for name in ("net.safetensors", "zip.pt", "old.pt", "nested.ckpt")]
    return {
        **{path.name: (path.read_bytes(), _weights) for path in weights},
        "recipe.json": ((folder / "work/model/recipe.json").read_bytes(), _folder),
        "data.parquet": (parquet.read_bytes(), _table),
        "ids.csv": ((folder / "ids.csv").read_bytes(), lambda path, _: read_ids(path)),
        **{path.name: (path.read_bytes(), _numbers) for path in tables},
        **{path.name: (path.read_bytes(), _classes) for path in _tables_of_classes(folder)},
        "features.json": (json.dumps(FEATURES).encode(), _features),
        "config.json": ((folder / "vit/config.json").read_bytes(), _vit),
        "preprocessor_config.json": ((folder / "vit/preprocessor_config.json").read_bytes(), _vit),
        "weights.csv": ((folder / "weights.csv").read_bytes(), lambda p, _: read_record_weights(p)),
        "where": (b"(label=3 or ash>=2.5) and hue!=1 or kind='red'", _where),
        "settings": (b"steps=3", lambda path, _: _settings(path)),
        "one.npz": ((folder / "one.npz").read_bytes(), _shadows),
        "manifest.json": ((evidence / "manifest.json").read_bytes(), _manifest),
        "evidence.json": ((evidence / "evidence.json").read_bytes(), _evidence),
    }


SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"intermediate_size": 64, "image_size": 8, "patch_size": 4, "num_labels": 3}


def _write_vit(folder):
    """A folder of transformers with a net of two layers."""
    transformers.ViTForImageClassification(transformers.ViTConfig(**SIZES)).save_pretrained(folder)
    processor = transformers.ViTImageProcessor(size={"height": 8, "width": 8})
    (folder / "preprocessor_config.json").write_text(processor.to_json_string())


def _vit(path, work):
    for file in (work.parent / "vit").iterdir():
        if not (path.parent / file.name).exists():
            shutil.copy(file, path.parent)
    loaded = load_model(path.parent)
    pictures = [Image.fromarray(np.zeros((9, 12, 3), np.uint8))]
    kind = datasets.Features(image=datasets.Image())
    read = datasets.Dataset.from_dict({"image": pictures}, kind)
    read_images(read, "image", [0], loaded.preprocessing, None)
    assert loaded.num_classes


def _where(path, work):
    expression = path.read_bytes().decode("latin-1")
    load_data(work.parent / "wines/wines.csv").rows_where(expression)


def _settings(path):
    text = path.read_bytes().decode("latin-1")
    check_settings("jit", read_settings((text,)))


def _shadows(path, work):
    shutil.copy(work.parent / "one.npz", path.parent / "two.npz")
    read_shadows(path.parent)


def _manifest(path, _):
    manifest = Manifest.read(path.parent)
    differences(manifest.weights, {"old": "a"})
    differences(manifest.versions, versions())
    list(leaves(manifest.arguments))


def _evidence(path, work):
    recorded = read_json(path)
    differences(recorded, read_json(work / "run/evidence/evidence.json"))


FEATURES = {"ash": {"mean": 2.4, "std": 0.3}, "hue": {}, "kind": {"categories": ["red", "white"]}}


def _tables(folder):
    """Ten rows of numbers and words with two labels, as every kind of file of a table."""
    columns = {"id": [f"w{row}" for row in range(10)], "ash": [2 + row / 10 for row in range(10)]}
    columns |= {"hue": list(range(10)), "kind": ["red", "white"] * 5}
    table = pa.table({**columns, "label": [0, 1] * 5, "sweet": [1, 1, 0, 0, 1] * 2})
    pa.csv.write_csv(table, folder / "wines.csv")
    for name, make in (("indexed", pa.ipc.new_file), ("stream", pa.ipc.new_stream)):
        with make(str(folder / f"{name}.arrow"), table.schema) as sink:
            sink.write_table(table)
    return sorted(folder.iterdir())


def _tables_of_classes(folder):
    """Class numbers of three names, one a row and lists of them; most bytes are such numbers."""
    one = datasets.ClassLabel(names=["red", "rose", "white"])
    for name, kind in (("one", one), ("many", datasets.Sequence(one))):
        labels = [row % 3 if kind is one else [row % 3] for row in range(150)]
        made = datasets.Dataset.from_dict({"label": labels}, datasets.Features(label=kind))
        with pa.ipc.new_stream(str(folder / f"{name}.arrow"), made.data.table.schema) as sink:
            sink.write_table(made.data.table)
    return [folder / "one.arrow", folder / "many.arrow"]


def _classes(path, _):
    for names in (None, ["white", "rose", "red"]):
        load_data(path, classes=names)


def _numbers(path, _):
    for labels in (["label"], ["label", "sweet"]):
        load_data(path, label_column=labels).readable(None, FeatureSpec(FEATURES))


def _features(path, work):
    load_data(work.parent / "wines/wines.csv").readable(None, FeatureSpec.read(path))


def _weights(path, _):
    net = conv_small(width=2)
    read = load_checkpoint(path, net.state_dict())
    shapes = {name: tensor.shape for name, tensor in read.state.items()}
    if shapes == {name: tensor.shape for name, tensor in net.state_dict().items()}:
        for portion in read.portions():
            net.load_state_dict(portion, strict=False)
        trainable_copy(net)(torch.zeros(1, 1, 8, 8))


def _folder(path, work):
    shutil.copy(work / "model/model.safetensors", path.parent / "model.safetensors")
    load_model(path.parent)


def _table(path, work):
    model = load_model(work / "model")
    table = load_data(path, classes=model.classes, num_classes=model.num_classes)
    table.readable(range(min(len(table), 5)), model.preprocessing)


def one(kind, draw, scratch, folder, sources):
    """One broken input; ``ok``, ``refused``, or what it ended with instead."""
    try:
        if kind == "arguments":
            return _arguments(draw, folder)
        content, reader = sources[kind]
        path = scratch / kind
        break_ = mutated_json if kind.endswith(".json") else mutated
        path.write_bytes(break_(content, draw))
        reader(path, folder / "work")
    except EffaceError as error:
        return "refused" if len(str(error)) > 20 else f"no words: {error!r}"
    except Exception as error:  # noqa: BLE001  # this is what is looked for
        return f"{type(error).__name__}: {str(error)[:200]}"
    return "ok"


def _arguments(draw, folder):
    """A command with words out of a hat; its own output is looked at for words."""
    work = folder / "work"
    base = ["forget", f"{work}/model", "--data", f"{work}/data", "--out", f"{work}/out",
            "--ids", f"{work}/ids.csv", "--setting", "steps=1", "--device", "cpu"]  # fmt: skip
    words = base[: draw.randint(0, len(base))] if draw.random() < 0.5 else list(base)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(words) + 1)
        words[at : at + draw.randrange(2)] = [draw.choice(WORDS)]
    said, here = io.StringIO(), folder / "here"
    here.mkdir(exist_ok=True)
    os.chdir(here)  # where a word that became a folder's name would be written
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            cli.main(words)
    except SystemExit as end:
        if end.code in MADE:
            return "ok"
        if end.code and not said.getvalue().strip():
            return f"no words, code {end.code}: {words}"
        if end.code and (left := [path.name for path in here.rglob("*") if path.is_file()]):
            return f"wrote {left[:3]}, code {end.code}: {words}"
        return "refused" if end.code else "ok"
    finally:
        os.chdir(folder)
        shutil.rmtree(work / "out", ignore_errors=True)
        shutil.rmtree(here)
    return "ok"


def batch(number, folder, sources, kinds):
    """Run one batch in this process, which is a child; print its counts as JSON."""
    draw, counts, bad, ran = random.Random(number), Counter(), [], []  # noqa: S311
    sys.addaudithook(lambda event, _: ran.append(event) if event in RUNS_CODE else None)
    scratch = folder / f"scratch-{number}"
    for row in range(BATCH):
        kind = draw.choice(kinds)
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        began = time.monotonic()
        end = one(kind, draw, scratch, folder, sources)
        if time.monotonic() - began > SLOW_SECONDS:
            end = "too slow"
        if end in {"ok", "refused"}:
            counts[f"{kind} {end}"] += 1
        else:
            counts["bad"] += 1
            bad.append(f"batch {number} row {row} kind {kind}: {end}")
    shutil.rmtree(scratch, ignore_errors=True)
    return {"counts": counts, "bad": bad + [f"batch {number} ran {event}" for event in ran]}


def all_batches(folder, total):
    """Fork a child for each batch; add up what they found, crashes and leavings included."""
    sys.path.insert(0, str(Path(__file__).parent))
    from kills import contents, prepared, request, undisturbed

    work = prepared(folder / "work")
    undisturbed(request, work)
    (work / "out").rename(work / "run")
    sources = seeds(folder)
    before, counts, bad = contents(folder), Counter(), []
    for number in range(-(-total // BATCH)):
        read, write = os.pipe()
        if not (child := os.fork()):
            os.close(read)
            sys.stderr = sys.stdout = io.StringIO()
            found = batch(number, folder, sources, [*sources, "arguments", *FIRST])
            os.write(write, json.dumps(found).encode()[:60_000])
            os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            text = pipe.read()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        crash = {"counts": {}, "bad": [f"batch {number}: {code}"]}
        found = json.loads(text) if code == 0 else crash
        counts.update(found["counts"])
        bad += found["bad"]
        shutil.rmtree(folder / f"scratch-{number}", ignore_errors=True)
        if contents(folder) != before:
            bad.append(f"batch {number}: the folder is not what it was")
            before = contents(folder)
    return {"inputs": sum(counts.values()), "counts": dict(sorted(counts.items())), "bad": bad}


def by_kind(found):
    """A line for each kind: inputs, sentences, tracebacks, too slow."""
    counts, bad = found["counts"], Counter()
    for line in found["bad"]:
        kind, _, end = line.partition(" kind ")[2].partition(": ")
        bad[kind, "slow" if end == "too slow" else "traceback"] += 1
    kinds = sorted({name.rpartition(" ")[0] for name in counts} | {kind for kind, _ in bad})
    for kind in filter(None, kinds):
        row = [counts.get(f"{kind} {end}", 0) for end in ("ok", "refused")]
        row += [bad[kind, "traceback"], bad[kind, "slow"]]
        yield f"{kind:25} {sum(row):6} {row[1]:6} {row[2]:6} {row[3]:6}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    *where, number = sys.argv[1:]
    target = Path(where[0] if where else tempfile.mkdtemp())
    target.mkdir(parents=True, exist_ok=True)
    found = all_batches(target, int(number))
    print(f"{'kind':25} inputs sentences tracebacks slow", *by_kind(found), sep="\n")  # noqa: T201
    print(json.dumps(found))  # noqa: T201
