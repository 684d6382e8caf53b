"""One container in, the same container out: by each library's own writer and its own reader."""

import copy
import sys
from pathlib import Path

import pytest
import torch
from containers import CASES, SIDE

from efface.io.models import load_model
from efface.task import logits

sys.path.insert(0, str(Path(__file__).parent))


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
    assert case.left_out <= set(loaded.omitted)
    assert set(loaded.extras) == case.kept
    expected = {file.name for file in files(path)} - set(loaded.omitted)
    assert {file.name for file in new.iterdir()} == expected
    for file in new.iterdir():
        old = path if path.is_file() else path / file.name
        if case.bytes_equal:
            assert file.read_bytes() == old.read_bytes(), file.name
        elif file.suffix in {".pt", ".pth", ".ckpt"}:
            same_content(torch.load(old, weights_only=True), torch.load(file, weights_only=True),
                         set(loaded.omitted))  # fmt: skip


def same_content(old, new, left_out):
    assert type(old) is type(new)
    if isinstance(old, dict):
        assert list(new) == [key for key in old if key not in left_out]
        for key in new:
            same_content(old[key], new[key], left_out)
    elif isinstance(old, torch.Tensor):
        assert old.dtype == new.dtype
        assert torch.equal(old, new)
    else:
        assert old == new


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


def test_transformers_classes_and_inputs_are_known(tmp_path):
    case = next(case for case in CASES if case.name == "transformers ViT, safetensors")
    _, loaded = opened(case, tmp_path / "old")
    assert loaded.classes == tuple("abcde")
    assert loaded.preprocessing.size == SIDE
    assert loaded.preprocessing.squash
