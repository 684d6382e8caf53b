"""Run by test_training under torch's launcher: every method, weights to a file."""

import json
import sys
from pathlib import Path

import torch
from accelerate import PartialState

from efface.methods import METHODS
from efface.nets import conv_small
from efface.types import Records

sys.path.insert(0, str(Path(__file__).parent))
from method_promises import EXCEPTIONS, split_for

QUICK = {"steps": 20, "epochs": 8, "batch_size": 2, "training_mode": False}
QUICK |= {"copies": 2, "attack_steps": 5, "samples_per_class": 10}


def main(out: Path) -> None:
    """Forget 5 random images (fewer than two shares of some steps) and write all weights."""
    torch.manual_seed(0)
    state = PartialState(cpu=True)
    inputs, labels = torch.randn(5, 1, 8, 8, dtype=torch.float64), torch.arange(5)
    net = conv_small(width=4).eval()
    weights = {}
    for dtype in (torch.float64, torch.float32):
        model, forget = net.to(dtype), Records(inputs.to(dtype), labels)
        retain = Records(inputs.to(dtype).flip(2), labels)
        for name, method in METHODS.items():
            if (name, "processes") in EXCEPTIONS:
                continue
            settings = {key: QUICK[key] for key in QUICK if key in method.settings}
            split = split_for(name, forget, retain, model=model)
            result = method.function(model, split, seed=1, **settings)
            flat = torch.cat([weight.detach().reshape(-1) for weight in result.parameters()])
            weights[f"{name} {dtype}"] = flat.tolist()
    if state.is_main_process:
        out.write_text(json.dumps({"processes": state.num_processes, "weights": weights}))
    if state.num_processes > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
