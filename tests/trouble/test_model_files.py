"""Every reader of files that hold a model, fed every damage: the right result, or one line that names the file."""

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("transformers")
import di4c
from di4c.config.construct import create
from di4c.config.registry import Registry
from di4c.engine import checkpoint
from di4c.engine.run_folder import RunFolder
from di4c_plugins.processes.absorbing import Absorbing
from di4c_plugins.teachers.hf_masked_lm import HFMaskedLM
from di4c_plugins.teachers.maskgit import MaskGITTeacher
from di4c_plugins.teachers.mdlm import Mdlm
from di4c_plugins.teachers.sdtt import Di4CText, Sdtt
from di4c_plugins.teachers.tauldr import TauLDR
from di4c_plugins.tokenizers.vqgan import VQGAN
from tests.evaluation.conftest import PRETRAIN, distill, write_run
from tests.plugins.teachers import test_language as language
from tests.plugins.teachers import test_maskgit_teacher as codes
from tests.plugins.teachers import test_module as wrapped
from tests.plugins.teachers import test_tauldr as pixels
from tests.plugins.teachers.hf_folders import MASK, VOCABULARY, bert_folder, dream_folder, llada_folder
from tests.plugins.tokenizers.test_vqgan import OPTIONS, published_folder
from tests.trouble.damage import damage, damages, outcome


def mdlm(folder: Path) -> None:
    state = language.published(language.random_network())
    torch.save(
        language.lightning(language.prefixed(state, "backbone."), language.parameters(state)), folder / "mdlm.ckpt"
    )
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model": {"n_heads": 4}, "time_conditioning": False}))


def di4c_text(folder: Path) -> None:
    state = language.published(language.random_network()) | language.projection()
    torch.save({"state_dict": language.prefixed(state, "backbone.")}, folder / "student.ckpt")


def maskgit(folder: Path) -> None:
    codes.published(folder)


def tauldr(folder: Path) -> None:
    pixels.write(folder / "ckpt.pt", pixels.a_unet())


def module(folder: Path) -> None:
    state = wrapped.TheirModel().state_dict()
    torch.save(state, folder / "theirs.pt", _use_new_zipfile_serialization=False)
    save_file(state, folder / "theirs.safetensors")


def bert(folder: Path) -> None:
    bert_folder(folder)


def bert_with_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    model = bert_folder(folder)
    (folder / "vocab.txt").unlink()
    Tokenizer(WordLevel({token: i for i, token in enumerate(VOCABULARY)}, unk_token="[UNK]")).save(
        str(folder / "tokenizer.json")
    )
    (folder / "special_tokens_map.json").write_text(json.dumps({"mask_token": "[MASK]"}))
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")


def vqgan(folder: Path) -> None:
    published_folder(folder, VQGAN(**OPTIONS))


def vqgan_export(folder: Path) -> None:
    save_file(VQGAN(**OPTIONS).state_dict(), str(folder / "model.safetensors"))
    spec = {"task": "tokenizer", "objective": {"name": "vq", "tokenizer": {"name": "vqgan", **OPTIONS}}}
    (folder / "config.json").write_text(json.dumps({"spec": spec}))


def run(folder: Path) -> None:
    with contextlib.chdir(folder):
        write_run(Path("teacher"), PRETRAIN)
        write_run(Path("student"), distill("teacher"))


def checkpoints(folder: Path) -> None:
    path = folder / "step-00000002"
    path.mkdir()
    for name in ("model.safetensors", "optimizer.safetensors"):
        save_file({"w": torch.ones(8)}, path / name)
    (path / "state.json").write_text(json.dumps({"step": 2, "aliases": {}}))
    files = {file.name: checkpoint.sha256_of(file) for file in path.iterdir()}
    (path / "manifest.json").write_text(json.dumps({"format": 1, "files": files}))


def resumed(folder: Path) -> None:
    held = RunFolder(folder / "teacher", resume=True)
    try:
        held.record_start({"task": "toy"}, {})
    finally:
        held.close()


def sampled(folder: Path) -> Any:
    model = di4c.load(folder)
    model.trained_seconds()
    return model.sample(1, 1, cond=3, seed=0)


def taught(folder: Path) -> Any:
    with contextlib.chdir(folder):
        return di4c.load("student").teacher()


def bert_teacher(folder: Path) -> HFMaskedLM:
    return HFMaskedLM(Absorbing(len(VOCABULARY), mask_index=MASK), 8, path=str(folder))


def family(folder: Path) -> HFMaskedLM:
    return HFMaskedLM(Absorbing(22, mask_index=20), 8, path=str(folder))


def of_file(name: str, make: Callable) -> Callable[[Path], Any]:
    return lambda folder: make(str(folder / name))


def language_teacher(kind: type) -> Callable[[str], Any]:
    return lambda path: kind(language.process(), language.LENGTH, path=path)


