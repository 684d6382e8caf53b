"""Every research module imports; its jobs and settings are those that the methods take today."""

import inspect
import pkgutil
from importlib import import_module

import pytest

import research
from efface.methods import METHODS
from research.benchmarks import (
    defects,
    every_method,
    guard_damage,
    guard_detector,
    jit_differences,
    jit_tables,
    method_costs,
)
from research.benchmarks.information_models import half, whole, without

FOUND = pkgutil.walk_packages(research.__path__, "research.")
MODULES = [module.name for module in FOUND if not module.name.endswith("__main__")]


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports(name):
    import_module(name)


def settings_used():
    """(method, settings) that benchmarks spell out, where a renamed setting would go unseen."""
    yield from every_method.SCALED.items()
    yield from every_method.WITHOUT.items()
    yield from method_costs.FEWER.items()
    yield from ((name, {step: 1.0, "sigma": 0.5}) for name, step in jit_tables.STEP.items())
    yield from ((name, {knob: 1}) for name, (knob, _) in every_method.KNOBS.items())
    for forms in defects.FORMS.values():
        yield from ((f.method, f.settings) for f in forms if f.method in METHODS)
    for run in guard_damage.runs():
        if run.method in METHODS:
            yield run.method, run.settings


def test_settings_of_benchmarks_are_settings_of_their_methods():
    used = list(settings_used())
    assert len(used) > 40
    for method, settings in used:
        assert {*settings} <= {*inspect.signature(METHODS[method].function).parameters}, method


def test_each_difference_of_jit_is_a_switch_of_its_form():
    switches = {name for form in jit_differences.DIFFERENCES.values() for name in form}
    assert switches <= {*jit_differences.Form.__dataclass_fields__}


def test_jobs_of_digits_are_described_without_running_them():
    jobs = [half("digits", 0), whole("digits", 0), without("digits", [3, 1], 0)]
    assert len({job.id for job in jobs}) == len(jobs)
    assert jobs[2].settings["excluded"] == {"rows": [1, 3]}


def test_the_guards_detector_makes_again_only_the_line_at_which_it_was_stopped(
    tmp_path, monkeypatch
):
    net, made = guard_detector.NETS[0], [*guard_damage.runs()][:2]
    (tmp_path / f"{net}-{guard_detector.commit()}.jsonl").write_text('{"n": 0}\n{"n": 1}\n{"n"')
    monkeypatch.setattr(guard_detector, "runs", lambda: made)
    assert [*guard_detector.measured(net, tmp_path)] == [{"n": 0}, {"n": 1}]
    monkeypatch.setattr(guard_detector, "trained", lambda *_: pytest.fail("a run is left"))
    made *= 2
    with pytest.raises(pytest.fail.Exception, match="a run is left"):
        [*guard_detector.measured(net, tmp_path)]
