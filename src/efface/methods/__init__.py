"""Unlearning methods: one file a paper, each registered in ``METHODS`` by its decorator.

Shared by several: ``_base`` (the registry and the settings' ranges).
"""

from importlib import import_module

from efface.methods._base import (
    METHODS,
    Count,
    Decay,
    Memory,
    Method,
    Natural,
    NonNegative,
    Positive,
    PositiveShare,
    Share,
    check_settings,
    check_value,
    default_settings,
    find_method,
    register_method,
)

__all__ = [
    "BUILT_IN",
    "METHODS",
    "Count",
    "Decay",
    "Memory",
    "Method",
    "Natural",
    "NonNegative",
    "Positive",
    "PositiveShare",
    "Share",
    "check_settings",
    "check_value",
    "default_settings",
    "find_method",
    "register_method",
]

# The order of every list of methods: those that need no retained data first.
_ZERO_SHOT = (
    "jit jit_paper jit_reference neighbourhood baseline negative_gradient mislabel "
    "source_free_newton synthetic_embeddings boundary_shrink boundary_expand delete mu_mis amun "
    "emmn l2ul gkt"
)
_WITH_RETAIN = (
    "retrain finetune l1_sparse neggrad_plus random_labels salun amnesiac ssd lfssd assd scrub "
    "scrub_rewind bad_teacher unsir"
)

for _name in (*_ZERO_SHOT.split(), *_WITH_RETAIN.split()):
    import_module(f"efface.methods.{_name}")

BUILT_IN: dict[str, Method] = dict(METHODS._methods)  # noqa: SLF001  # without the entry points
"""The methods of this package alone."""
