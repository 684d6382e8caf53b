"""A grid over one's own checkpoint: the address knows the files' contents, the result the run."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from efface.forget_jobs import forget_job
from efface.grid import read, run
from efface.manifest import state_digest


@pytest.fixture
def job(place, monkeypatch):
    """A job on the checkpoint of the tests, described with what is given."""
    monkeypatch.syspath_prepend(place)

    def describe(ids=("digit-0001", "digit-0002"), model=place / "model", **more):
        data = str(place / "data")
        how = {"method": "jit", "settings": {"steps": 2}, **more}
        return forget_job(model, data, ids, holdout=f"{data}:test", **how)

    return describe


@pytest.mark.parametrize("guard", [True, False])
def test_a_checkpoint_forgets_as_a_job_of_which_every_part_of_the_data_counts(job, tmp_path, guard):
    data = job().settings["paths"]["data"]
    described = job(retain=data, guard=guard, keep_weights=True)
    assert set(job().settings["digests"]) == {"model", "data", "holdout"}
    assert set(described.settings["digests"]) == {"model", "data", "holdout", "retain"}
    assert not run([described], tmp_path, backend="sequential")[described.id].error
    result = read(tmp_path, described)
    manifest = result.statistics["manifest"]
    assert (manifest["method"], manifest["settings"]["steps"]) == ("jit", 2)
    assert (manifest["guard"] is None) == (not guard)
    counts = manifest["request"]
    assert counts["forget"] == counts["forget_records_in_retain"] == 2
    assert counts["retain"] > counts["holdout"] > 0
    assert result.statistics["report"]["tier"] == "T2"
    assert (result.folder / "weights.safetensors").exists()


def test_changed_files_and_settings_are_other_jobs(job, place):
    first = job()
    assert job().id == first.id
    assert job(seed=1).id != first.id
    assert job(ids=("digit-0001",)).id != first.id
    weights = next((place / "model").glob("*.safetensors"))
    before = weights.read_bytes()
    try:
        weights.write_bytes(before + b" ")
        assert job().id != first.id
    finally:
        weights.write_bytes(before)
    assert job().id == first.id


def test_a_job_measures_and_keeps_the_weights_in_the_dtype_of_their_file(job, place, tmp_path):
    rounded = tmp_path / "model"
    shutil.copytree(place / "model", rounded)
    weights = load_file(rounded / "model.safetensors")
    save_file({k: w.bfloat16() for k, w in weights.items()}, rounded / "model.safetensors")
    described = job(model=rounded, keep_weights=True)
    run([described], tmp_path / "store", backend="sequential")
    result = read(tmp_path / "store", described)
    kept = load_file(result.folder / "weights.safetensors")
    assert all(torch.equal(w, w.bfloat16().to(w)) for w in kept.values())
    assert result.statistics["manifest"]["weights"]["new"] == state_digest(kept)
