"""SDTT's students and Di4C's language students from published checkpoints."""

from typing import Any, Literal

from di4c.contracts import ForwardProcess
from di4c.contracts.extending import extending
from di4c.errors import SpecError
from di4c_plugins.teachers.averaged import PUBLISHED_LAW, Steps
from di4c_plugins.teachers.mdlm import REASONS, Mdlm
from di4c_plugins.teachers.published import PROJECTION, PublishedStudent

HUB = "jdeschena/sdtt"
ROUNDS = range(1, 8)


class Sdtt(Mdlm):
    """A round of self-distillation through time (Deschenaux & Gulcehre 2024), 1 to 7.

    From the hub by `round` (revision "baselines_{divergence}_step_{round}0000", or "scaling_400k_{size}_step_…" with
    `size`), or from `path`: a file, a folder, or a hub name with `revision`. Otherwise as MDLM's.
    """

    file_keys = (*Mdlm.file_keys, "round", "divergence", "size")

    @extending(Mdlm)
    def __init__(
        self,
        process: ForwardProcess,
        num_positions: int,
        *,
        path: str | None = None,
        revision: str | None = None,
        round: int | None = None,
        divergence: Literal["kld", "mse", "tvd"] = "kld",
        size: Literal["sm", "md", "large"] | None = None,
        weights: bool = True,
        **of_mdlm: Any,
    ):
        if weights and (path is None) == (round is None):
            raise SpecError("teacher sdtt: name either `path` (a file, a folder or a hub name) or `round` (1 to 7)")
        if round is not None:
            path, revision = HUB, hub_revision(round, divergence, size)
        super().__init__(process, num_positions, path=path, revision=revision, weights=weights, **of_mdlm)


def hub_revision(round: int, divergence: str, size: str | None) -> str:
    """The hub revision of a round; SpecError for a round that was not published."""
    if round not in ROUNDS:
        raise SpecError(f"teacher sdtt: round is {round}; 1 to 7 are published")
    step = round * 10_000
    return f"scaling_400k_{size}_step_{step}" if size else f"baselines_{divergence}_step_{step}"


class Di4CText(PublishedStudent, Mdlm):
    """A Di4C language student as teacher, its marginals averaged over K = `atoms` values of λ.

    Weights are the raw ones unless `ema` is true, as in the published evaluation.
    """

    reasons = {
        **REASONS,
        PROJECTION: "no λ projection: an MDLM or SDTT checkpoint (teacher mdlm or sdtt), not a Di4C student",
    }
    ema_by_default = False

    @extending(Mdlm)
    def __init__(
        self, process: ForwardProcess, num_positions: int, *, atoms: int = 16, steps: Steps = "mixture", **of_mdlm: Any
    ):
        self.set_law(PUBLISHED_LAW, atoms, steps)
        super().__init__(process, num_positions, **of_mdlm)
