"""Which records told a model most: measured shard by shard, ranked, shown."""

from efface.inspection.found import Inspection
from efface.inspection.inspecting import inspect

__all__ = ["Inspection", "inspect"]
