"""What stands beside the weights in a checkpoint: settings come back, traces of records do not."""

import pytest
import torch

from efface.io.checkpoints import load_checkpoint

WEIGHTS = {"w": torch.ones(2)}
IDS = ["alice", "bob"]


@pytest.mark.parametrize(
    "entry",
    [
        {"sampler": {"seen_ids": IDS}},
        {"train_sampler": "alice, bob"},
        {"dataloader": {"order": IDS}},
        {"data_loader_state": {}},
        {"seen": {"alice": 1}},
        {"train_ids": IDS},
        {"state": {"loops": [{"ids": IDS}]}},
        {"split": {"test": {"indices": (3, 1)}}},
        {"resume": {"sampler": {"order": IDS}}},
    ],
)
def test_what_lists_the_records_is_left_out_and_named(tmp_path, entry):
    """A file without a record's traces must not hold its name."""
    torch.save({"state_dict": WEIGHTS, **entry}, tmp_path / "old.pt")
    checkpoint = load_checkpoint(tmp_path / "old.pt")
    assert checkpoint.omitted == tuple(entry)
    checkpoint.write(checkpoint.state, tmp_path / "new.pt")
    assert list(torch.load(tmp_path / "new.pt", weights_only=True)) == ["state_dict"]


def test_what_tells_of_the_training_alone_is_written_back(tmp_path):
    """Whoever reads the old file finds the same settings in the new one."""
    kept = {
        "epoch": 3,
        "samples_seen": 12_800,
        "last_seen": None,
        "hyper_parameters": {
            "sampler": "weighted",
            "dataloader": {"workers": 4},
            "betas": [0.9, 1],
        },
        "resampler": {"depths": [2, 2]},
        "class_to_idx": {"cat": 0, "dog": 1},
        "run_id": "a1",
        "grids": [7, 14],
        "callbacks": {"seen_ids": []},
    }
    torch.save({"state_dict": WEIGHTS, **kept}, tmp_path / "old.pt")
    checkpoint = load_checkpoint(tmp_path / "old.pt")
    assert checkpoint.omitted == ()
    checkpoint.write(checkpoint.state, tmp_path / "new.pt")
    written = torch.load(tmp_path / "new.pt", weights_only=True)
    assert written.pop("state_dict")["w"].tolist() == [1, 1]
    assert written == kept
