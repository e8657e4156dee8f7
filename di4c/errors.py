"""The errors a user can cause; each message says where, what was found and what is allowed."""


class Di4CError(Exception):
    """Base of every error that a user can mend; command-line tools print it without a traceback."""


class SpecError(Di4CError):
    """A spec, an option or a combination of parts that cannot work."""


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
