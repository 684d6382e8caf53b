"""What every method promises, one function a promise; it raises ``Broken`` when it is not kept.

The toy problem is in ``toy``; what takes a guard, an adapter or several processes is promised in
the project's own tests alone.
"""

import copy
import gc
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from efface.errors import InputError
from efface.methods._base import NEEDED
from efface.runtime import PassCounter, Passes
from efface.testing.case import Case
from efface.testing.digits import digits
from efface.testing.form import (
    a_knob_named_strength,
    nonsense_refused,
    settings_explained,
    settings_with_defaults,
    words_of_a_split,
)
from efface.testing.nets import NETS, net_of, records_for
from efface.testing.toy import the_toy_problem
from efface.testing.traps import trapped
from efface.testing.words import Broken, Refused, expect, weights_of
from efface.types import Action


def refuses_without_its_needs(case: Case) -> None:
    """Before anything happens, and in words that say how to give what is missing."""
    for part in case.entry.needs:
        what, remedy = NEEDED[part]
        lacking = copy.copy(case.split)
        object.__setattr__(lacking, part, () if part == "forget_classes" else None)
        wanted = f"Wanted {part} for {case.name}: {what}. Got a split without it. {remedy}"
        try:
            case.run(case.model, lacking)
        except InputError as error:
            expect(str(error) == wanted, wanted, str(error))
        else:
            raise Broken(f"it runs without {part}, which it says it needs")


def given_model_untouched(case: Case) -> None:
    """Weights, buffers, gradients, flags, hooks and mode: the old checkpoint stands (law 1)."""
    model = copy.deepcopy(case.model).train()
    before = copy.deepcopy(model.state_dict())
    case.run(model, case.split)
    moved = [
        key for key, value in model.state_dict().items() if not torch.equal(before[key], value)
    ]
    expect(not moved, "the given weights and buffers as they were", moved)
    expect(all(module.training for module in model.modules()), "train mode as it was", "eval mode")
    _clean(model)


def same_form(case: Case) -> None:
    """Whoever loads the result notices no difference in keys, shapes or dtypes; all is finite."""
    result = case.run(case.model, case.split)
    expect(result is not case.model, "a model of its own", "the given one")
    given, new = ({k: (v.shape, v.dtype, v.device) for k, v in m.state_dict().items()}
                  for m in (case.model, result))  # fmt: skip
    expect(list(given.items()) == list(new.items()), str(given), str(new))
    expect(_finite(result), "finite weights", "nan or inf")
    expect(not any(m.training for m in result.modules()), "eval mode", "train mode")
    _clean(result)


def weights_change(case: Case) -> None:
    """A method that does nothing would keep every other promise."""
    new, given = weights_of(case.run(case.model, case.split)), weights_of(case.model)
    expect(not torch.equal(new, given), "weights that moved", "the given ones")


def buffers_stand(case: Case) -> None:
    """BatchNorm's statistics move in train mode alone, where a paper has it, and not else."""
    result = case.run(case.model, case.split, training_mode=False)
    given = dict(case.model.named_buffers())
    moved = [k for k, v in result.named_buffers() if not torch.equal(given[k], v)]
    expect(not moved, "buffers as they were", moved)


def same_seed_same_bits(case: Case) -> None:
    """Law 3: a run can be made again, and leaves its host's random numbers alone."""
    with _random_state_kept():
        first, second = (weights_of(case.run(case.model, case.split)) for _ in range(2))
    expect(torch.equal(first, second), "the same bits from the same seed", "other bits")


def another_seed_other_bits(case: Case) -> None:
    """A seed that changes nothing is not the seed of what is drawn."""
    first, other = (weights_of(case.run(case.model, case.split, seed=s)) for s in (5, 6))
    expect(not torch.equal(first, other), "other bits from another seed", "the same")


def neutral_is_identity(case: Case) -> None:
    """A step of nothing leaves every weight where it is."""
    neutral = {"learning_rate": 0.0}
    known = case.own.keys() & neutral or {"strength"}
    neutral["strength"] = 0.0
    for setting in known:
        result = case.run(case.model, case.split, **{setting: neutral[setting]})
        _close(weights_of(result), weights_of(case.model), f"{setting}={neutral[setting]}", 1e-6)


def nothing_to_forget_is_identity(case: Case) -> None:
    """The request refuses it; a method in Python gives the model back, bit for bit.

    One that does not look at the forget records cannot see that there are none.
    """
    if "forget" not in case.entry.reads:
        return
    split = case.split_of(digits().take([]), digits().take(range(20, 60)), case.model)
    result = case.run(case.model, split)
    expect(result is not case.model, "a model of its own", "the given one")
    given = case.model.state_dict()
    moved = [k for k, v in result.state_dict().items() if not torch.equal(given[k], v)]
    expect(not moved, "nothing moved", moved)


def sees_no_more_than_it_says(case: Case) -> None:
    """Zero-shot must mean zero-shot: everything else is booby-trapped."""
    case.run(case.model, trapped(case.split, case.entry.reads))


def passes_are_per_record(case: Case) -> None:
    """Twice the records take at most twice the passes, counted on the model and all its copies."""
    half, whole = (_passes(case, count) for count in (10, 20))
    doubled = Passes(*(2 * count for count in (half.forward, half.backward)))
    within = whole.forward <= doubled.forward and whole.backward <= doubled.backward
    expect(within, f"at most {doubled} for twice the records", str(whole))


def _passes(case: Case, forget: int) -> Passes:
    """What goes through the model for so many records to forget, and twice as many that stay."""
    counted = PassCounter(case.model)
    parts = digits().take(range(forget)), digits().take(range(forget, 3 * forget))
    case.run(counted.model, case.split_of(*parts, counted.model))
    return counted.passes


