"""The guard: it refuses to let a model leave the region where it still works."""

from efface.guard.judge import Guard, Violation

__all__ = ["Guard", "Violation"]
