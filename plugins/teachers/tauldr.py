"""tauLDR's pixel models and Di4C's pixel students from published checkpoints."""

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from di4c.contracts import Backbone, ForwardProcess, Parameterisation, Raw
from di4c.contracts.extending import extending
from di4c.contracts.weights import require_finite
from di4c.errors import CheckpointError
from di4c_plugins.backbones.tauldr_unet import TauLDRUNet
from di4c_plugins.heads.sinusoidal_embedding import SinusoidalEmbedding
from di4c_plugins.teachers.averaged import PUBLISHED_LAW, AveragedStudent, Steps
from di4c_plugins.teachers.containers import PARALLEL, below, read_file, tensors_at, with_shadows, without
from di4c_plugins.teachers.published import Found, PublishedTeacher, required_path

CIFAR10: dict[str, Any] = {
    "shape": [3, 32, 32],
    "channels": 128,
    "multipliers": [1, 2, 2, 2],
    "res_blocks": 2,
    "attention_at": 1,
    "dropout": 0.1,
}
"""The published networks' sizes."""

REASONS = dict.fromkeys(
    ("lam_mix", "dense1"), "λ layers are a Di4C student's (teacher di4c-pixels); tauLDR's own models have none"
)


class TauLDR(PublishedTeacher):
    """tauLDR (Campbell et al. 2022) with the weights of the .pt file at `path`.

    ema: run on the averaged weights, as in the published evaluation. student_from: the weights that a student starts
    from; the published students start from the raw ones. backbone: the published CIFAR-10 network if not given.
    Raises CheckpointError where file and network disagree.
    """

    file_keys = ("path", "ema", "student_from")
    reasons: Mapping[str, str] = REASONS
    lam_embed_dim = 0

    def __init__(
        self,
        process: ForwardProcess,
        num_positions: int,
        *,
        path: str | None = None,
        ema: bool = True,
        student_from: Literal["raw", "ema"] = "raw",
        backbone: Backbone | None = None,
        parameterisation: Parameterisation | None = None,
        weights: bool = True,
    ):
        backbone = backbone or TauLDRUNet(
            num_positions, process.num_states, **CIFAR10, lam_embed_dim=self.lam_embed_dim, lam_scale=0.0
        )
        self._student_state: dict[str, Tensor] | None = None
        found, content = None, {}
        if weights:
            path = required_path(path, "a tauLDR checkpoint, a .pt file")
            content = read_file(path)
            found = Found(network_state(content, path, ema=ema), {}, path)
        self.set_up(process, num_positions, parameterisation or Raw(), backbone, found)
        if found is not None and ema != (student_from == "ema"):
            self._student_state = network_state(content, path, ema=not ema)
            require_finite(self._student_state, path)

    def student_backbone(self) -> Backbone:
        """A trainable copy with λ layers, on the weights that `student_from` names."""
        student = super().student_backbone()
        if self._student_state is not None:
            student.load_state_dict(student.state_dict() | self._student_state)
        return student


class Di4CPixels(AveragedStudent, TauLDR):
    """A published Di4C pixel student as teacher, its marginals averaged over K = `atoms` values of λ."""

    reasons = {"lam_mix": "no λ layers: a tauLDR checkpoint (teacher tauldr), not a Di4C student"}
    lam_embed_dim: int = CIFAR10["channels"]

    @extending(TauLDR)
    def __init__(
        self,
        process: ForwardProcess,
        num_positions: int,
        *,
        atoms: int = 16,
        steps: Steps = "mixture",
        student_from: Literal["raw", "ema"] = "ema",
        **of_tauldr: Any,
    ):
        self.set_law(PUBLISHED_LAW, atoms, steps)
        super().__init__(process, num_positions, student_from=student_from, **of_tauldr)
        self.head = SinusoidalEmbedding(1, self.backbone)


def network_state(content: Mapping, source: str, *, ema: bool) -> dict[str, Tensor]:
    """The network's tensors without their prefixes, from a container {model: {net.…, ema_shadow_params, …}, …}.

    ema: the averaged weights, a list in parameter order beside the parameters.
    """
    inside = content["model"] if isinstance(content.get("model"), Mapping) else {}
    wrapped = below(without(tensors_at(content, "model", source), source, PARALLEL), "net.")
    state = without(wrapped, source, PARALLEL)
    if not state:
        raise CheckpointError(f"{source}: no tensors named 'net.…' in its entry 'model': not a tauLDR checkpoint")
    if not ema:
        return state
    if not inside.get("ema_shadow_params"):
        raise CheckpointError(
            f"{source}: has no EMA shadows; load the raw weights instead (ema: false, student_from: raw)"
        )
    return with_shadows(state, inside["ema_shadow_params"], source)
