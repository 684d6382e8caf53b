"""Tiers, controls, records and the report."""
