"""Refusals of settings that mean nothing, by their own name."""

from efface.errors import InputError


def refuse_below_0(**settings: float) -> None:
    """Raises InputError for the first setting that is below 0, or no number."""
    for name, value in settings.items():
        if not value >= 0:
            raise InputError(f"{name} of at least 0", str(value), "Keep the default, or raise it.")


def refuse_0(**settings: float | int) -> None:  # noqa: PYI041  # the tests' check of types asks
    """Raises InputError for the first setting that is not above 0."""
    for name, value in settings.items():
        if not value > 0:
            raise InputError(f"{name} above 0", str(value), "Keep the default, or raise it.")


def refuse_no_share(of: str = "a share of records", **settings: float) -> None:
    """Raises InputError for the first setting that is not from 0 to 1; ``of`` says what it is."""
    for name, value in settings.items():
        if not 0 <= value <= 1:
            raise InputError(f"{name} from 0 to 1", str(value), f"It is {of}.")


def refuse_fewer(least: int, **settings: int) -> None:
    """Raises InputError for the first setting that is below ``least``."""
    for name, value in settings.items():
        if value < least:
            raise InputError(f"{name} of at least {least}", str(value), "Keep the default.")
