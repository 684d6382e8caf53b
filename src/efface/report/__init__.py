"""Tiers, controls, records and the report."""

from efface.report.gather import collect, tier_of
from efface.report.report import render, write
from efface.report.rows import Evidence, Row

__all__ = ["Evidence", "Row", "collect", "render", "tier_of", "write"]