def order_does_not_matter(case: Case) -> None:
    """A full batch is a set: its order is nobody's business."""
    forget, retain = digits().take(range(20)), digits().take(range(20, 60))
    one = case.split_of(forget, retain, case.model)
    backwards = forget.take(range(19, -1, -1)), retain.take(range(39, -1, -1))
    other = case.split_of(*backwards, case.model)
    object.__setattr__(other, "forget_classes", one.forget_classes)
    settings = {"batch_size": 60, "training_mode": False}
    first, second = (weights_of(case.run(case.model, s, **settings)) for s in (one, other))
    _close(first, second, "records backwards", 1e-5)


def micro_batches_change_nothing(case: Case) -> None:
    """Where memory holds few records at a time, a step is cut and comes out the same."""
    settings = {"batch_size": 60, "training_mode": False}
    whole = case.run(case.model, case.split, **settings)
    small = copy.deepcopy(case.model)
    small.register_forward_pre_hook(_no_room_for_more_than_sixteen)
    parts = digits().take(range(20)), digits().take(range(20, 60))
    gc.freeze()  # what is collected on the way out of memory is what came after this
    try:
        cut = case.run(small, case.split_of(*parts, small), **settings)
    finally:
        gc.unfreeze()
    moved = float((weights_of(whole) - weights_of(case.model)).abs().max())
    within = 1e-6 + min(1e-4, 0.02 * moved)
    _close(weights_of(whole), weights_of(cut), "sixteen records at a time", within)


def the_guard_is_obeyed(case: Case) -> None:
    """A guard that is not asked after each step cannot save a model."""
    asked: list[float] = []
    end = 1 if case.entry.one_step else 3

    def callback(student: nn.Module, loss: float) -> Action:  # noqa: ARG001
        asked.append(loss)
        return Action.STOP if len(asked) == end else Action.CONTINUE

    case.run(case.model, case.split, callback=callback)
    told = (
        f"an end after step {end}, as it was told (without a loop: @register_method(one_step=True))"
    )
    expect(len(asked) == end, told, f"{len(asked)} steps")
    expect(all(isinstance(loss, float) for loss in asked), "losses", asked)


def _on(kind: str) -> Callable[[Case], None]:
    def works(case: Case) -> None:
        model, records = net_of(kind), records_for(kind)
        parts = records.take(range(20)), records.take(range(20, 60))
        split = case.split_of(*parts, model)
        try:
            with _random_state_kept():
                first, second = (weights_of(case.run(model, split)) for _ in range(2))
        except InputError as error:
            expect(NETS[kind].may_be_refused, f"to work on {NETS[kind].said}", str(error))
            raise Refused(str(error)) from error
        expect(bool(first.isfinite().all()), "finite weights", "nan or inf")
        expect(torch.equal(first, second), "the same bits from the same seed", "other bits")

    works.__doc__ = f"It works, and can be made again, on a net with {NETS[kind].said}."
    return works


PROMISES: dict[str, Callable[[Case], None]] = {
    "words": words_of_a_split,
    "settings": settings_with_defaults,
    "strength": a_knob_named_strength,
    "explained": settings_explained,
    "nonsense": nonsense_refused,
    "needs": refuses_without_its_needs,
    "untouched": given_model_untouched,
    "form": same_form,
    "changes": weights_change,
    "buffers": buffers_stand,
    "same seed": same_seed_same_bits,
    "seed": another_seed_other_bits,
    "identity": neutral_is_identity,
    "empty": nothing_to_forget_is_identity,
    "sees": sees_no_more_than_it_says,
    "cost": passes_are_per_record,
    "order": order_does_not_matter,
    "micro-batches": micro_batches_change_nothing,
    "guard": the_guard_is_obeyed,
    **{kind: _on(kind) for kind in NETS},
    "toy": the_toy_problem,
}
"""Every promise by the name that an exception names it by."""


def _clean(model: nn.Module) -> None:
    """No gradients, no hooks, and every weight may move."""
    left = [name for name, weight in model.named_parameters() if weight.grad is not None]
    expect(not left, "no gradients left behind", left)
    shut = [name for name, weight in model.named_parameters() if not weight.requires_grad]
    expect(not shut, "weights that may move", shut)
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    hooked = [n for n, m in model.named_modules() if any(getattr(m, kind) for kind in kinds)]
    expect(not hooked, "no hooks left behind", hooked)


def _finite(model: nn.Module) -> bool:
    return all(bool(value.isfinite().all()) for value in model.state_dict().values())


def _close(first: Tensor, second: Tensor, when: str, within: float) -> None:
    apart = float((first - second).abs().max())
    expect(apart <= within, f"the same weights with {when}, within {within}", f"{apart:g} apart")


def _no_room_for_more_than_sixteen(_: nn.Module, inputs: tuple[Any, ...]) -> None:
    if len(inputs[0]) > 16:  # noqa: PLR2004
        raise torch.OutOfMemoryError("CUDA out of memory (as a small device would say)")


@contextmanager
def _random_state_kept() -> Iterator[None]:
    before = torch.random.get_rng_state()
    yield
    moved = not torch.equal(before, torch.random.get_rng_state())
    expect(not moved, "the host's random state as it was", "another")


def in_words(promises: Iterable[str]) -> dict[str, str]:
    """The first sentence of each promise."""
    return {name: inspect.getdoc(PROMISES[name]).split("\n")[0] for name in promises}  # type: ignore[union-attr]
