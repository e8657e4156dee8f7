"""The benchmarks that have limits, one after another in one process; at tiny size on a CPU."""

import gc
import time
from pathlib import Path

CASES = {
    "loss, M = 16": "loss --positions 1024 --components 16",
    "loss, M = 64": "loss --positions 1024 --components 64 --only project",
    "step, x_u each": "step --system text",
    "step, x_u shared": "step --system text --x-u shared",
    "step, late": "step --system text --x-u shared --head late",
    "step, readout": "step --system text --x-u shared --head readout",
    "sample": "sample --system text --only project",
    "pretrain": "pretrain",
    "step, x_u each, compiled": "step --system text --compile",
    "sample, compiled": "sample --system text --only project --compile",
}
"""Name → arguments of tools/bench.py; what compiles comes last, since it takes longest."""

ON_CUDA = "--device cuda --dtype bf16 --in-process --threads 1 --repeats 15"
ON_CPU = "--dtype bf16 --in-process --threads 1 --repeats 1 --positions 8 --states 40 --width 16"
TINY = {
    "loss": "--components 2", "step": "--components 2 --conditioning 8 --depth 2 --heads 2 --late-blocks 1",
    "sample": "--batch 2 --conditioning 8 --depth 2 --heads 2 --steps 2", "pretrain": "--batch 2 --conditioning 8 --depth 2 --heads 2",
}  # fmt: skip


def run(folder: Path, *, cpu: bool) -> None:
    """Measures every case; one that fails says so and the next one begins. A CPU compiles nothing."""
    from gpu_checks.record import Record

    record = Record(folder / "bench.json", "cpu" if cpu else "cuda")
    for name, case in CASES.items():
        if cpu and "--compile" in case:
            continue
        line = f"{case} {ON_CPU} {TINY[case.split()[0]]}" if cpu else f"{case} {ON_CUDA}"
        begin = time.monotonic()
        result = {"command": f"python tools/bench.py {line}"} | _found(line)
        record.add(name, result | {"seconds_in_all": round(time.monotonic() - begin, 1)})
        print(f"{name}: {result.get('error') or summary(result)}", flush=True)
        _clear(cpu)
    record.finish()


def _found(line: str) -> dict:
    from bench import run as measure

    try:
        return measure(line.split())
    except (Exception, SystemExit) as error:  # whatever it is, it belongs to this case alone
        return {"error": f"{type(error).__name__}: {error}"[:500]}


def figures(result: dict) -> dict[str, tuple[float, float, str]]:
    """Implementation → milliseconds, peak in GB (10⁹ bytes), and its rate in words, if it has one."""
    found = implementations(result).items()
    return {name: (1e3 * part["seconds"], part["peak_megabytes"] / 1e3, rate(part)) for name, part in found}


def implementations(result: dict) -> dict[str, dict]:
    """What was found of each implementation that was measured."""
    return {name: part for name, part in result.items() if isinstance(part, dict) and "peak_megabytes" in part}


def rate(found: dict) -> str:
    """For example: 100,000 tokens/s, 38 % of peak."""
    told = [f"{found['tokens_per_second']:,.0f} tokens/s"] if "tokens_per_second" in found else []
    told += [f"{100 * found['share_of_peak']:.0f} % of peak"] if found.get("share_of_peak") else []
    return ", ".join(told)


def summary(result: dict) -> str:
    """For example: project 25.0 ms, 1.21 GB; plain 100.0 ms, 12.00 GB."""
    told = [f"{name} {ms:.1f} ms, {gb:.2f} GB {words}" for name, (ms, gb, words) in figures(result).items()]
    return "; ".join(each.rstrip() for each in told)


def _clear(cpu: bool) -> None:
    """Gives memory back before the next case."""
    gc.collect()
    if not cpu:
        import torch

        torch._dynamo.reset()
        torch.cuda.empty_cache()
