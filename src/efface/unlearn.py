"""The path of every request: validate, choose, guard, run, load what is written, evaluate.

``forget`` makes a new model and evaluates it; ``score`` evaluates a model that somebody else made.
The command line, grids and benchmarks call these two, so they measure what a user gets.
"""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from efface import prepare
from efface.calibration import BestStep, calibration_distance, need_holdout
from efface.errors import InputError, NotMet, Outcome
from efface.guard import UTILITY_BUDGET, Guard
from efface.hazards import FINDINGS, SAMPLE, Finding, doctor
from efface.io.atomic import atomic_folder, atomic_write
from efface.io.data import as_records
from efface.io.features import Spec
from efface.io.shadows import Shadows
from efface.manifest import (
    Manifest,
    changed_tensors,
    exclusion_table,
    refuse_changed,
    state_digest,
    tensor_digests,
)
from efface.methods import (
    METHODS,
    Count,
    Method,
    Natural,
    Share,
    _base,
    check_settings,
    check_value,
)
from efface.report import Report
from efface.report.text import OLD_STANDS, count
from efface.runtime import (
    PassCounter,
    as_stored,
    check_model,
    isolated,
    nonfinite_tensors,
    state_of,
    to_eval,
    upcast_to_fp32,
    watch_passes,
)
from efface.task import (
    check_layout,
    device_of,
    frozen_teacher,
    output_width,
    probe_batch,
    shared_view,
    written_in_eval,
)
from efface.trainable import (
    check_trainable,
    count_trainable,
    has_adapter,
    merge_adapter,
    select_trainable,
)
from efface.types import (
    PARTS,
    Action,
    Callback,
    Progress,
    Records,
    Split,
    no_callback,
    no_progress,
    split_holdout,
)

# a type checker, and beartype in the tests, read the whole name
if TYPE_CHECKING:
    import pandas  # noqa: ICN001

# true of every adapter, so it is a finding of each
KEPT_ADAPTER = (
    "Whoever takes a separate adapter off again has the old model back: the records are still in "
    "the base. The merged model is the one to hand on."
)


LOG = logging.getLogger(__name__)

COPY = "Change a copy and return it, efface.task.trainable_copy(model): docs/your_own_method.md."

