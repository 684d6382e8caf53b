"""Records ranked by how much the model memorised them: ``efface inspect``."""

from efface.ranking.found import Inspection
from efface.ranking.inspecting import inspect

__all__ = ["Inspection", "inspect"]
