"""Time and peak memory of a piece of work, each measurement in a fresh process."""

import ctypes
import gc
import importlib.metadata
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from di4c.engine.graphs import held_bytes
from di4c.engine.run_folder import code_commit

Work = Callable[[], dict]
"""Does the work once and returns what is worth reporting of it (a loss, a breakdown in seconds)."""

SYMBOLS = {
    "B": "batch", "M": "components", "N": "targets", "D": "positions", "S": "states", "H": "width", "blocks": "depth", "t": "time",
    "enumerated": "enumerate",
}  # fmt: skip
"""Name in a result's `shapes` → name of the argument, where they differ."""

WARM_UP = 2
"""Runs on CUDA between the first, which may compile, and those that are timed."""


def alternating(arguments: list[str], names: list[str], rounds: int, threads: int) -> dict[str, list[dict]]:
    """Runs `bench.py ARGUMENTS --worker NAME` for every name in turn, `rounds` times over: name → the workers' results."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    results: dict[str, list[dict]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in names if turn % 2 == 0 else reversed(names):
            command = [sys.executable, str(Path(__file__).parents[2] / "bench.py"), *arguments, "--worker", name]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
            results[name].append(json.loads(done.stdout.splitlines()[-1]))
    return results


def measured(work: Work, repeats: int, device: str) -> dict:
    """{"seconds", "cpu_seconds": one a repeat, "peak_bytes": above the baseline, "report": of the last repeat}.

    The peak is that of the process in the first run, which is not timed; on CUDA that of torch's allocator over the timed runs,
    after WARM_UP further ones, and what CUDA graphs hold beside it. CPU seconds are those of all threads; unlike the others they hardly
    depend on what else runs.
    """
    if device == "cuda":
        gc.collect()
        torch.cuda.empty_cache()  # of graphs of earlier work
    baseline = _reset_peak(device)
    work()
    peak = _peak(device)
    if device == "cuda":
        for _ in range(WARM_UP):
            work()
        _reset_peak(device)
    seconds, cpu_seconds, report = [], [], {}
    for _ in range(repeats):
        _synchronise(device)
        start, cpu_start = time.perf_counter(), time.process_time()
        report = work()
        _synchronise(device)
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
    peak = _peak(device) if device == "cuda" else peak
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_bytes": peak - baseline, "report": report}


def summary(results: dict[str, list[dict]]) -> dict[str, dict]:
    """name → median and spread of the time, median peak above the baseline, and the last report."""
    found = {}
    for name, runs in results.items():
        seconds = [value for run in runs for value in run["seconds"]]
        found[name] = {
            "seconds": round(statistics.median(seconds), 5),
            "seconds_lowest": round(min(seconds), 5),
            "seconds_highest": round(max(seconds), 5),
            "cpu_seconds": round(statistics.median(value for run in runs for value in run["cpu_seconds"]), 4),
            "peak_megabytes": round(statistics.median(run["peak_bytes"] for run in runs) / 1e6, 1),
            "report": runs[-1]["report"],
        }
    return found


def ratios(results: dict[str, list[dict]]) -> dict[str, float]:
    """time_ratio, cpu_time_ratio and memory_ratio of the first implementation over the other; with more than two, of every pair by name.

    Medians over rounds of the one's value divided by the other's in the same round.
    """
    pairs, found = list(itertools.combinations(results, 2)), {}
    for over, under in pairs:
        suffix = "" if len(pairs) == 1 else f"_{over}_over_{under}"
        for name, of in (("time", "seconds"), ("cpu_time", "cpu_seconds"), ("memory", "peak_bytes")):
            rounds = zip(results[over], results[under], strict=True)
            shares = [np.median(one[of]) / np.median(other[of]) for one, other in rounds]
            found[f"{name}_ratio{suffix}"] = round(statistics.median(shares), 4)
    return found


def machine(device: str, threads: int) -> dict:
    """Where the numbers come from: device, versions, commit."""
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else _processor(),
        "threads": threads,
        "load_before": round(os.getloadavg()[0], 2),
        "torch": torch.__version__,
        "triton": version_of("triton"),
        "python": platform.python_version(),
        "commit": commit(),
    }


def version_of(package: str) -> str | None:
    """The installed version; None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit() -> str:
    """This code's commit, "…-dirty" where files differ from it; DI4C_COMMIT says it where the code came without its history."""
    found = code_commit() or os.environ.get("DI4C_COMMIT", "unknown")
    return found[:10] + found[40:]


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {os.cpu_count()} cores" if names else platform.processor()


def _reset_peak(device: str) -> int:
    """Bytes in use now, from which the peak is counted."""
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    ctypes.CDLL(None).malloc_trim(0)  # glibc: memory that is free but not given back would hide part of the peak
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    return status("VmRSS")


def _peak(device: str) -> int:
    """Bytes. On CUDA the allocator's peak, and the memory of recorded passes, which it does not count when they are replayed."""
    return torch.cuda.max_memory_allocated() + held_bytes() if device == "cuda" else status("VmHWM")


def status(field: str) -> int:
    """A field of /proc/self/status in bytes (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def _synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
