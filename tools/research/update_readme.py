"""Writes the result blocks of README.md, docs/ and tools/results/README.md from the stored files: python tools/research/update_readme.py [--check]

A block stands between <!-- results: NAME --> and <!-- end -->; its text comes from the file of that name alone. A second word,
as in <!-- results: demo summary -->, chooses another view of the same file.
"""

import argparse
import json
import os
import re
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.table import bench
from estimator_cases.table import estimators
from gpu_checks.table import FILE, gpu_table
from page_tables import markdown_table, over_seeds

from di4c.evaluation.rows import Row, model_label, number, ratio, told_steps
from di4c.old_keys import reference_values

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "tools/results"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), RESULTS / "README.md")
BLOCK = re.compile(r"(<!-- results: (?P<name>[\w-]+)(?P<view> \w+)? -->\n).*?(<!-- end -->)", re.DOTALL)
METRICS = {
    "frechet_distance": "Fréchet distance",
    "covariance_error": "covariance error",
    "pair_tv": "pair TV",
    "nll_nats_per_token": "NLL bound (nats/token)",
    "lagged_pair_tv": "lagged pair TV",
    "ngram_tv": "n-gram TV",
    "decoded_frechet_distance": "Fréchet distance of the images",
    "well_formed_share": "well-formed molecules",
}
OF_THE_SEEDS = ("frechet_distance", "covariance_error", "pair_tv", "nll_nats_per_token")
SHOWN = {"frechet_distance": (1, 2, 4, 8), "covariance_error": (1, 2), "pair_tv": (1, 2)}
"""What the demo's table shows; the stored file and its picture hold the rest."""


def demo(stored: dict) -> str:
    columns = [(name, steps) for name, most in SHOWN.items() for steps in most]
    return f"{comparison_table(stored, columns)}\n\n{stored['about']}\n"


def demo_summary(stored: dict) -> str:
    """Five rows: teacher, student and their ratio at each number of steps, then real images of the same number."""
    rows, name, lines = stored["rows"], "frechet_distance", []
    for steps in SHOWN[name]:
        both = [_row(rows, key) for key in (("teacher", steps, None), ("student", steps, "inf"))]
        means = [number(row["metrics"][name]["mean"]) for row in both]
        lines.append([str(steps), *means, f"{ratio(rows, both[1], name):.2f}"])
    lines.append(["*real images*", "", number(reference_values(stored)[name]["mean"]), ""])
    settings = stored["settings"]
    note = (
        f"Fréchet distance to held-out digits; lower is better. Mean over {settings['seeds']} sampling seeds of {settings['samples']} samples "
        "each; one training seed. Stored in [tools/results/demo.json](tools/results/demo.json)."
    )
    return f"{markdown_table(['steps', 'teacher', 'student', 'ratio'], lines)}\n\n{note}\n"


def judged(stored: dict) -> str:
    """A result of tools/significance.py: its two metrics up to the last number of steps it is judged at, and what was found there."""
    outcome = stored["verdict"]
    last = max(case["steps"] for case in outcome["at"])
    steps = sorted({row["steps"] for row in stored["rows"] if row["steps"] <= last})
    table = comparison_table(stored, [(outcome[kind], n) for kind in ("judged", "guarded") for n in steps])
    found = "; ".join(_finding(outcome, case) for case in outcome["at"])
    return f"{table}\n\n{stored['about']} Teacher minus student, ± the spread over sampling seeds: {found}.\n"


def _finding(outcome: dict, case: dict) -> str:
    """For example: 2 steps: lagged pair TV 0.0210 ± 0.0008 (better), n-gram TV 0.0150 ± 0.0010 (no worse)."""
    said = []
    for kind, good, bad in (("judged", "better", "not better"), ("guarded", "no worse", "worse")):
        held = case["beats" if kind == "judged" else "no_worse"]
        name = METRICS.get(outcome[kind], outcome[kind])
        value, spread = case[kind]["margin"], case[kind]["spread"]
        said.append(f"{name} {number(value)} ± {number(spread, value)} ({good if held else bad})")
    return f"{case['steps']} steps: {', '.join(said)}"


