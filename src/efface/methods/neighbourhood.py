"""Neighbourhood: answers placed where unseen ones lie, after JiT: https://arxiv.org/abs/2402.01401.

What a record taught the model is what the model says of it beyond what its neighbourhood says
(information content). Its neighbourhood knows how hard the record is, so it gives the *rank* among
the records that go; how sure the model is of such a record that it never saw is what it says of
unseen ones, so the holdout gives the *scale*:

    s(x) = mean over 16 mild copies of v(f₀(copy of x)),    v* = Q((rank of s(x) − ½) / n),
    loss(x) = D(p*, q(x)) + λ · D(f₀(a), q(a)) of an anchor a,
    D(p, q) = KL(p ‖ q) + 5 ((v_y(p) − v_y(q))² + mean over classes c of (v_c(p) − v_c(q))²) / σ².

f₀ is the given model, q the student, v_c the log-odds of class c and v those of the label y, Q the
quantiles of v on unseen records, σ its standard deviation there, and p* the copies' mean answer
with the log-odds v*, the other classes keeping their proportions. For a random sample of the
training data with right labels the law of v* is that of unseen records, since the sample is
exchangeable with them. Anchors hold the rest in place: unseen inputs or, without them, the records
under a wide perspective and means of two; where records that stay are given, they are every second
one. There y is the best class. The squares in D are there because to KL a label of probability 1e-2
and one of 1e-10 are the same, and to an attacker per record they are not; nor does KL keep the
log-odds of unseen records as they were.

- What must not be answered (a class that goes, a wrong label, the label of a whole group) is masked
  first, in targets and anchors; v is then the log-odds of the best of what is left, on both sides.
  Of a class or a group that goes the masked answer is the target as it is, by KL alone: unseen
  records are of kinds that the model has, and of one that it lacks it would be less sure.
- Fewer than 20 records: no ranks, since the extremes of two records are no sample. v* is drawn,
  by a hash of the id: the holdout's regression of v on s, with one of its residuals. A record of
  which the model would come to be surer keeps its answer: few have no law that must be kept.
- A reference model, which never saw the records, takes the place of the copies: s is its v(x), p*
  has its proportions, and what is masked is masked in its answer. Without a holdout its answer is
  the target as it is.
- Of each class with at least 10 forget and 50 unseen records Q is the class's own.
- Without a holdout of 50 records Q is a normal law, whose share above 0 is the expected accuracy
  and whose standard deviation is the copies' own; without an accuracy it is the law of the copies,
  of which the model is mostly surer than of unseen records: it then forgets too little, and where
  it is not, as of digits, too much. Wrong labels take
  the law of each masked copy's best answer: no accuracy says how sure the model is of those.
- Multilabel: v is each label's logit, signed by its truth; regression: the error of each value. A
  task of one's own has no law: p* is the copies' mean output.

Steps are Muon's (``training.Muon``): as many of clipped SGD leave 500 records 20 points from
retraining, where these leave 2.6 (research/results/goals.md). Rate, steps and batch follow the
number of records n and no search: ``schedule_for``. There is no paper of this form.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from efface.methods import _unseen as unseen
from efface.methods._base import Count, Memory, NonNegative, Share, log, register_method
from efface.methods._perturb import IMAGE, add_noise, perspective, shift_and_flip, uniforms
from efface.methods._records import sample
from efface.task import frozen_teacher, predict, task_of, trainable_copy
from efface.training import Muon, descend, linear_decay, with_task
from efface.types import Action, Callback, Records, Split, Task, no_callback, record_key

# Copies that rank; draws of the copies, and of the law, begin here: no training step is one.
COPIES, COPY_DRAWS = 16, 1_000_000

# Records that are too few to rank; of a class, with its unseen records, to have its own quantiles;
# unseen records that make a law; those of them that are asked for their copies where few go.
FEW, CLASS, CLASS_UNSEEN, ENOUGH, SCORED = 20, 10, 50, 50, 128

# Log-probability of what is masked, and of anything in a target at the least.
FLOOR = -60.0

# Anchors of each kind at a step, at the least.
ANCHORS = 32

# More than this share of the way to the targets being left, and more than this probability, the
# steps are taken again at twice the rate; turns at most; records that are asked.
LEFT, NEAR, TURNS, ASKED = 0.15, 0.03, 3, 64

# Outputs that differ by less are the same.
SAME = 1e-4

# Weight of squared log-odds next to KL.
SQUARES = 10.0

# Forget records at most whose surroundings are anchors; records that stay, unless many go.
POOL = 1000

# Share of copies that keep the prediction where no accuracy is known; share of the accuracy that
# copies must keep; copies asked for that; distortions tried where the labels are wrong.
GUESS, FIT, PROBES, DISTORTIONS = 0.95, 0.75, 64, (0.1, 0.2, 0.35, 0.5)


@dataclass(frozen=True)
class StepRule:
    """How the student moves: learning rate of the first step, steps, records in a step."""

    learning_rate: float
    steps: int
    batch_size: int


def schedule_for(
    records: int,
    *,
    holdout: bool,
    learning_rate: float | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
) -> StepRule:
    """The rule of rate, steps and batch for so many records; what is given stands.

    Batch: a quarter of the records, 50 at most up to 500 of them and then growing by their square
    root. Steps: 8 epochs, and 64 at least, below 20 records 32. Rate: 5e-3, 3e-3 without a holdout,
    whose inputs hold the model in place better than those made of the records; times (n / 20)^0.6
    below 20 records, since the gradient of few points into few directions, each of which Muon takes
    in full.
    """
    batch = batch_size or min(-(-records // 4), math.ceil(50 * max(1.0, records / 500) ** 0.5))
    rate = (5e-3 if holdout else 3e-3) * min(1.0, records / FEW) ** 0.6
    rule = StepRule(rate, max(64 if records >= FEW else 32, -(-8 * records // batch)), batch)
    rate = rule.learning_rate if learning_rate is None else learning_rate
    return replace(rule, learning_rate=rate, steps=steps or rule.steps)


def count_passes(split: Split, settings: dict[str, Any]) -> int:
    """Forward and backward passes of a run whose steps are not taken again."""
    n, holdout = len(split.forget), len(split.holdout or ())
    known = holdout >= ENOUGH
    own = {name: settings.get(name) for name in ("learning_rate", "steps", "batch_size")}
    rule = schedule_for(n, holdout=known, **own)
    batch = min(rule.batch_size, n)
    in_a_step = batch * (1 + -(-ANCHORS // rule.batch_size))
    # each inputs' copies, or one pass through a reference; where few go those of unseen ones too
    ranked = n + SCORED * (known and n < FEW)
    copies = ranked if split.reference is not None else COPIES * ranked + 8 * PROBES
    return 2 * rule.steps * in_a_step + copies + (holdout if known else n)


@register_method(
    reads={"forget labels", "holdout", "forget_classes", "retain", "reference"},
    memory=Memory(copies=5, graphs=4, neighbours=2 * ANCHORS),
    purpose="any request; answers placed where those to unseen records lie",
    passes=45,
    schedule=count_passes,
)
def neighbourhood(
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    expected_accuracy: Share | None = None,
    mislabelled: bool = False,
    whole_group: bool = False,
    locality: NonNegative = 3.0,
    learning_rate: NonNegative | None = None,
    steps: Count | None = None,
    batch_size: Count | None = None,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Distil each forget record to an answer placed among those that unseen records get.

    Reads the model, the forget records with their labels and, where they are given, the holdout
    (its records with labels for the law of unseen answers, its inputs as anchors), inputs of
    records that stay as anchors, and a reference model that never saw the forget records.

    Cost, from 500 records on: 32 forward and 16 backward passes a record (16 copies, 8 · 2 in
    steps), some 500 to choose the copies, 1 more a record at most for anchors without a holdout, or
    one forward pass of the holdout; the guard's are a tenth of these, and one pass of the holdout.
    Steps that leave the labels'
    probabilities more than 15 % of the way, and 0.03, from their targets are taken again, twice at
    most, each time at twice the rate. Of a reference model one pass a record takes
    the place of the copies'.

    Args:
        model: the given model; it is not changed.
        split: ``forget``, ``forget_classes`` and, where they are given, ``holdout``, ``retain``
            and ``reference`` are read.
        strength: how far the target lies from the given answer, in log-probabilities: 0 is the
            given model, 1 where unseen answers lie.
        expected_accuracy: the model's accuracy on unseen data (0 to 1), from its model card; read
            where there is no holdout of 50 records.
        mislabelled: the labels of the forget records are wrong and are masked.
        whole_group: the label itself may not be predicted either, since no record of their kind
            stays (all rockets, all pictures of a person), and is masked.
        locality: λ, weight of the anchors.
        learning_rate: of Muon at the first step, falling in a line to 0; ``schedule_for`` when not
            given, as steps and batch size; with a rate or steps given they are not taken again.
        steps: so many.
        batch_size: records in a step.
        seed: draws the copies, the anchors and the order.
        callback: called after each step.

    Raises:
        InputError: a class goes, or labels are masked, and the task is not multiclass.
    """
    split = replace(split, forget=with_task(split.forget))
    forget, student, teacher = split.forget, trainable_copy(model), frozen_teacher(model)
    own: dict[str, Any] = {"learning_rate": learning_rate, "steps": steps, "batch_size": batch_size}
    known = split.holdout is not None and len(split.holdout) >= ENOUGH
    rule = schedule_for(len(forget), holdout=known, **own)
    facts: dict[str, Any] = {
        "strength": strength,
        "expected_accuracy": expected_accuracy,
        "locality": locality,
    }
    facts |= {"mislabelled": mislabelled, "whole_group": whole_group, "seed": seed}
    loss = neighbourhood_loss(teacher, split, **facts, batch_size=rule.batch_size)
    # the step has one length whatever the gradient's: with nothing to do it would still be taken
    if not strength or not rule.learning_rate:
        return student
    if len(forget) < FEW and _are_same(loss.target.outputs, _given(teacher, forget)):
        because = "the target of each record is the answer that the model already gives"
        log("neighbourhood: no step", nothing_to_do=because)
        return student
    how: dict[str, Any] = {"steps": rule.steps, "batch_size": rule.batch_size}
    refused = False

    def watched(student: nn.Module, value: float) -> Action:
        nonlocal refused
        action = callback(student, value)
        refused = refused or action is not Action.CONTINUE
        return action

    first = loss.apart(student)
    for turn in range(1 if learning_rate or steps else TURNS):
        optimizer = Muon(student.parameters(), 2**turn * rule.learning_rate)
        how["callback"] = linear_decay(watched, optimizer, rule.steps)
        student = descend(student, loss, forget, optimizer, seed=seed + turn, **how)
        left = loss.apart(student)
        log("neighbourhood: steps ended", left=left)
        if refused or left <= max(LEFT * first, NEAR):
            break
    return student


