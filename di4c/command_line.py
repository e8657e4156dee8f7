"""What every command-line tool has in common: the types of its arguments, and its end with one message on a user's mistake."""

import argparse
import functools
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

from di4c.engine.launchers import told_rank
from di4c.errors import Di4CError, LaunchError, RegistryError, SpecError, file_error
from di4c.paths import user_path
from di4c.whole import positive_number, whole_number_of_text

USER_ERROR = 2
INTERRUPTED = 130

P = ParamSpec("P")
T = TypeVar("T")


def command(main: Callable[P, int | None]) -> Callable[P, int]:
    """`main` with an exit code: a Di4CError becomes one message on stderr and exit code 2.

    Under a launcher a mistake in the spec is the same on every rank, and rank 0 tells it; other errors name their rank.
    """

    @functools.wraps(main)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            return main(*args, **kwargs) or 0
        except Di4CError as error:
            _tell(error)
            return USER_ERROR
        except OSError as error:
            # the reader has seen enough (… | head); let the interpreter's last flush go nowhere
            if isinstance(error, BrokenPipeError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return 0
            if error.filename is None:
                raise
            _tell(file_error(error))
            return USER_ERROR
        except KeyboardInterrupt:
            return INTERRUPTED

    return guarded


def argument(convert: Callable[[str], T]) -> Callable[[str], T]:
    """`convert` as argparse's `type`: what it refuses is told in its words."""

    def converted(text: str) -> T:
        try:
            return convert(text)
        except SpecError as error:
            raise argparse.ArgumentTypeError(str(error).removeprefix(": ").rstrip(".")) from error

    return converted


def number(least: int | None = None) -> Callable[[str], int]:
    """A whole number as argparse's `type`: the rule of the Python interface, for text."""
    return argument(lambda text: whole_number_of_text(text, "", least))


def positive(most: float = math.inf) -> Callable[[str], float]:
    """A number > 0 and ≤ most as argparse's `type`."""
    return argument(lambda text: positive_number(_number_of(text, "a number"), "", most))


def positives(text: str) -> list[float]:
    """Numbers > 0 with commas between them."""
    return [positive()(part) for part in text.split(",")]


path_argument: Callable[[str], Path] = argument(user_path)
"""A path as argparse's `type`; see `user_path`."""


def numbers(least: int) -> Callable[[str], list[int]]:
    """Whole numbers with commas between them, as argparse's `type`."""
    one = number(least)
    return lambda text: [one(part) for part in text.split(",")]


@argument
def amount_argument(text: str) -> float:
    """An argument that is a number ≥ 0, not inf or nan."""
    if not 0 <= (number := _number_of(text, "a number ≥ 0")) < math.inf:
        raise SpecError(f"expected a number ≥ 0, found {text!r}")
    return number


def _number_of(text: str, expected: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise SpecError(f"expected {expected}, found {text!r}") from error


def _tell(error: Di4CError) -> None:
    rank = told_rank(os.environ)
    if rank and isinstance(error, SpecError | RegistryError):
        return
    print(f"{f'[rank {rank}] ' if rank else ''}error: {error}", file=sys.stderr)


@contextmanager
def reporting() -> Iterator[None]:
    """Turns errors into exits with code 1: a Di4CError prints one message (of one rank, but for a LaunchError), so does a file that
    cannot be read or written, others their trace.

    Imports nothing heavy, so that a mistake in a spec is told at once.
    """
    try:
        yield
    except Di4CError as error:
        if isinstance(error, LaunchError) or _first_to_report():
            print(f"error: {error}", file=sys.stderr, flush=True)
        leave(1)
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            print(f"error: {file_error(error)}", file=sys.stderr, flush=True)
            leave(1)
        traceback.print_exc()
        leave(1)


def leave(code: int) -> None:
    """Ends the process at once: other ranks may wait in a collective that an orderly end would join."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _first_to_report() -> bool:
    """Whether no other rank has reported yet; before the group exists all ranks meet the same error, so rank 0 does."""
    first = told_rank(os.environ) == 0
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_initialized():
        return first
    try:
        return distributed.distributed_c10d._get_default_store().add("di4c/reported", 1) == 1
    except RuntimeError:
        return first
