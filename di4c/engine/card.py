"""An export's model card: what it is, for people and for the hub."""

from collections.abc import Collection, Mapping
from pathlib import Path, PurePath
from typing import Any

import yaml

from di4c.engine.metrics import MetricsFile
from di4c.files import write_bytes

CARD = "README.md"
NO_METRICS = {"step", "lr", "grad_norm", "examples_per_second"}
"""Columns of metrics.csv that say nothing of the model."""
LICENCE = "The licence is not stated. Weights derive from their data and teacher: look up what those allow, then fill in `license` above."


def write_card(folder: Path, config: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
    """Writes README.md beside an export's config.json: front matter that the hub reads, then the facts in words."""
    spec, data = config["spec"], config.get("data") or {}
    tags = ["di4c", "discrete-diffusion", *(["distillation", "few-step"] if spec.get("task") == "distill" else [])]
    datasets = [name for name in [_dataset(spec.get("data"))] if name]
    front = {
        "library_name": "di4c",
        "license": "unknown",
        "pipeline_tag": _pipeline(data),
        "datasets": datasets,
        "tags": tags,
    }
    front = {key: value for key, value in front.items() if value}
    lines = [
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n",
        f"# {_title(spec)}\n",
        *(f"- **{name}**: {value}" for name, value in _facts(config, spec, data)),
        "\n## Metrics\n",
        *([f"- {name}: {value:.6g}" for name, value in metrics.items()] or ["None were recorded."]),
        "\nThese are the training's own, at the end. `python tools/eval.py --run RUN` measures samples.",
        "\n## Use\n\n```python\nimport di4c\n\nmodel = di4c.load(FOLDER)          # this folder; the data need not be at hand",
        f"tokens = model.sample(16, steps={_steps(spec)[0] if _steps(spec) else 8})",
        "samples = model.decode(tokens)     # texts, or PIL images\n```",
        f"\n## Licence\n\n{LICENCE}\n",
    ]
    write_bytes(folder / CARD, "\n".join(lines).encode())


def last_metrics(file: Path, without: Collection[str] = NO_METRICS) -> dict[str, float]:
    """The newest value of every column of a run's metrics.csv but some; {} where there is none."""
    rows = MetricsFile(file).rows()
    return {name: float(text) for row in rows for name, text in row.items() if text and name not in without}


def _title(spec: Mapping[str, Any]) -> str:
    kinds = {
        "distill": "Few-step mixture student",
        "pretrain": "Discrete diffusion teacher",
        "tokenizer": "Image tokenizer",
    }
    return f"{kinds.get(spec.get('task'), 'Model')} of {_told(spec.get('data'))}"


def _facts(config: Mapping[str, Any], spec: Mapping[str, Any], data: Mapping[str, Any]) -> list[tuple[str, Any]]:
    sizes = [data.get(key) for key in ("num_positions", "num_states", "num_classes")]
    told = f"{sizes[0]} positions, {sizes[1]} states, {f'{sizes[2]} classes' if sizes[2] else 'no classes'}"
    facts = [
        ("Task", spec.get("task")),
        ("Data", f"{_told(spec.get('data'))} ({told})" if sizes[0] else _told(spec.get("data"))),
        ("Process", _told(spec.get("process"))),
        ("Teacher", _told(spec.get("teacher"))),
        ("Student head", _told((spec.get("student") or {}).get("head"))),
        ("λ sampler", _told(spec.get("latent"))),
        ("Sampler", _told((spec.get("eval") or {}).get("sampler"))),
        ("Made for steps", ", ".join(map(str, _steps(spec)))),
        ("Updates", config.get("step")),
        ("Weights", config.get("weights")),
        ("Code", config.get("commit")),
    ]
    return [(name, value) for name, value in facts if value not in (None, "")]


def _told(entry: Any) -> str:
    """A spec's entry in words, without the folders of the machine that it was used on."""
    if not isinstance(entry, Mapping):
        return str(entry) if entry else ""
    plain = {
        key: value for key, value in entry.items() if isinstance(value, str | int | float | bool) and key != "name"
    }
    options = ", ".join(
        f"{key} {PurePath(str(value)).name if _is_path(value) else value}" for key, value in plain.items()
    )
    return f"{entry.get('name')}{f' ({options})' if options else ''}"


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and ("/" in value or "\\" in value)


def _steps(spec: Mapping[str, Any]) -> list[int]:
    """The numbers of steps that the spec evaluates at: what the model was made for."""
    return list((spec.get("eval") or {}).get("steps") or [])


def _dataset(entry: Any) -> str | None:
    """The hub's name of the data, if they come from there."""
    return entry.get("dataset") if isinstance(entry, Mapping) and isinstance(entry.get("dataset"), str) else None


def _pipeline(data: Mapping[str, Any]) -> str | None:
    decoder = data.get("decoder") or {}
    if "alphabet" in decoder or "separator" in decoder:
        return "text-generation"
    return "unconditional-image-generation" if "class" in decoder else None
