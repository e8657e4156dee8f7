"""Weights into a module: all of them or none."""

from collections.abc import Mapping

from torch import Tensor, nn

from di4c.errors import CheckpointError

MAX_SHOWN = 4


def strict_load(
    module: nn.Module, state: Mapping[str, Tensor], source: str, reasons: Mapping[str, str] | None = None
) -> None:
    """Loads `state` into `module`; every key and shape must agree, or nothing is loaded and CheckpointError is raised.

    The message lists the first differences and the likely reason. `reasons` adds a plugin's own: {fragment of a
    differing key: what it means}.
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
    differing = missing + unexpected + shapes
    found = [text for fragment, text in reasons.items() if any(fragment in key for key in differing)]
    prefix = _common_prefix(missing, unexpected)
    if prefix is not None:
        found.append(prefix)
    found += _shape_reasons(own, state, shapes)
    if not found and missing and len(missing) == len(own):
        found.append("the file is of another kind of model: no name agrees")
    return found


def _common_prefix(missing: list[str], unexpected: list[str]) -> str | None:
    """Explains missing and unexpected names that differ by one prefix."""
    for key in unexpected:
        for name in missing:
            if key.endswith("." + name):
                return f"the file's names carry the prefix '{key[: -len(name)]}', which has to be cut off"
            if name.endswith("." + key):
                return f"the file's names lack the prefix '{name[: -len(key)]}'"
    return None


def _shape_reasons(own: Mapping, state: Mapping, shapes: list[str]) -> list[str]:
    """Explains shapes: a vocabulary when only first dimensions differ and all by the same sizes, else a width."""
    if not shapes:
        return []
    pairs = {(state[k].shape[:1], own[k].shape[:1]) for k in shapes}
    rest_agrees = all(state[k].shape[1:] == own[k].shape[1:] for k in shapes)
    if rest_agrees and len(pairs) == 1:
        (found,), (wanted,) = pairs.pop()
        return [f"a vocabulary of {found} states in the file, {wanted} here (is the mask state counted, or padding?)"]
    return ["another width or size of the network than the spec's options give"]
