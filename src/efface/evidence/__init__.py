"""Tiers, controls, records and the report."""

from efface.evidence.gather import collect, tier_of
from efface.evidence.report import render, write
from efface.evidence.rows import Evidence, Row

__all__ = ["Evidence", "Row", "collect", "render", "tier_of", "write"]
