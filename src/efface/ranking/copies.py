"""Information content without data: does the answer survive noise around the record?

α in its zero-shot form: a ball of noisy copies instead of a ball of data
(https://arxiv.org/abs/2402.01401 has the ball of data). The forget records and the model are all it
takes. Shapes: n records, s sizes of noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.errors import InputError
from efface.methods.parts.neighbours import noisy
from efface.metrics.measure import Evaluation
from efface.metrics.refusals import need_numbers
from efface.probes.needs import refuse_without_classes
from efface.runtime import Passes, map_chunks
from efface.task import device_of, frozen_teacher, outputs
from efface.types import Records

COPIES = 16

_OWN = 0xBA11  # keeps these draws apart from those of the methods and probes under the same seed


@dataclass(frozen=True, eq=False)
class Nearby:
    """What a model says of n records and of noisy copies of them.

    ``kept`` (s, n): share of copies with the answer that the record itself has, one row a sigma,
    in ``sigmas``; ``plain``: the records themselves, as ``measure`` would leave them: margin of
    the label, answer and loss cost nothing more.
    """

    sigmas: tuple[float, ...]
    kept: Float[np.ndarray, "s n"]
    plain: Evaluation

    @cached_property
    def margin(self) -> Float[np.ndarray, " n"]:
        """Log-odds ln p - ln(1 - p) of the model's own answer, in nats: 0 where it is half sure."""
        return self.plain.labelled(self.plain.predicted).margin


def kept_share(
    model: nn.Module, records: Records, *, sigma: float, copies: int = COPIES, seed: int = 0
) -> Float[np.ndarray, " n"]:
    """Zero-shot α: the share of noisy copies to which the model gives the record's own answer.

    0 to 1 in steps of 1/``copies``; the record itself is not counted. **High is low information**:
    the answer holds all around. Noise of ``sigma`` times the data's range, kept within its bounds;
    a record draws the same in any batch. Standard error at most 1 / (2 √copies): 0.125 for 16.
    No chance level; 1 for all where ``sigma`` is small and where the model says one thing always:
    choose a ``sigma`` that tells records apart. It asks about the model's answer, right or wrong.
    Costs ``kept_share_cost(records, copies)``. Raises InputError unless each record has one class.
    """
    return nearby(model, records, sigmas=(sigma,), copies=copies, seed=seed).kept[0]


def kept_shares(
    model: nn.Module,
    records: Records,
    *,
    sigmas: Sequence[float],
    copies: int = COPIES,
    seed: int = 0,
) -> Float[np.ndarray, "s n"]:
    """``kept_share`` as a function of sigma, one row for each; each costs ``copies`` a record.

    The directions of the noise are the same for every sigma, so rows differ by sigma alone.
    """
    return nearby(model, records, sigmas=sigmas, copies=copies, seed=seed).kept


def kept_share_cost(records: Records, copies: int = COPIES, *, sigmas: int = 1) -> Passes:
    """The passes of each of these: one of the record itself, one of each copy."""
    return Passes(forward=len(records) * (1 + copies * sigmas), backward=0)


def nearby(
    model: nn.Module,
    records: Records,
    *,
    sigmas: Sequence[float],
    copies: int = COPIES,
    seed: int = 0,
) -> Nearby:
    """The same with what the model says of the records themselves, from the same passes."""
    refuse_without_classes(records)
    _refuse(sigmas, copies)
    teacher, device = frozen_teacher(model), device_of(model)

    def part(rows: Tensor) -> tuple[Tensor, Tensor]:
        batch = records.take(rows).to(device)
        plain = _logits(teacher, batch, batch.x)
        hits = torch.zeros(len(sigmas), len(batch), device=device)
        for number in range(copies):
            for place, sigma in enumerate(sigmas):
                x = noisy(batch, sigma, seed=seed, step=_OWN + number).x
                hits[place] += _logits(teacher, batch, x).argmax(1) == plain.argmax(1)
        return plain.cpu(), hits.T.cpu()

    found = list(map_chunks(part, torch.arange(len(records)), 256))
    logits, hits = (torch.cat(some).numpy() for some in zip(*found, strict=True))
    need_numbers(**{"the model's answers": logits})
    plain = Evaluation(logits=logits, y=records.y.cpu().numpy(), ids=records.ids)
    return Nearby(tuple(sigmas), hits.T.astype(np.float64) / copies, plain)


def _logits(teacher: nn.Module, batch: Records, x: Float[Tensor, " m *features"]) -> Tensor:
    with torch.no_grad():
        return outputs(teacher, replace(batch, x=x)).float()


def _refuse(sigmas: Sequence[float], copies: int) -> None:
    if not len(sigmas) or not all(0 < sigma < np.inf for sigma in sigmas):
        came = ", ".join(str(sigma) for sigma in sigmas) or "none"
        raise InputError("every sigma above 0", came, "Give it as a share of the data's range.")
    if copies < 1:
        raise InputError("one copy or more", str(copies), "16 give a standard error below 0.13.")