def comparison_table(stored: dict, columns: list[tuple[str, int]]) -> str:
    """A row a model, a column a metric and number of steps; in brackets the ratio to the teacher."""
    rows = stored["rows"]
    models = list(dict.fromkeys((row["model"], row["mixture_size"]) for row in rows))
    head = ["", *(f"{METRICS.get(name, name)}, {told_steps(steps)}" for name, steps in columns)]
    lines = [
        [model_label(model, size), *(_cell(rows, _row(rows, (model, steps, size)), name) for name, steps in columns)]
        for model, size in models
    ]
    known = [number(reference_values(stored)[name]["mean"]) for name, _ in columns]
    return markdown_table(head, [*lines, ["*training data (reference)*", *known]])


def ablation(file: str, stored: dict) -> str:
    """tools/ablate.py's judged metric, a row a row of the grid; then which rows are as good as the reference at more steps."""
    name = stored["judged"]
    steps, lines = over_seeds(stored["rows"], name)
    known = number(stored["reference_values"][name]["mean"])
    lines.append(["*training data (reference)*", *[known] * len(steps)])
    told = [f"{c['row']} at {c['steps']} as {c['reference_steps']}" for c in stored["reached"] if c["reached"]]
    note = (
        f"{stored['about']} Mean over training seeds ± their standard deviation. As good as {stored['reference']} at more steps, to one "
        f"spread over sampling seeds: {'; '.join(told) or 'none'}. Commit {stored['commit'][:10]}; stored in [tools/results/{file}](tools/results/{file})."
    )
    head = [METRICS.get(name, name), *map(told_steps, steps)]
    return f"{markdown_table(head, lines)}\n\n{note}\n"


def digits_seeds(stored: dict) -> str:
    """Ratios to the teacher over training seeds: mean, and the range."""
    keys = [(r["model"], r["steps"], r["mixture_size"]) for r in stored["runs"][0]["rows"] if r["model"] != "teacher"]
    lines = []
    for key in keys:
        cells = []
        for name in OF_THE_SEEDS:
            found = [ratio(run["rows"], _row(run["rows"], key), name) for run in stored["runs"]]
            cells.append(f"{statistics.fmean(found):.2f} ({min(found):.2f}–{max(found):.2f})")
        model, steps, size = key
        lines.append([f"{model_label(model, size)}, {told_steps(steps)}", *cells])
    head = ["ratio to the teacher", *(METRICS[name] for name in OF_THE_SEEDS)]
    return f"{markdown_table(head, lines)}\n\n{stored['about']}\n"


def small_seeds(stored: dict) -> str:
    """A row a small system: its margins over training seeds, for how many seeds all holds, and how long a chain takes."""
    by_system: dict[str, list[dict]] = {}
    for run in stored["runs"]:
        by_system.setdefault(run["system"], []).append(run)
    lines = [[name, *_margins(runs), *_held(runs)] for name, runs in by_system.items()]
    steps = [f"{case['steps']} steps" for case in stored["runs"][0]["verdict"]["at"]]
    head = ["", "judged by", *steps, "seeds for which it holds", "CPU minutes a chain"]
    commits = ", ".join(dict.fromkeys(run["commit"] for run in stored["runs"]))
    note = f"{stored['about']} Commit {commits}; stored in [tools/results/small-seeds.json](tools/results/small-seeds.json)."
    return f"{markdown_table(head, lines)}\n\n{note}\n"


def _margins(runs: list[dict]) -> list[str]:
    """The judged metric, and its margin at every number of steps: mean (range) ± spread."""
    cells = [METRICS[runs[0]["verdict"]["judged"]]]
    for at in zip(*(run["verdict"]["at"] for run in runs), strict=True):
        margins = [case["judged"]["margin"] for case in at]
        mean, spread = statistics.fmean(margins), max(case["judged"]["spread"] for case in at)
        low, high = (number(value, mean) for value in (min(margins), max(margins)))
        cells.append(f"{number(mean)} ({low}–{high}) ± {number(spread, mean)}")
    return cells


def _held(runs: list[dict]) -> tuple[str, str]:
    """For how many seeds all holds, and the least and most CPU minutes of a chain."""
    minutes = [sum(part["cpu"] for part in run["seconds"].values()) / 60 for run in runs]
    bounds = dict.fromkeys(f"{bound:.0f}" for bound in (min(minutes), max(minutes)))
    return f"{sum(run['verdict']['holds'] for run in runs)} of {len(runs)}", "–".join(bounds)


