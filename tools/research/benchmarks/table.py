"""The CPU benchmarks as a table: of tools/results/bench.json."""

from page_tables import markdown_table

IMPLEMENTATIONS = {
    "project": "this project",
    "late": "`late` head",
    "token": "`token` head",
    "plain": "plain",
    "readout": "`readout` head",
    "each": "evaluating each",
}


def bench(stored: dict) -> str:
    """A row a benchmark and pair of implementations, ratios first; then the machines."""
    head = ["", "CPU time ratio", "time ratio", "memory ratio", "CPU seconds", "peak megabytes", "where the time goes"]
    lines = [_bench_line(name, found) for name, found in stored.items()]
    machines = [found["machine"] for found in stored.values()]
    where = "; ".join(dict.fromkeys(f"{m['device']}, {m['threads']} threads, torch {m['torch']}" for m in machines))
    commits = ", ".join(dict.fromkeys(m["commit"] for m in machines))
    note = (
        "Peaks are above what the process held before. A shared machine: CPU seconds (of all threads, in a fresh process each) tell more "
        f"than wall-clock. {where}; commits {commits}. Stored in [tools/results/bench.json](tools/results/bench.json)."
    )
    return f"{markdown_table(head, lines)}\n\n{note}\n"


def _bench_line(name: str, found: dict) -> list[str]:
    names, ratios = [key for key in IMPLEMENTATIONS if key in found], ["", "", ""]
    if len(names) > 1:
        names = sorted(names, key=lambda key: found[key]["cpu_seconds"])[:2]
        name += f": {' over '.join(IMPLEMENTATIONS[key] for key in names)}"
        suffix = next(key for key in found if key.startswith("time_ratio")).removeprefix("time_ratio")
        ratios = [_ratio(found[f"{kind}_ratio{suffix}"]) for kind in ("cpu_time", "time", "memory")]
    spent = found[names[0]]["report"].get("milliseconds", {})
    share = ", ".join(f"{part} {100 * value / sum(spent.values()):.0f} %" for part, value in spent.items())
    columns = (("cpu_seconds", 2), ("peak_megabytes", 0))
    used = [" / ".join(f"{found[n][key]:.{digits}f}" for n in names) for key, digits in columns]
    return [name, *ratios, *used, share]


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value >= 0.02 else f"{value:.3f}"
