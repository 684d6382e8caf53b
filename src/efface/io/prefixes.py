"""What stands before the names of a net's tensors in a file, and what else lies beside them."""

from collections.abc import Iterable, Mapping

from torch import Tensor

PREFIXES = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before every name."""


def wrapper_prefix(weights: Mapping[str, Tensor]) -> str:
    """What stands before every name, put there by a wrapper."""
    prefix = ""
    while added := next((p for p in PREFIXES if _all_start(weights, prefix + p)), ""):
        prefix += added
    return prefix


def prefix_for(state: Mapping[str, Tensor], net: Mapping[str, Tensor]) -> str:
    """What stands before every name of the net, as a trainer's own module puts it there."""
    first = next(iter(net), "")
    found = [name[: -len(first)] for name in state if first and name.endswith("." + first)]
    whole = {p: sum(p + name in state for name in net) for p in found}
    best = max(whole, key=lambda p: (whole[p], -len(p)), default="")
    return best if whole.get(best, 0) > sum(name in state for name in net) else ""


def twins_of(
    beside: Iterable[str], state: Mapping[str, Tensor], net: Mapping[str, Tensor]
) -> list[str]:
    """Names among ``beside`` that make up a second copy of at least half of the net's weights."""
    copies: dict[str, list[str]] = {}
    for name in beside:
        for own, tensor in net.items():
            if name.endswith("." + own) and state[name].shape == tensor.shape:
                copies.setdefault(name[: -len(own)], []).append(name)
    weights = sum(tensor.ndim > 0 for tensor in net.values())
    return [name for names in copies.values() if 2 * len(names) >= weights for name in names]


def _all_start(names: Iterable[str], prefix: str) -> bool:
    return all(name.startswith(prefix) for name in names)