def theory(stored: dict) -> str:
    """A row a claim: how many of its lines hold, and its first line with what it is held against."""
    rows = []
    for claim in stored["claims"]:
        first = claim["lines"][0]
        held = sum(line["ok"] for line in claim["lines"])
        told = f"{first['name']}: {first['measured']:.3g} ({first['bound']})"
        rows.append([claim["title"], f"{held} of {len(claim['lines'])}", told])
    about = stored["about"]
    command, seconds = f"`{about['command']}`", f"{about['CPU seconds']} CPU seconds"
    made = f"{command}: {seconds}, {about['machine']}, commit {about['commit'][:10]}"
    return f"{markdown_table(['', 'lines that hold', 'its first line'], rows)}\n\n{made}; stored in [tools/results/theory.json](tools/results/theory.json).\n"


def rxnfp(stored: dict) -> str:
    """The share of well-formed molecules and the distance in n-grams at every number of steps."""
    steps = sorted({row["steps"] for row in stored["rows"]})
    table = comparison_table(stored, [(name, n) for name in ("well_formed_share", "ngram_tv") for n in steps])
    return f"{table}\n\n{stored['about']}\n"


def memory(stored: dict) -> str:
    """Measured peaks and what the plan says of them, GB a rank."""
    cells = stored["cells"]
    planned = ["plan (× measured)"]
    for cell in cells.values():
        known = "planned_bytes" in cell
        planned.append(f"{cell['planned_bytes'] / 1e9:.2f} (×{cell['planned_over_measured']:.2f})" if known else "")
    measured = ["measured peak", *(f"{cell['measured_bytes'] / 1e9:.2f}" for cell in cells.values())]
    head = ["GB a rank", *(name.replace("-", " ") for name in cells)]
    return f"{markdown_table(head, [measured, planned])}\n\n{stored['about']}\n"


def _row(rows: list[Row], key: tuple) -> Row:
    return next(r for r in rows if (r["model"], r["steps"], r["mixture_size"]) == key)


def _cell(rows: list[Row], row: Row, name: str) -> str:
    if name not in row["metrics"]:
        return ""
    share = ratio(rows, row, name)
    return number(row["metrics"][name]["mean"]) + ("" if share is None else f" (×{share:.2f})")


RENDERERS: dict[str, Callable[..., str]] = {
    "demo": demo,
    "demo summary": demo_summary,
    "digits-seeds": digits_seeds,
    "memory": memory,
    "rxnfp": rxnfp,
    "estimators": estimators,
    "bench": bench,
    "gpu-bench": gpu_table,
    **dict.fromkeys(("fashion14", "fashion-vq", "text-small", "text-small-sdtt-di4c2"), judged),
    "small-seeds": small_seeds,
    "theory": theory,
    "text16": partial(ablation, "text16.json"),
    "letters64": partial(ablation, "letters64.json"),
    "fashion14-steps": partial(ablation, "fashion14-steps.json"),
}


def rendered(page: Path) -> str:
    """The page's text with every block written anew; links lead from the page to the results."""
    way = "" if page.parent == RESULTS else f"{os.path.relpath(RESULTS, page.parent)}/"

    def block(match: re.Match) -> str:
        file = RESULTS / f"{match['name']}.json"
        stored = None if file.name == FILE and not file.exists() else json.loads(file.read_text(encoding="utf-8"))
        text = RENDERERS[match["name"] + (match["view"] or "")](stored)
        if not way:
            text = text.replace("[tools/results/", "[")
        return match[1] + text.replace("](tools/results/", f"]({way}") + match[4]

    return BLOCK.sub(block, page.read_text(encoding="utf-8"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a page is not up to date")
    check = parser.parse_args().check
    stale = {page: new for page in PAGES if (new := rendered(page)) != page.read_text(encoding="utf-8")}
    if not check:
        for page, text in stale.items():
            page.write_text(text, encoding="utf-8")
        return 0
    for page in stale:
        print(f"{page.relative_to(ROOT)} is not what the stored files say; run tools/research/update_readme.py")
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main())
