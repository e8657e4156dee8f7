"""Writes the README's result blocks from the stored files in tools/results: python tools/update_readme.py [--check]

A block stands between <!-- results: NAME --> and <!-- end -->; its text comes from the file of that name alone.
"""

import argparse
import json
import re
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

from di4c.evaluation.table import Row, model_label, number, ratio

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "tools/results"
BLOCK = re.compile(r"(<!-- results: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
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
"""What the README's first table shows; the stored file and its picture hold the rest."""


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown, numbers to the right."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *rows])


def demo(stored: dict) -> str:
    """The demo's table."""
    columns = [(name, steps) for name, most in SHOWN.items() for steps in most]
    return f"{comparison_table(stored, columns)}\n\n{stored['about']}\n"


def judged(stored: dict) -> str:
    """A result of tools/judge.py: its two metrics at every number of steps, and what was found at those it is judged at."""
    outcome = stored["verdict"]
    steps = sorted({row["steps"] for row in stored["rows"]})
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
    head = ["", *(f"{METRICS.get(name, name)}, {steps} step{'s' * (steps > 1)}" for name, steps in columns)]
    lines = [
        [model_label(model, size), *(_cell(rows, _row(rows, (model, steps, size)), name) for name, steps in columns)]
        for model, size in models
    ]
    floors = [number(stored["floors"][name]["mean"]) for name, _ in columns]
    return markdown_table(head, [*lines, ["*training data (floor)*", *floors]])


def digits_seeds(stored: dict) -> str:
    """Ratios to the teacher over training seeds: mean, and the range."""
    keys = [(r["model"], r["steps"], r["mixture_size"]) for r in stored["runs"][0]["rows"] if r["model"] != "teacher"]
    lines = []
    for key in keys:
        cells = []
        for name in OF_THE_SEEDS:
            found = [ratio(run["rows"], _row(run["rows"], key), name) for run in stored["runs"]]
            cells.append(f"{statistics.fmean(found):.2f} ({min(found):.2f}–{max(found):.2f})")
        lines.append([_label(_row(stored["runs"][0]["rows"], key)), *cells])
    head = ["ratio to the teacher", *(METRICS[name] for name in OF_THE_SEEDS)]
    return f"{markdown_table(head, lines)}\n\n{stored['about']}\n"


def theory(stored: dict) -> str:
    """A row a claim: how many of its lines hold, and its first line with what it is held against."""
    rows = []
    for claim in stored["claims"]:
        first = claim["lines"][0]
        held = sum(line["ok"] for line in claim["lines"])
        rows.append([claim["title"], f"{held} of {len(claim['lines'])}", f"{first['name']}: {first['measured']:.3g} ({first['bound']})"])
    about = stored["about"]
    made = f"`{about['command']}`: {about['CPU seconds']} CPU seconds, {about['machine']}, commit {about['commit'][:10]}"
    return f"{markdown_table(['', 'lines that hold', 'its first line'], rows)}\n\n{made}; stored in [tools/results/theory.json](tools/results/theory.json).\n"


def rxnfp(stored: dict) -> str:
    """The share of well-formed molecules and the distance in n-grams at every number of steps."""
    steps = sorted({row["steps"] for row in stored["rows"]})
    table = comparison_table(stored, [(name, n) for name in ("well_formed_share", "ngram_tv") for n in steps])
    return f"{table}\n\n{stored['about']}\n"


def memory(stored: dict) -> str:
    """Measured peaks and what the plan says of them, GB a rank."""
    cells = stored["cells"].items()
    head = ["GB a rank", *(name.replace("-", " ") for name, _ in cells)]
    measured = ["measured peak", *(f"{cell['measured_bytes'] / 1e9:.2f}" for _, cell in cells)]
    planned = ["plan (× measured)", *(_planned(cell) for _, cell in cells)]
    return f"{markdown_table(head, [measured, planned])}\n\n{stored['about']}\n"


def _planned(cell: dict) -> str:
    return f"{cell['planned_bytes'] / 1e9:.2f} (×{cell['planned_over_measured']:.2f})" if "planned_bytes" in cell else ""


def _row(rows: list[Row], key: tuple) -> Row:
    return next(r for r in rows if (r["model"], r["steps"], r["mixture_size"]) == key)


def _label(row: Row) -> str:
    return f"{model_label(row['model'], row['mixture_size'])}, {row['steps']} step{'s' * (row['steps'] > 1)}"


def _cell(rows: list[Row], row: Row, name: str) -> str:
    if name not in row["metrics"]:
        return ""
    share = ratio(rows, row, name)
    return number(row["metrics"][name]["mean"]) + ("" if share is None else f" (×{share:.2f})")


RENDERERS: dict[str, Callable[[dict], str]] = {
    "demo": demo,
    "digits-seeds": digits_seeds,
    "memory": memory,
    "rxnfp": rxnfp,
    "fashion14": judged,
    "fashion-vq": judged,
    "text-small": judged,
    "theory": theory,
}


def rendered(text: str) -> str:
    """The README's text with every block written anew."""

    def block(match: re.Match) -> str:
        stored = json.loads((RESULTS / f"{match['name']}.json").read_text(encoding="utf-8"))
        return match[1] + RENDERERS[match["name"]](stored) + match[3]

    return BLOCK.sub(block, text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the README is not up to date")
    check = parser.parse_args().check
    readme = ROOT / "README.md"
    old = readme.read_text(encoding="utf-8")
    new = rendered(old)
    if check:
        print("up to date" if new == old else "README.md is not what tools/results says; run tools/update_readme.py")
        return int(new != old)
    readme.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