Started = Callable[[Manifest, Mapping[str, Any], tuple[Finding, ...]], None]


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """What ``forget`` and ``score`` return.

    ``outcome``: what the run came to, and ``progress``: how far the forget records came towards
    unseen ones (0 nothing, 1 as unseen, None unknown); ``model``: the new model, in eval mode, in
    the dtypes that are written, or the given one where there is none; ``report``: what
    changed, at the tier that the data allow, None where none was wanted; ``manifest``: settings,
    seeds, versions, digests; ``findings``: what doctor saw before; ``adapter``: with
    ``trainable="adapter"`` PEFT's model of what was merged into ``model``, on float32 weights;
    ``ids``: of the forget records.
    """

    model: nn.Module
    report: Report | None
    manifest: Manifest
    findings: tuple[Finding, ...] = ()
    adapter: nn.Module | None = None
    ids: tuple[str, ...] = ()

    @property
    def outcome(self) -> Outcome:
        """What the run came to; its ``exit_code`` is that of ``efface forget``."""
        return self.manifest.outcome

    @property
    def progress(self) -> float | None:
        """How far the forget records came, see ``metrics.equivalence.progress_to_unseen``."""
        return self.manifest.progress

    def __repr__(self) -> str:
        tier = f", tier {self.report.tier}" if self.report else ""
        return f"Result({self.manifest.job}: {self.outcome}{tier})"

    def __str__(self) -> str:
        """The report's sentences, or the outcome in one where no report was wanted."""
        return str(self.report or self.manifest.summary)

    def _repr_html_(self) -> str:
        """The outcome and the tests that ran: what a notebook shows."""
        return self.report._repr_html_() if self.report else repr(self)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per test, see ``Report.to_frame``. Raises InputError without a report."""
        return self._report().to_frame()

    def save_report(self, path: str | Path) -> Path:
        """Write the report as one self-contained HTML page, and return its path."""
        path, text = Path(path), self._report().to_html(self.manifest)
        path.write_text(text, encoding="utf-8")
        return path

    def save(self, folder: str | Path, key: bytes | None = None) -> Path:
        """Write the evidence into a folder that is new or empty, whole or not at all; return it.

        ``manifest.json``; where there is a report ``report.html``, ``evidence.json`` and
        ``records.csv``; of ``forget`` ``exclude.csv``, the ids that the next training run must
        omit, with a ``key`` hashed by it as well. They name the forget records: keep them apart
        from the model, which is saved as any other (``torch.save(result.model.state_dict(), …)``).

        Raises:
            InputError: the folder holds something.
            OutputError: it cannot be written.
        """
        with atomic_folder(folder) as scratch:
            self.manifest.write(scratch)
            if self.report:
                self.report.save(scratch, self.manifest)
            if self.manifest.job == "forget" and self.ids:
                atomic_write(scratch / "exclude.csv", exclusion_table(self.ids, key))
        return Path(folder)

    def _report(self) -> Report:
        if self.report is None:
            raise InputError("a run with a report", "report='off'", "Run it with report='full'.")
        return self.report


@isolated
def forget(  # noqa: PLR0913  # each option of a request is declared here once
    model: nn.Module,
    data: Any,
    *,
    ids: Iterable[Any] | None = None,
    where: str | None = None,
    indices: Iterable[int] | None = None,
    forget_class: str | int | None = None,
    holdout: Any = None,
    retain: Any = None,
    method: str = "neighbourhood",
    settings: Mapping[str, Any] | None = None,
    strength: float | None = None,
    expected_accuracy: float | None = None,
    trainable: str = "all",
    mislabelled: bool = False,
    whole_group: bool = False,
    selection: str = prepare.ALL,
    weights: Mapping[str, float] | None = None,
    classes: tuple[str, ...] | None = None,
    preprocessing: Spec | None = None,
    utility_budget: float = UTILITY_BUDGET,
    seed: int = 0,
    holdout_seed: int = 0,
    stored: Mapping[str, torch.dtype] | None = None,
    others: Any = None,
    accept: Sequence[str] = (),
    dry_run: bool = False,
    guard: bool = True,
    keep_best: int | None = None,
    report: str = prepare.FULL,
    started: Started | None = None,
    progress: Progress = no_progress,
) -> Result:
    """Return a model that behaves as if it had not seen the named records, with a report.

        result = forget(model, train_set, indices=[3, 17], holdout=test_set)

    Args:
        model: maps (n, *features) to one row of outputs per record: multiclass or multilabel
            logits, or regression values; it is not changed. Weights of half precision are updated
            in a float32 copy and come back in their own dtype.
        data: the training data, of which one of ``ids``, ``where``, ``indices`` and
            ``forget_class`` names the records to forget: ``Records``, tensors or arrays (x, y), a
            torch Dataset or DataLoader, a ``datasets.Dataset``, a DataFrame, or what ``load_data``
            returned. Items are (x, y), (x, y, id) or mappings. Or a ``Split`` of such parts, which
            may also hold a reference model; where that seems to have seen the records a finding
            says so.
        ids: of the records, as the data have them (of pandas the index, if it is not 0 to n - 1);
            where they have none, the numbers of the items.
        where: an expression on columns or keys, such as ``"label=dog and age>=30"``.
        indices: row numbers, from 0.
        forget_class: a class by its name (a text) or its number (an integer): all of its records,
            and the class itself.
        holdout: data never trained on, in the same forms, 12 records or more. They are split once
            by a seeded hash: method and guard see the first half, the report the second.
        retain: training data that stay, in the same forms; ``data`` itself, a loader or a subset
            of it will do: the records to forget are taken out.
        method: a name in ``efface.METHODS``, or ``auto``: the one that suits what is given; the
            first finding says which and why.
        settings: of the method, by name; ``efface methods NAME`` lists them.
        strength: the setting ``strength`` of methods that have one; 1 is its default.
        expected_accuracy: likewise; accuracy on unseen data, 0 to 1, from the model card.
        trainable: which weights may change: ``all``, ``last-layers``, ``norm`` or ``adapter``, see
            ``efface.trainable``; the others stay as they are, bit for bit.
        mislabelled: the labels of the forget records are flagged as wrong.
        whole_group: their label itself may not be predicted either, since no record of their kind
            stays (all rockets, all pictures of a person): not a clinic or a customer, whose labels
            other records have too; without it a finding says what was assumed.
        selection: ``all``, or ``high-information``: the method sees only the forget records that
            the model seems to have memorised; the report is on all of them, and says so.
        weights: by id, how often the method sees each forget record, 1 being all the same.
        classes: names of the classes, for the report.
        preprocessing: how images or rows of a table become inputs.
        utility_budget: accuracy that may be lost on the guard's half of the holdout, 0 to 1, and
            two standard errors more, so that chance stops nothing (see ``Guard``).
        seed: of everything drawn at random but the holdout's split.
        holdout_seed: of the holdout's split; ``score`` needs the same.
        stored: by the name of a tensor, the dtype that it will be written in, where that is not the
            model's own; the report is on the weights as written.
        others: records of the training data that are not named, on which ``doctor`` says how right
            the model is, and the report how right the new one is; by default a sample of ``data``
            (of a ``Split`` doctor takes its retain). Neither method nor guard sees them.
        accept: names of findings that shall warn instead of refusing, see docs/findings.md.
        dry_run: True stops before the method: the result holds the given model, the findings and
            a manifest with the method, the memory and the tier that the evidence can reach.
        guard: False runs the method without limits, for experiments, and returns whatever it made,
            nan and inf included; the manifest says so.
        keep_best: after so many steps each, and at the end, the student is compared with unseen
            records of the guard's half of the holdout, and the nearest is kept; the manifest's
            ``calibration`` says which step that was. None: the last one.
        report: ``full``, ``quick`` (one pass over each record and no probes: no other views, no
            quantised or pruned copies, no linear probe) or ``off``; the manifest says which.
        started: called with the manifest, what the run will cost (about how many ``seconds``, by
            stage; ``passes`` of the report, and of a ``quick`` one) and the findings, before the
            method starts.
        progress: how the stages doctor, method and evidence are shown: ``efface.show_progress``, or
            one of your own.

    Raises:
        InputError: the records or the settings are not what the method takes, or what the method
            returned is no model to be written.
        EffaceError: the given model was changed, by its own code.
        Hazard: the model and the data do not fit.
        MissingExtra: an adapter is wanted and PEFT is not installed.
        NotMet: the guard could not meet the request; ``error.result`` holds the report.
    """
    named = {"strength": strength, "expected_accuracy": expected_accuracy}
    settings = {**(settings or {}), **{k: v for k, v in named.items() if v is not None}}
    check_value("utility_budget", utility_budget, Share)
    check_value("keep_best", keep_best, Count | None)
    check_trainable(trainable)
    prepare.check_report(report)
    # a slip in a setting is refused before the data are read
    if method != prepare.AUTO:
        check_settings(method, settings)
    manifest = Manifest("forget", seed, holdout_seed, report=report)
    names = {"classes": classes, "mislabelled": mislabelled}
    split, unnamed, note = prepare.name_records(
        data,
        {"ids": ids, "where": where, "indices": indices, "forget_class": forget_class},
        {"holdout": holdout, "retain": retain},
        preprocessing,
        classes,
    )
    request = _Request(manifest, {"the model": model}, split, preprocessing, names, progress)
    manifest.request |= note
    entry = request.choose(method, settings, trainable, whole_group=whole_group)
    request.examine(unnamed if others is None else others, accept)
    request.examine_reference()
    # after doctor: a model that the data do not fit must not choose among them
    seen, notes = prepare.select_records(
        request.model, request.auxiliary, manifest, selection, weights
    )
    request.note(*notes)

    master, judge = request.trainable_copy(trainable, started), None
    if dry_run:
        return request.plan(exact=entry.exact)
    if guard:
        how: dict[str, Any] = {"fresh_start": entry.fresh_start, "seed": seed}
        how |= {"adapted": trainable == "adapter", "spent": lambda: request.counter.passes.total}
        how["labels_go"] = mislabelled or whole_group
        with manifest.timed("guard"):
            judge = Guard(master, seen, utility_budget=utility_budget, **how)
    new = adapter = failure = None
    # a request that cannot be met has a report too: the error carries it
    try:
        with progress("method", manifest.settings.get("steps")) as show:
            student = request.run(master, seen, judge, show, keep_best)
        new, adapter = request.settle(student, judge, stored)
    except NotMet as error:
        failure = error
    manifest.guard = judge.as_json() if judge else None
    reason = failure.came if failure else request.why_unchanged(judge)
    result = request.result(new, adapter, reason=reason, exact=entry.exact and not failure)
    if failure:
        failure.result = result
        raise failure
    return result


@isolated
def score(  # noqa: PLR0913
    old: nn.Module,
    new: nn.Module,
    data: Any,
    *,
    ids: Iterable[Any] | None = None,
    where: str | None = None,
    indices: Iterable[int] | None = None,
    forget_class: str | int | None = None,
    holdout: Any = None,
    retain: Any = None,
    retrained: Sequence[nn.Module] = (),
    shadows: Shadows | None = None,
    exact: bool = False,
    mislabelled: bool = False,
    classes: tuple[str, ...] | None = None,
    preprocessing: Spec | None = None,
    others: Any = None,
    accept: Sequence[str] = (),
    seed: int = 0,
    holdout_seed: int = 0,
    report: str = prepare.FULL,
    progress: Progress = no_progress,
) -> Result:
    """Report what ``new`` still knows of the named records, which ``old`` was trained on.

    Args:
        old: the model before; like all others it is not changed.
        new: the model after, of any origin, with as many outputs.
        data: as for ``forget``, and so are ``ids``, ``where``, ``indices``, ``forget_class``.
        ids: as for ``forget``.
        where: as for ``forget``.
        indices: as for ``forget``.
        forget_class: as for ``forget``.
        holdout: as for ``forget``. Only its second half is used, by a seeded hash: the first is
            left to the method and the guard that may have made ``new``.
        retain: as for ``forget``.
        retrained: models trained without the forget records, by the recipe of ``old``, each with
            its own seed; two or more give the retrain-to-retrain variability.
        shadows: arrays of shadow models, see ``efface.io.shadows.read_shadows``.
        exact: ``new`` was itself trained from scratch without the forget records: stated by you,
            not checked.
        mislabelled: the labels of the forget records are flagged as wrong.
        classes: names of the classes, for the report.
        preprocessing: how images or rows of a table become inputs.
        others: as for ``forget``.
        accept: as for ``forget``.
        seed: of everything drawn at random but the holdout's split.
        holdout_seed: of the holdout's split; that of ``forget`` if it made ``new``.
        report: ``full`` or ``quick``, as for ``forget``.
        progress: as for ``forget``.

    Raises:
        InputError: the models or the records do not fit together.
        Hazard: ``old`` and the data do not fit.
    """
    prepare.check_report(report, prepare.FULL, prepare.QUICK)
    manifest = Manifest("score", seed, holdout_seed, report=report)
    names = {"classes": classes, "mislabelled": mislabelled}
    split, unnamed, note = prepare.name_records(
        data,
        {"ids": ids, "where": where, "indices": indices, "forget_class": forget_class},
        {"holdout": holdout, "retain": retain},
        preprocessing,
        classes,
    )
    compared = {"NEW": new} | {f"retrained model {n}": m for n, m in enumerate(retrained, start=1)}
    request = _Request(manifest, {"OLD": old, **compared}, split, preprocessing, names, progress)
    manifest.request |= note
    going = request.split.forget
    refuse_other_widths(request.model, compared, going)
    if shadows is not None:
        # refuses arrays that lack a forget record
        shadows.of(going.ids)
    request.examine(unnamed if others is None else others, accept)
    # what it was trained on is not seen here
    known = {"exact": exact, "stated": exact}
    result = request.result(new, retrained=retrained, shadows=shadows, **known)
    if retrained:
        manifest.weights["retrained"] = [state_digest(model.state_dict()) for model in retrained]
    return result


def refuse_other_widths(old: nn.Module, others: Mapping[str, nn.Module], records: Records) -> None:
    """Raise InputError for a model with other outputs: they would be compared column by column."""
    width = output_width(old, records)
    for name, model in others.items():
        check_layout(model, records)
        if (came := output_width(model, records)) != width:
            wanted = f"{width} outputs a record, as the old model has"
            remedy = "Give models of one task, with the same classes in the same order."
            raise InputError(wanted, f"{came} from {name}", remedy)


class _Request:
    """A request in progress: its model, its split, the findings, and its manifest."""

    def __init__(
        self,
        manifest: Manifest,
        models: Mapping[str, nn.Module],
        split: Split,
        preprocessing: Spec | None,
        names: Any,
        progress: Progress,
    ) -> None:
        for model in models.values():
            check_model(model)
        self.given = [(name, model, tensor_digests(model)) for name, model in models.items()]
        self.manifest, self.preprocessing, self.names = manifest, preprocessing, names
        self.progress = progress
        # modules of its own: no forward pass writes a buffer of the given model, or meets its mode
        self.model = shared_view(self.given[0][1])
        self.findings: tuple[Finding, ...] = ()
        self.others: Records | None = None
        check_value("seed", manifest.seed, Natural)
        check_value("holdout_seed", manifest.holdout_seed, Natural)
        # for models that draw random numbers in their forward pass
        torch.manual_seed(manifest.seed)
        self.split, manifest.request = prepare.validate_split(
            split, preprocessing, names["classes"]
        )
        check_layout(self.model, self.split.forget)
        self.take_reference()
        prepare.refuse_misfit(self.model, self.split, mislabelled=names["mislabelled"])
        self.auxiliary, self.evaluation = split_holdout(self.split, seed=manifest.holdout_seed)
        sizes = {"auxiliary": self.auxiliary.holdout, "evaluation": self.evaluation.holdout}
        manifest.holdout = {name: len(part or ()) for name, part in sizes.items()}
        manifest.threads = torch.get_num_threads()

    def take_reference(self) -> None:
        """A frozen view of the reference model, if there is one, on the model's device."""
        if (reference := self.split.reference) is None:
            return
        check_model(reference)
        self.given.append(("the reference model", reference, tensor_digests(reference)))
        view = frozen_teacher(reference).to(device_of(self.model))
        check_layout(view, self.split.forget)
        self.split = replace(self.split, reference=view)

    def examine_reference(self) -> None:
        """Note what speaks against the reference model. Raises InputError where it does not fit."""
        how = {"mislabelled": self.names["mislabelled"]}
        with self.manifest.timed("reference"):
            self.note(*prepare.check_reference(self.model, self.auxiliary, self.method, **how))

    def note(self, *findings: Finding) -> None:
        """Add findings; warnings are logged as they come."""
        for one in findings:
            if one.severity == "warn":
                LOG.warning("%s", one.text, extra={"facts": {"finding": one.name}})
        self.findings += findings

    @contextmanager
    def watched(self, stage: str, passes: int, *models: nn.Module) -> Iterator[None]:
        """Show a stage by the records that go through the models, some ``passes`` in all."""
        with self.progress(stage, passes) as show, watch_passes(models, show):
            yield

    def choose(
        self, name: str, settings: dict[str, Any], trainable: str, *, whole_group: bool
    ) -> Method:
        """The method, its settings noted; refuses what it cannot work with."""
        wrong = self.names["mislabelled"]
        if name == prepare.AUTO:
            name, why = prepare.choose_method(self.split, mislabelled=wrong, trainable=trainable)
            self.note(why)
        self.method = method = METHODS[name]
        self.chosen = check_settings(name, settings)
        # what the request says of the labels is not said again as a setting
        facts = {"mislabelled": wrong, "whole_group": whole_group}
        told = [fact for fact, holds in facts.items() if holds and fact in method.settings]
        self.chosen |= dict.fromkeys(told, True)
        how = {"settings": self.chosen, "whole_group": whole_group}
        self.note(*prepare.assumed_of_their_kind(self.split, method, **how))
        self.manifest.method = name
        self.manifest.settings = {**_base.default_settings(name), **self.chosen}
        _base.refuse_without(self.split, name, *method.in_order(method.needs))
        if method.fresh_start and trainable != "all":
            wanted = f"trainable all for {name}, which starts from an untrained model"
            raise InputError(wanted, repr(trainable), "Omit trainable.")
        return method

    def examine(self, others: Any, accept: Sequence[str]) -> None:
        """Note what doctor finds. Raises Hazard where it refuses."""
        # both halves of the holdout: a record that cannot be read would crash rows of the report
        records, holdout = self.split.forget, self.split.holdout
        if others is None:
            others = self.split.retain
        else:
            others = replace(as_records(others, self.preprocessing), task=records.task)
            self.others = others
        how: dict[str, Any] = {"holdout": holdout, "others": others, "accept": accept, **self.names}
        sample = [min(len(part), SAMPLE) for part in (records, others, holdout) if part]
        # each part once and once more, and what a few records are looked at for
        about = 2 * sum(sample) + 48
        with self.manifest.timed("doctor"), self.watched("doctor", about, self.model):
            found = doctor(self.model, self.preprocessing, records, **how)
        self.manifest.accuracy = found.accuracy
        found.refuse()
        self.note(*found.findings)

    def trainable_copy(self, trainable: str, started: Started | None) -> nn.Module:
        """The copy that the method gets, its passes counted; no view shares a given weight."""
        # a copy, and not a view: whatever a method does in place, the given weights stand
        self.counter, split, manifest = PassCounter(self.model), self.split, self.manifest
        batch = probe_batch(split.forget)
        model = select_trainable(self.counter.model, batch, trainable, seed=manifest.seed)
        need = prepare.request_memory(self.method, model, split, manifest.settings)
        manifest.trainable, manifest.memory = count_trainable(model, trainable), need.as_json()
        if started:
            started(manifest, self.price(), self.findings)
        # a step that is small against a weight of 8 or 11 bits would round away
        return upcast_to_fp32(model)

    def plan(self, *, exact: bool) -> Result:
        """What a dry run has found: the method, the memory, the tier; nothing was changed."""
        # loads scipy
        from efface.report.context import Context

        manifest = self.manifest
        manifest.tier = Context(self.model, self.model, self.evaluation, exact=exact).tier
        manifest.outcome = Outcome.DRY_RUN
        manifest.findings = [asdict(finding) for finding in self.findings]
        self.refuse_changed()
        return Result(self.given[0][1], None, manifest, self.findings)

    def evidence_passes(self, report: str = "") -> int:
        """Forward passes of the report that is wanted, or of another one."""
        # loads scipy
        from efface.report.runner import forward_passes

        probes = (report or self.manifest.report) == prepare.FULL
        wrong = self.names["mislabelled"]
        how: dict[str, Any] = {"mislabelled": wrong, "others": self.others, "probes": probes}
        return forward_passes(self.evaluation, **how)

    def price(self) -> dict[str, Any]:
        """About how many ``seconds`` method and evidence take, and the passes of the report."""
        each = prepare.seconds_per_pass(self.model, self.split.forget)
        found: dict[str, Any] = {"seconds": {}}
        passes = self.method.count_passes(self.auxiliary, self.manifest.settings)
        if passes is not None:
            # a backward pass takes twice as long as a forward one, and they come in pairs
            found["seconds"]["method"] = 1.5 * each * passes
        if self.manifest.report != prepare.OFF:
            found |= {
                "passes": self.evidence_passes(),
                "quick": self.evidence_passes(prepare.QUICK),
            }
            found["seconds"]["evidence"] = each * found["passes"]
        return found

    def run(
        self,
        model: nn.Module,
        split: Split,
        judge: Guard | None,
        show: Callable,
        keep_best: int | None,
    ) -> nn.Module:
        """What the method makes of the model. Raises InputError for no changed copy of it."""
        manifest, counter, step = self.manifest, self.counter, 0
        best = None
        if keep_best:
            need_holdout(self.auxiliary)
            best = BestStep(keep_best, self.calibration_distance)
        judged: Callback = judge.callback if judge else no_callback

        def callback(student: nn.Module, loss: float) -> Action:
            nonlocal step
            action = judged(student, loss)
            step += action is Action.CONTINUE
            if best and action is Action.CONTINUE:
                best.look(student, step)
            show(step, loss, action.value)
            return action

        # copies: whatever a method does in place, the caller's tensors stand
        given = {name: part for name in PARTS if (part := getattr(split, name)) is not None}
        copies = {name: part.clone() for name, part in given.items()}
        own, before = replace(split, **copies), tensor_digests(model)
        if fresh := split.fresh:  # what a method trains from scratch is counted too
            own = replace(own, fresh=lambda seed: counter.attach(fresh(seed)))
        if split.reference is not None:
            own = replace(own, reference=counter.attach(split.reference))
        # the guard's preparation is not the method's
        counter.forward = counter.backward = 0
        # counted also when the guard ends the run: what was spent was spent
        try:
            with manifest.timed("method"), capture_facts(manifest.calibration):
                how = {"seed": manifest.seed, "callback": callback, **self.chosen}
                student = self.method.function(model, own, **how)
        finally:
            # a stranger's student may carry no counter
            forward = max(0, counter.forward - (judge.passes if judge else 0))
            manifest.passes = {"forward": forward, "backward": counter.backward}
            manifest.steps = step
        # first: a model that changes itself is not its method's fault
        self.refuse_changed()
        weights = {name for name, _ in model.named_parameters()}
        changed = [f"{n}, changed in place" for n in changed_tensors(model, before) if n in weights]
        changed += [
            f"{key} of the {name} records, changed in place"
            for name, part in given.items()
            for key in part.differing(copies[name])
        ]
        if fault := _foreign(student, model, counter) or next(iter(changed), ""):
            wanted = f"a changed copy of the given model from {manifest.method}, and nothing else"
            raise InputError(wanted, fault, COPY)
        if best:
            manifest.calibration |= best.restore(student, step)
        return student

    def calibration_distance(self, student: nn.Module) -> float:
        """Of a student to unseen records, on the half that method and guard see."""
        passes = self.counter.forward
        names = {"seed": self.manifest.seed, **self.names}
        distance = calibration_distance(self.model, student, self.auxiliary, **names)
        # what is spent on choosing must not buy the guard more looks: the steps stay the same
        self.counter.forward = passes
        return distance

    def settle(
        self, student: nn.Module, judge: Guard | None, stored: Mapping[str, torch.dtype] | None
    ) -> tuple[nn.Module, nn.Module | None]:
        """(the model as it will be written, the adapter if any), settled by the guard.

        The model is a clean copy of the given one with the student's numbers: modules, flags and
        hooks of the student stay behind. Raises NotMet.
        """
        # what a model counts or keeps in eval mode is no change of the method's
        counters = written_in_eval(self.model, self.split.forget)

        def written(student: nn.Module) -> nn.Module:
            merged = merge_adapter(student, self.model)
            new = as_stored(merged, self.model, stored, given=counters)
            if judge and (broken := nonfinite_tensors(state_of(new))):
                came, first = f"nan or inf after rounding {broken[0]}", "bfloat16 or float32 first"
                remedy = f"The old model stands. Convert it to {first}, or lower --strength."
                raise NotMet("weights that their own dtype can hold", came, remedy)
            return new

        with self.manifest.timed("settle"):
            if judge:
                judge.settle(student, written)
            adapted = has_adapter(student) and not has_adapter(self.model)
            return written(to_eval(student)), student if adapted else None

    def why_unchanged(self, judge: Guard | None) -> str:
        """Why the weights are the old ones, if they are."""
        text = f"{self.manifest.method} took {count(self.manifest.steps or 0, 'step')}"
        if judge and judge.violations:
            taken_back = count(len(judge.violations), "step")
            text += f", and the guard took back {taken_back} ({judge.violations[-1]})"
        if because := self.manifest.calibration.get("nothing_to_do"):
            text += f", since {because}"
        return f"{text}; no weight is another one"

    def result(
        self,
        new: nn.Module | None,
        adapter: nn.Module | None = None,
        *,
        reason: str = "",
        **of: Any,
    ) -> Result:
        """Collect the evidence on the evaluation half, complete the manifest."""
        manifest, report = self.manifest, None
        # before anything is evaluated: it is the digest of what will be written
        digests = [m if m is None else state_digest(m.state_dict()) for m in (self.model, new)]
        manifest.weights = dict(zip(("old", "new"), digests, strict=True))
        if (reference := self.split.reference) is not None:
            manifest.weights["reference"] = state_digest(reference.state_dict())
        if manifest.report != prepare.OFF:
            # loads scipy
            from efface.report import collect

            with manifest.timed("report"):
                how: dict[str, Any] = {"seed": manifest.seed, **self.names, **of}
                how |= {"probes": manifest.report == prepare.FULL, "others": self.others}
                models = [m for m in (self.model, new, *of.get("retrained", ())) if m is not None]
                with self.watched("evidence", self.evidence_passes(), *models):
                    report = collect(self.model, new, self.evaluation, reason=reason, **how)
            manifest.outcome, manifest.summary = report.outcome, report.summary
            manifest.progress = report.progress
        else:
            changed = Outcome.NOT_MET if new is None else Outcome.NOT_JUDGED
            same = digests[0] == digests[1]
            manifest.outcome = Outcome.UNCHANGED if same else changed
            why = reason if same or new is None else "no report was wanted"
            stands = OLD_STANDS * (not manifest.outcome.has_new_model)
            manifest.summary = f"{manifest.outcome.capitalize()}: {why}.{stands}"
        self.refuse_changed()
        self.note(*self._late_findings(new, adapter, report))
        manifest.findings = [asdict(finding) for finding in self.findings]
        model = self.given[0][1] if new is None else new
        return Result(model, report, manifest, self.findings, adapter, self.split.forget.ids)

    def refuse_changed(self) -> None:
        """Raise EffaceError where a given model is another one than at the start."""
        for name, model, before in self.given:
            refuse_changed(model, before, name)

    def _late_findings(
        self, new: nn.Module | None, adapter: nn.Module | None, report: Report | None
    ) -> Iterator[Finding]:
        """What holds of every adapter, what was lost, how far a method got by its own measure."""
        if adapter is not None:
            yield Finding("adapter", "note", KEPT_ADAPTER)
        budget = (self.manifest.guard or {"budgets": {}})["budgets"].get("utility", math.inf)
        for row in report.rows if report else ():
            loss = (row.before or 0) - (row.after or 0)
            if row.key == "holdout.accuracy" and row.after is not None and loss > budget:
                text = f"On the report's part of the holdout {100 * loss:.1f} points of accuracy "
                text += f"were lost ({row.verdict.words}, {row.note.partition('.')[0]}), more than "
                text += f"the {100 * budget:g} of the utility budget. The guard allows the budget "
                text += "and two standard errors, on its own part."
                yield Finding("utility-budget", "warn", text, FINDINGS["utility-budget"].remedy)
        tolerance = self.manifest.settings.get("tolerance", -math.inf)
        progress = self.manifest.calibration.get("progress", math.inf)
        # the report's own measure, where there is one, says it of every method
        if new is not None and self.manifest.progress is None and progress < tolerance:
            text = f"The method stopped at {max(progress, 0):.0%} of the distance to its target: "
            text += "the records may still be known. More steps, if there were too few, go further."
            yield Finding("not reached", "warn", text)


