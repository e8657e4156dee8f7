"""The claims' page, its overview picture and the stored file."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from di4c.evaluation.page import facts, image, page, section
from di4c.evaluation.plots import panels_of, png
from di4c.evaluation.style import INK
from theory.claims import Claim, module_of

DPI = 150
HELD = '<span class="ratio better">ok</span>'
FAILED = '<span class="ratio" style="color: #b3261e">FAIL</span>'


def write(claims: Sequence[Claim], folder: Path, about: dict[str, str]) -> list[Path]:
    """theory.html (all plots and lines), theory.png (the first plot of each claim), theory.json; returns them."""
    folder.mkdir(parents=True, exist_ok=True)
    page_file, picture, stored = (folder / f"theory.{ending}" for ending in ("html", "png", "json"))
    page_file.write_text(report(claims, about), encoding="utf-8")
    picture.write_bytes(figure([panels(claim)[0] for claim in claims]))
    content = {"about": about, "claims": [asdict(claim) for claim in claims]}
    rounded = json.loads(json.dumps(content), parse_float=lambda number: float(f"{float(number):.6g}"))
    stored.write_text(json.dumps(rounded, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return [page_file, picture, stored]


def report(claims: Sequence[Claim], about: dict[str, str]) -> str:
    held = sum(line.ok for claim in claims for line in claim.lines)
    total = sum(len(claim.lines) for claim in claims)
    body = [
        "<h1>What the theorems say, measured</h1>",
        f'<p class="lead">{held} of {total} lines hold. Spaces are small enough to be enumerated, so that what is '
        "compared with is exact.</p>",
        facts(list(about.items())),
    ]
    for claim in claims:
        picture = image(figure(panels(claim)), claim.title)
        body.append(section(claim.title, f"<p>{escape(claim.says)}</p>", picture, table(claim)))
    return page("What the theorems say, measured", body)


def table(claim: Claim) -> str:
    rows = "".join(
        f'<tr><td class="name">{escape(line.name)}</td><td>{line.measured:.4g}</td><td>{escape(line.bound)}</td>'
        f"<td>{HELD if line.ok else FAILED}</td>"
        f'<td class="name">{escape(line.note)}</td></tr>'
        for line in claim.lines
    )
    head = '<tr><th class="name">line</th><th>measured</th><th>bound</th><th></th><th class="name">remark</th></tr>'
    return f'<div class="scroll"><table>{head}{rows}</table></div>'


def panels(claim: Claim) -> list[tuple[str, Any, dict]]:
    """(title, draw(axes, data), data) of the claim's plots."""
    return [(title, draw, claim.data) for title, draw in module_of(claim.key).PANELS]


def figure(drawn: Sequence[tuple[str, Any, dict]]) -> bytes:
    made, grid = panels_of(len(drawn), height=3.5, label="", few=True)
    for axes, (title, draw, data) in zip(grid, drawn, strict=True):
        draw(axes, data)
        axes.set_title(title, fontsize=10.5, color=INK, loc="left")
    made.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
    return png(made, DPI)
