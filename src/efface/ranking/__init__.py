"""Records ranked by how much the model memorised them: ``efface inspect``."""

from efface.ranking.inspecting import inspect
from efface.ranking.found import Inspection

__all__ = ["Inspection", "inspect"]
