"""Neighbourhood, after JiT's idea of information content: https://arxiv.org/abs/2402.01401.

What a record taught the model is what the model says about it beyond what it says about its
neighbourhood. So the target for a record is the given model's own answer p at one neighbour T(x):

    loss(x) = KL(p(T x) ‖ q(x)) + λ · ½ Σ_i KL(p(T_i x) ‖ q(T_i x)),

q the student, T a perspective fixed for the record, T_1 another perspective and T_2 a shift and
flip, drawn anew each step; they hold the model in place (locality). Where a class goes altogether p
is the given model's answer with that class masked and the rest renormalised, and T the identity
(masked distillation, as DELETE, CVPR 2025); where the labels are wrong each record's own is masked.
There is no paper of this form; the numbers it started from are trials of our own (LOG.md).
"""

import logging
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from efface.adapters import device_of, logits, student_of, teacher_of
from efface.errors import InputError
from efface.methods.parts.neighbours import perspective, shift_and_flip, uniforms
from efface.steps import descend
from efface.types import Records, Split, Verdict, Watch, carry_on

logger = logging.getLogger(__name__)


def neighbourhood(
    model: nn.Module,
    split: Split,
    *,
    strength: float = 1.0,
    expected_accuracy: float | None = None,
    mislabelled: bool = False,
    distortion: float | None = None,
    locality: float = 5.0,
    learning_rate: float = 3e-3,
    steps: int = 240,
    settled: float = 0.95,
    averaging: float = 0.98,
    records_per_step: int = 128,
    seed: int = 0,
    watch: Watch = carry_on,
) -> nn.Module:
    """Answer at each forget record as the given model answers in its neighbourhood.

    Sees the model and the forget inputs; the labels only when ``mislabelled``; of a holdout the
    model's accuracy on it, which says how often a neighbour should keep the answer.

    Args:
        model: answers (n, c, h, w) with logits (n, k); stays as it is.
        split: ``forget``, ``leaving`` and, if there is one, ``holdout`` are read.
        strength: the one knob; multiplies the share of neighbours that should change the answer.
        expected_accuracy: the model's accuracy on unseen data (0 to 1), from its model card; found
            from the holdout when not given.
        mislabelled: the labels of the forget records are wrong and must not be answered.
        distortion: how far T moves the corners, in half sides; found from the expected accuracy
            when not given, and a middling guess without one or with fewer than 50 records.
        locality: λ, how strongly the model is held in place on other neighbours.
        learning_rate: of SGD with momentum 0.9, gradients clipped to norm 1.
        steps: at most this many.
        settled: end once this share of the way to the target confidence is done, or when the last
            40 steps added less than 2 % of it.
        averaging: weight of the past in the moving average of the weights that is returned.
        records_per_step: records in one step's mean.
        seed: draws the neighbours and the order.
        watch: called after each step.

    Raises:
        InputError: the records are not images (n, c, h, w).
    """
    _check(split.forget)
    teacher, student = teacher_of(model), student_of(model)
    hide = _masking(split.leaving, mislabelled=mislabelled)
    reach = 0.0 if split.leaving else distortion
    if reach is None:
        reach = _reach(teacher, split, expected_accuracy, strength, seed)

    def target(batch: Records) -> Tensor:
        draws = uniforms(batch.ids, 8, seed=seed, step=0)
        return hide(_answer(teacher, perspective(batch.x, draws, reach)), batch)

    def loss(student: nn.Module, batch: Records, step: int) -> Tensor:
        total = _divergence(target(batch), logits(student, batch.x))
        for x in _others(batch, seed, step + 1):
            held = hide(_answer(teacher, x), batch)
            total = total + 0.5 * locality * _divergence(held, logits(student, x))
        return total

    averaged = AveragedModel(student, multi_avg_fn=get_ema_multi_avg_fn(averaging))
    descend(
        student,
        loss,
        split.forget,
        optimizer=torch.optim.SGD(student.parameters(), lr=learning_rate, momentum=0.9),
        steps=steps,
        seed=seed,
        watch=_averaging(watch, averaged, _way(teacher, averaged, split.forget, target), settled),
        records_per_step=records_per_step,
        clip_norm=1.0,
    )
    return averaged.module


def _check(forget: Records) -> None:
    if forget.x.ndim != 4:  # noqa: PLR2004
        raise InputError(
            "images (n, c, h, w) for the method neighbourhood",
            f"inputs of shape {tuple(forget.x.shape)}",
            "Use --method jit, which works on any tensor.",
        )


Hide = Callable[[Float[Tensor, " m k"], Records], Float[Tensor, " m k"]]


def _masking(leaving: tuple[int, ...], *, mislabelled: bool) -> Hide:
    """Take classes out of log-probabilities and renormalise; nothing when nothing is hidden."""

    def hide(answer: Tensor, batch: Records) -> Tensor:
        hidden = torch.zeros_like(answer, dtype=torch.bool)
        hidden[:, list(leaving)] = True
        if mislabelled:
            hidden.scatter_(1, batch.y[:, None], value=True)
        return answer.masked_fill(hidden, -torch.inf).log_softmax(1)

    return hide


