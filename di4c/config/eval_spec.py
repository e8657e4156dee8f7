"""What an evaluation measures."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from di4c.config.kinds import full_entry
from di4c.errors import SpecError
from di4c.whole import as_int, positive_number, whole_number

MixtureSize = int | Literal["inf", "product"] | None
"""K atoms of λ, the whole prior, the product of the λ-averaged marginals, or None: a product model without λ."""


@dataclass(frozen=True)
class EvalSpec:
    """What tools/eval.py measures. `steps`, `mixture_sizes`, `samples`, `seeds` can be changed on its command line.

    mixture_sizes: numbers of λ atoms, "inf" for the whole prior, "product" for the product of the marginals.
    seeds: how many sampling seeds. temperature, top_p: of every component's prediction of x_0, see Tempering; 1: as the model says.
    judge: the model that scores text, if a metric asks for one.
    """

    sampler: Any
    metrics: list[Any]
    steps: list[int]
    samples: int
    seeds: int
    batch_size: int
    mixture_sizes: list[int | float | str] = field(default_factory=lambda: ["inf"])
    judge: str | None = None
    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self):
        checked = {
            key: whole_number(getattr(self, key), f"eval.{key}", 1) for key in ("samples", "seeds", "batch_size")
        }
        checked["steps"] = [whole_number(steps, "eval.steps", 1) for steps in self.steps]
        if not checked["steps"]:
            raise SpecError("eval.steps: expected numbers of steps ≥ 1, found none.")
        for key, most in (("temperature", math.inf), ("top_p", 1.0)):
            checked[key] = positive_number(getattr(self, key), f"eval.{key}", most)
        for key, value in checked.items():
            object.__setattr__(self, key, value)

    def sampler_and_teacher(self) -> tuple[dict, dict | None]:
        """The sampler's entry without `teacher`, and that teacher's entry or None: any one, e.g. to finish a hybrid's samples."""
        entry = full_entry(self.sampler, "eval.sampler")
        teacher = entry.pop("teacher", None)
        return entry, None if teacher is None else full_entry(teacher, "eval.sampler.teacher")

    def normalised(self) -> "EvalSpec":
        """Every entry a mapping, every mixture size a number, "inf" or "product"."""
        metrics = [full_entry(metric, f"eval.metrics[{i}]") for i, metric in enumerate(self.metrics)]
        names = [metric["name"] for metric in metrics]
        for i, name in enumerate(names):
            if name in names[:i]:
                raise SpecError(f"eval.metrics[{i}].name: {name!r} is listed twice; results are stored by its name.")
        return dataclasses.replace(
            self,
            sampler=full_entry(self.sampler, "eval.sampler"),
            metrics=metrics,
            mixture_sizes=[mixture_size(size, "eval.mixture_sizes") for size in self.mixture_sizes],
        )


def mixture_size(size: int | float | str, where: str) -> int | Literal["inf", "product"]:
    """A number of atoms ≥ 1, "inf" or "product", from its YAML or command-line spelling or a library's integer."""
    if isinstance(size, str) and size == "product":
        return "product"
    if (isinstance(size, str) and size == "inf") or (isinstance(size, float) and math.isinf(size) and size > 0):
        return "inf"
    number = int(size) if isinstance(size, str) and size.isdecimal() else as_int(size)
    if number is not None and number >= 1:
        return number
    raise SpecError(f"{where}: expected whole numbers ≥ 1, inf or product, found {size!r}.")
