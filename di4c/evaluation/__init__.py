"""Sweeps over steps and mixture sizes, tables, plots, the report page."""
