"""A grid over one's own checkpoint: the address knows the files' contents, the result the run."""

import pytest

from efface.forget_jobs import forget_job
from efface.grid import read, run


@pytest.fixture
def job(place, monkeypatch):
    """A job on the checkpoint of the tests, described with what is given."""
    monkeypatch.syspath_prepend(place)

    def describe(ids=("digit-0001", "digit-0002"), **more):
        data = str(place / "data")
        how = {"method": "jit", "settings": {"steps": 2}, **more}
        return forget_job(place / "model", data, ids, holdout=f"{data}:test", **how)

    return describe


@pytest.mark.parametrize("guard", [True, False])
def test_a_checkpoint_forgets_as_a_job(job, tmp_path, guard):
    described = job(guard=guard, keep_weights=True)
    assert not run([described], tmp_path, backend="sequential")[described.id].error
    result = read(tmp_path, described)
    manifest = result.statistics["manifest"]
    assert (manifest["method"], manifest["settings"]["steps"]) == ("jit", 2)
    assert manifest["request"]["forget"] == 2
    assert (manifest["guard"] is None) == (not guard)
    assert result.statistics["report"]["tier"] == "T1"
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
