"""The documents' table of what tools/gpu_check.sh has measured on a GPU, or that nothing has been."""

from page_tables import markdown_table

from gpu_checks.bench import CASES, figures
from gpu_checks.verdict import held_to_limits, limits

FILE = "gpu-bench.json"


def gpu_table(stored: dict | None) -> str:
    """A row a benchmark with its limits; those without a result are named as unmeasured. stored: FILE of tools/results, or None."""
    results = stored["results"] if stored else {}
    measured = {name: figures(results[name]) for name in CASES if name in results and "error" not in results[name]}
    missing = [name for name in CASES if name not in measured]
    told = f"Unmeasured on a GPU: {'; '.join(missing)}." if missing else "Nothing is unmeasured."
    if not measured:
        return f"{told}\n"
    lines, states = [], limits(results, held_to_limits(stored))
    for name, found in measured.items():
        own = [(text, state) for text, state in states if text.startswith((f"{name} ≤", f"{name} ≥"))]
        told_limits = "; ".join(f"{text.removeprefix(f'{name} ')} {state}" for text, state in own)
        for implementation, (milliseconds, gigabytes, rate) in found.items():
            held = told_limits if implementation != "plain" else ""
            lines.append([f"{name}: {implementation}", f"{milliseconds:.1f}", f"{gigabytes:.2f}", rate, held])
    table = markdown_table(["on a GPU", "milliseconds", "peak GB", "rate", "limits"], lines)
    machine = stored["machine"]
    where = f"{machine['device']}, torch {machine['torch']}, Triton {machine['triton']}, commit {machine['commit']}"
    return f"{table}\n\nbf16. {where}. {told} Stored in [tools/results/{FILE}](tools/results/{FILE}).\n"