READERS: dict[str, tuple[Callable[[Path], None], str, Callable[[Path], Any]]] = {
    "mdlm ckpt": (mdlm, "mdlm.ckpt", of_file("mdlm.ckpt", language_teacher(Mdlm))),
    "mdlm folder": (mdlm, "model.safetensors", of_file("", language_teacher(Mdlm))),
    "mdlm config": (mdlm, "config.json", of_file("", language_teacher(Mdlm))),
    "sdtt": (mdlm, "model.safetensors", of_file("", language_teacher(Sdtt))),
    "di4c-text": (di4c_text, "student.ckpt", of_file("student.ckpt", language_teacher(Di4CText))),
    "maskgit": (maskgit, "current.pth", of_file(
        "current.pth", lambda path: MaskGITTeacher(codes.PROCESS, codes.D, num_classes=codes.CLASSES, path=path))),
    "tauldr": (tauldr, "ckpt.pt", of_file("ckpt.pt", lambda path: TauLDR(pixels.PROCESS, pixels.D, path=path, backbone=pixels.a_unet(1)))),
    "module pt": (module, "theirs.pt", of_file("theirs.pt", lambda path: wrapped.teacher(checkpoint=path))),
    "module safetensors": (module, "theirs.safetensors", of_file("theirs.safetensors", lambda path: wrapped.teacher(checkpoint=path))),
    "bert config": (bert, "config.json", bert_teacher),
    "bert vocabulary": (bert, "vocab.txt", bert_teacher),
    "bert weights": (bert, "model.safetensors", bert_teacher),
    "bert tokenizer": (bert_with_tokenizer, "tokenizer.json", bert_teacher),
    "bert special tokens": (bert_with_tokenizer, "special_tokens_map.json", bert_teacher),
    "bert bin": (bert_with_tokenizer, "pytorch_model.bin", bert_teacher),
    "dream config": (dream_folder, "config.json", family),
    "dream index": (dream_folder, "model.safetensors.index.json", family),
    "dream shard": (dream_folder, "model-00002-of-*.safetensors", family),
    "dream vocabulary": (dream_folder, "vocab.json", family),
    "llada weights": (llada_folder, "model.safetensors", family),
    "llada config": (llada_folder, "config.json", family),
    "vqgan weights": (vqgan, "last.ckpt", lambda folder: created(folder)),
    "vqgan options": (vqgan, "model.yaml", lambda folder: created(folder)),
    "vqgan export": (vqgan_export, "model.safetensors", lambda folder: created(folder)),
    "vqgan export's options": (vqgan_export, "config.json", lambda folder: created(folder)),
    "run's weights": (run, "student/export/model.safetensors", lambda folder: sampled(folder / "student")),
    "run's configuration": (run, "student/export/config.json", lambda folder: sampled(folder / "student")),
    "run's spec": (run, "student/spec.yaml", lambda folder: sampled(folder / "student")),
    "run's record": (run, "teacher/run.json", lambda folder: sampled(folder / "teacher")),
    "run's record when resumed": (run, "teacher/run.json", resumed),
    "run's spec when resumed": (run, "teacher/spec.yaml", resumed),
    "teacher's weights": (run, "teacher/export/model.safetensors", taught),
    "teacher's configuration": (run, "teacher/export/config.json", taught),
    **{f"checkpoint's {name}": (checkpoints, f"step-00000002/{name}", lambda folder: newest(folder)) for name in (
        "model.safetensors", "optimizer.safetensors", "state.json", "manifest.json")},
}  # fmt: skip
"""What is read → (how a good folder is made, the file that is damaged, how it is read)."""


def created(folder: Path) -> Any:
    return create(Registry.default(), "tokenizers", {"name": "vqgan", "path": str(folder)})


def newest(folder: Path) -> checkpoint.Checkpoint | None:
    told: list[str] = []
    try:
        found = checkpoint.newest(folder, told.append)
    finally:
        assert all("\n" not in message and "step-00000002" in message for message in told)
    return found


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Callable[[Callable], Path]:
    """The folder that a maker makes, made once."""
    made: dict[Callable, Path] = {}

    def folder(make: Callable) -> Path:
        if make not in made:
            made[make] = tmp_path_factory.mktemp("good")
            make(made[make])
        return made[make]

    return folder


@pytest.mark.parametrize("reader", READERS)
def test_the_good_files_are_read(reader, good, tmp_path):
    make, pattern, read = READERS[reader]
    folder = tmp_path / "copy"
    shutil.copytree(good(make), folder)
    assert len(list(folder.glob(pattern))) == 1
    read(folder)


def pairs() -> list:
    """Every reader with every damage; in the default tests each reader with one, each damage of their subset in turn."""
    found = []
    for i, reader in enumerate(READERS):
        quick = [damage for damage in damages() if not damage.marks]
        chosen = quick[i % len(quick)]
        found.append(pytest.param(reader, *chosen.values))
        found += [
            pytest.param(reader, *damage.values, marks=pytest.mark.slow)
            for damage in damages()
            if damage.values != chosen.values
        ]
    return found


@pytest.mark.parametrize(("reader", "name"), pairs())
def test_trouble_31_a_damaged_file_is_read_right_or_named_in_one_line(reader, name, good, tmp_path):
    make, pattern, read = READERS[reader]
    folder = tmp_path / "copy"
    shutil.copytree(good(make), folder)
    (file,) = folder.glob(pattern)
    damage(file, name)
    # without recorded options, those that the spec must give
    missing = ("'vqgan'",) if make in (vqgan, vqgan_export) else ()
    # a flipped bit may leave a huge number, which only the samples show
    damaged = reader == "run's weights" and "flipped" in name
    shown = ("are the network's outputs finite numbers", "outputs are NaN or infinite") if damaged else ()
    outcome(lambda: read(folder), told=(file.name, file.parent.name, *missing, *shown))
