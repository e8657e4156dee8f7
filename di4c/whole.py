"""Numbers as people and libraries give them: one rule for the Python interface, specs and the command line."""

import math
import operator
from typing import Any

from di4c.errors import SpecError


def whole_number(value: Any, where: str, least: int | None = None) -> int:
    """The value as an int: a Python int, or an integer scalar of numpy or torch.

    Raises SpecError for everything else (2.0, True, "2", None) and for numbers below `least`.
    """
    number = as_int(value)
    if number is None or (least is not None and number < least):
        asked = "a whole number" if least is None else f"a whole number ≥ {least}"
        raise SpecError(f"{where}: expected {asked}, found {value!r}.")
    return number


def as_int(value: Any) -> int | None:
    """The int that an integer of any library stands for; None for truth values, floats and whatever else is no integer."""
    if type(value) is int:
        return value
    if str(getattr(value, "dtype", type(value).__name__)) in ("bool", "torch.bool") or bool(getattr(value, "ndim", 0)):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def positive_number(value: Any, where: str, most: float = math.inf) -> float:
    """The value as a finite float > 0 and ≤ most: a Python number, or a scalar of numpy or torch. Raises SpecError for everything else."""
    named = str(getattr(value, "dtype", type(value).__name__))
    try:
        is_none = isinstance(value, str | bytes) or named.endswith("bool") or bool(getattr(value, "ndim", 0))
        number = math.nan if is_none else float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        number = math.nan
    if not 0 < number <= most or math.isinf(number):
        allowed = "a number > 0" if math.isinf(most) else f"a number > 0 and ≤ {most:g}"
        raise SpecError(f"{where}: expected {allowed}, found {value!r}.")
    return number


def whole_number_of_text(text: str, where: str, least: int | None = None) -> int:
    """The whole number that a command-line argument spells. Raises SpecError."""
    return whole_number(int(text) if text.removeprefix("-").isdecimal() else text, where, least)
