"""What an inspection must not pass over: labels, noise that was not found, folders of others."""

import numpy as np
import pytest
import torch

import efface
from efface.errors import InputError
from efface.ranking.keeping import opened
from efface.types import Records


@pytest.mark.parametrize("label", [12, -1])
def test_a_label_that_the_model_has_no_output_for_is_refused_by_its_record(tiny_net, digits, label):
    """Wherever it stands: the sample that hazards are looked for in may miss it."""
    rows = np.arange(1600) % 400
    many = Records(digits.x[rows], digits.y[rows].clone())
    many.y[1503] = label
    with pytest.raises(InputError) as refused:
        efface.inspect(tiny_net, many, sigma=0.3, copies=1, neighbours=0)
    assert str(refused.value) == (
        "Wanted labels from 0 to 9, one for each of the model's outputs. Got another one for 1503. "
        "Mend these labels, or leave their ids out."
    )


def test_noise_that_was_not_found_is_said(tiny_net, digits):
    """No noise takes the answers of this model below a share of 0.02."""
    found = efface.inspect(tiny_net, digits, expected_accuracy=0.02, copies=2, neighbours=0)
    (finding,) = [f for f in found.record["findings"] if f["name"] == "sigma"]
    assert finding["text"].startswith("No noise was found at which 2% of the copies keep the answ")
    assert found.record["share_kept"] > 0.07


def test_an_inspection_and_a_targeted_request_mean_the_same_records_by_high(tiny_net, digits):
    """One rule for the noise, one threshold."""
    some = digits.take(range(60))
    found = efface.inspect(tiny_net, some, neighbours=0)
    aim = targeted(tiny_net, some, target="high-information", seed=0)
    high = {name for name, group in zip(found.ids, found["group"], strict=True) if group == "high"}
    assert set(aim.forget.ids) == high


def test_a_folder_of_others_is_not_removed(tmp_path):
    """Only what an inspection writes is."""
    place = tmp_path / ".out.inspecting"
    (place / "sub").mkdir(parents=True)
    with pytest.raises(InputError) as refused:
        opened(place, {"a": 1})
    assert str(refused.value) == (
        f"Wanted a folder of a stopped inspection, or none, at {place}. Got sub in it. "
        "Move it away; what lies there is not touched."
    )
    (place / "sub").rmdir()
    (place / "000000.npz").write_bytes(b"")
    keeper = opened(place, {"a": 1})
    assert "000000" not in keeper
    assert place.stat().st_mode & 0o077 == 0
    keeper.put("000000", {"x": torch.zeros(1).numpy()})
    assert "000000" in opened(place, {"a": 1})
    assert "000000" not in opened(place, {"a": 2})
