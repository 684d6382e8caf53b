"""One container in, the same container out: by each library's own writer and its own reader."""

import copy

import pytest
import torch

from efface.io.models import load_model
from efface.task import logits
from tests.containers import CASES, SIDE
from tests.io_helpers import same

EVERY_CASE = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


pytest.importorskip("transformers", reason="NOT RUN: it needs transformers and lightning")


def opened(case, folder):
    folder.mkdir()
    path = case.make(folder)
    return path, load_model(path, architecture=case.architecture, **case.options)


def files(path):
    return {path} if path.is_file() else set(path.iterdir())


@EVERY_CASE
def test_an_untouched_container_comes_back_as_it_was(case, tmp_path):
    path, loaded = opened(case, tmp_path / "old")
    new = tmp_path / "new"
    new.mkdir()
    loaded.write(loaded.model, new)
    assert case.omitted <= set(loaded.omitted)
    assert set(loaded.extras) == case.extras
    expected = {file.name for file in files(path)} - set(loaded.omitted)
    assert {file.name for file in new.iterdir()} == expected
    for file in new.iterdir():
        old = path if path.is_file() else path / file.name
        if case.bytes_equal:
            assert file.read_bytes() == old.read_bytes(), file.name
        elif file.suffix in {".pt", ".pth", ".ckpt"}:
            contents = (torch.load(path, weights_only=True) for path in (old, file))
            same(*contents, set(loaded.omitted))
    if case.name.startswith("transformers ViT"):
        assert loaded.classes == tuple("abcde")
        assert loaded.preprocessing.shape == (3, SIDE, SIDE)


@EVERY_CASE
def test_a_changed_model_answers_the_same_in_its_own_library(case, tmp_path):
    path, loaded = opened(case, tmp_path / "old")
    student = copy.deepcopy(loaded.model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in student.named_parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
            weight.copy_(weight.to(loaded.stored.get(name, weight.dtype)))
    (tmp_path / "new").mkdir()
    loaded.write(student, tmp_path / "new")
    again = case.reload(tmp_path / "new" / path.name if path.is_file() else tmp_path / "new")
    x = torch.randn(3, 3, SIDE, SIDE, generator=generator)
    with torch.no_grad():
        torch.testing.assert_close(logits(again, x), logits(student, x), rtol=0, atol=1e-5)
        assert not torch.allclose(logits(again, x), logits(loaded.model, x), atol=1e-3)
