"""A sweep at several temperatures, as a frontier of quality against entropy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from di4c.contracts import Tempering
from di4c.errors import SpecError
from di4c.evaluation.frontier import Frontier, comparisons
from di4c.evaluation.rows import Row
from di4c.evaluation.sweep import Entrant, Sweep
from di4c.evaluation.table import rows_of
from di4c.whole import positive_number

ENTROPIES = ("sequence_entropy_nats", "position_entropy_nats")
"""What diversity is measured by, if it is not said: the first of them that is measured."""


@dataclass(frozen=True)
class FrontierOptions:
    """What --temperatures asks for. quality, entropy: names of measured values; None: the first that is fit for it."""

    temperatures: tuple[float, ...]
    quality: str | None = None
    entropy: str | None = None

    def __post_init__(self):
        chosen = {positive_number(value, "--temperatures") for value in self.temperatures}
        if len(chosen) < 2:
            raise SpecError("--temperatures: a curve needs at least two different ones")
        object.__setattr__(self, "temperatures", tuple(sorted(chosen)))


def measured_frontier(
    sweep: Sweep, entrants: Sequence[Entrant], top_p: float, options: FrontierOptions
) -> Frontier | None:
    """The frontier of the entrants at the sweep's steps, its cells kept beside the others. Collective; None but on the first rank."""
    sampled = [(entry, metric) for entry, metric in sweep.metrics if metric.needs_samples]
    rows: list[Row] = []
    directions: dict[str, bool | None] = {}
    for temperature in options.temperatures:
        found = replace(sweep, metrics=sampled, tempering=Tempering.of(temperature, top_p)).run(entrants)
        rows += [row | {"temperature": temperature} for row in rows_of(found)]
        directions |= {name: better for m in found for name, better in m.higher_is_better.items()}
    if not sweep.ranks.first:
        return None
    quality, entropy = _axes(options, directions)
    return Frontier(
        quality,
        entropy,
        bool(directions[quality]),
        rows,
        comparisons(rows, quality, entropy, bool(directions[quality])),
    )


def _axes(options: FrontierOptions, directions: Mapping[str, bool | None]) -> tuple[str, str]:
    """The names of quality and entropy. Raises SpecError where they are not measured, or which way quality is good is not known."""
    known = ", ".join(directions) or "nothing"
    quality = options.quality or next((name for name, better in directions.items() if better is not None), None)
    entropy = options.entropy or next((name for name in ENTROPIES if name in directions), None)
    if quality not in directions or directions[quality] is None:
        raise SpecError(
            f"--quality: expected a value of eval.metrics of which the good way is known, found {quality!r}; measured: {known}"
        )
    if entropy not in directions:
        raise SpecError(f"--entropy: {entropy!r} is not measured; add the metric entropy, or name one of {known}")
    return quality, entropy
