"""Where tensors are worked on: chosen, or the best that is here."""

import torch

from efface.errors import InputError

KNOWN = ("cuda", "mps", "cpu")
"""The best first."""


def device_named(name: str) -> torch.device:
    """The device of this name; ``auto`` is CUDA, else Apple's MPS, else the CPU.

    Raises InputError, naming those that are here, for one that torch does not have here.
    """
    here = [kind for kind in KNOWN if _is_here(kind)]
    if name == "auto":
        return torch.device(here[0])
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    count = torch.cuda.device_count() if device is not None and device.type == "cuda" else 1
    if device is None or device.type not in here or (device.index or 0) >= count:
        raise InputError(
            f"a device that torch has here: {', '.join(here)}",
            repr(name),
            "Use --device auto, or one of these.",
        )
    return device


def _is_here(kind: str) -> bool:
    if kind == "cuda":
        return torch.cuda.is_available()
    return kind == "cpu" or torch.backends.mps.is_available()
