"""MaskGIT, and Di4C's student of it, from published checkpoints."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from di4c.contracts import Backbone, ForwardProcess, Parameterisation, Raw
from di4c.contracts.extending import extending
from di4c_plugins.backbones.maskgit import MaskGITBackbone, with_tied_output_head
from di4c_plugins.teachers.averaged import PUBLISHED_LAW, Steps
from di4c_plugins.teachers.containers import PARALLEL, read_file, tensors_at, without
from di4c_plugins.teachers.hub import locate_file
from di4c_plugins.teachers.published import PROJECTION, Found, PublishedStudent, PublishedTeacher, required_path

HEADS = 16
"""Attention heads of the published model: the one size that its tensors do not show."""

REASONS = {
    PROJECTION: "a λ projection belongs to a Di4C student (teacher di4c-maskgit), never to MaskGIT itself",
    "tok_emb": "another codebook or number of classes: it has rows for codes, mask, classes and the dropped class",
    "pos_emb": "another number of positions: pos_emb has one row a cell of the code grid, and one for the class token",
}


class MaskGITTeacher(PublishedTeacher):
    """MaskGIT (Chang et al. 2022; the code bases of Besnier et al.) with the weights at `path`.

    path: a .pth file with `model_state_dict`, local or inside a hub repository as hub:owner/name/path/in/it; a plain
    state dict is read as well. backbone: the network, if it is not to be sized by the file (with 16 heads). Every
    state counts, visible positions too, so the parameterisation is `raw`. Raises CheckpointError where file and
    network disagree.
    """

    backbone_name, backbone_class, called = "maskgit", MaskGITBackbone, "MaskGIT"
    reasons: Mapping[str, str] = REASONS

    def __init__(
        self,
        process: ForwardProcess,
        num_positions: int,
        *,
        num_classes: int | None = None,
        path: str | None = None,
        revision: str | None = None,
        backbone: Backbone | None = None,
        parameterisation: Parameterisation | None = None,
        weights: bool = True,
    ):
        found = None
        if weights:
            path = required_path(path, "a .pth file, or hub:owner/name/path/in/it")
            content = read_file(locate_file(path, revision))
            key = "model_state_dict" if "model_state_dict" in content else None  # as published, or a state dict itself
            found = Found(without(tensors_at(content, key, path), path, PARALLEL), {}, path)
        self.set_up(process, num_positions, parameterisation or Raw(), backbone, found, num_classes=num_classes)

    def sizes_of(self, found: Found) -> dict:
        width = found.state["tok_emb.weight"].shape[1]
        mlp_width = found.state["transformer.layers.0.1.fn.net.0.weight"].shape[0]
        depth = len({name.split(".")[2] for name in found.state if name.startswith("transformer.layers.")})
        return {"width": width, "depth": depth, "heads": HEADS, "mlp_width": mlp_width}

    def renamed(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return with_tied_output_head(state)


class Di4CMaskGIT(PublishedStudent, MaskGITTeacher):
    """A Di4C student of MaskGIT as teacher, its marginals averaged over K = `atoms` values of λ."""

    reasons = {**REASONS, PROJECTION: "no λ projection: MaskGIT itself (teacher maskgit), not a Di4C student of it"}

    @extending(MaskGITTeacher)
    def __init__(
        self,
        process: ForwardProcess,
        num_positions: int,
        *,
        atoms: int = 16,
        steps: Steps = "mixture",
        **of_maskgit: Any,
    ):
        self.set_law(PUBLISHED_LAW, atoms, steps)
        super().__init__(process, num_positions, **of_maskgit)