def neighbourhood_loss(
    teacher: nn.Module,
    split: Split,
    *,
    strength: float = 1.0,
    expected_accuracy: float | None = None,
    mislabelled: bool = False,
    whole_group: bool = False,
    locality: float = 3.0,
    batch_size: int = 128,
    targets: "Targets | None" = None,
    squares: float = SQUARES,
    seed: int = 0,
) -> "NeighbourhoodLoss":
    """``loss(student, batch, step)``, one number a record: for a training loop of one's own.

    ``teacher`` is the given model, frozen (``task.frozen_teacher`` of a copy, where the loop
    changes the model in place); a batch is of records of ``split.forget``, by their ids.
    ``batch_size``: records in a step, which have at least 32 anchors; ``targets``: those of
    ``place_targets``, which is called here when they are not given; ``squares``: weight of squared
    log-odds next to KL.
    Raises InputError when a class goes, or labels are masked, and the task is not multiclass.
    """
    forget = split.forget
    # records whose label is wrong, or that are all of their kind, must not get it
    mask = _masking(split, labels=mislabelled or whole_group)
    holdout = Unseen.of(teacher, split)
    facts: dict[str, Any] = {"mislabelled": mislabelled, "whole_group": whole_group, "seed": seed}
    facts["expected_accuracy"] = expected_accuracy
    target = targets or place_targets(teacher, split, holdout, **facts)
    if strength != 1:
        given = _given(teacher, forget)
        target = replace(target, outputs=given + strength * (target.outputs - given))
    anchors, count = holdout or Unseen.around(teacher, split, mask), -(-ANCHORS // batch_size)
    anchors = anchors.with_retained(teacher, split)
    return NeighbourhoodLoss(forget, target, anchors, count, locality, squares, seed)


@dataclass(frozen=True, eq=False)
class NeighbourhoodLoss:
    """D of a record to its target, and λ times that of its ``count`` anchors to their answers."""

    forget: Records
    target: "Targets"
    anchors: "Unseen"
    count: int
    locality: float
    squares: float
    seed: int

    def __call__(self, student: nn.Module, batch: Records, step: int) -> Tensor:
        """The loss of each record of a batch; ``step`` draws its anchors."""
        wide = _repeated(batch, self.count)
        inputs, held = self.anchors.anchors(wide, seed=self.seed, step=step)
        # one forward pass for the records and their anchors
        output = self._task.outputs(student, torch.cat([batch.x, inputs]))
        output, around = output[: len(batch)], output[len(batch) :]
        how = self._task, self.target.scale, self.squares
        apart = distance(*how, held, around, None).reshape(len(batch), self.count).mean(1)
        return self._own(output, [self._row_of[name] for name in batch.ids]) + self.locality * apart

    def apart(self, student: nn.Module) -> float:
        """Mean distance of the labels' probability to its target, of at most 64 of the records.

        Of tasks without classes: the mean divergence.
        """
        some = self.forget.take(range(min(len(self.forget), ASKED)))
        wanted, output = self.target.outputs[: len(some)], predict(student, some)
        if self._task.name != "multiclass":
            return float(self._task.divergence(wanted, output).mean())
        off = (wanted.softmax(1) - output.softmax(1)).gather(1, some.y.cpu()[:, None])
        return float(off.abs().mean())

    def _own(self, output: Tensor, rows: list[int]) -> Tensor:
        wanted = self.target.outputs[rows].to(output)
        if not self.target.placed:
            return self._task.divergence(wanted, output)
        y = self.target.labels[rows].to(output.device)
        return distance(self._task, self.target.scale, self.squares, wanted, output, y)

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.forget.ids)}

    @property
    def _task(self) -> Task:
        return task_of(self.forget)


