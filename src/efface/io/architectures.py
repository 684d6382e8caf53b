"""Untrained modules by name: a user may name any factory, a file may only choose from registries.

``build_model`` makes what the user typed. ``build_registered`` and ``build_transformers`` make what
a recipe.json or config.json names: the nets of ``efface.nets`` and the models that timm,
torchvision and transformers register. These are built without a socket, a process or a pickle, in
bounded time, and stop as soon as they have more weights than the file could hold.
"""

import importlib
import inspect
import re
import signal
import sys
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from efface import nets
from efface.errors import EffaceError, InputError, did_you_mean, import_extra

# importing and calling a factory may take so long
LIMIT_SECONDS = 120.0
FORM = "timm:NAME, file.py:factory or package.module:factory, such as torchvision.models:resnet18"
REGISTERED = "efface.nets:NAME, torchvision.models:NAME or timm:NAME"
FETCH_AGAIN = "Fetch or write the folder again."
LOOK_UP = "Look the name up in its documentation."
IN_PYTHON = "In Python efface.forget(model, Split(…)) takes any module that returns logits."
TYPE_IT = "Where you trust it, type it: --architecture package.module:factory."

# bytes that the entry of one tensor takes at least in a file of any kind
ENTRY_BYTES = 50
# of integers in a configuration (sizes, layers, names of classes), and of classes in a recipe
LARGEST, MOST_CLASSES = 10**5, 10**6
# of lists in a configuration, but names of classes
LONGEST = 1000
# a setting that a library looks up: no path, no address, no repository
WORD = r"[\w.\-+ ]{0,64}"
# of transformers' configurations: what is not for the shape of the model
NOT_SHAPE = {"architectures", "auto_map", "dtype", "torch_dtype", "model_type"}
NOT_SHAPE |= {"transformers_version", "attn_implementation", "quantization_config"}
NOT_SHAPE |= {"id2label", "label2id"}

# what no model needs to be built
FORBIDDEN = re.compile(
    r"socket\.(connect|sendto|get)|subprocess|os\.(system|exec|posix_spawn|fork)|pickle"
)
# what this thread builds of a file, if anything
_building: ContextVar[object] = ContextVar("building", default=None)


def build_model(architecture: str, num_classes: int | None = None) -> nn.Module:
    """An untrained model of a name that the user typed; nothing is downloaded.

    ``architecture``: ``timm:NAME``; ``package.module:factory``, of a module that is installed or
    lies in the working directory; or ``path/to/file.py:factory``. ``num_classes`` None is the
    model's own default. The global random state is unchanged.
    Raises InputError for an unknown name, for a factory that raises, returns no module or, in the
    main thread, does not return in two minutes; MissingExtra for timm.
    """
    # what is typed may be imported from anywhere, what a file names may not
    with _supervise(architecture, LIMIT_SECONDS), _importing(architecture) as name:
        return _call(_factory(name), architecture, num_classes)


def build_registered(
    architecture: Any, num_classes: Any, nbytes: int, options: Mapping[str, Any] | None = None
) -> nn.Module:
    """The untrained model that a file names, whose weights take ``nbytes`` in files.

    ``num_classes`` None is the model's own default; ``options``: other arguments of the factory.
    Raises InputError for a name of no registry, MissingExtra for timm.
    """
    known = {
        "efface.nets": _own_nets,
        "torchvision.models": _torchvision_models,
        "timm": lambda: import_extra("timm").list_models(),
    }
    package, colon, name = str(architecture).partition(":")
    if not colon or package not in known or not isinstance(architecture, str):
        raise InputError(f"an architecture as {REGISTERED}", f"{architecture!r:.80}", TYPE_IT)
    # timm's tag says which weights it came with
    bare = name.split(".", maxsplit=1)[0] if package == "timm" else name
    if bare not in known[package]() or not re.fullmatch(WORD, name):
        remedy = did_you_mean(name[:80], known[package](), LOOK_UP)
        raise InputError(f"a model of {package}", f"{name!r:.80}", remedy)
    if num_classes is not None:
        check_number("num_classes", num_classes, 1, MOST_CLASSES)
    with _confined(architecture, nbytes):
        factory = partial(_factory(architecture), **(options or {}))
        return _call(factory, architecture, num_classes)


