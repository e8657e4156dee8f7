"""One process at a time in a folder: the system's locks, or a file that names its owner where the file system has none.

flock works on local disks and on NFS, where Linux makes it a byte-range lock of the server. Lustre, FUSE and NFS without a lock
service may refuse it (ENOSYS, ENOLCK, EOPNOTSUPP). An owner's file is made there by exclusive creation, which is atomic on all of
them; a killed process leaves it, so a process of the same host takes it over once the owner is gone.
"""

import errno
import fcntl
import os
import socket
from pathlib import Path

from di4c.errors import TrainingError

LOCK, OWNER = ".lock", ".lock-owner"
HELD = {errno.EAGAIN, errno.EACCES}


class FolderLock:
    """Held from construction until `release`, or until the process ends. TrainingError if another process holds it."""

    def __init__(self, folder: Path):
        self.folder, self._owner = folder, None
        self._file = open(folder / LOCK, "w")  # noqa: SIM115 (open as long as it is held)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            if error.errno in HELD:
                raise TrainingError(f"run folder {folder} is in use by another run; wait or choose another") from error
            self._owner = _own(folder / OWNER)

    def release(self) -> None:
        """Lets another process use the folder."""
        self._file.close()
        if self._owner is not None:
            self._owner.unlink(missing_ok=True)
            self._owner = None


def _own(file: Path) -> Path:
    """The owner's file, made for this process. TrainingError if it belongs to one that lives, or may live."""
    for _ in range(2):
        try:
            handle = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            owner = file.read_text(encoding="utf-8", errors="replace")
            if not _gone(owner):
                raise TrainingError(
                    f"run folder {file.parent} is in use by another run (process {' '.join(owner.split()) or 'unknown'}; the file system has "
                    f"no locks); wait, choose another, or remove {file} if that run is over"
                ) from None
            file.unlink(missing_ok=True)
            continue
        with os.fdopen(handle, "w", encoding="utf-8") as opened:
            opened.write(f"{os.getpid()} on {socket.gethostname()}\n")
        return file
    raise TrainingError(f"run folder {file.parent} is in use by another run; wait or choose another")


def _gone(owner: str) -> bool:
    """Whether the process that a file names was one of this host and has ended."""
    process, _, host = owner.strip().partition(" on ")
    if host != socket.gethostname() or not process.isdecimal():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False
