"""Unlearning methods: one file a family (docs/decisions/0010), registered in ``METHODS``.

Shared by several: ``_base`` (the registry, and the ranges of settings), ``_perturb`` (noise and
other perturbations), ``_attacks`` (inputs optimised against a model), ``_unseen`` (what an unseen
record looks like), ``_head`` (the last layer), ``_records``.
"""

from importlib import import_module
from pkgutil import iter_modules

from efface.methods._base import METHODS as METHODS
from efface.methods._base import Count as Count
from efface.methods._base import Decay as Decay
from efface.methods._base import Memory as Memory
from efface.methods._base import Method as Method
from efface.methods._base import Natural as Natural
from efface.methods._base import NonNegative as NonNegative
from efface.methods._base import Positive as Positive
from efface.methods._base import PositiveShare as PositiveShare
from efface.methods._base import Share as Share
from efface.methods._base import check_settings as check_settings
from efface.methods._base import check_value as check_value
from efface.methods._base import default_settings as default_settings
from efface.methods._base import find_method as find_method
from efface.methods._base import register_method as register_method

# The order of every list of methods: those that need no retained data first; what is not named
# here comes last.
_ORDER = (
    "jit jit_paper jit_reference neighbourhood baseline negative_gradient mislabel "
    "source_free_newton synthetic_embeddings boundary_shrink boundary_expand delete mu_mis amun "
    "emmn l2ul gkt retrain finetune l1_sparse neggrad_plus random_labels salun amnesiac ssd lfssd "
    "assd scrub scrub_rewind bad_teacher unsir"
)

for _module in iter_modules(__path__):
    import_module(f"efface.methods.{_module.name}")

_in_order = (*_ORDER.split(), *METHODS.registered)
METHODS.registered = {name: METHODS.registered[name] for name in _in_order}

# The methods of this package alone.
BUILT_IN: dict[str, Method] = dict(METHODS.registered)
