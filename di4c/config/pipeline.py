"""`pipeline:`, which runs a spec makes: the named plugin, and the specs of its runs."""

from collections.abc import Mapping
from typing import Any

from di4c.config.construct import create
from di4c.config.registry import Registry
from di4c.config.spec import Spec
from di4c.contracts import Pipeline, merged
from di4c.errors import SpecError, located
from di4c.paths import is_plain_name

TAKEN = ("export", "checkpoints", "measured")
"""What the framework calls its own folders inside a run folder."""


def build_pipeline(spec: Spec, registry: Registry) -> Pipeline:
    """The pipeline that a spec names."""
    with located(spec.source):
        return create(registry, "pipelines", spec.pipeline, {}, "pipeline")


def shared_values(spec: Spec) -> dict[str, Any]:
    """The spec without its `pipeline`, in plain values."""
    return {key: value for key, value in spec.to_dict().items() if key != "pipeline"}


def planned_specs(spec: Spec, pipeline: Pipeline) -> dict[str, Spec]:
    """{name: spec} of the runs that a spec's pipeline tells beforehand. Raises SpecError or RegistryError as it and they do."""
    with located(spec.source):
        planned = pipeline.planned(shared_values(spec))
    return {name: run_spec(spec, name, values) for name, values in planned.items()}


def run_spec(spec: Spec, name: str, values: Mapping[str, Any]) -> Spec:
    """The validated spec of one run of a spec's pipeline, from plain values; it trains in a folder inside the spec's."""
    where = f"{spec.source}: {name}"
    if not is_plain_name(name) or name in TAKEN:
        raise SpecError(f"{where}: a run is called by the name of its folder, other than {', '.join(TAKEN)}")
    if "pipeline" in values:
        raise SpecError(f"{where}: pipeline: a run of a pipeline has none of its own")
    return Spec.from_dict(merged(values, {"train": {"run": str(spec.train.run / name)}}), source=where)
