"""Folders of a stranger: files choose among registered names, and no size of them hurts."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import datasets
import pytest
import torch
import transformers
from pyarrow import parquet
from refusals import refusal
from safetensors.torch import save_file
from torch import nn

from efface.errors import InputError
from efface.io.architectures import _confined
from efface.io.data import load_data
from efface.io.files import read_text
from efface.io.images import Preprocessing
from efface.io.models import load_model
from efface.io.tables import select_rows
from efface.nets import conv_quarter

RECIPE = {"schema": 1, "architecture": "efface.nets:conv_quarter", "num_classes": 10}
RECIPE |= {"mean": [0.5], "std": [0.5], "size": 8}
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"intermediate_size": 64, "image_size": 8, "patch_size": 4, "num_labels": 3}


@pytest.fixture(scope="module")
def transformers_files():
    """The weights and the configurations of a ViT of two layers."""
    net = transformers.ViTForImageClassification(transformers.ViTConfig(**SIZES))
    pixels = transformers.ViTImageProcessor(size={"height": 8, "width": 8})
    config = {**net.config.to_dict(), "architectures": [type(net).__name__]}
    return net.state_dict(), config, json.loads(pixels.to_json_string())


def folder(path, weights, **files):
    """A folder of weights and JSON files."""
    save_file({name: t.contiguous() for name, t in weights.items()}, path / "model.safetensors")
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (path / f"{name}.json").write_text(text)
    return path


FORM = "an architecture as efface.nets:NAME, torchvision.models:NAME or timm:NAME. Got "
TYPE_IT = "Where you trust it, type it: --architecture package.module:factory."
LOOK_UP = "Look the name up in its documentation."
NO_NUMBER = "an integer of 1 to 1,000,000 as num_classes. Got {}. Fetch or write the folder again."
TOO_LARGE = "{} of the size of its weights. Got more weights than a file of 18,824 bytes can hold."
TOO_LARGE += " Fetch or write the folder again."
NO_NAMES = "a list of texts as names of the classes. Got {}. Fetch or write the folder again."
RECIPES = [
    # the function that deleted a user's tokens
    ({"architecture": "huggingface_hub:logout"}, f"{FORM}'huggingface_hub:logout'. {TYPE_IT}"),
    ({"architecture": "os:getcwd"}, f"{FORM}'os:getcwd'. {TYPE_IT}"),
    ({"architecture": ["timm:resnet18"]}, f"{FORM}['timm:resnet18']. {TYPE_IT}"),
    ({"architecture": "efface.nets:_he"}, f"a model of efface.nets. Got '_he'. {LOOK_UP}"),
    # a name of the module that it only imports
    ({"architecture": "efface.nets:Tensor"}, f"a model of efface.nets. Got 'Tensor'. {LOOK_UP}"),
    ({"architecture": "torchvision.models:get_weight"},
     f"a model of torchvision.models. Got 'get_weight'. {LOOK_UP}"),
    ({"architecture": "timm:hf-hub:a/b"}, f"a model of timm. Got 'hf-hub:a/b'. {LOOK_UP}"),
    ({"architecture": "timm:resnet18./../b"},
     "a model of timm. Got 'resnet18./../b'. Did you mean 'resnet18'?"),
    ({"architecture": "timm:vit_giant_patch14_224"},
     TOO_LARGE.format("timm:vit_giant_patch14_224")),
    ({"num_classes": 10**6}, TOO_LARGE.format("efface.nets:conv_quarter")),
    *(({"num_classes": n}, NO_NUMBER.format(repr(n))) for n in (0, 10**9, "ten", 1.5, True, None)),
    *(({"classes": c}, NO_NAMES.format(repr(c))) for c in ("abc", [1, 2], [["x"]], {"a": 1}, 7)),
]  # fmt: skip


@pytest.mark.parametrize(("change", "text"), RECIPES, ids=str)
def test_a_recipe_chooses_among_registered_names_and_sizes_of_its_weights(tmp_path, change, text):
    path = folder(tmp_path, conv_quarter().state_dict(), recipe={**RECIPE, **change})
    began = time.monotonic()
    assert refusal(load_model, path) == f"Wanted {text}"
    assert time.monotonic() - began < 60


def test_a_small_file_names_no_more_weights_than_it_has_room_for():
    with pytest.raises(InputError) as error, _confined("many", 200):
        nn.ParameterList([torch.zeros(1)] * 150)
    assert str(error.value) == f"Wanted {TOO_LARGE.format('many').replace('18,824', '200')}"


def test_weights_that_another_thread_makes_meanwhile_are_not_counted():
    with ThreadPoolExecutor(1) as pool, _confined("few", 200):
        made = pool.submit(nn.ParameterList, [torch.zeros(1)] * 150).result()
    assert len(made) == 150


def test_a_text_above_its_limit_is_refused(tmp_path):
    path = tmp_path / "ids.txt"
    path.write_bytes(b"a" * 2**20)
    assert len(read_text(path, "a list", "Cut it.", 2**20)) == 2**20
    path.write_bytes(b"a" * (2**20 + 1))
    came = refusal(read_text, path, "a list", "Cut it.", 2**20)
    assert came == "Wanted a list. Got more than 1 MiB in ids.txt. Cut it."


NO_JSON = "Got {} at recipe.json."
TEXTS = {"[" * 10**5: "Got more than 50 brackets in each other.", '{"a": "\\ud800"}': NO_JSON,
         '{"a": 1' + "0" * 5000 + "}": NO_JSON, "\\xff": NO_JSON}  # fmt: skip
KINDS = dict(zip(TEXTS, ("", "UnicodeEncodeError", "ValueError", "JSONDecodeError"), strict=True))


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:9])
def test_json_of_any_shape_ends_in_a_sentence(tmp_path, text):
    path = folder(tmp_path, conv_quarter().state_dict(), recipe=text)
    assert TEXTS[text].format(KINDS[text]) in refusal(load_model, path)


VIT = "transformers:ViTForImageClassification"
FULL = f"{VIT} of the size of its weights. Got more weights than a file of"
PLAIN = "numbers, plain words and lists of at most 1000 as {}. Got {}. In Python"
RANGE = "an integer of -100,000 to 100,000 as {}. Got {}. Fetch"
FROM = f"a model from {VIT}, which must do nothing else. Got "
CONFIGS = [
    ({"architectures": ["PreTrainedModel"]}, "an image classifier of transformers. Got PreTr"),
    # would hand model_args, checkpoint_path among them, to timm
    ({"architectures": ["TimmWrapperForImageClassification"], "model_args": {"checkpoint_path": 1}},
     "an image classifier of transformers. Got TimmWrapperForImageClassification."),
    ({"architectures": 7}, "an image classifier of transformers. Got no architecture"),
    ({"hidden_act": "https://host/x"}, PLAIN.format("hidden_act", "'https://host/x'")),
    ({"hidden_act": "nothing"}, f"{FROM}KeyError: 'nothing'. Fetch"),
    ({"patch_size": [4] * 2000}, PLAIN.format("patch_size", "[4, 4")[:60]),
    ({"num_hidden_layers": 10**8}, RANGE.format("num_hidden_layers", 10**8)),
    ({"num_hidden_layers": 10**5}, FULL),
    ({"hidden_size": 10**9}, RANGE.format("hidden_size", 10**9)),
    ({"hidden_size": 10**5}, FULL),
    ({"image_size": 10**5}, FULL),
    ({"num_attention_heads": 0}, f"{FROM}ZeroDivisionError: "),
    ({"id2label": [1]}, f"{FROM}AttributeError: "),
    ({"id2label": {"x": "dog"}}, f"{FROM}ValueError: "),
]  # fmt: skip


@pytest.mark.parametrize(("change", "text"), CONFIGS, ids=str)
def test_a_configuration_is_numbers_and_plain_words(tmp_path, transformers_files, change, text):
    weights, config, pixels = transformers_files
    path = folder(tmp_path, weights, config={**config, **change}, preprocessor_config=pixels)
    began = time.monotonic()
    assert refusal(load_model, path).startswith(f"Wanted {text}")
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    "change",
    [
        {"_attn_implementation": "evil/kernel"},
        {"attn_implementation": "evil/kernel"},
        {"auto_map": {"AutoConfig": "evil/code--model.Config"}},
        {"dtype": "load", "quantization_config": {"quant_method": "bitsandbytes"}},
        {"unknown": {"url": "https://host"}},
    ],
    ids=str,
)
def test_what_is_not_for_the_shape_of_a_model_is_not_read(tmp_path, transformers_files, change):
    """The model is the same without it."""
    weights, config, pixels = transformers_files
    path = folder(tmp_path, weights, config={**config, **change}, preprocessor_config=pixels)
    loaded = load_model(path)
    assert all(weights[name].equal(t) for name, t in loaded.model.state_dict().items())


REACHES = {
    "a socket": "import socket; socket.create_connection(('127.0.0.1', 9))",
    "a process": "import subprocess; subprocess.run(['true'])",
    "a pickle": "import pickle; pickle.loads(b'cos\\ngetcwd\\n(tR.')",
}


@pytest.mark.parametrize("reach", REACHES)
def test_what_a_file_names_is_built_without_reaching_out(tmp_path, monkeypatch, reach):
    """Whatever a registered model comes to do: only that of a file is confined, and only it."""
    exec_ = REACHES[reach]

    def conv_evil(num_classes=10):
        exec(exec_)  # noqa: S102
        return conv_quarter(num_classes)

    monkeypatch.setattr("efface.nets.conv_evil", conv_evil, raising=False)
    recipe = {**RECIPE, "architecture": "efface.nets:conv_evil"}
    path = folder(tmp_path, conv_quarter().state_dict(), recipe=recipe)
    assert "which no model needs. Fetch or write the folder again." in refusal(load_model, path)
    if reach != "a socket":
        assert load_model(path, architecture="efface.nets:conv_evil").num_classes == 10


@pytest.mark.parametrize("name", ["recipe.json", "config.json", "model.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_pipe_or_a_device_in_a_folder_is_not_opened(tmp_path, name, kind):
    """The one would wait for a writer, the other never end."""
    path = folder(tmp_path, conv_quarter().state_dict(), recipe=RECIPE)
    for other in {name, "recipe.json"} if name == "config.json" else {name}:
        (path / other).unlink(missing_ok=True)
    os.mkfifo(path / name) if kind == "pipe" else (path / name).symlink_to("/dev/zero")
    text = "a weights file" if name == "model.safetensors" else "which is no regular file"
    assert text in refusal(load_model, path)


def parquet_of(path, **columns):
    """A table whose column ``id`` says that it is one of images, and names where they lie."""
    kind = {"id": datasets.Image(), "x": datasets.Value("float64")}
    kind |= {"label": datasets.Value("int64")}
    table = datasets.Dataset.from_dict(columns, features=datasets.Features(kind)).data.table
    schema = datasets.Features(kind).arrow_schema
    parquet.write_table(table.cast(schema), path)


@pytest.mark.parametrize(
    "place", ["http://127.0.0.1:9/x.png", "/etc/passwd", "hf://datasets/a/b.png"]
)
def test_a_table_opens_nothing_that_its_cells_name(tmp_path, monkeypatch, place):
    """Datasets would: a column typed image opens addresses, and files outside of the folder."""
    seen = []
    monkeypatch.setattr("datasets.Image.decode_example", lambda *a, **_: seen.append(a))
    cells = [{"bytes": None, "path": f"{place}{n}"} for n in range(2)]
    parquet_of(tmp_path / "train.parquet", id=cells, x=[1.0, 2.0], label=[0, 1])
    text = refusal(load_data, tmp_path)
    assert text.startswith("Wanted ids as text or integers in 'id'. Got struct<bytes: binary")
    (tmp_path / "train.parquet").rename(tmp_path / "named.parquet")
    rows = load_data(tmp_path, id_column="x")
    records, omitted = rows.readable(None, Preprocessing((0.5,), (0.5,), 8))
    assert (len(records), len(omitted), seen) == (0, 2, [])


def test_a_pipe_among_the_data_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "train.csv")
    assert refusal(load_data, tmp_path) == (
        f"Wanted files in {tmp_path}. Got train.csv, which is no regular file. Take it out of the "
        "folder."
    )


def test_a_thousand_brackets_are_no_expression():
    table = datasets.Dataset.from_dict({"a": [1]})
    assert select_rows("(" * 90 + "a=1" + ")" * 90, table).tolist() == [True]
    assert refusal(select_rows, "(" * 2000 + "a=1" + ")" * 2000, table).startswith(
        "Wanted an expression of comparisons. Got more than 100 parentheses in each other."
    )


WATCHED = """
import json, sys
FORBIDDEN = ("socket.connect", "socket.getaddrinfo", "socket.sendto", "subprocess.Popen",
             "os.system", "os.exec", "os.posix_spawn", "os.fork", "pickle.find_class")
