"""Trained models from a run or export folder, ready to sample."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from di4c.config.build import DataShape, Parts, build, build_data, build_sampler, build_teacher, teacher_needs_data
from di4c.config.eval_spec import MixtureSize
from di4c.config.eval_spec import mixture_size as checked_mixture_size
from di4c.config.fitting import check_keeps_predictions
from di4c.config.registry import Registry
from di4c.config.spec import Spec, changed, read_spec
from di4c.contracts import DataSource, Decoder, Draws, LentTeacher, Sampler, Tempering
from di4c.engine.carried import Carried, read_carried
from di4c.engine.compiling import compile_backbones
from di4c.engine.exported import export_config, load_into
from di4c.engine.graphs import replay_backbones
from di4c.engine.run_folder import trained_seconds
from di4c.errors import CheckpointError, DataError, SpecError, located
from di4c.evaluation.arguments import device_of, draws_of, known_tokens, labels_of, override_list, path_of, tokens_of
from di4c.evaluation.cells import writing
from di4c.evaluation.generation import Recipe, labels_at_random, training_labels
from di4c.evaluation.models import Model, ProductModel, student_model
from di4c.paths import near, user_path
from di4c.whole import whole_number

DEFAULT_BATCH = 256


class LoadedModel:
    """A trained teacher, or a trained student with its λ sampler; `network` is what was loaded, on `device`, in eval mode.

    spec: of the run if its folder is at hand, else the one that the export carries. carried: what the export keeps of the data, which
    then are built no earlier than they are asked for; None for an export of before it kept any. graphs: on CUDA, replay passes whose
    shapes recur (engine/graphs.py).
    """

    def __init__(
        self,
        path: Path,
        spec: Spec,
        parts: Parts,
        *,
        device: torch.device | str = "cpu",
        carried: Carried | None = None,
        graphs: bool = True,
    ):
        self.path, self.spec, self.parts, self.device, self.carried = path, spec, parts, device, carried
        self.graphs = graphs
        self.process, self._teacher = parts.process, parts.teacher
        self.student, self.latent = parts.student, parts.latent
        parts.teacher.to(device).freeze()
        self.network.to(device).eval().requires_grad_(False)
        if graphs and torch.device(device).type == "cuda":
            replay_backbones(parts.teacher.network, *([] if parts.student is None else [parts.student]))

    @property
    def network(self) -> nn.Module:
        """The module with the trained weights: the student, or the teacher's backbone."""
        return self._teacher.network if self.student is None else self.student

    @cached_property
    def registry(self) -> Registry:
        """The names that the spec's plugins add to."""
        return Registry.default(self.spec.plugins)

    @cached_property
    def data(self) -> DataSource:
        """The data set that it was trained on. DataError where what lies there now has other sizes."""
        built = self.parts.data
        data = built if isinstance(built, DataSource) else build_data(self.spec, self.registry)
        found, wanted = DataShape.of(data), DataShape.of(self.carried or data)
        if found != wanted:
            raise DataError(f"{self.path}: was trained on {wanted}, but the data of its spec are {found}")
        return data

    @property
    def sizes(self) -> Carried | DataSource:
        """num_positions, num_states and num_classes of its data, which need not be at hand."""
        return self.carried or self.data

    @property
    def label_names(self) -> list[str] | None:
        """What the labels 0, 1, … stand for; None where the data have none or give them no names."""
        return self.sizes.label_names

    @property
    def decoder(self) -> Decoder:
        """What makes its samples visible. Raises SpecError where nothing does."""
        found = self.data.decoder() if self.carried is None else self.carried.decoder
        if found is None:
            raise SpecError(f"{self.path}: its data do not say how samples look")
        return found

    @cached_property
    def sampler(self) -> Sampler:
        """The sampler of the spec's eval section; the run's own teacher, if it takes one, is loaded when it is first asked."""
        teacher = self._teacher if self.student is None else LentTeacher(lambda: self.teacher()._teacher)
        sampler = build_sampler(self.spec, self.registry, self.process, teacher, self.sizes, self.device)
        sampled = self._teacher if self.student is None else self.student
        with located(self.spec.source):
            check_keeps_predictions(sampler, sampled.backbone, "eval.sampler")
        return sampler

    @cached_property
    def digest(self) -> str:
        digest = hashlib.sha256()
        for name, tensor in sorted(self.network.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()[:16]

    def model(self, mixture_size: MixtureSize, draws: Draws) -> Model:
        """The model under one prior of λ; see `sample`. `draws` shift the K atoms."""
        if self.student is None:
            if mixture_size is not None:
                raise SpecError(f"{self.path}: a model without λ has no mixture size (found {mixture_size!r})")
            return ProductModel(self._teacher)
        return student_model(self.student, self.latent, mixture_size or "inf", draws)

    def sample(
        self,
        num: int,
        steps: int,
        cond: Tensor | Sequence[int] | int | None = None,
        *,
        mixture_size: MixtureSize = None,
        generator: torch.Generator | None = None,
        seed: int | None = None,
        batch_size: int = DEFAULT_BATCH,
        known: Tensor | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
    ) -> Tensor:
        """Tokens x_0: [num, D] int64 on the CPU, by `steps` steps of the spec's sampler.

        cond: one label or `num` of them (−1: none); if not given, labels of training examples drawn at random.
        mixture_size: K restricts λ to K atoms, "product" samples the λ-averaged marginals; default: the whole prior.
        known: a prompt [D], tokens that stay and −1 where the model is free (`prompt` makes one of text).
        temperature, top_p: of every component's prediction of x_0, see Tempering; default: what the spec's eval section says, else 1.
        Randomness comes from `seed`, else from `generator` (None: torch's global one).
        Whole numbers may be those of numpy or torch; SpecError for everything that is none, or out of its range.
        """
        num, steps, batch_size = (
            whole_number(value, key, 1) for key, value in (("num", num), ("steps", steps), ("batch_size", batch_size))
        )
        if mixture_size is not None:
            mixture_size = checked_mixture_size(mixture_size, "mixture_size")
        if known is not None:
            known = known_tokens(known, self.sizes.num_positions, self.process)
        tempering = self._tempering(temperature, top_p)
        draws = draws_of(seed, generator, num, self.device)
        if cond is None:
            labels = self._training_labels(draws)
        else:
            labels = labels_of(cond, num, self.sizes.num_classes).to(self.device)
        model = self.model(mixture_size, draws.child("model"))
        recipe = Recipe(model, self.sampler, self.sizes.num_positions, steps, known, tempering)
        return recipe.batches(labels, draws, batch_size).x_0

    def _tempering(self, temperature: float | None, top_p: float | None) -> Tempering | None:
        """What is asked for, or else the spec's eval section says."""
        eval_ = self.spec.eval
        known = (1.0, 1.0) if eval_ is None else (eval_.temperature, eval_.top_p)
        return Tempering.of(known[0] if temperature is None else temperature, known[1] if top_p is None else top_p)

    def decode(self, tokens: Any) -> list[Any]:
        """What samples [n, D] (or one [D]) are: a list of n strings for text, of n PIL images for images.

        Needs neither data nor network. Raises SpecError for tokens that are none of its data's, and where nothing says how they look.
        """
        return self.decoder.decode(tokens_of(tokens, self.sizes.num_positions, self.sizes.num_states))

    def prompt(self, **told: str) -> Tensor:
        """Known tokens for `sample`: [D] int64, −1 where the model is free; text takes prefix, suffix and infill."""
        return self.decoder.prompt(**told)

    def save_grid(self, tokens: Any, path: str | Path, cond: Tensor | Sequence[int] | int | None = None) -> Path:
        """Writes samples for a person to look at, a picture or a text file, and the folders above it; returns the file written.

        tokens: as for `decode`. cond: their labels, one for all or one each. Raises SpecError for what is none of these, Di4CError
        where the file cannot be written.
        """
        tokens = tokens_of(tokens, self.sizes.num_positions, self.sizes.num_states)
        path = user_path(path_of(path, "save_grid"))
        labels = None if cond is None else labels_of(cond, len(tokens), self.sizes.num_classes)
        has_own = self.carried is None or self.carried.entry is None
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                return (self.data if has_own else self.decoder).save_grid(tokens, path, labels)
            except NotImplementedError as error:
                raise SpecError(f"{self.path}: {error}") from error

    def teacher(self) -> "LoadedModel":
        """The teacher that a distilled student learnt from. Raises CheckpointError where its weights are not at hand."""
        if self.student is None:
            raise SpecError(f"{self.path}: a pretraining run has no teacher; it is one")
        if not (self.path / "spec.yaml").is_file():
            raise CheckpointError(f"{self.path}: an export does not carry its teacher; give the run folder instead")
        data = self.data if teacher_needs_data(self.spec, self.registry) else self.sizes
        teacher = build_teacher(self.spec, self.registry, data, self.process)
        parts = replace(self.parts, teacher=teacher, student=None, latent=None)
        return LoadedModel(self.path, self.spec, parts, device=self.device, carried=self.carried, graphs=self.graphs)

    def trained_seconds(self) -> float | None:
        """Wall-clock seconds of training, all sessions together; None where the run folder is not at hand."""
        return trained_seconds(self.path)

    def _training_labels(self, draws: Draws) -> Tensor | None:
        """Labels of training examples at random: of those that the export carries, else of the data."""
        carried = self.carried
        if carried is None or (carried.num_classes is not None and carried.labels is None):
            return training_labels(self.data, draws)
        return None if carried.labels is None else labels_at_random(carried.labels, draws)


def load(
    path: str | Path,
    *,
    device: torch.device | str | None = None,
    compile: bool = False,
    graphs: bool = True,
    overrides: Sequence[str] = (),
) -> LoadedModel:
    """The model of a run folder or of an export folder, on the given device (a GPU if there is one); compile: its networks.
    graphs: replay passes whose shapes recur, on a GPU and if it is not compiled (engine/graphs.py).

    Neither data nor network nor the run's spec need be at hand: an export carries what sampling and decoding need. An older export
    does not, and builds its data.
    overrides: changes of the spec's `eval` or `data`, as "eval.sampler.guidance=3" or "data.path=/elsewhere".
    Raises CheckpointError where the folder is absent, holds no export, or its weights are damaged or of another model, SpecError for
    overrides that cannot be.
    """
    path, device, overrides = user_path(path_of(path, "load")), device_of(device), override_list(overrides)
    folder = export_folder(path)
    run_spec = path / "spec.yaml"
    spec, carried = changed(_carried_spec(folder), overrides), read_carried(folder)
    if spec.task == "tokenizer":
        raise CheckpointError(
            f"{path}: a run of task tokenizer; its codes are sampled by a model that was trained on them"
        )
    registry = Registry.default(spec.plugins)
    data = build_data(spec, registry) if carried is None or teacher_needs_data(spec, registry) else None
    parts = build(spec, registry, weights=False, data=carried if data is None else data)
    load_into(parts.teacher.backbone if parts.student is None else parts.student, folder)
    if compile:
        compile_backbones(parts.teacher.network, *([] if parts.student is None else [parts.student]))
    told = changed(read_spec(run_spec), overrides) if run_spec.is_file() else spec
    return LoadedModel(path, told, parts, device=device, carried=carried, graphs=graphs and not compile)


def export_folder(path: Path) -> Path:
    """The folder with model.safetensors and config.json: `path` itself, or its `export`. Raises CheckpointError."""
    if not path.exists():
        raise CheckpointError(f"{path}: no such folder; expected a run folder or an export folder{near(path)}")
    if not path.is_dir():
        raise CheckpointError(f"{path}: is a file; expected the run folder or export folder that it lies in")
    for folder in (path / "export", path):
        if (folder / "model.safetensors").is_file() and (folder / "config.json").is_file():
            return folder
    runs = inner_runs(path)
    if runs:
        raise CheckpointError(
            f"{path}: its runs are not over; continue them with --resume, or name one: {', '.join(map(str, runs))}"
        )
    if (path / "checkpoints").is_dir():
        raise CheckpointError(f"{path}: the run has no export yet; continue it to its end with --resume")
    found = ", ".join(sorted(p.name for p in path.iterdir())[:6]) or "nothing"
    raise CheckpointError(f"{path}: neither a run nor an export (model.safetensors with config.json); it holds {found}")


def inner_runs(path: Path) -> list[Path]:
    """The folders, with an export each, of the runs that a pipeline made in the folder `path`, in natural order."""

    def order(folder: Path) -> list[tuple[bool, int | str]]:
        parts = re.split(r"(\d+)", folder.name)
        return [(part.isdecimal(), int(part) if part.isdecimal() else part) for part in parts]

    return sorted((export.parent for export in path.glob("*/export")), key=order)


def _carried_spec(folder: Path) -> Spec:
    """The spec in an export's config.json, which rebuilds the architecture without any file of weights."""
    return Spec.from_dict(export_config(folder)["spec"], source=str(folder / "config.json"))
