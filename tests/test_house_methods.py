"""What holds for every method by its form alone: its name, its source, its settings."""

import importlib
import inspect
import json
from pathlib import Path

import pytest

import efface.methods
from efface.methods import BUILT_IN, METHODS

FILES = sorted(Path(efface.methods.__file__).parent.glob("[!_]*.py"))
GIVEN = {"model", "split", "seed", "callback"}


def hyperparameters(method):
    """The settings of a method: everything but what each method is given."""
    parameters = inspect.signature(METHODS[method].function).parameters
    return {name: p for name, p in parameters.items() if name not in GIVEN}


def test_every_file_holds_methods_of_the_table():
    """A method that is not in the table escapes every test that runs over the table."""
    modules = {method.function.__module__.rsplit(".", 1)[1] for method in BUILT_IN.values()}
    assert {path.stem for path in FILES} == modules


@pytest.mark.parametrize("method", BUILT_IN)
def test_a_method_is_found_by_its_name_and_its_module_names_the_source_in_line_1(method):
    """A reader must get from the code to the paper, or to our own account of it, in one step."""
    function = METHODS[method].function
    assert function.__name__ == method
    module = importlib.import_module(function.__module__)
    assert getattr(module, method) is function
    first_line = module.__doc__.splitlines()[0]
    assert "https://" in first_line or "docs/" in first_line


@pytest.mark.parametrize("method", METHODS)
def test_every_setting_has_a_name_a_default_and_survives_json(method):
    """The signature is the only home of a default; records hold settings as JSON."""
    for name, parameter in hyperparameters(method).items():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY, name
        assert parameter.default is not inspect.Parameter.empty, name
        assert json.loads(json.dumps(parameter.default)) == parameter.default, name


@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_a_model_a_split_a_seed_and_a_watch(method):
    """The request calls all methods alike."""
    parameters = inspect.signature(METHODS[method].function).parameters
    assert list(parameters)[:2] == ["model", "split"]
    assert set(parameters) >= GIVEN
    assert isinstance(parameters["seed"].default, int)


@pytest.mark.parametrize("method", METHODS)
def test_every_setting_is_explained_and_nothing_else_is(method):
    """The help of the command line is this docstring."""
    explained = documented(METHODS[method].function)
    assert explained == set(inspect.signature(METHODS[method].function).parameters)


def documented(function):
    """The names that a Google docstring lists under Args."""
    lines = inspect.cleandoc(function.__doc__).splitlines()
    after = lines[lines.index("Args:") + 1 :]
    end = next((row for row, line in enumerate(after) if line and line[0] != " "), len(after))
    heads = [line.strip() for line in after[:end] if line[:4] == " " * 4 and line[4:5] != " "]
    return {head.split(":")[0].split(" ")[0] for head in heads if head}