seen, inside = [], False
def watch(event, arguments):
    # what an import does is the library's own
    if inside and event.startswith(FORBIDDEN):
        frame, names = sys._getframe(), set()
        while frame:
            names.add(frame.f_globals.get("__name__"))
            frame = frame.f_back
        if "importlib._bootstrap" not in names:
            seen.append([event, str(arguments)[:200]])
sys.addaudithook(watch)
from efface.cli import main
for command in json.loads(sys.argv[1]):
    inside = True
    try:
        main(command.split())
    except SystemExit as end:
        assert end.code in (None, 0, 10, 11, 12, 13), command
    inside = False
print("SEEN", json.dumps(seen))
"""


def test_a_run_on_local_files_opens_no_socket_and_starts_nothing(place):
    """Every command, from the model's folder to the written page."""
    request = "--data data --ids ids.csv"
    commands = [
        f"forget model {request} --holdout data:test --retain data --out quiet --setting steps=2",
        f"score model quiet/model {request} --out quiet-scored",
        f"score model {request} --holdout data:test --retain data --replay quiet",
        f"inspect model {request} --out quiet-ranked --copies 2 --neighbours 0 --sigma 0.2",
        "doctor model --data data",
        "methods jit",
    ]
    script = [sys.executable, "-c", WATCHED, json.dumps(commands)]
    done = subprocess.run(script, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "SEEN []"
