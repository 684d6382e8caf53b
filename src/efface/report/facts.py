"""What the tests of one request share: both models' answers, measured when first asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from torch import nn

from efface.errors import InputError
from efface.io.shadows import Shadows
from efface.metrics.measure import Evaluation, evaluate
from efface.task import task_of
from efface.types import Records, Split, record_key


class NotRun(Exception):  # it is an answer, not an error
    """Why a test says nothing about this request; becomes a row."""


@dataclass(frozen=True, eq=False)
class Pair:
    """The same records before and after; with their inputs, for the tests that change these."""

    records: Records
    before: Evaluation
    after: Evaluation

    def take(self, rows: Sequence[int] | np.ndarray) -> "Pair":
        """Only these rows; a mask works too."""
        index = np.arange(len(self.records))[np.asarray(rows)]
        return Pair(
            self.records.take(index.tolist()), self.before.take(index), self.after.take(index)
        )

    def __len__(self) -> int:
        return len(self.records)


@dataclass(frozen=True, eq=False)
class Facts:
    """Old and new model, the split, and what the request says of it.

    ``retrained``: models trained without the forget records; ``shadows``: what shadow models leave;
    ``exact``: the new model was itself trained anew without them; ``left_out``: forget records that
    were found among the records that stay, and taken out before.
    """

    old: nn.Module
    new: nn.Module
    split: Split
    forget_classes: tuple[int, ...]
    mislabelled: bool
    classes: tuple[str, ...]
    seed: int
    method_saw: tuple[str, ...]
    retrained: tuple[nn.Module, ...] = ()
    shadows: Shadows | None = None
    exact: bool = False
    left_out: int = 0

    @cached_property
    def at_hand(self) -> frozenset[str]:
        """What there is beside the models and the forget records."""
        parts = [name for name in ("holdout", "retain") if getattr(self.split, name)]
        given = {"retrained": bool(self.retrained), "shadows": self.shadows is not None}
        return frozenset([*parts, *(name for name, there in given.items() if there)])

    @cached_property
    def kind(self) -> str:
        """What the model's outputs mean: the adapter's name."""
        return task_of(self.split.forget).name

    @property
    def of_classes(self) -> bool:
        """Whether a record has one class of several."""
        return self.kind == "multiclass"

    def _pair(self, records: Records) -> Pair:
        before = _finite(evaluate(self.old, records), "old")
        if self.new is self.old:
            return Pair(records, before, before)
        return Pair(records, before, _finite(evaluate(self.new, records), "new"))

    @cached_property
    def forget(self) -> Pair:
        """The forget records."""
        return self._pair(self.split.forget)

    @cached_property
    def holdout(self) -> Pair:
        """The evidence's half of the holdout; an error of its own when there is none."""
        return self._pair(_given(self.split.holdout, "holdout"))

    @cached_property
    def retain(self) -> Pair:
        """Records that were trained on and stay."""
        return self._pair(_given(self.split.retain, "retain"))

    @cached_property
    def retrained_on(self) -> dict[str, tuple[Evaluation, ...]]:
        """What each retrained model says, by the name of the part; parts not at hand are absent."""
        parts = {name: getattr(self.split, name) for name in ("forget", "holdout", "retain")}
        return {
            name: tuple(_finite(evaluate(model, part), "retrained") for model in self.retrained)
            for name, part in parts.items()
            if part
        }

    @cached_property
    def staying(self) -> Pair:
        """The holdout without the classes that leave."""
        return self.holdout.take(~np.isin(self.holdout.before.groups, list(self.forget_classes)))

    @cached_property
    def rivals(self) -> Pair:
        """Holdout records of the forget records' classes; all where the labels are wrong."""
        if self.mislabelled or not self.of_classes:
            return self.holdout
        return self.holdout.take(np.isin(self.holdout.before.y, self.split.forget.y.cpu().numpy()))

    @cached_property
    def has_unseen(self) -> bool:
        """Whether a holdout gives targets; one that cannot be measured is a red row elsewhere."""
        try:
            return len(self.holdout) > 0
        except Exception:  # noqa: BLE001
            return False

    @property
    def alike(self) -> str:
        """Which unseen records a forget record is compared with, in words."""
        if not self.of_classes:
            return "of any kind"
        return "with the same answer" if self.mislabelled else "of the same classes"

    def sample(self, pair: Pair, most: int) -> Pair:
        """At most ``most`` records, drawn by the hash of their ids."""
        return pair.take(np.sort(self._order(pair)[:most]))

    def shuffled(self, pair: Pair) -> Pair:
        """The same records in the order of the hash of their ids, whatever theirs was."""
        return pair.take(self._order(pair))

    def _order(self, pair: Pair) -> np.ndarray:
        return np.argsort([record_key(f"{self.seed}:{i}") for i in pair.records.ids])

    def about(self, some: Pair) -> "Facts":
        """The same facts about some of the forget records; what was measured is not asked again."""
        fewer = replace(self, split=replace(self.split, forget=some.records))
        known = {k: v for k, v in self.__dict__.items() if k in ("holdout", "retain", "rivals")}
        fewer.__dict__.update(known, forget=some)
        return fewer

    def seen_by_attack(self, measured: Evaluation) -> Evaluation:
        """With the labels that an attack may read: the model's own answers if those are wrong."""
        return measured.labelled(measured.predicted) if self.mislabelled else measured

    def name(self, label: int) -> str:
        """The class's name, or its number."""
        return self.classes[label] if 0 <= label < len(self.classes) else str(label)


def _given(records: Records | None, name: str) -> Records:
    if records is None or not len(records):
        raise InputError(f"{name} records", "none", "Give some, or read the lower tier.")
    return records


def _finite(measured: Evaluation, which: str) -> Evaluation:
    """Answers that are no numbers would pass through ranks and counts without a sign."""
    if not np.isfinite(measured.logits).all():
        broken = int((~np.isfinite(measured.logits)).any(axis=1).sum())
        raise InputError(
            f"finite answers of the {which} model",
            f"{broken} of {len(measured)} that are not",
            "Look at its weights and at the inputs.",
        )
    return measured
