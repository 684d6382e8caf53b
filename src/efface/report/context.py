"""What the tests of one report share: both models' outputs, evaluated when first needed."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from efface.errors import InputError
from efface.io.shadows import Shadows
from efface.metrics.evaluation import Evaluation, evaluate
from efface.report.views import synthetic
from efface.task import predict, task_of
from efface.types import PARTS, Records, Split, record_key

# At most so many forget and so many unseen records go through each probe: an interval of a share
# of 500 is at most 9 points wide, and more only costs time.
MAX_RECORDS = 500
SYNTHETIC = 128
# So many of these go through a model again: what is drawn shows on a few.
REPEATED = 32


# A reason, not an error: tests raise it from deep inside, and the runner makes it a note.
class NotRun(Exception):
    """Why a test does not apply to this request; becomes the note of its row."""


class TooFew(NotRun):
    """Why records are too few for a test to be made at all; its row is inconclusive."""


@dataclass(frozen=True, eq=False)
class Pair:
    """The same records evaluated by the old and the new model, with their inputs."""

    records: Records
    before: Evaluation
    after: Evaluation

    def take(self, rows: Sequence[int] | np.ndarray) -> "Pair":
        """These rows only; a mask works too."""
        index = np.arange(len(self.records))[np.asarray(rows)]
        evaluations = self.before.take(index), self.after.take(index)
        return Pair(self.records.take(index.tolist()), *evaluations)

    def __len__(self) -> int:
        return len(self.records)


@dataclass(frozen=True, eq=False)
class Context:
    """Both models, the split, and what the request says of them: see ``collect``."""

    old: nn.Module
    new: nn.Module
    split: Split
    forget_classes: tuple[int, ...] = ()
    mislabelled: bool = False
    classes: tuple[str, ...] = ()
    seed: int = 0
    views_used: tuple[str, ...] = ()
    retrained: tuple[nn.Module, ...] = ()
    shadows: Shadows | None = None
    exact: bool = False
    stated: bool = False
    other_records: Records | None = None

    @cached_property
    def given(self) -> dict[str, int]:
        """How many records of each part and models of each kind there are; absent ones are not."""
        parts = {name: getattr(self.split, name) for name in PARTS}
        parts["others"] = self.other_records
        parts |= {"retrained": self.retrained, "shadows": self.shadows}
        return {name: len(part) for name, part in parts.items() if part}

    @cached_property
    def kind(self) -> str:
        """The name of the task: what the outputs mean."""
        return task_of(self.split.forget).name

    @property
    def tier(self) -> str:
        """The highest tier that the data allow; from T3 on holdout and retain are needed too.

        Tests of T3 and T4 run without these as far as they can; the tier is then the lower one.
        """
        if self.exact:
            return "TE"
        for part, tier in (("holdout", "T0"), ("retain", "T1")):
            if part not in self.given:
                return tier
        return "T4" if "shadows" in self.given else "T3" if self.retrained else "T2"

    @property
    def multiclass(self) -> bool:
        """Whether the task is multiclass."""
        return self.kind == "multiclass"

    def _pair(self, name: str) -> Pair:
        records = self.other_records if name == "others" else getattr(self.split, name)
        if not records:
            raise InputError(f"{name} records", "none", "Give some, or read the lower tier.")
        # Without a new model both sides are the old one; the rows are stripped afterwards.
        before = _finite(evaluate(self.old, records), "old")
        after = before if self.new is self.old else _finite(evaluate(self.new, records), "new")
        return Pair(records, before, after)

    @cached_property
    def forget(self) -> Pair:
        """The forget records."""
        return self._pair("forget")

    @cached_property
    def holdout(self) -> Pair:
        """The evaluation half of the holdout."""
        return self._pair("holdout")

    @cached_property
    def retain(self) -> Pair:
        """Records that were trained on and stay."""
        return self._pair("retain")

    @cached_property
    def others(self) -> Pair:
        """A sample of the training data that was not named, whether or not retain is given."""
        return self._pair("others")

    @cached_property
    def has_holdout(self) -> bool:
        """Whether there are unseen records; a holdout that crashes is an error row elsewhere."""
        # Rows of the forget records must stand even where the holdout cannot be evaluated.
        try:
            return len(self.holdout) > 0
        except Exception:  # noqa: BLE001
            return False

    @cached_property
    def unseen(self) -> Pair:
        """Holdout records of the forget records' classes; all of them where labels are wrong."""
        # Unseen records of other classes have other losses: comparing with them detects the class.
        if self.mislabelled or not self.multiclass:
            return self.holdout
        return self.holdout.take(np.isin(self.holdout.before.y, self.split.forget.y.cpu().numpy()))

    @property
    def matching(self) -> str:
        """Which unseen records a forget record is compared with, in words."""
        if not self.multiclass:
            return "of any kind"
        return "with the same predicted class" if self.mislabelled else "of the same classes"

    @cached_property
    def retrained_evaluations(self) -> dict[str, tuple[Evaluation, ...]]:
        """Each retrained model's evaluation, by the name of the part that is there."""
        parts = {name: getattr(self.split, name) for name in PARTS if name in self.given}
        return {
            name: tuple(_finite(evaluate(m, part), "retrained") for m in self.retrained)
            for name, part in parts.items()
        }

    @cached_property
    def synthetic_outputs(self) -> list[tuple[Tensor, Tensor]]:
        """Of the old and of the new model: outputs on noise inputs, (n, k), and their differences.

        Differences are those of a second run on every fourth input, (m, k): a model with random
        outputs gives itself away by them.
        """
        inputs = synthetic(self.forget.records, n=SYNTHETIC, seed=self.seed)
        again, found = inputs.take(range(0, SYNTHETIC, SYNTHETIC // REPEATED)), []
        for model in (self.old, self.new):
            outputs, second = (predict(model, some).double() for some in (inputs, again))
            found.append((outputs, second - outputs[:: SYNTHETIC // REPEATED]))
        return found

    @cached_property
    def tensor_changes(self) -> list[dict[str, Any]]:
        """For each weight and buffer: its L2 norm, and that of its change. Raises NotRun."""
        kinds = {"weight": nn.Module.named_parameters, "buffer": nn.Module.named_buffers}
        old, new = (
            {(kind, name): _as_real(t) for kind, of in kinds.items() for name, t in of(model)}
            for model in (self.old, self.new)
        )
        if {k: t.shape for k, t in old.items()} != {k: t.shape for k, t in new.items()}:
            raise NotRun("the two models do not have the same tensors")
        changes = []
        for (kind, name), tensor in old.items():
            after = new[kind, name]
            # Subtract in the tensors' own dtype: a change below its resolution is none.
            norm, change = (float(t.double().norm()) for t in (tensor, after - tensor))
            relative = change / norm if norm else float(change > 0)
            one = {"name": name, "kind": kind, "size": tensor.numel(), "norm": norm}
            one |= {"change": change, "relative": relative}
            changes.append(one | {"identical": torch.equal(after, tensor)})
        return changes

    def sample(self, pair: Pair, most: int) -> Pair:
        """At most ``most`` records, drawn by the hash of their ids, in their own order."""
        # By id and not by place: the order of a file must not change the report.
        return pair.take(np.sort(self._hash_order(pair)[:most]))

    def shuffled(self, pair: Pair) -> Pair:
        """The records in the order of the hash of their ids, whatever theirs was."""
        return pair.take(self._hash_order(pair))

    def _hash_order(self, pair: Pair) -> np.ndarray:
        return np.argsort([record_key(f"{self.seed}:{i}") for i in pair.records.ids])

    def attack_view(self, evaluation: Evaluation) -> Evaluation:
        """With the labels that an attack may read: the predicted ones where those are wrong."""
        return evaluation.labelled(evaluation.predicted) if self.mislabelled else evaluation

    def sides(self, side: str) -> tuple[Evaluation, Evaluation]:
        """What an attack reads of the forget and of the unseen records; "before" or "after"."""
        forget, unseen = (getattr(pair, side) for pair in (self.forget, self.unseen))
        return self.attack_view(forget), self.attack_view(unseen)

    def class_name(self, label: int) -> str:
        """The class's name, or its number."""
        return self.classes[label] if 0 <= label < len(self.classes) else str(label)

    def label_text(self, y: np.ndarray | np.generic) -> str:
        """A record's label in words: its class, the labels that it has, or its values."""
        if self.multiclass:
            return self.class_name(int(y))
        if self.kind == "multilabel":
            return ", ".join(self.class_name(int(c)) for c in np.flatnonzero(y)) or "none"
        numbers = np.atleast_1d(y).reshape(-1)
        shown = ", ".join(f"{number:.4g}" for number in numbers[:3])
        return f"{shown}, …" if len(numbers) > 3 else shown  # noqa: PLR2004


def _as_real(tensor: Tensor) -> Tensor:
    """On the CPU, as numbers that subtract: buffers may be complex or boolean."""
    tensor = tensor.detach().cpu()
    if tensor.is_complex():
        return torch.view_as_real(tensor)
    return tensor.to(torch.int8) if tensor.dtype is torch.bool else tensor


def _finite(evaluation: Evaluation, which: str) -> Evaluation:
    # NaN would pass through ranks and counts without a trace.
    finite = np.isfinite(evaluation.logits).all(axis=1)
    if not finite.all():
        raise InputError(
            f"finite outputs of the {which} model",
            f"{(~finite).sum()} of {len(evaluation)} that are not",
            "Check its weights and the inputs.",
        )
    return evaluation