def timm_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """What timm built a model with, as its config.json says: channels, input size, pooling.

    Raises InputError for an argument that timm takes itself, such as a file to unpickle.
    """
    timm, stated, given = import_extra("timm"), config["pretrained_cfg"], config.get("model_args")
    if not isinstance(stated, dict) or not isinstance(given, dict | None):
        came = f"{type(stated).__name__}, {type(given).__name__}"
        raise InputError("objects as pretrained_cfg and model_args", came, FETCH_AGAIN)
    given = {key: value for key, value in (given or {}).items() if key != "num_classes"}
    functions = (timm.create_model, timm.models.build_model_with_cfg)
    own = {name for function in functions for name in inspect.signature(function).parameters}
    for key, value in given.items():
        if key in own | {"features_only", "pruned"}:
            wanted = "model_args of the class of the model"
            raise InputError(wanted, f"{key!r:.60}, of timm", TYPE_IT)
        _check_setting(key, value)
    # files of before model_args say it here alone
    size = {key: stated[key] for key in ("input_size", "fixed_input_size") if key in stated}
    for key, value in size.items():
        _check_setting(key, value)
    return {**given, "pretrained_cfg_overlay": size}


def build_transformers(config: Mapping[str, Any], nbytes: int) -> tuple[nn.Module, str]:
    """The untrained image classifier that a config.json of transformers names, and that name.

    Of the configuration only numbers and plain words are read, and only those that its own class
    knows. Raises InputError for another model, MissingExtra for transformers.
    """
    transformers = import_extra("transformers")
    auto = importlib.import_module("transformers.models.auto.modeling_auto")
    types = importlib.import_module("transformers.models.auto.configuration_auto").CONFIG_MAPPING
    pairs = auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES.items()
    kinds = {
        c: kind for kind, given in pairs for c in ((given,) if isinstance(given, str) else given)
    }
    # a wrapper would call timm with whatever arguments the file holds
    kinds.pop("TimmWrapperForImageClassification", None)
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names else "no architecture"
    if not isinstance(name, str) or name not in kinds:
        raise InputError("an image classifier of transformers", f"{name!s:.80}", IN_PYTHON)
    # imported before: an import may do what a constructor must not
    model_class, config_class = getattr(transformers, name), types[kinds[name]]
    with _confined(f"transformers:{name}", nbytes):
        known = {*vars(config_class()), *config_class.attribute_map, "num_labels"} - NOT_SHAPE
        given = {k: v for k, v in config.items() if k in known and k[:1] != "_"}
        for key, value in given.items():
            _check_setting(key, value)
        # names of classes may be any texts, and as many as there are classes
        given |= {"id2label": config["id2label"]} if "id2label" in config else {}
        settings = config_class.from_dict(given)
        # on no device first: a configuration of a terabyte ends before it takes any memory
        with torch.device("meta"):
            model_class(settings)
        with torch.random.fork_rng(devices=[]):
            return model_class(settings).float(), name


def _own_nets() -> list[str]:
    return [n for n, f in vars(nets).items() if n[0] != "_" and inspect.isfunction(f)]


def _torchvision_models() -> list[str]:
    models = importlib.import_module("torchvision.models")
    # those of its subpackages (segmentation, detection) fetch a backbone by default
    return models.list_models(module=models)


def check_number(key: str, value: Any, low: int, high: int) -> None:
    """Raise InputError for what is no integer of this range."""
    if type(value) is not int or not low <= value <= high:
        wanted = f"an integer of {low:,} to {high:,} as {key}"
        raise InputError(wanted, f"{value!r:.40}", FETCH_AGAIN)


def _check_setting(key: str, value: Any) -> None:
    """Numbers, plain words, and lists and mappings of them. Raises InputError."""
    inside = list(value.values()) if isinstance(value, Mapping) else value
    if type(value) is int:
        check_number(key, value, -LARGEST, LARGEST)
        return
    plain = not isinstance(inside, str) or re.fullmatch(WORD, inside)
    if isinstance(inside, list):
        plain = len(inside) <= LONGEST
        for part in inside[:LONGEST]:
            _check_setting(key, part)
    if not plain:
        wanted = f"numbers, plain words and lists of at most {LONGEST} as {key}"
        raise InputError(wanted, f"{value!r:.60}", IN_PYTHON)


def _call(factory: Callable[..., Any], architecture: str, num_classes: int | None) -> nn.Module:
    parameters = inspect.signature(factory).parameters.values()
    takes = any(p.name == "num_classes" or p.kind is p.VAR_KEYWORD for p in parameters)
    options = {} if num_classes is None or not takes else {"num_classes": num_classes}
    # torchvision's segmentation and detection fetch a trained backbone unless told not to
    options |= {p.name: None for p in parameters if p.name in {"weights", "weights_backbone"}}
    # the initial weights are drawn at random, and overwritten
    with torch.random.fork_rng(devices=[]):
        try:
            model = factory(**options)
        except TypeError as error:
            wanted = f"a factory that needs nothing but num_classes: {architecture}"
            raise InputError(wanted, str(error), "Name a function that returns it.") from error
    if not isinstance(model, nn.Module):
        wanted, came = f"a torch module from {architecture}", type(model).__name__
        raise InputError(wanted, came, "Name a function that makes one.")
    return model


