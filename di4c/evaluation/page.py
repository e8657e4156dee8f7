"""Pieces of a self-contained HTML page: nothing is loaded from elsewhere."""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

STYLE = """
:root { --ink: #23272f; --faint: #6a7180; --line: #e3e6eb; --soft: #f6f7f9; --good: #0b6e4f; --good-soft: #e2f3ec;
        --accent: #c24e00; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink); font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto,
       "DejaVu Sans", sans-serif; }
main { max-width: 1200px; margin: 0 auto; padding: 40px 28px 72px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -0.01em; }
h2 { font-size: 19px; margin: 44px 0 12px; padding-top: 18px; border-top: 1px solid var(--line); }
h3 { font-size: 15px; margin: 22px 0 8px; }
p, li { max-width: 78ch; }
.lead { color: var(--faint); margin: 0 0 22px; }
.finding { font-size: 17px; line-height: 1.45; margin: 0 0 22px; padding-left: 14px; border-left: 4px solid var(--accent); }
.note { color: var(--faint); font-size: 13.5px; max-width: 110ch; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(220px, 1fr)); gap: 14px; margin: 20px 0 8px; }
.card { background: var(--soft); border-radius: 10px; padding: 14px 16px 12px; }
.card h3 { margin: 0 0 8px; font-weight: 600; }
.card dl { display: grid; grid-template-columns: auto 1fr auto; gap: 2px 12px; margin: 0; font-variant-numeric: tabular-nums; }
.card dt { color: var(--faint); }
.card dd { margin: 0; text-align: right; }
.card dd + dd { font-weight: 650; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: 4px 7px; text-align: right; vertical-align: top; white-space: nowrap; }
th { color: var(--faint); font-weight: 600; border-bottom: 1.5px solid var(--ink); vertical-align: bottom; white-space: normal; }
td.name, th.name { text-align: left; position: sticky; left: 0; background: #fff; }
td.steps { vertical-align: top; font-weight: 650; }
tr.first td { border-top: 1px solid var(--line); }
tr.reference td { border-top: 1px solid var(--ink); color: var(--faint); }
.std { display: block; color: var(--faint); font-size: 11px; line-height: 1.1; }
.ratio { display: inline-block; min-width: 42px; margin-left: 4px; padding: 0 4px; border-radius: 5px; color: var(--faint);
         background: var(--soft); font-size: 12px; }
.ratio.better { color: var(--good); background: var(--good-soft); font-weight: 650; }
img { max-width: 100%; height: auto; display: block; }
.grids { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 22px; align-items: start; margin: 8px 0 22px; }
figure { margin: 0; }
figcaption { font-size: 13.5px; margin-bottom: 6px; }
figcaption b { font-weight: 650; }
figcaption span { color: var(--faint); }
pre { background: var(--soft); border-radius: 10px; padding: 14px 16px; overflow-x: auto; font: 12.5px/1.5 ui-monospace,
      "DejaVu Sans Mono", monospace; white-space: pre-wrap; }
.grids pre { margin: 0; max-height: 420px; overflow-y: auto; }
details > summary { cursor: pointer; font-weight: 600; margin: 10px 0; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: 3px 20px; margin: 0; font-size: 14px; }
.facts dt { color: var(--faint); }
.facts dd { margin: 0; overflow-wrap: anywhere; }
"""


def page(title: str, body: Iterable[str]) -> str:
    """A whole HTML document."""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n" + "\n".join(body) + "\n</main>\n</body>\n</html>\n"
    )


def image(png: bytes, alt: str) -> str:
    """An image that the page carries itself."""
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def sample_figure(path: Path, title: str, remark: str = "") -> str:
    """A file of samples, a picture or text, under its title."""
    if path.suffix == ".png":
        inside = image(path.read_bytes(), f"samples: {title}, {remark}")
    else:
        inside = f"<pre>{escape(path.read_text(encoding='utf-8'))}</pre>"
    return f"<figure><figcaption><b>{escape(title)}</b> <span>{escape(remark)}</span></figcaption>{inside}</figure>"


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """A list of names and values."""
    inside = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs)
    return f'<dl class="facts">{inside}</dl>'


def section(title: str, *parts: str) -> str:
    """A heading and what stands under it."""
    return f"<h2>{escape(title)}</h2>\n" + "\n".join(part for part in parts if part)


def folded(summary: str, inside: str) -> str:
    """Something that is shown on demand."""
    return f"<details><summary>{escape(summary)}</summary>{inside}</details>"
