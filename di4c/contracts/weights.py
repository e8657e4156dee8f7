"""Weights into a module: all of them or none, and every one a number."""

import re
from collections.abc import Container, Iterable, Mapping

import torch
from torch import Tensor, nn

from di4c.errors import CheckpointError

MAX_SHOWN = 4


def strict_load(
    module: nn.Module, state: Mapping[str, Tensor], source: str, reasons: Mapping[str, str] | None = None
) -> None:
    """Loads `state` into `module`; every key and shape must agree, or nothing is loaded and CheckpointError is raised.

    Of tensors that are one in the module (a head tied to the embedding) the file may hold any: formats leave the others
    out. NaN or infinite weights are refused by name. The message lists the first differences and the likely reason: a
    prefix, other names for the same shapes, a part of a model, another depth, width or vocabulary. `reasons` adds a
    plugin's own: {fragment of a differing key: what it means}.
    """
    own = module.state_dict()
    state = _with_tied(module, state, source)
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    shapes = [key for key in own if key in state and state[key].shape != own[key].shape]
    if not (missing or unexpected or shapes):
        require_finite(state, source, dict(module.named_buffers()))
        module.load_state_dict(dict(state), strict=True)
        return
    lines = _listed("missing from the file", missing)
    lines += _listed("not known to the model", unexpected)
    lines += _listed(
        "of another shape", [f"{k} {tuple(state[k].shape)}, expected {tuple(own[k].shape)}" for k in shapes]
    )
    lines += [f"likely: {reason}" for reason in _likely(own, state, missing, unexpected, shapes, reasons or {})]
    raise CheckpointError(f"{source}: does not fit {type(module).__name__}: {'; '.join(lines)}")


def require_finite(state: Mapping[str, Tensor], source: str, buffers: Container[str] = ()) -> None:
    """Raises CheckpointError that names the first tensor with a NaN or, unless it is one of the buffers (masks), an infinity."""
    for name, value in state.items():
        if not value.is_floating_point() or not value.numel() or value.is_meta:
            continue
        extremes = torch.stack((value if value.itemsize > 1 else value.float()).aminmax())  # a NaN is both of them
        if extremes.isnan().any() or (name not in buffers and extremes.isinf().any()):
            raise CheckpointError(
                f"{source}: '{name}' holds NaN or infinite weights; the file is damaged, or its training diverged"
            )


def _with_tied(module: nn.Module, state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The state with every name of a tensor that the module has under several; CheckpointError where the file's differ."""
    names: dict[int, list[str]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), []).append(name)
    completed = dict(state)
    for tied in (group for group in names.values() if len(group) > 1):
        held = [name for name in tied if name in state]
        for other in held[1:]:
            if not torch.equal(state[held[0]], state[other]):
                raise CheckpointError(
                    f"{source}: '{held[0]}' and '{other}' are one tensor in {type(module).__name__}, and differ in the file"
                )
        completed |= {name: state[held[0]] for name in tied if held and name not in state}
    return completed


def _listed(what: str, items: list[str]) -> list[str]:
    more = f" and {len(items) - MAX_SHOWN} more" if len(items) > MAX_SHOWN else ""
    return [f"{len(items)} {what}: {', '.join(items[:MAX_SHOWN])}{more}"] if items else []


def _likely(own: Mapping, state: Mapping, missing: list, unexpected: list, shapes: list, reasons: Mapping) -> list[str]:
    """Likely reasons of the differences, the plugin's own first; they say nothing of shapes where most tensors are of another one."""
    another_size = 2 * len(shapes) > len(own)
    named = missing + unexpected + ([] if another_size else shapes)
    found = [text for fragment, text in reasons.items() if any(fragment in key for key in named)]
    found += [
        reason for reason in (_common_prefix(missing, unexpected), _layers(own, state, missing, unexpected)) if reason
    ]
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
