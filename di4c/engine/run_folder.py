"""A run's folder: who may write to it, and the record of how the run was made.

RUN/spec.yaml · run.json · metrics.csv · warnings.txt · checkpoints/ · export/
"""

import datetime
import functools
import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import di4c
from di4c.contracts.weight_files import read_mapping
from di4c.engine.locks import LOCK, OWNER, FolderLock
from di4c.errors import CheckpointError, SpecError, TrainingError
from di4c.files import replace_file
from di4c.old_keys import renamed
from di4c.yaml_text import dump, plain, read_yaml, resolved


class RunFolder:
    """The folder of one run, held by this process until `close`. Rank 0 only.

    Raises TrainingError if another process holds it, or if it has content and the run is not to be resumed.
    """

    def __init__(self, path: Path, *, resume: bool):
        self.path = Path(path)
        used = _used(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = FolderLock(self.path)
        if used and not resume:
            self._lock.release()
            refuse_used(self.path)
        self._started = time.time()
        self._sessions: list[dict[str, Any]] = []

    def record_start(self, spec: dict[str, Any], facts: dict[str, Any]) -> list[str]:
        """Writes spec.yaml and begins an entry of run.json; the spec's keys that a resumed run has changed."""
        file = self.path / "spec.yaml"
        before = recorded_spec(self.path)
        replace_file(file, dump(spec))
        self._sessions = [*self._history(), {"start": _now(), **environment(), **facts}]
        self._write_sessions()
        return [] if before is None else changed_keys(before, plain(spec))

    def record_checkpoint(self, **facts: Any) -> None:
        """The seconds so far, in the entry of run.json: all that is known of a session that is killed later."""
        self._sessions[-1] |= {"wall_clock_s": round(time.time() - self._started, 1), **facts}
        self._write_sessions()

    def record_end(self, **facts: Any) -> None:
        """Completes the entry of run.json; the file is written anew where somebody has removed it since."""
        self.record_checkpoint(end=_now(), **facts)

    def settings(self) -> dict[str, int]:
        """What the run chose by its first device, which later sessions keep; {} where none is recorded."""
        return next((entry["settings"] for entry in self._history() if "settings" in entry), {})

    def close(self) -> None:
        """Lets another process use the folder."""
        self._lock.release()

    def _history(self) -> list[dict[str, Any]]:
        file = self.path / "run.json"
        if not file.exists():
            return []
        sessions = read_mapping(file).get("sessions")
        if not isinstance(sessions, list) or not all(isinstance(session, dict) for session in sessions):
            raise CheckpointError(
                f"{file}: has no list of `sessions`; it is damaged: restore it, or remove it to begin a new record"
            )
        return sessions

    def _write_sessions(self) -> None:
        total = round(sum(s.get("wall_clock_s", 0) for s in self._sessions), 1)
        written = {"wall_clock_s": total, "sessions": self._sessions}
        replace_file(self.path / "run.json", json.dumps(written, indent=1) + "\n")


def recorded_spec(path: Path) -> Any:
    """The spec that a run folder records, in plain values; None where it records none. Raises CheckpointError for a damaged one."""
    file = path / "spec.yaml"
    try:
        return renamed(resolved(read_yaml(file))) if os.path.lexists(file) else None
    except SpecError as error:
        raise CheckpointError(
            f"{'' if str(file) in str(error) else f'{file}: '}{error}; restore it, or remove it"
        ) from error


def trained_seconds(path: Path) -> float | None:
    """Wall-clock seconds of a run's sessions; None where its run.json is not at hand. Raises CheckpointError for a damaged one."""
    file = path / "run.json"
    seconds = read_mapping(file).get("wall_clock_s") if file.is_file() else None
    if file.is_file() and not isinstance(seconds, int | float):
        raise CheckpointError(f"{file}: has no number `wall_clock_s`; it is damaged")
    return seconds


def refuse_used(path: Path) -> None:
    """Raises TrainingError if `path` already holds a run, which a fresh one would overwrite."""
    if _used(path):
        raise TrainingError(
            f"run folder {path} already holds a run; add --resume to continue it, or choose another train.run"
        )


def _used(path: Path) -> bool:
    if path.exists() and not path.is_dir():
        raise TrainingError(f"run folder {path} is a file; choose another train.run")
    for parent in path.parents:
        if parent.exists() and not parent.is_dir():
            raise TrainingError(
                f"run folder {path}: {parent} is a file, and no folder can be in it; choose another train.run"
            )
    return path.is_dir() and any(p.name not in (LOCK, OWNER) for p in path.iterdir())


def environment() -> dict[str, Any]:
    """Versions, code and device of this process."""
    import deepspeed
    import torch

    from di4c.engine import process_group

    device = torch.cuda.get_device_name() if process_group.on_gpu() else f"cpu ({platform.machine()})"
    versions = {"di4c": di4c.__version__, "torch": torch.__version__, "deepspeed": deepspeed.__version__}
    return {"versions": versions | {"python": platform.python_version()}, "commit": code_commit(), "device": device}


@functools.cache
def code_commit() -> str | None:
    """The git commit of this code ("…-dirty" with uncommitted changes), or None if it is not a git checkout's."""
    package = Path(di4c.__file__).parent
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = _git(package, "rev-parse", "HEAD")
    return f"{commit}-dirty" if _git(package, "status", "--porcelain", "--untracked-files=no") else commit


def changed_keys(before: Any, after: Any, where: str = "") -> list[str]:
    """The key paths at which two specs differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = list(dict.fromkeys([*before, *after]))
        paths = ((k, f"{where}.{k}" if where else str(k)) for k in keys)
        return [c for k, path in paths for c in changed_keys(before.get(k), after.get(k), path)]
    # nan, which is not equal to itself, stays the same
    return [] if before == after or dump(before) == dump(after) else [where]


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
