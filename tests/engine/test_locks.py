"""One run a folder, whether or not the file system has locks."""

import errno
import fcntl
import os
import socket
import subprocess
import sys

import pytest

from di4c.engine import locks
from di4c.engine.locks import OWNER, FolderLock
from di4c.engine.run_folder import RunFolder
from di4c.errors import TrainingError


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture(params=[errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def without_locks(request, monkeypatch):
    """A file system on which flock fails, as Lustre's or an NFS's without its lock service."""

    def flock(file, operation):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", flock)


def test_a_folder_is_held_by_one_and_free_again(tmp_path):
    first = FolderLock(tmp_path)
    with pytest.raises(TrainingError, match="in use by another run; wait"):
        FolderLock(tmp_path)
    first.release()
    FolderLock(tmp_path).release()
    assert not (tmp_path / OWNER).exists()


def test_without_locks_a_file_names_the_owner(without_locks, tmp_path):
    first = FolderLock(tmp_path)
    with pytest.raises(TrainingError, match=f"process {os.getpid()} on .*remove .*{OWNER} if that run is over"):
        FolderLock(tmp_path)
    first.release()
    FolderLock(tmp_path).release()


def test_without_locks_a_killed_owner_is_followed_and_one_of_another_host_is_not(without_locks, tmp_path):
    (tmp_path / OWNER).write_text(f"{ended_process()} on {socket.gethostname()}\n")
    FolderLock(tmp_path).release()
    for owner in (f"{ended_process()} on another-host", "", "nonsense", f"{10**30} on {socket.gethostname()}"):
        (tmp_path / OWNER).write_text(owner)
        with pytest.raises(TrainingError, match="remove"):
            FolderLock(tmp_path)


def test_without_locks_a_run_begins_and_resumes(without_locks, tmp_path):
    RunFolder(tmp_path / "run", resume=False).close()
    RunFolder(tmp_path / "run", resume=False).close()  # nothing but the lock lies there
    (tmp_path / "run" / "spec.yaml").write_text("task: toy\n")
    with pytest.raises(TrainingError, match="--resume"):
        RunFolder(tmp_path / "run", resume=False)
    RunFolder(tmp_path / "run", resume=True).close()


def test_locks_are_asked_first(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_own", lambda file: pytest.fail("an owner's file where locks work"))
    FolderLock(tmp_path).release()
