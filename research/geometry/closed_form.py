"""The sigmoid's slope, bend and curvature, written out."""

import numpy as np
from jaxtyping import Float


def closed_form(x: Float[np.ndarray, " n"]) -> dict[str, dict[str, Float[np.ndarray, " n"]]]:
    """|g'|, |g''| and κ of S(x) and of ln S(x)."""
    s = 1 / (1 + np.exp(-x))
    slope = s * (1 - s)
    return {
        "probability": {
            "gradient": slope,
            "hessian": slope * np.abs(1 - 2 * s),
            "kappa": np.abs(np.tanh(x / 2)),
        },
        "log-probability of class 1": {"gradient": 1 - s, "hessian": slope, "kappa": s},
    }
