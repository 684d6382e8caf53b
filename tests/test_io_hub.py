"""``hub:owner/name``: what ``datasets`` keeps in its cache, read without a network."""

import os
import shutil
import subprocess
import sys

import datasets
import huggingface_hub
import pytest
from datasets.packaged_modules.parquet.parquet import Parquet
from sklearn.datasets import load_wine

from efface.errors import InputError
from efface.io.data import load_data
from efface.io.features import FeatureSpec

WINE = load_wine(as_frame=True).frame
ROWS = FeatureSpec({name: {} for name in WINE.columns if name != "target"})


def cached(home):
    """The wines as ``load_dataset`` leaves a data set of the hub in its cache.

    Written by the builder that it uses, then moved to where one with an owner would lie.
    """
    (home / "given").mkdir()
    files = {}
    for split, part in (("train", WINE.head(100)), ("test", WINE.tail(78))):
        part.to_parquet(home / f"given/{split}.parquet", index=False)
        files[split] = str(home / f"given/{split}.parquet")
    builder = Parquet(cache_dir=str(home / "built"), dataset_name="wine", data_files=files)
    builder.download_and_prepare()
    place = home / "datasets/somebody___wine/default/0.0.0" / ("0" * 40)
    place.parent.mkdir(parents=True)
    shutil.move(builder.cache_dir, place)
    for folder in ("given", "built"):
        shutil.rmtree(home / folder)


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """No network, and a cache of its own with one data set in it."""
    cached(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("offline")
def test_a_data_set_in_the_cache_is_read_without_a_network():
    """Train where no split is named; the same cells as were cached."""
    for spec, part in (("", WINE.head(100)), (":train", WINE.head(100)), (":test", WINE.tail(78))):
        table = load_data(f"hub:somebody/wine{spec}")
        records = table.records(None, ROWS)
        assert records.x.tolist() == part[list(ROWS.columns)].to_numpy("float32").tolist()
        assert records.y.tolist() == part["target"].tolist()
    train, again, test = (load_data(f"hub:somebody/wine{s}") for s in ("", ":train", ":test"))
    assert train.digest == again.digest
    assert train.digest != test.digest
    assert load_data("hub:somebody/wine/default:test").digest == test.digest


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("spec", "wanted", "came"),
    [
        (
            "hub:somebody/wines",
            "the split 'train' of somebody/wines, from the hub or from the local cache",
            "ConnectionError: Couldn't reach 'somebody/wines' on the Hub",
        ),
        (
            "hub:somebody/wine:dev",
            "the split 'dev' of somebody/wine, from the hub or from the local cache",
            "ValueError: Unknown split \"dev\". Should be one of ['train', 'test'].",
        ),
        (
            "hub:somebody/wine/red",
            "the split 'train' of somebody/wine, from the hub or from the local cache",
            "ValueError: Couldn't find cache for somebody/wine for config 'red'",
        ),
    ],
)
def test_what_is_not_there_says_what_was_wanted_and_what_to_do(spec, wanted, came):
    """Whoever has no network needs to know that one is wanted."""
    with pytest.raises(InputError) as caught:
        load_data(spec)
    assert caught.value.wanted == wanted
    assert caught.value.came.startswith(came)
    assert caught.value.remedy == (
        "Check the name and the network, fetch it once where there is one, or give it as files "
        "(parquet, arrow, CSV)."
    )


@pytest.mark.parametrize(
    "spec",
    [
        "hub:",
        "hub:wine",
        "hub:../wine",
        "hub:a/../b",
        "hub:/etc/passwd",
        "hub:a/b/c/d",
        "hub:a/b:x y",
        "hub:a/b:train[:10]",
        "hub:https://example.org/a",
    ],
)
def test_another_spelling_is_refused_before_anything_is_asked(spec):
    """A part of a split would have other row numbers under the same name."""
    with pytest.raises(InputError) as caught:
        load_data(spec)
    assert str(caught.value) == (
        "Wanted hub:owner/name, hub:owner/name:split or hub:owner/name/configuration:split. "
        f"Got {spec!r}. Such as hub:ylecun/mnist:test."
    )


def test_a_folder_of_the_same_name_is_not_taken_for_the_hub(offline):
    """``load_dataset`` would read it without a word."""
    (offline / "somebody/wine").mkdir(parents=True)
    WINE.to_csv(offline / "somebody/wine/train.csv", index=False)
    with pytest.raises(InputError) as caught:
        load_data("hub:somebody/wine")
    assert str(caught.value) == (
        "Wanted the data set somebody/wine of the hub. Got a folder of that name here, which "
        "datasets would read instead. Give the folder as somebody/wine, or start from elsewhere."
    )


def test_a_process_of_its_own_finds_the_cache_by_hf_home(tmp_path):
    """As a user sets it, without anything replaced."""
    cached(tmp_path)
    code = "from efface import load_data; print(len(load_data('hub:somebody/wine:test')))"
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "78\n", done.stderr
