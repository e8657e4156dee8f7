"""What samplers of masked diffusion share."""

from di4c.contracts import ForwardProcess
from di4c.errors import SpecError


def need_mask(process: ForwardProcess, sampler: str) -> None:
    """SpecError unless the process has a mask state and a schedule of how much is masked."""
    if process.mask_index is None or not hasattr(process, "schedule"):
        raise SpecError(
            f"sampler {sampler}: {type(process).__name__} has no mask state; use it with absorbing, mdlm or maskgit"
        )