def distance(
    task: Task, scale: float, squares: float, given: Tensor, now: Tensor, y: Tensor | None
) -> Tensor:
    """How far outputs are from given ones, a number a record: the task's divergence and log-odds.

    The module's D, of outputs (n, k); ``scale`` is its σ. ``y``: labels; without them the given
    answer's best class. Masked classes are the divergence's alone. Of several labels each logit
    counts; other tasks have the divergence alone.
    """
    apart = task.divergence(given, now)
    if task.name == "multilabel":
        return apart + squares * ((given - now) / scale).square().mean(1)
    if task.name != "multiclass":
        return apart
    given = given.log_softmax(1)
    stays = given > FLOOR + 0.5
    # of a class alone there is nothing to place
    stays = stays & (stays.sum(1, keepdim=True) > 1)
    off = ((_all_odds(given) - _all_odds(now)).where(stays, 0) / scale).square()
    y = given.argmax(1) if y is None else y
    own, others = off.gather(1, y[:, None])[:, 0], off.sum(1) / stays.sum(1).clamp_min(1)
    return apart + squares / 2 * (own + others)


def _all_odds(output: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """Log-odds of every class."""
    logs = output.log_softmax(1)
    best = logs.argmax(1, keepdim=True)
    # all others are below a half
    rest = torch.log1p(-logs.exp().scatter(1, best, 0).clamp_max(0.75))
    return logs - rest.scatter(
        1, best, logs.scatter(1, best, -torch.inf).logsumexp(1, keepdim=True)
    )


Mask = Callable[[Tensor, Records], Tensor]


def _masking(split: Split, *, labels: bool) -> Mask:
    """Log-probabilities without the masked classes; the outputs as they are without any."""
    masked = unseen.label_mask(split, mislabelled=labels)

    def mask(output: Tensor, batch: Records) -> Tensor:
        if not split.forget_classes and not labels:
            return output
        # what an earlier mask took stays away
        gone = masked(output, batch) | (output == FLOOR)
        left = output.masked_fill(gone, -torch.inf).log_softmax(1).clamp_min(FLOOR + 1)
        # a number and not -inf, which strength could not scale
        return left.masked_fill(gone, FLOOR)

    return mask


@dataclass(frozen=True, eq=False)
class Unseen:
    """Records with the given model's answers, on the CPU: the law of unseen ones, and anchors.

    ``retained``: so many of the first are records that stay; half of the anchors come from these.
    """

    records: Records
    outputs: Float[Tensor, "m k"]
    retained: int = 0

    @classmethod
    def of(cls, teacher: nn.Module, split: Split) -> "Unseen | None":
        """Those of the holdout, asked once; None where there are fewer than 50."""
        if split.holdout is None or len(split.holdout) < ENOUGH:
            return None
        # the holdout's own labels could suggest another task
        holdout = replace(split.holdout, task=split.forget.task)
        mask = _masking(split, labels=False)
        return cls(holdout, mask(predict(teacher, holdout), holdout))

    @classmethod
    def around(cls, teacher: nn.Module, split: Split, mask: "Mask") -> "Unseen":
        """Inputs that nobody trained on: the forget records under a wide perspective, means of two.

        Copies of one record alone would hold the very answer that is to change.
        """
        forget = _by_ids(split.forget, min(POOL, max(ANCHORS, -(-len(split.forget) // 3))))
        n = len(forget)
        turns = range(-(-2 * ANCHORS // n))
        wide = [_distorted(forget, 0.5, seed=0, step=turn) for turn in turns]
        parts: list[tuple[Records, tuple[Records, ...]]] = [(one, (one,)) for one in wide]
        # a record alone has no other
        for turn in turns if n > 1 else ():
            other = forget.take(torch.arange(n).roll(-1 - turn % (n - 1)))
            parts.append((replace(forget, x=(forget.x + other.x) / 2), (forget, other)))
        answers = []
        for inputs, sources in parts:
            answer = predict(teacher, inputs)
            for source in sources:
                answer = mask(answer, replace(source, y=source.y.cpu()))
            answers.append(answer)
        x = torch.cat([inputs.x for inputs, _ in parts])
        return cls(Records(x, torch.zeros(len(x)), task=forget.task), torch.cat(answers))

    def with_retained(self, teacher: nn.Module, split: Split) -> "Unseen":
        """These, after a sample of the records that stay, where there are some."""
        if split.retain is None or not len(split.retain):
            return self
        some = _by_ids(split.retain, max(POOL, 2 * len(split.forget)))
        some = replace(some, task=split.forget.task)
        answers = _masking(split, labels=False)(predict(teacher, some), some)
        x = torch.cat([some.x, self.records.x.to(some.x)])
        records = Records(x, torch.zeros(len(x)), task=split.forget.task)
        return Unseen(records, torch.cat([answers, self.outputs]), len(some))

    @property
    def accuracy(self) -> float:
        """Of the given model on them, 0 to 1."""
        right = task_of(self.records).accuracy(self.outputs, self.records.y.cpu())
        return float(right.double().mean())

    def anchors(self, batch: Records, *, seed: int, step: int) -> tuple[Tensor, Tensor]:
        """One of these inputs for each record, drawn by its id, and the given model's answer."""
        draws = uniforms(batch.ids, 1, seed=seed, step=step)[:, 0]
        rows = (draws * len(self.records)).long()
        if first := self.retained:
            # the first half of the draws are of these, the second of the others
            place, rest = 2 * draws % 1, len(self.records) - first
            others = first + (place * rest).long()
            rows = torch.where(2 * draws < 1, (place * first).long(), others)
        inputs = self.records.x[rows.to(self.records.x.device)].to(batch.x)
        return inputs, self.outputs[rows].to(batch.x)


@dataclass(frozen=True, eq=False)
class Law:
    """Values of unseen records: ``value`` and ``group`` (m, c); ``score``, what copies say."""

    value: np.ndarray
    group: np.ndarray
    score: np.ndarray | None = None

    def of(self, group: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Values, and scores, of one group; of all for -1."""
        here = self.group == group if group >= 0 else np.ones_like(self.group, bool)
        return self.value[here], None if self.score is None else self.score[here]


@dataclass(frozen=True, eq=False)
class Targets:
    """The outputs (n, k) that the forget records are distilled to, on the CPU.

    ``base`` (n, k): the copies' mean answer or that of the reference model, masked, with its own
    values; ``labels`` (n, …): whose values are placed; ``scale``: the standard deviation of such
    values on unseen records; ``placed``: by a law, so that log-odds are to be met.
    """

    outputs: Float[Tensor, "n k"]
    base: Float[Tensor, "n k"]
    labels: Tensor
    scale: float = 1.0
    placed: bool = True


def place_targets(
    teacher: nn.Module,
    split: Split,
    holdout: Unseen | None,
    *,
    mislabelled: bool = False,
    whole_group: bool = False,
    expected_accuracy: float | None = None,
    seed: int = 0,
) -> Targets:
    """What each forget record is distilled to."""
    forget, kind = split.forget, task_of(split.forget).name
    hidden = bool(split.forget_classes) or mislabelled or whole_group
    facts: dict[str, Any] = {"mislabelled": mislabelled, "accuracy": expected_accuracy}
    ask = _what_ranks(teacher, split, holdout, hidden=hidden, seed=seed, **facts)
    copies = ask(forget)
    # the mean of log-probabilities: one confident copy must not outvote the others
    logs = [one.log_softmax(1) if kind == "multiclass" else one for one in copies]
    base, y = torch.stack(logs).mean(0), forget.y.cpu()
    if hidden:
        mask = _masking(split, labels=mislabelled or whole_group)
        base, *copies = [mask(one, replace(forget, y=y)) for one in (base, *copies)]
        # the best of what is left, as of the unseen records
        y = base.argmax(1)
    if kind not in {"multiclass", "multilabel", "regression"}:
        return Targets(base, base, y)
    # unseen records are of kinds that the model has: of one that it lacks it would be less sure
    if split.forget_classes or whole_group:
        law = _holdout_law(holdout, kind, hidden=False).value if holdout else log_odds(base, y)
        return Targets(base, base, y, float(law.std()) or 1.0, placed=False)
    values = np.stack([_values(kind, one, y) for one in ([base] if hidden else copies)])
    score, group = values.mean(0), _groups(kind, y)
    if holdout is None and split.reference is not None:
        # nothing says how the given model's scale differs from its own
        return Targets(base, base, y, float(score.std()) or 1.0)
    if holdout is None:
        law = _assumed_law(kind, copies, None if hidden else y, group, expected_accuracy)
    elif hidden or len(forget) >= FEW:
        law = _holdout_law(holdout, kind, hidden=hidden)
    else:
        law = _scored_law(teacher, split, ask, seed)
    if kind == "multiclass":
        group = np.full_like(group, -1) if hidden else _own_quantiles(group, law)
    placed = _place(score, group, law, forget.ids, seed)
    log(
        "neighbourhood: targets placed", placed=float(placed.mean()), unseen=float(law.value.mean())
    )
    outputs = set_values(kind, base, y, torch.as_tensor(placed))
    few = len(forget) < FEW and not hidden
    outputs = _never_surer(kind, outputs, _given(teacher, forget), y) if few else outputs
    # of a model that answers all alike there is no standard deviation
    return Targets(outputs, base, y, float(law.value.std()) or 1.0)


def _place(
    score: np.ndarray, group: np.ndarray, law: Law, ids: tuple[str, ...], seed: int
) -> np.ndarray:
    """The value of each record: by its rank among many, drawn given its score among few."""
    if len(ids) < FEW:
        draws = uniforms(ids, score.shape[1], seed=seed, step=COPY_DRAWS - 1).numpy()
        return _by_draw(score, group, law, draws)
    keys = np.array([record_key(name) for name in ids])
    return _by_rank(score, group, law, np.broadcast_to(keys[:, None], score.shape))


# One copy of each record; the number says which. And the answers of which a record's score is made.
Copies = Callable[[Records, int], Records]
Ask = Callable[[Records], list[Tensor]]


def _what_ranks(
    teacher: nn.Module, split: Split, holdout: "Unseen | None", *, hidden: bool, **how: Any
) -> Ask:
    """The reference model's answer; else those to mild copies, or to the records themselves."""
    if split.reference is not None:
        teacher = split.reference
    # copies of a group are of it too: what is left of the record's own answer ranks
    elif how["mislabelled"] or not hidden:
        return partial(_outputs, teacher, copies=mild_copies(teacher, split, holdout, **how))
    return lambda records: [predict(teacher, records)]


def _outputs(teacher: nn.Module, records: Records, copies: Copies) -> list[Tensor]:
    """The given model's outputs for 16 copies of each record."""
    return [predict(teacher, copies(records, draw)) for draw in range(COPIES)]


def mild_copies(
    teacher: nn.Module,
    split: Split,
    holdout: "Unseen | None",
    *,
    mislabelled: bool,
    accuracy: float | None,
    seed: int,
) -> Copies:
    """The copies that rank: shifted and mirrored ones, or shifted ones, if they are fit for it.

    Too strong are copies of unseen records that are right less than 3/4 as often as those (a
    mirrored digit is another sign); too mild are copies of the forget records that lose less than
    half as many predictions as unseen records are wrong (a net that was trained with such copies
    knows them too). Else, and of what is no image, perspectives or noise, at the strength at which
    copies keep the prediction as often as unseen records are right, or unseen ones lose a quarter.
    Of mislabelled records without a holdout: ``_surest`` of these and some perspectives.
    ``accuracy``: the expected one, where there is no holdout.
    """
    # the forget records themselves are asked where they are many, or alone
    by_records = not mislabelled and (len(split.forget) >= FEW or holdout is None)
    distorted, image = partial(_distorted_copy, seed=seed), split.forget.x.ndim == IMAGE
    forget = split.forget.take(range(min(len(split.forget), PROBES)))
    shifts = [partial(_shifted, seed=seed, mirrored=one) for one in (True, False) if image]
    if holdout is None and mislabelled:
        strengths = [partial(distorted, distortion=one) for one in DISTORTIONS]
        return _surest(teacher, forget, [*shifts, *strengths])
    wanted = holdout.accuracy if holdout else (GUESS if accuracy is None else accuracy)
    own = task_of(forget).predict(predict(teacher, forget))
    some = _some_unseen(split, seed) if holdout else forget
    kept = partial(_share, teacher, forget, own)
    right = partial(_share, teacher, some, some.y if holdout else own)

    def surplus(copies: Copies) -> float:
        return kept(copies) - wanted if by_records else right(copies) - FIT * wanted

    for copies in shifts:
        most = (1 - wanted) / 2 if by_records else 1.0
        if right(copies) >= FIT * wanted and surplus(copies) <= most:
            log("neighbourhood: copies shifted", mirrored=copies.keywords["mirrored"])
            return copies
    low, high = 0.0, 0.8
    for _ in range(4):
        middle = (low + high) / 2
        # a stronger distortion keeps fewer predictions
        enough = surplus(partial(distorted, distortion=middle)) > 0
        low, high = (middle, high) if enough else (low, middle)
    log("neighbourhood: copies distorted", distortion=low)
    return partial(distorted, distortion=low)


def _surest(teacher: nn.Module, wrong: Records, tried: list[Copies]) -> Copies:
    """Of the copies that mostly lose their wrong label those of whose other answers f₀ is surest.

    Copies that keep it are known too; of stranger ones the model is less sure than of unseen ones.
    """
    mask = _masking(Split(wrong), labels=True)

    def likeness(copies: Copies) -> tuple[bool, float]:
        output = predict(teacher, copies(wrong, COPIES))
        keep = (output.argmax(1) == wrong.y.cpu()).float().mean()
        best = mask(output, replace(wrong, y=wrong.y.cpu()))
        sure = _values("multiclass", best, best.argmax(1)).mean()
        return bool(keep <= 0.5), float(sure)  # noqa: PLR2004

    found = max(tried, key=likeness)
    log("neighbourhood: copies of wrong labels", place=tried.index(found))
    return found


def _share(teacher: nn.Module, records: Records, y: Tensor, copies: Copies) -> float:
    """Accuracy on copies of the records, none of them those that rank."""
    turns = range(COPIES, COPIES - (-PROBES // len(records)))
    return sum(unseen.accuracy_of(teacher, copies(records, t), y) for t in turns) / len(turns)


def _values(kind: str, output: Float[Tensor, "n k"], y: Tensor) -> np.ndarray:
    """What is placed, (n, c): log-odds of the label, signed logits, or errors."""
    output = output.double()
    if kind == "multiclass":
        # a logit of -inf must not make a mean infinite
        return log_odds(output, y)[:, None].clamp(-100, 100).numpy()
    if kind == "multilabel":
        return ((2 * y - 1) * output).numpy()
    return (output - y.reshape(output.shape)).numpy()


def log_odds(output: Float[Tensor, "n k"], y: Tensor) -> Float[Tensor, " n"]:
    """Ln p - ln(1 - p) of the classes ``y``, from logits or log-probabilities."""
    others = output.scatter(1, y[:, None], -torch.inf).logsumexp(1)
    return output.gather(1, y[:, None])[:, 0] - others


def set_values(kind: str, base: Float[Tensor, "n k"], y: Tensor, value: Tensor) -> Tensor:
    """The output whose value is ``value``; of classes the others keep their proportions."""
    if kind == "multilabel":
        return ((2 * y - 1) * value).to(base)
    if kind == "regression":
        return (y.reshape(base.shape) + value).to(base)
    others = base.double().scatter(1, y[:, None], -torch.inf).log_softmax(1)
    target = (others + logsigmoid(-value)).scatter(1, y[:, None], logsigmoid(value))
    # what is masked stays masked
    return target.clamp_min(FLOOR + 1).masked_fill(base <= FLOOR, FLOOR).to(base)


def _groups(kind: str, y: Tensor) -> np.ndarray:
    """(n, c): among which values one is ranked: of its class, truth or column."""
    if kind == "regression":
        columns = y.reshape(len(y), -1)
        return np.broadcast_to(np.arange(columns.shape[1]), columns.shape)
    return y.reshape(len(y), -1).long().numpy()


def _own_quantiles(group: np.ndarray, law: Law) -> np.ndarray:
    """The class, where it has enough records on both sides; -1 elsewhere: ranked together."""
    classes = [one for one in np.unique(group) if (group == one).sum() >= CLASS]
    classes = [one for one in classes if (law.group == one).sum() >= CLASS_UNSEEN]
    return np.where(np.isin(group, classes), group, -1)


def _holdout_law(holdout: Unseen, kind: str, *, hidden: bool) -> Law:
    """Values of the holdout: of its labels, or of its best answers."""
    y = holdout.outputs.argmax(1) if hidden else holdout.records.y.cpu()
    return Law(_values(kind, holdout.outputs, y), _groups(kind, y))


def _scored_law(teacher: nn.Module, split: Split, ask: Ask, seed: int) -> Law:
    """Values and scores of some of the holdout, for records that are too few to rank."""
    kind, some = task_of(split.forget).name, _some_unseen(split, seed)
    y = some.y.cpu()
    scores = [_values(kind, one, y) for one in ask(some)]
    return Law(_values(kind, predict(teacher, some), y), _groups(kind, y), np.mean(scores, 0))


def _given(teacher: nn.Module, records: Records) -> Tensor:
    """The given model's outputs in the form of targets: of classes log-probabilities."""
    output, task = predict(teacher, records), task_of(records)
    return output.log_softmax(1) if task.name == "multiclass" else output


def _are_same(outputs: Tensor, others: Tensor) -> bool:
    return bool((outputs - others).abs().max() < SAME)


def _never_surer(kind: str, placed: Tensor, given: Tensor, y: Tensor) -> Tensor:
    """The target, or the given answer where that knows the record, or the value, less well."""
    wanted, own = (torch.as_tensor(_values(kind, one, y)) for one in (placed, given))
    if kind == "regression":
        wanted, own = -wanted.abs(), -own.abs()
    return torch.where(wanted.to(given.device) > own.to(given.device), given, placed.to(given))


def _by_ids(records: Records, count: int) -> Records:
    """At most so many, in an order of the ids, which no order of the records changes."""
    order = np.argsort([record_key(name) for name in records.ids])
    return records.take(order[:count].tolist())


def _some_unseen(split: Split, seed: int) -> Records:
    return replace(sample(split.holdout, SCORED, seed=seed), task=split.forget.task)


def _assumed_law(
    kind: str, copies: list[Tensor], y: Tensor | None, group: np.ndarray, accuracy: float | None
) -> Law:
    """Without a holdout: a normal law by the expected accuracy, or what the copies say.

    Normal: P(v > 0) is the accuracy and σ that of the copies. v > 0 is a probability above a half,
    which few right answers lack. Without labels ``y``: the law of each copy's best answer.
    """
    labels = [one.argmax(1) if y is None else y for one in copies]
    found = np.stack([_values(kind, *one) for one in zip(copies, labels, strict=True)])
    if kind == "multiclass" and accuracy is not None and y is not None:
        # an accuracy of 1 has no normal law
        mean = float(torch.special.ndtri(torch.tensor(min(max(accuracy, 0.01), 0.999))))
        grid = torch.special.ndtri((torch.arange(1000) + 0.5).double() / 1000).numpy()
        normal = found.std() * (mean + grid)[:, None]
        return Law(normal, np.full(normal.shape, -1))
    c = found.shape[2]
    # a copy given the mean of its record's copies
    score = np.broadcast_to(found.mean(0), found.shape).reshape(-1, c)
    return Law(found.reshape(-1, c), np.tile(group, (len(found), 1)), score)


def _by_rank(score: np.ndarray, group: np.ndarray, law: Law, keys: np.ndarray) -> np.ndarray:
    """The value at each rank: the i-th of n gets the quantile (i - 0.5) / n of the law."""
    placed = np.empty_like(score)
    for one in np.unique(group).tolist():
        here = group == one
        # equal scores in an order of the ids, which no order of the records changes
        ranks = np.lexsort((keys[here], score[here])).argsort()
        placed[here] = np.quantile(law.of(one)[0], (ranks + 0.5) / here.sum())
    return placed


def _by_draw(score: np.ndarray, group: np.ndarray, law: Law, draws: np.ndarray) -> np.ndarray:
    """A draw given the score, by the law's regression and its residuals; of the law without."""
    placed = np.empty_like(score)
    for one in np.unique(group).tolist():
        here, (value, scores) = group == one, law.of(one)
        if scores is None:
            placed[here] = np.quantile(value, draws[here])
            continue
        spread = scores.var()
        slope = ((scores - scores.mean()) * (value - value.mean())).mean() / spread if spread else 0
        residual = value - value.mean() - slope * (scores - scores.mean())
        expected = value.mean() + slope * (score[here] - scores.mean())
        placed[here] = expected + np.quantile(residual, draws[here])
    return placed


def _distorted(batch: Records, distortion: float, *, seed: int, step: int) -> Records:
    """A perspective of an image, noise of a third of it on anything else."""
    if batch.x.ndim != IMAGE:
        return add_noise(batch, distortion / 3, seed=seed, step=step)
    draws = uniforms(batch.ids, 8, seed=seed, step=step)
    return replace(batch, x=perspective(batch.x, draws, distortion))


def _distorted_copy(batch: Records, draw: int, *, distortion: float, seed: int) -> Records:
    return _distorted(batch, distortion, seed=seed, step=COPY_DRAWS + draw)


def _shifted(batch: Records, draw: int, *, seed: int, mirrored: bool = True) -> Records:
    """Training's own shift of an image, by up to an eighth, and flip."""
    draws = uniforms(batch.ids, 3, seed=seed, step=COPY_DRAWS + draw)
    # below a half nothing is mirrored
    draws[:, 2] *= mirrored
    return replace(batch, x=shift_and_flip(batch.x, draws, max(1, batch.x.shape[-1] // 8)))


def _repeated(batch: Records, count: int) -> Records:
    """Each record ``count`` times in a row, with ids of its own, by which it draws."""
    wide = batch.take(torch.arange(len(batch)).repeat_interleave(count))
    turns = [f"{name} {turn}" for name in batch.ids for turn in range(count)]
    return replace(wide, ids=tuple(turns))
