"""The committed records of information.py, read once for the page and its figure."""

import numpy as np

from efface.metrics.intervals import threshold
from efface.metrics.lira import u_lira
from research.benchmarks.information_models import SETTINGS
from research.leave_out import Removal
from research.tables import read_record

EXPOSED_AT = 0.01
SPARSE = ("radius size",)  # most balls of one radius hold a single record


class Found:
    """Everything of one setting, read once."""

    def __init__(self, name: str) -> None:
        self.name, self.setting = name, SETTINGS[name]
        self.record = read_record(f"information/{name}")
        self.groups = read_record(f"information/{name}_groups")["groups"]
        arrays = read_record(f"information/{name}.npz")
        self.columns = {key: arrays[key].astype(np.float64) for key in arrays if key != "y"}
        self.truth = read_record(f"information/{name}_halves.npz")
        self.odds = self.truth["log_odds"].astype(np.float64)
        self.member = self.truth["member"].astype(bool)
        self.attack = u_lira(self.odds, self.member)

    def quantities(self) -> list[str]:
        """Those whose ranks mean something."""
        return [key for key in self.columns if not key.endswith(SPARSE)]

    def exposed(self) -> np.ndarray:
        """Records found at 1 % FPR in more than half of the models trained on them."""
        scores = self.attack.scores
        cut = threshold(scores[~self.member], EXPOSED_AT)
        hits = (scores > cut) & self.member
        return hits.sum(axis=0) > self.member.sum(axis=0) / 2

    def removal(self, key: str, part: str, what: str = "p") -> Removal:
        """What a group's removal did; the seed noise pooled over the groups of its size."""
        every, size = self.record["removals"], len(self.groups[key])
        alike = [every[name][part][what] for name, rows in self.groups.items() if len(rows) == size]
        noise = float(np.mean([one["noise"] for one in alike]))
        most = max(one["most"] for one in alike)
        return Removal(every[key][part][what]["difference"], noise, most)


def group_rows(found: Found) -> dict[str, list[int]]:
    """The groups of one size, which correlations over groups are taken on."""
    return {key: rows for key, rows in found.groups.items() if len(rows) == found.setting.group}
