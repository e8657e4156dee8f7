"""The errors a user can cause; each message says where, what was found and what is allowed."""

import contextlib
import math
from collections.abc import Iterator


class Di4CError(Exception):
    """Base of every error that a user can mend; command-line tools print it without a traceback, in one line."""

    def __str__(self) -> str:
        return " ".join(super().__str__().splitlines())  # what a user wrote, or a library says, may hold line ends


@contextlib.contextmanager
def located(source: str) -> Iterator[None]:
    """Errors begin with where: the file that a spec came from, say."""
    try:
        yield
    except Di4CError as error:
        raise type(error)(f"{source}: {error}") from error


def file_error(error: OSError) -> Di4CError:
    """The error of a file that could not be read or written, for whom nothing in the code has answered."""
    return Di4CError(f"{error.filename}: {error.strerror or error}")


def describe_os_error(error: OSError) -> str:
    """One sentence about a failed write."""
    where = f" at {error.filename}" if error.filename else ""
    return f"cannot write{where}: {error.strerror or error}; free some space or choose another folder, then --resume"


class SpecError(Di4CError):
    """A spec, an option or a combination of parts that cannot work."""


def not_negative(key: str, value: float) -> None:
    """Raises SpecError, which names the key, unless the value is a finite number of at least 0."""
    if not 0 <= value < math.inf:
        raise SpecError(f"{key}: at least 0 and finite; found {value}")


class RegistryError(Di4CError):
    """A name that does not resolve, resolves twice, or whose constructor refuses its options."""


class CheckpointError(Di4CError):
    """A checkpoint or export that is absent, damaged, foreign or does not fit."""


class DataError(Di4CError):
    """Data that are absent, changed under a run, or not what the spec says."""


class TrainingError(Di4CError):
    """A run that cannot go on: a non-finite loss, no disk space, a folder in use."""


class LaunchError(TrainingError):
    """A process whose place among the ranks, told by environment variables, cannot be right: each process tells its own."""