def _foreign(result: Any, model: nn.Module, counter: PassCounter) -> str:
    """What of a method's result could not be written, or would not be; empty where all would."""
    if not isinstance(result, nn.Module):
        return f"a {type(result).__name__}"
    if result is model:
        return "the very model that it was given"
    given, own = (_form(counter.detach(one)) for one in (model, result))
    if differing := sorted(name for name, _ in given ^ own):
        return f"another name, shape, class, hook or forward of {differing[0] or 'the model'}"
    return ""


def _form(model: nn.Module) -> set[tuple[str, Any]]:
    """Everything about a model but its numbers, by the name of a tensor or a module."""
    form: set[tuple[str, Any]] = {(n, tuple(tensor.shape)) for n, tensor in state_of(model).items()}
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    for name, module in model.named_modules():
        hooks = tuple(len(getattr(module, kind)) for kind in kinds)
        form.add((name, (type(module).__qualname__, hooks, "forward" in vars(module))))
    return form


@contextmanager
def capture_facts(facts: dict[str, Any]) -> Iterator[None]:
    """Collect what a method logs that it found out (``extra={"facts": …}`` of its log records)."""
    logger, handler = logging.getLogger("efface.methods"), logging.Handler(level=logging.INFO)
    handler.emit = lambda record: facts.update(getattr(record, "facts", {}))
    level = logger.level
    # methods log at INFO, which Python drops unless somebody listens
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
