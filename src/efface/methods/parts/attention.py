"""Where the convolutions of a net look: what a student can be held to beside the answers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn import functional

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@contextmanager
def attended(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Within: by the name of each convolution, a row of length 1 a record, of its last call.

        the mean over channels of the squared answer, at each place, over its norm over places

    Source: Zagoruyko and Komodakis, ICLR 2017, https://arxiv.org/abs/1612.03928. No hook stays.
    """
    found: dict[str, Tensor] = {}

    def noting(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def note(_: nn.Module, given: object, answer: Tensor) -> None:  # noqa: ARG001
            own = answer.clone()  # the next layer may change the answer in place
            found[name] = functional.normalize(own.square().mean(1).flatten(1))

        return note

    handles = [
        module.register_forward_hook(noting(name))
        for name, module in model.named_modules()
        if isinstance(module, CONVOLUTIONS)
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
