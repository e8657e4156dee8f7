"""How a model looks in every figure: Okabe and Ito's colours, told apart by shape as well."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from di4c.evaluation.rows import REFERENCE

INK = "#2b2f38"
FAINT = "#8a909c"
REFERENCE_LINE = "#6b7280"
STUDENT, PRODUCT = "#D55E00", "#CC79A7"
OTHERS = ("#009E73", "#E69F00", "#0072B2", "#56B4E9")
ATOM_BLUES = ("#9cc9e3", "#4f9fcd", "#1f6fa8", "#0b3c66")
ATOM_MARKERS = ("D", "^", "v", "P")
OTHER_MARKERS = ("<", ">", "h", "p")
OTHER_LINES = ("-.", "--", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
"""Of the models beyond as many as there are colours, so that two never look the same."""


@dataclass(frozen=True)
class Look:
    """Line of one model."""

    colour: str
    marker: str
    line: Any = "-"
    width: float = 1.6


def looks(models: Sequence[tuple[str, Any]]) -> dict[tuple[str, Any], Look]:
    """A Look for every (model, mixture size): grey teacher, red student, blue K atoms, dotted product, others in turn."""
    sizes = sorted({size for _, size in models if isinstance(size, int)})
    names = list(dict.fromkeys(name for name, _ in models if name not in (REFERENCE, "student")))
    colours = OTHERS if any(name == "student" for name, _ in models) else (*OTHERS, STUDENT, PRODUCT)
    return {(name, size): _look(name, size, sizes, names, colours) for name, size in models}


def _look(name: str, size: Any, sizes: list[int], names: list[str], colours: Sequence[str]) -> Look:
    if name == REFERENCE:
        return Look(INK, "o")
    if size == "product" and name == "student":
        return Look(PRODUCT, "X", ":")
    if isinstance(size, int):
        place = sizes.index(size) * (len(ATOM_BLUES) - 1) // max(len(sizes) - 1, 1)
        return Look(
            ATOM_BLUES[max(place, 1) if len(sizes) == 1 else place], ATOM_MARKERS[sizes.index(size) % 4], "-", 1.2
        )
    if name == "student":
        return Look(STUDENT, "s", "-", 2.4)
    again, place = divmod(names.index(name), len(colours))
    if size == "product":
        return Look(colours[place], "X", ":")
    return Look(
        colours[place], OTHER_MARKERS[(place + again) % len(OTHER_MARKERS)], OTHER_LINES[again % len(OTHER_LINES)]
    )


def quiet_axes(axes: Any) -> None:
    """No frame but the two axes, and a pale grid behind the data."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=9, which="both")
    axes.grid(True, which="major", color="#e6e8ec", linewidth=0.8)
    axes.set_axisbelow(True)
