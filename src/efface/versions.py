"""What a record was made with, told without loading torch."""

import platform
from importlib.metadata import version

SCHEMA = 1

PACKAGES = ("efface", "torch", "torchvision", "numpy", "scikit-learn", "datasets", "safetensors")


def versions() -> dict[str, str]:
    """What this ran on: packages, Python and processor kind; no name of the machine."""
    found = {name: version(name) for name in PACKAGES}
    return {**found, "python": platform.python_version(), "processor": platform.machine()}
