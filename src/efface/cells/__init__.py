"""Cells: models that are described first, then made once, several at a time, and kept as records.

``run(cells, store)`` makes what the store does not hold; ``read(store, cell)`` gives the record.
"""

from efface.cells.cell import Cell, Reduced
from efface.cells.plan import Plan, plan
from efface.cells.run import Ran, Row, run
from efface.cells.store import Record, read, records

__all__ = ["Cell", "Plan", "Ran", "Record", "Reduced", "Row", "plan", "read", "records", "run"]
