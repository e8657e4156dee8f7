"""What is measured of generated samples, or of the sampler itself."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor

from di4c.contracts.prediction import Denoiser, Prediction
from di4c.contracts.sampler import Sampler
from di4c.draws import Draws


@dataclass(frozen=True)
class Generation:
    """Samples x_0 [n, D] with their labels, and how they came about.

    components(x_t, t, cond, draws, num) → a Prediction of `num` components (its log_weights set) of the model at x_t, for
    likelihood metrics; a product model returns one component. With samples, denoiser and components have their temperature and top-p;
    likelihoods, without samples, are of the model as it is.
    """

    x_0: Tensor
    cond: Tensor | None
    steps: int
    sampler: Sampler
    denoiser: Denoiser
    components: Callable[..., Prediction] | None
    draws: Draws


class Metric(ABC):
    """A named measurement. Constructed, by keyword, with what it asks for of `data` (a DataSource), `process` and `judge` (eval.judge).

    higher_is_better: which way is good; None, or not set: a guard, which should be near its reference value.
    guards: the names of those of its values that are guards whatever the others are.
    needs_samples: False for what is measured without the generation's x_0 (a likelihood): x_0 is then empty.
    """

    higher_is_better: bool | None = None
    guards: frozenset[str] = frozenset()
    needs_samples: bool = True

    @abstractmethod
    def __call__(self, generation: Generation) -> dict[str, float]:
        """{metric name with its unit: value}."""

    def directions(self, names: Iterable[str]) -> dict[str, bool | None]:
        """`higher_is_better` of its values of these names."""
        return {name: None if name in self.guards else self.higher_is_better for name in names}

    def reference_values(self, num_samples: int, draws: Draws) -> dict[str, float]:
        """The same quantities for real training data against the held-out data at that sample size; {} if senseless."""
        return {}
