"""timm's models by name, with weights of a file, a folder or the hub. Nothing is imported before a model is asked for."""

import difflib
import sys
from pathlib import Path
from typing import Any

from torch import nn

from di4c.contracts import strict_load
from di4c.errors import CheckpointError, SpecError
from di4c.paths import user_path
from di4c_plugins.teachers.containers import PARALLEL, read_file, tensors_at, without
from di4c_plugins.teachers.hub import WEIGHTS

HUB = "hub"
"""Instead of a path: timm's own weights of the model, downloaded once."""

CONTAINERS = ("state_dict_ema", "state_dict", "model")
"""Under which entry of a training checkpoint the weights lie, the averaged ones first."""


def timm_model(name: str, pretrained: str | None, where: str, **options: Any) -> nn.Module:
    """The model `name` without its classifier, in eval mode; pretrained: a file, a folder, "hub", or None for random weights.

    A file may be of a model with other sizes of image or patch, of colours where the images are grey, or with another
    classifier: it is resampled, summed over the colours, or left out; everything else must fit. where: what messages begin
    with. Raises SpecError for a name or options that timm does not know, CheckpointError for weights that cannot be had or do
    not fit.
    """
    import timm

    plain = name.partition(".")[0]
    if not timm.is_model(plain):
        near = difflib.get_close_matches(plain, timm.list_models(), n=3)
        hint = f"Did you mean {', '.join(near)}?" if near else "timm.list_models() lists them."
        raise SpecError(f"{where}: timm has no model {name!r}. {hint}")
    try:
        model = timm.create_model(name, pretrained=pretrained == HUB, num_classes=0, **options)
    except Exception as error:  # timm, hub and network raise what they like
        told = f"{where}: timm cannot make {name!r} ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
        raise (CheckpointError if pretrained == HUB else SpecError)(told) from error
    if pretrained not in (None, HUB):
        load_weights(model, user_path(pretrained))
    return model.eval()


def load_weights(model: nn.Module, path: Path) -> None:
    """Loads a file, or the weights in a folder, into a timm model without a classifier. Raises CheckpointError."""
    file = path
    if path.is_dir():
        file = next((path / name for name in WEIGHTS if (path / name).is_file()), path / WEIGHTS[0])
    content = read_file(file)
    key = next((key for key in CONTAINERS if isinstance(content.get(key), dict)), None)
    state = without(tensors_at(content, key, str(file)), str(file), PARALLEL)
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is not None:
        state = convert(state, model)
    own, classifier = model.state_dict(), tuple(f"{part}." for part in _parts(model, "classifier"))
    state = {key: value for key, value in state.items() if not key.startswith(classifier)}
    for key in (f"{part}.weight" for part in _parts(model, "first_conv")):
        if key in state and key in own and own[key].shape[1] == 1 and state[key].dim() == 4:
            state[key] = state[key].sum(1, keepdim=True)  # grey is the same in all colours
    strict_load(model, state, str(file))


def _parts(model: nn.Module, key: str) -> tuple[str, ...]:
    """The names of the layers that timm's configuration of the model calls so."""
    found = model.pretrained_cfg.get(key) or ()
    return (found,) if isinstance(found, str) else tuple(found)