@contextmanager
def _supervise(
    architecture: str, seconds: float, remedy: str = "Fix the factory."
) -> Generator[None]:
    """Refuse user code that raises, exits the program, or does not return in time."""

    def expire(number: int, frame: object) -> NoReturn:  # noqa: ARG001
        raise TimeoutError(f"no answer within {seconds:g} s")

    # the alarm of the system may be set in the main thread only; elsewhere there is no limit
    timed = threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGALRM")
    before = signal.signal(signal.SIGALRM, expire) if timed else None
    if timed:
        signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except EffaceError:
        raise
    except (Exception, SystemExit) as error:
        came = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        wanted = f"a model from {architecture}, which must do nothing else"
        raise InputError(wanted, came, remedy) from error
    finally:
        if timed:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


@contextmanager
def _importing(architecture: str) -> Generator[str]:
    """``module:factory`` of what was typed, importable from its file, or the working directory.

    Raises InputError for a file that is not there, or that has the name of another module.
    """
    path, colon, name = architecture.rpartition(":")
    # as `python -m efface` does by itself, and the command `efface` does not
    folder, place = str(Path.cwd()), len(sys.path)
    if colon and path.endswith(".py"):
        file = Path(path).absolute()
        if not file.is_file():
            raise InputError("a Python file", f"{path}, not there", "Check the path.")
        known = sys.modules.get(file.stem)
        other = known is not None and getattr(known, "__file__", None) != str(file)
        if other or not file.stem.isidentifier():
            wanted = "a file of a name that no other module has"
            raise InputError(wanted, file.name, "Rename it, such as my_own.py.")
        folder, place, architecture = str(file.parent), 0, f"{file.stem}:{name}"
    added = place == 0 or folder not in sys.path
    if added:
        sys.path.insert(place, folder)
    importlib.invalidate_caches()
    try:
        yield architecture
    finally:
        if added:
            sys.path.remove(folder)


def _factory(architecture: str) -> Callable[..., Any]:
    if architecture.startswith("timm:"):
        timm, name = import_extra("timm"), architecture.removeprefix("timm:")
        if not timm.is_model(name.split(".", maxsplit=1)[0]):
            remedy = did_you_mean(name, timm.list_models(), LOOK_UP)
            raise InputError("a model that timm knows", repr(name), remedy)
        return partial(timm.create_model, name, pretrained=False)
    return _import(architecture, f"an architecture as {FORM}")


def import_typed(address: str) -> Callable[..., Any]:
    """What ``path/to/file.py:name`` or ``package.module:name`` names: imported, since it was typed.

    Raises InputError where there is none, or its module raises.
    """
    try:
        with _importing(address) as name:
            return _import(name, "file.py:name or package.module:name")
    except EffaceError:
        raise
    except (Exception, SystemExit) as error:
        came = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        raise InputError(f"{address} to be imported", came, "Fix its module.") from error


def _import(address: str, form: str) -> Callable[..., Any]:
    # nothing but a name is accepted: no expression, no call with arguments
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", address):
        raise InputError(form, repr(address), "Write a name alone.")
    module_name, name = address.split(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        wanted, remedy = f"a module named {module_name}", "Install it, or name its file.py:factory."
        raise InputError(wanted, str(error), remedy) from error
    factory = getattr(module, name, None)
    if not callable(factory):
        known = [n for n, value in vars(module).items() if n[0] != "_" and callable(value)]
        wanted, remedy = f"a function or class of {module_name}", did_you_mean(name, known, LOOK_UP)
        raise InputError(wanted, repr(name), remedy)
    return factory


@contextmanager
def _confined(architecture: str, nbytes: int) -> Generator[None]:
    """Refuse to build what reaches out of the process, or what a file of ``nbytes`` cannot fill."""
    _install_watch()
    elements, tensors, this = 0, 0, object()

    def count(_: nn.Module, __: str, tensor: nn.Parameter) -> None:
        nonlocal elements, tensors
        # torch calls it for the modules of every thread
        if _building.get() is not this:
            return
        elements, tensors = elements + tensor.numel(), tensors + 1
        # a weight has a byte or more
        if elements > nbytes or tensors > 100 + nbytes // ENTRY_BYTES:
            came = f"more weights than a file of {nbytes:,} bytes can hold"
            raise InputError(f"{architecture} of the size of its weights", came, FETCH_AGAIN)

    handle = register_module_parameter_registration_hook(count)
    token = _building.set(this)
    try:
        with _supervise(architecture, LIMIT_SECONDS, FETCH_AGAIN):
            yield
    finally:
        _building.reset(token)
        handle.remove()


@cache
def _install_watch() -> None:
    # an audit hook stays for the life of the process, so it is one, and asleep between builds
    def watch(event: str, _: object) -> None:
        if _building.get() and FORBIDDEN.match(event):
            raise PermissionError(f"{event}, which no model needs")

    sys.addaudithook(watch)
