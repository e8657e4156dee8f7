"""Reference numbers as checks of this project's modules: one file a system, each with a list `KINDS`."""

from golden_cases.checks import Check, Kind, close, exact
from golden_cases.registered import all_kinds

__all__ = ["Check", "Kind", "all_kinds", "close", "exact"]