@torch.no_grad()
def _answer(teacher: nn.Module, x: Tensor) -> Float[Tensor, " m k"]:
    """Log-probabilities of a model that is held still."""
    return logits(teacher, x).log_softmax(1)


def _divergence(held: Float[Tensor, " m k"], answer: Float[Tensor, " m k"]) -> Float[Tensor, " m"]:
    """KL(p ‖ q) of each record, in nats; a class of probability 0 in p adds nothing."""
    p = held.exp()
    own = torch.where(p > 0, p * held, 0).sum(1)
    return own - (p * answer.log_softmax(1)).sum(1)


def _others(batch: Records, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """Two further neighbours: a wider perspective, and training's own shift and flip."""
    draws = uniforms(batch.ids, 11, seed=seed, step=step)
    padding = max(1, batch.x.shape[-1] // 8)
    return (
        perspective(batch.x, draws[:, :8], 0.5),
        shift_and_flip(batch.x, draws[:, 8:], padding),
    )


GUESS = 0.35
"""Distortion without an expected accuracy: in trials 91 % of neighbours kept the answer."""


def _reach(
    teacher: nn.Module, split: Split, expected: float | None, strength: float, seed: int
) -> float:
    """The distortion at which neighbours keep the answer as often as unseen data are right.

    Bisection over [0, 0.8]; 50 records are the fewest for which the share means something.
    """
    if expected is None and split.holdout is not None:
        expected = _accuracy(teacher, split.holdout)
    few = len(split.forget) < 50  # noqa: PLR2004
    if expected is None or few:
        facts = {"distortion": GUESS * strength, "guessed": True, "expected_accuracy": expected}
        logger.info("neighbourhood: distortion guessed", extra={"facts": facts})
        return GUESS * strength
    wanted = 1 - strength * (1 - expected)
    low, high = 0.0, 0.8
    for _ in range(8):
        middle = (low + high) / 2
        kept = _kept(teacher, split.forget, middle, seed)
        low, high = (middle, high) if kept > wanted else (low, middle)
    facts = {"distortion": low, "guessed": False, "expected_accuracy": expected, "kept": wanted}
    logger.info("neighbourhood: distortion found", extra={"facts": facts})
    return low


def _kept(teacher: nn.Module, forget: Records, distortion: float, seed: int) -> float:
    """Share of neighbours with the record's own answer, over at least 500 neighbours."""
    sample = forget.take(range(min(len(forget), 1000)))
    copies = -(-500 // len(sample))
    own = _predicted(teacher, sample.x)
    same = [
        (_predicted(teacher, perspective(sample.x, _draws(sample, seed, c), distortion)) == own)
        for c in range(copies)
    ]
    return float(torch.stack(same).float().mean())


def _draws(sample: Records, seed: int, copy: int) -> Tensor:
    return uniforms(sample.ids, 8, seed=seed, step=1_000_000 + copy)


@torch.no_grad()
def _predicted(teacher: nn.Module, x: Tensor) -> Tensor:
    device = device_of(teacher)
    return torch.cat([logits(teacher, part.to(device)).argmax(1).cpu() for part in x.split(256)])


def _accuracy(teacher: nn.Module, records: Records) -> float:
    return float((_predicted(teacher, records.x) == records.y.cpu()).float().mean())


def _way(
    teacher: nn.Module, averaged: nn.Module, forget: Records, target: Callable[[Records], Tensor]
) -> Callable[[], float]:
    """Share of the way from the given confidence to the target's, on up to 512 records."""
    sample = forget.take(range(min(len(forget), 512))).to(device_of(teacher))
    given = _answer(teacher, sample.x)
    own = given.argmax(1, keepdim=True)
    start, goal = (float(a.gather(1, own).exp().mean()) for a in (given, target(sample)))

    def done() -> float:
        now = float(_answer(averaged, sample.x).gather(1, own).exp().mean())
        return (start - now) / (start - goal) if start - goal > 0.01 else 1.0  # noqa: PLR2004

    return done


def _averaging(
    watch: Watch, averaged: AveragedModel, way: Callable[[], float], settled: float
) -> Watch:
    """The guard's verdict first; then the average takes the step in, and is looked at."""
    taken, ways = 0, [0.0]

    def after(student: nn.Module, loss: float) -> Verdict:
        nonlocal taken
        verdict = watch(student, loss)
        if verdict is not Verdict.GO_ON:
            return verdict
        averaged.update_parameters(student)
        taken += 1
        if taken % 20:
            return Verdict.GO_ON
        ways.append(way())
        stands_still = len(ways) > 3 and ways[-1] - ways[-3] < 0.02  # noqa: PLR2004
        return Verdict.END if ways[-1] >= settled or stands_still else Verdict.GO_ON

    return after
