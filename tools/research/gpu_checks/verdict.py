"""The line of verdict: what was run, and which limits are held, missed or not measured."""

import json
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peaks import peak_tflops

from gpu_checks.bench import implementations

LIMITS_ARE_OF = 989.0
"""Peak in TFLOP/s of the card that the limits were set for; a slower one is not held to them."""


@dataclass(frozen=True)
class Limit:
    """A bound on a figure of a benchmark: at most, or with `least` at least."""

    case: str
    figure: str
    bound: float
    least: bool = False

    def held(self, value: float) -> bool:
        return value >= self.bound if self.least else value <= self.bound


LIMITS = [
    Limit("loss, M = 16", "ms", 25), Limit("loss, M = 16", "GB", 1.8), Limit("loss, M = 64", "ms", 110),
    Limit("step, x_u each", "ms", 130), Limit("step, x_u each", "GB", 9.5), Limit("step, x_u each, compiled", "GB", 8),
    Limit("step, x_u shared", "ms", 95), Limit("step, late", "ms", 65), Limit("step, readout", "ms", 60),
    Limit("pretrain", "share of peak", 0.35, least=True),
]  # fmt: skip


def verdict(folder: Path, parts: tuple[str, ...]) -> tuple[str, bool]:
    """The line, and whether all is well: every part asked for came to its end without failure, and no limit is missed.

    A limit that was not measured counts as missed on a card of the kind that it was set for.
    """
    told, well = [], True
    for part in parts:
        content = read(folder / f"{part}.json")
        said, good = judge(part, content)
        told.append(said)
        well &= good
    if "bench" not in parts:
        told.append(f"limits: {len(LIMITS)} not measured")
    return f"{'OK' if well else 'FAILED'} | " + " | ".join(told), well


def read(file: Path) -> dict:
    """A part's file; an empty part where there is none."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"results": {}, "finished": False}


def judge(part: str, content: dict) -> tuple[str, bool]:
    """A part in words, and whether it is well."""
    results, cut = content["results"], "" if content["finished"] else ", cut off"
    if part == "tests":
        outcomes = [result["outcome"] for result in results.values()]
        counts = {name: outcomes.count(name) for name in ("passed", "failed", "skipped")}
        told = ", ".join(f"{count} {name}" for name, count in counts.items())
        return f"tests: {told}{cut}", not (counts["failed"] or cut) and counts["passed"] > 0
    if part == "train":
        bad = [name for name, result in results.items() if not result["ok"]]
        return f"train: {'failed: ' + ', '.join(bad) if bad else 'ok' if results else 'nothing'}{cut}", not (bad or cut)
    errors, counted = [name for name, result in results.items() if "error" in result], held_to_limits(content)
    lines = limits(results, counted)
    well = not (errors or cut) and all(state == "held" or (state != "missed" and not counted) for _, state in lines)
    failed = f", failed: {', '.join(errors)}" if errors else ""
    said = "; ".join(f"{text} {state}" for text, state in lines)
    return f"bench: {len(results)} measured{failed}{cut} | limits: {said}", well


def held_to_limits(content: dict) -> bool:
    """Whether the card is of the kind that the limits were set for."""
    return (peak_tflops(content.get("machine", {}).get("device", ""), "bf16") or 0.0) >= LIMITS_ARE_OF


def limits(results: dict, counted: bool) -> list[tuple[str, str]]:
    """(the limit in words, "held", "missed" or "not measured") of each."""
    lines = []
    for limit in LIMITS:
        value = figure(results.get(limit.case, {}), limit.figure) if counted else None
        bound = f"{limit.case} {'≥' if limit.least else '≤'} {limit.bound:g} {limit.figure}"
        state = "not measured" if value is None else "held" if limit.held(value) else "missed"
        lines.append((bound if value is None else f"{bound} ({value:.3g})", state))
    return lines


def figure(result: dict, name: str) -> float | None:
    """A figure of what a benchmark found for this project (the first implementation in its file)."""
    for part in implementations(result).values():
        return {"ms": 1e3 * part["seconds"], "GB": part["peak_megabytes"] / 1e3}.get(name, part.get("share_of_peak"))
    return None
