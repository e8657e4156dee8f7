"""What every command-line tool has in common: a user's mistake ends it with one message and exit code 2."""

import argparse
import functools
import os
import sys
from collections.abc import Callable
from typing import ParamSpec

from di4c.engine.launchers import told_rank
from di4c.errors import Di4CError, RegistryError, SpecError
from di4c.whole import whole_number_of_text

USER_ERROR = 2
INTERRUPTED = 130

P = ParamSpec("P")


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
        except KeyboardInterrupt:
            return INTERRUPTED
        except BrokenPipeError:  # the reader has seen enough (… | head); let the interpreter's last flush go nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0

    return guarded


def number(least: int | None = None) -> Callable[[str], int]:
    """A whole number as argparse's `type`: the rule of the Python interface, for text."""

    def convert(text: str) -> int:
        try:
            return whole_number_of_text(text, "", least)
        except SpecError as error:
            raise argparse.ArgumentTypeError(str(error).removeprefix(": ").rstrip(".")) from error

    return convert


def _tell(error: Di4CError) -> None:
    rank = told_rank(os.environ)
    if rank and isinstance(error, SpecError | RegistryError):
        return
    print(f"{f'[rank {rank}] ' if rank else ''}error: {error}", file=sys.stderr)
