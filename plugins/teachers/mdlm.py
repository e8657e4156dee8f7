"""Masked-diffusion language models from published checkpoints: MDLM."""

from collections.abc import Collection, Mapping

from torch import Tensor

from di4c.contracts import Backbone, ForwardProcess, Parameterisation
from di4c.errors import CheckpointError
from di4c_plugins.backbones.mdlm_dit import PUBLISHED_READOUT, MdlmDiT
from di4c_plugins.parameterisations.subs import Subs
from di4c_plugins.teachers.containers import PARALLEL, below, read_file, tensors_at, with_shadows, without
from di4c_plugins.teachers.hub import locate
from di4c_plugins.teachers.published import PROJECTION, Found, PublishedTeacher, required_path

BUFFERS = ("rotary_emb.inv_freq",)
HEAD_WIDTH = 64  # of every published model, in case the file has no configuration beside it
REASONS = {
    PROJECTION: "a λ projection belongs to a Di4C student (teacher di4c-text), never to MDLM or SDTT",
    "vocab_embed": "another vocabulary: GPT-2's has 50257 tokens, the mask is one more",
}


class Mdlm(PublishedTeacher):
    """MDLM (Sahoo et al. 2024) with the weights at `path`.

    path: a Lightning .ckpt, a file of the network's state dict, a folder with model.safetensors, or a hub name such as
    "kuleshov-group/mdlm-owt" (with `revision`). ema: whether to take a .ckpt's averaged weights (null: where it has
    them).
    backbone: the network, if it is not to be sized by the file; its heads are then 64 wide unless a config.json says
    otherwise.
    Raises CheckpointError where file and network disagree.
    """

    backbone_name, backbone_class, called = "mdlm-dit", MdlmDiT, "MDLM"
    file_keys: tuple[str, ...] = ("path", "revision", "ema")
    reasons: Mapping[str, str] = REASONS
    ema_by_default = True

    def __init__(
        self,
        process: ForwardProcess,
        num_positions: int,
        *,
        path: str | None = None,
        revision: str | None = None,
        ema: bool | None = None,
        backbone: Backbone | None = None,
        parameterisation: Parameterisation | None = None,
        weights: bool = True,
    ):
        found = None
        if weights:
            path = required_path(path, "a checkpoint file, a folder, or a hub name such as owner/name")
            located = locate(path, revision)
            averaged = self.ema_by_default if ema is None else ema
            state = network_state(read_file(located.weights), path, ema=averaged, required=bool(ema))
            found = Found(state, located.config, path)
        self.set_up(process, num_positions, parameterisation or Subs(process), backbone, found)

    def sizes_of(self, found: Found) -> dict:
        """Heads and time conditioning from a published config.json."""
        state, config, _ = found
        width = state["vocab_embed.embedding"].shape[1]
        conditioning_width = state["sigma_map.mlp.2.weight"].shape[0]
        depth = len({key.split(".")[1] for key in state if key.startswith("blocks.")})
        mlp_ratio = state["blocks.0.mlp.0.weight"].shape[0] // width
        model = config["model"] if isinstance(config.get("model"), Mapping) else config
        heads = model.get("n_heads") or max(width // HEAD_WIDTH, 1)
        return {
            "width": width,
            "depth": depth,
            "heads": int(heads),
            "conditioning_width": conditioning_width,
            "mlp_ratio": mlp_ratio,
            "time_conditioning": bool(config.get("time_conditioning", False)),
            "conditioning_grid": int(config.get("T") or 0) if config.get("time_conditioning") else 0,
        }

    def renamed(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return published_backbone(state)


def network_state(
    content: Mapping, source: str, *, ema: bool, required: bool = False, buffers: Collection[str] = ()
) -> dict[str, Tensor]:
    """The network's tensors under their published names, without prefixes, buffers and foreign entries.

    content: a Lightning checkpoint (its `state_dict`, and `ema` if asked for) or a state dict. Wrappers' prefixes (any
    number of "backbone.", and what DDP and torch.compile add) are cut off; where there is a "backbone." anywhere, entries without it
    (metrics, noise schedules) are left out. ema: take the averaged weights, which must be there if `required`. buffers: names of
    the network's own buffers in the file, which have no average; they are kept as they are.
    """
    lightning = "state_dict" in content
    state = without(tensors_at(content, "state_dict" if lightning else None, source), source, PARALLEL)
    shadows = content.get("ema") if lightning else None
    if ema and isinstance(shadows, Mapping) and "shadow_params" in shadows:
        state = _averaged(state, shadows["shadow_params"], source, buffers)
    elif ema and required:
        raise CheckpointError(f"{source}: ema was asked for, and the file has no EMA shadows")
    wrapped = below(state, "backbone.")
    state = without(wrapped or state, source, "backbone.", PARALLEL)
    return {key: value for key, value in state.items() if not key.endswith(BUFFERS)}


def _averaged(
    state: dict[str, Tensor], shadows: list[Tensor], source: str, buffers: Collection[str]
) -> dict[str, Tensor]:
    """The backbone's parameters from their shadows; shadows of a noise schedule's parameters come after them."""
    backbone = {key: value for key, value in state.items() if key.startswith("backbone.")} or state
    noise = [key for key in state if key.startswith("noise.")]
    names = zip(backbone, without(backbone, source, "backbone.", PARALLEL), strict=True)
    unaveraged = {key for key, name in names if name in buffers or key.endswith(BUFFERS)}
    parameters = len(backbone) - len(unaveraged)
    surplus = len(shadows) - parameters
    kept = shadows[:parameters] if 0 < surplus <= len(noise) else shadows
    return with_shadows(backbone, kept, source, unaveraged)


def published_backbone(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a published network (without the λ projection) under this project's names."""
    theirs, ours = PUBLISHED_READOUT
    kept = {key: value for key, value in state.items() if not key.endswith(BUFFERS)}
    return {ours + key[len(theirs) :] if key.startswith(theirs) else key: value for key, value in kept.items()}
