"""`python -m MODULE …` and `python SCRIPT …` as processes forked from one that has imported torch and DeepSpeed already.

A fresh interpreter takes five seconds to import them, a fork none. Starting as users do, with the commands and DeepSpeed's launcher, is
tested where starting is the subject.
"""

import contextlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["di4c.config.build", "di4c.engine.loop", "di4c.pipeline.run", "scipy.stats"])
"""None of them starts a thread, which a fork would lose."""


def run(command: list, *, timeout: float = 300) -> subprocess.CompletedProcess:
    """As subprocess.run of `python COMMAND…` with its output captured, in this folder and environment."""
    with tempfile.TemporaryDirectory() as folder:
        output, errors = Path(folder) / "output", Path(folder) / "errors"
        process = Forked([str(word) for word in command], env=os.environ, cwd=Path.cwd(), output=output, errors=errors)
        try:
            process.communicate(timeout)
        finally:
            process.kill()
        return subprocess.CompletedProcess(command, process.returncode, output.read_text(), errors.read_text())


class Forked:
    """A process that runs a script, or a module, as the main one, with what tests use of subprocess.Popen.

    What it prints goes to `output`, errors as well where they have no file of their own.
    """

    def __init__(
        self, command: list[str], *, env: Mapping[str, str], cwd: Path, output: Path, errors: Path | None = None
    ):
        self.output = output
        output.touch()
        files = (str(output), str(errors or output))
        self.process = FORKS.Process(target=_run, args=(command, dict(env), str(cwd), files))
        self.process.start()

    @property
    def returncode(self) -> int | None:
        """Negative for a signal, None while it runs."""
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The return code, once it has ended; not to end within `timeout` seconds is an error."""
        self.process.join(timeout)
        assert self.returncode is not None, f"still running after {timeout} seconds:\n{self.output.read_text()}"
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """What it has printed, once it has ended."""
        self.wait(timeout)
        return self.output.read_text(), None

    def send_signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.send_signal(signal.SIGKILL)
            self.process.join()


def _run(command: list[str], env: dict[str, str], cwd: str, files: tuple[str, str]) -> None:
    for descriptor, path in enumerate(files, 1):
        with open(path, "a") as file:
            os.dup2(file.fileno(), descriptor)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv = command
    if command[0].endswith(".py"):
        sys.path.insert(0, str(Path(command[0]).parent))
        runpy.run_path(command[0], run_name="__main__")
    else:
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)
