"""Weights into a module: all of them or none."""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from di4c.errors import CheckpointError

MAX_SHOWN = 4


def strict_load(
    module: nn.Module, state: Mapping[str, Tensor], source: str, reasons: Mapping[str, str] | None = None
) -> None:
    """Loads `state` into `module`; every key and shape must agree, or nothing is loaded and CheckpointError is raised.

    The message lists the first differences and the likely reason: a prefix, other names for the same shapes, a part of a model,
    another depth, width or vocabulary. `reasons` adds a plugin's own: {fragment of a differing key: what it means}.
    """
    own = module.state_dict()
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    shapes = [key for key in own if key in state and state[key].shape != own[key].shape]
    if not (missing or unexpected or shapes):
        module.load_state_dict(dict(state), strict=True)
        return
    lines = [f"{source}: does not fit {type(module).__name__}"]
    lines += _listed("missing from the file", missing)
    lines += _listed("not known to the model", unexpected)
    lines += _listed("of another shape", [f"{k} {tuple(state[k].shape)}, expected {tuple(own[k].shape)}" for k in shapes])
    lines += [f"  likely: {reason}" for reason in _likely(own, state, missing, unexpected, shapes, reasons or {})]
    raise CheckpointError("\n".join(lines))


def _listed(what: str, items: list[str]) -> list[str]:
    more = f" and {len(items) - MAX_SHOWN} more" if len(items) > MAX_SHOWN else ""
    return [f"  {len(items)} {what}: {', '.join(items[:MAX_SHOWN])}{more}"] if items else []


def _likely(own: Mapping, state: Mapping, missing: list, unexpected: list, shapes: list, reasons: Mapping) -> list[str]:
    """Likely reasons of the differences, the plugin's own first; they say nothing of shapes where most tensors are of another one."""
    another_size = 2 * len(shapes) > len(own)
    named = missing + unexpected + ([] if another_size else shapes)
    found = [text for fragment, text in reasons.items() if any(fragment in key for key in named)]
    found += [reason for reason in (_common_prefix(missing, unexpected), _layers(own, state, missing, unexpected)) if reason]
    found += _shape_reasons(own, state, shapes, explained=bool(found) and not another_size)
    if not found and missing:
        found.append(_names(own, state, missing, unexpected))
    return list(dict.fromkeys(found))


def _layers(own: Mapping, state: Mapping, missing: list[str], unexpected: list[str]) -> str | None:
    """Explains names that differ from known ones in a number alone: fewer or more layers."""
    less = [key for key in missing if not _patterns([key]).isdisjoint(_patterns(state))]
    more = [key for key in unexpected if not _patterns([key]).isdisjoint(_patterns(own))]
    if missing and len(less) == len(missing) and not unexpected:
        return "the file's network has fewer layers than the spec's options give"
    if unexpected and len(more) == len(unexpected) and not missing:
        return "the file's network has more layers than the spec's options give"
    return None


def _patterns(names: Iterable[str]) -> set[str]:
    return {re.sub(r"\d+", "#", name) for name in names}


def _names(own: Mapping, state: Mapping, missing: list[str], unexpected: list[str]) -> str:
    """Explains names by what else agrees."""
    if [own[key].shape for key in missing] == [state[key].shape for key in unexpected]:
        return "as many names are unknown as are missing, with the same shapes in order: the tensors may only be named differently"
    if len(missing) == len(own):
        return "the file is of another kind of model: no name agrees"
    return f"the file holds a part of the model only: {len(own) - len(missing)} of {len(own)} tensors"


def _common_prefix(missing: list[str], unexpected: list[str]) -> str | None:
    """Explains missing and unexpected names that differ by one prefix."""
    for key in unexpected:
        for name in missing:
            if key.endswith("." + name):
                return f"the file's names carry the prefix '{key[: -len(name)]}', which has to be cut off"
            if name.endswith("." + key):
                return f"the file's names lack the prefix '{name[: -len(key)]}'"
    return None


def _shape_reasons(own: Mapping, state: Mapping, shapes: list[str], *, explained: bool) -> list[str]:
    """Explains shapes: a vocabulary when only first dimensions differ and all by the same sizes, else, if nothing did, a width."""
    if not shapes:
        return []
    pairs = {(state[k].shape[:1], own[k].shape[:1]) for k in shapes}
    rest_agrees = all(state[k].shape[1:] == own[k].shape[1:] for k in shapes)
    if rest_agrees and len(pairs) == 1:
        (found,), (wanted,) = pairs.pop()
        return [f"a vocabulary of {found} states in the file, {wanted} here (is the mask state counted, or padding?)"]
    return [] if explained else ["another width or size of the network than the spec's options give"]
