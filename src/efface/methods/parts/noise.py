"""What the methods with noise around a record share: the refusal to do without it."""

from efface.errors import InputError


def refuse_no_noise(sigma: float, perturbations: int) -> None:
    """Raise InputError when there is no noise, and so no neighbourhood."""
    if sigma <= 0 or perturbations < 1:
        raise InputError(
            "sigma above 0 and at least 1 perturbation",
            f"sigma {sigma} and {perturbations} perturbations",
            "Without perturbations there is no neighbourhood to smooth; keep the defaults.",
        )
