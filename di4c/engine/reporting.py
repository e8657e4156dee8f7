"""How a command ends when something is wrong: one message, and a non-zero exit code on every rank."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from di4c.engine.launchers import told_rank
from di4c.errors import Di4CError, LaunchError, file_error


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
