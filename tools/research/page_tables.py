"""Tables of the pages."""

from collections.abc import Iterable
from typing import Any

from di4c.evaluation.rows import Row, model_label, number


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown, numbers to the right; a | inside a cell is escaped, since it would end the cell."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in [head, rule, *rows]
    )


def over_seeds(rows: Iterable[Row], metric: str) -> tuple[list[int], list[list[str]]]:
    """(the numbers of steps, a line a model) of rows that tools/ablate.py collected: mean ± spread over training seeds."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for row in rows:
        if metric in row["metrics"]:
            found.setdefault(model_label(row["model"], row["mixture_size"]), {})[row["steps"]] = row["metrics"][metric]
    steps = sorted({n for cells in found.values() for n in cells})
    return steps, [[name, *(_over_seeds(cells.get(n)) for n in steps)] for name, cells in found.items()]


def _over_seeds(value: dict[str, Any] | None) -> str:
    if value is None:
        return ""
    spread = f" ± {number(value['std'], value['mean'])}" if len(value["seeds"]) > 1 else ""
    return number(value["mean"]) + spread
