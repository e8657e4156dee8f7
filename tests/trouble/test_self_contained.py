"""An export needs nothing beside it: it samples and decodes where its data, tokenizer and spec are gone."""

import functools
import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

import di4c
from di4c.config.build import build, portable
from di4c.config.registry import Registry
from di4c.config.spec import Spec
from di4c.engine.export import write_export
from di4c.errors import CheckpointError, DataError, SpecError
from di4c_plugins.datasets.digits import Digits
from di4c_plugins.datasets.image_folder import ImageFolder
from di4c_plugins.datasets.text import Text
from di4c_plugins.datasets.vq_tokens import VQTokens
from tests.evaluation.conftest import PRETRAIN, distill, write_run

WORDS = ["the", "sea", "was", "calm", "and", "grey"]
VQGAN = {"name": "vqgan", "image_size": 8, "channels": 1, "ch": 32, "ch_mult": [1, 2], "num_res_blocks": 1, "z_channels": 4,
         "num_codes": 6, "embed_dim": 4}  # fmt: skip


def word_tokenizer(file):
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: i for i, word in enumerate([*WORDS, "[UNK]", "<|endoftext|>"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(file))


def byte_tokenizer(file):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=280, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 4, trainer)
    tokenizer.save(str(file))


def data_of(kind, folder):
    """(entry of `data:`, its class) of a data set whose files lie in the folder."""
    if kind == "digits":
        return {"name": "digits"}, Digits
    if kind == "codes":
        return {
            "name": "vq-tokens",
            "dataset": {"name": "digits"},
            "tokenizer": VQGAN,
            "cache": str(folder / "cache"),
        }, VQTokens
    if kind == "images":
        for label in ("cat", "dog"):
            (folder / "images" / label).mkdir(parents=True)
            for i in range(20):
                pixels = np.random.default_rng(i).integers(0, 256, (6, 6, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "images" / label / f"{i}.png")
        return {
            "name": "image-folder",
            "path": str(folder / "images"),
            "size": 3,
            "levels": 8,
            "conditional": True,
        }, ImageFolder
    (folder / "text.txt").write_text("\n".join(" ".join(WORDS[i % 6] for i in range(k, k + 40)) for k in range(30)))
    entry = {"name": "text", "path": str(folder / "text.txt"), "length": 9, "cache": str(folder / "cache")}
    if kind in ("words", "bytes"):
        {"words": word_tokenizer, "bytes": byte_tokenizer}[kind](folder / "tokenizer.json")
        entry |= {"tokenizer": str(folder / "tokenizer.json")}
    return entry | (
        {"wrap": True} if kind in ("wrapped", "words") else {"normalise": "letters"} if kind == "letters" else {}
    ), Text


def exported(kind, folder):
    """(export folder, data set, class) of a teacher with random weights, written as training does."""
    files = folder / "files"
    files.mkdir()
    entry, dataset = data_of(kind, files)
    spec = Spec.from_dict(PRETRAIN | {"data": entry, "objective": {"time": {"name": "uniform", "low": 0.1}}})
    parts = build(spec, Registry.default())
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for parameter in parts.objective.model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    weights = parts.objective.model.state_dict()
    write_export(
        folder / "export", portable(spec, parts.teacher).to_dict(), {"step": 3, "weights": "raw", "commit": None},
        lambda out: save_file(weights, out / "model.safetensors"), data=parts.data, told=spec.to_dict(), metrics={"loss": 2.5},
    )  # fmt: skip
    return folder / "export", parts.data, dataset


KINDS = ["digits", "codes", "images", "wrapped", "words", "bytes"]
SLOW_KINDS = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("characters", "letters")]


@pytest.mark.parametrize("kind", KINDS + SLOW_KINDS)
def test_trouble_b10_an_export_samples_and_decodes_without_its_data(kind, tmp_path, monkeypatch):
    export, data, dataset = exported(kind, tmp_path)
    old = shutil.copytree(export, tmp_path / "old")
    config = json.loads((old / "config.json").read_text())
    del config["data"]
    (old / "config.json").write_text(json.dumps(config))
    before = di4c.load(old, device="cpu").sample(3, 2, seed=0)

    def forbidden(*arguments, **options):
        raise AssertionError("the data were built")

    monkeypatch.setattr(dataset, "__init__", functools.wraps(dataset.__init__)(forbidden))
    monkeypatch.setattr("socket.socket.connect", forbidden)
    shutil.rmtree(tmp_path / "files")
    moved = shutil.move(export, tmp_path / "elsewhere")
    model = di4c.load(moved, device="cpu")
    tokens = model.sample(3, 2, seed=0)
    assert torch.equal(tokens, before)
    decoded = model.decode(tokens)
    assert len(decoded) == 3 and model.decode(tokens.numpy())[1] == model.decode(tokens[1])[0]
    if dataset is Text:
        assert decoded == data.decode(tokens) and all(isinstance(text, str) for text in decoded)
        assert torch.equal(model.prompt(prefix="the sea"), data.prompt(prefix="the sea"))
    else:
        assert all(isinstance(image, Image.Image) for image in decoded)
        pixels = np.stack([np.asarray(image) for image in data.decoder().decode(tokens)])
        assert (np.stack([np.asarray(image) for image in decoded]) == pixels).all()
        assert model.label_names == ([str(i) for i in range(10)] if kind != "images" else ["cat", "dog"])
        with pytest.raises(SpecError, match="no prompts"):
            model.prompt(prefix="the")
    assert model.save_grid(tokens, tmp_path / "grid").stat().st_size > 0
    with pytest.raises(AssertionError, match="the data were built"):
        _ = model.data


def test_trouble_b10_a_run_of_before_builds_its_data_once(tmp_path, monkeypatch):
    run, built = write_run(tmp_path / "run", PRETRAIN), []
    original = Digits.__init__
    monkeypatch.setattr(Digits, "__init__", lambda self, **options: built.append(1) or original(self, **options))
    model = di4c.load(run, device="cpu")
    tokens = model.sample(2, 2, seed=0)
    assert len(model.decode(tokens)) == 2 and model.data.num_states == 17 and len(built) == 1


def test_trouble_b10_a_student_finishes_with_its_teacher_without_data(tmp_path, monkeypatch):
    export, _data, _ = exported("digits", tmp_path)
    run = write_run(tmp_path / "student", distill(tmp_path))
    config = json.loads((run / "export" / "config.json").read_text())
    config["data"] = json.loads((export / "config.json").read_text())["data"]
    (run / "export" / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(Digits, "__init__", lambda self, **options: pytest.fail("the data were built"))
    hybrid = ['eval.sampler={"name": "hybrid", "sampler": "ancestral", "teacher_steps": 1}']
    assert di4c.load(run, device="cpu", overrides=hybrid).sample(2, 2, cond=3, seed=0).shape == (2, 64)


def test_trouble_b10_data_of_other_sizes_are_told(tmp_path):
    export, *_ = exported("digits", tmp_path)
    model = di4c.load(export, device="cpu", overrides=["data.conditional=false"])
    assert model.sample(1, 1, seed=0).shape == (1, 64)
    with pytest.raises(DataError, match="64 positions, 17 states, 10 classes"):
        _ = model.data


@pytest.mark.parametrize("tokens", [torch.zeros(2, 63), torch.zeros(2, 64), torch.full((2, 64), 17), torch.full((1, 64), -1),
                                    "text", [[0] * 64, [0] * 63], torch.zeros(1, 1, 64, dtype=torch.int64)],
                         ids=lambda tokens: repr(tokens)[:12])  # fmt: skip
def test_trouble_b10_what_is_no_sample_is_not_decoded(tokens, tmp_path):
    export, *_ = exported("digits", tmp_path)
    with pytest.raises(SpecError, match=r"tokens: expected tokens \[n, 64\], 0 to 16"):
        di4c.load(export, device="cpu").decode(tokens)


def test_trouble_b10_damage_to_what_is_carried_is_told(tmp_path):
    export, *_ = exported("codes", tmp_path)
    (export / "tokenizer.safetensors").write_bytes(b"")
    (export / "labels.safetensors").write_bytes(b"x")
    model = di4c.load(export, device="cpu")
    with pytest.raises(CheckpointError, match="tokenizer.safetensors"):
        model.decode(torch.zeros(1, 16, dtype=torch.int64))
    with pytest.raises(CheckpointError, match="labels.safetensors"):
        model.sample(1, 1)
    config = json.loads((export / "config.json").read_text())
    wrong_sizes = [{**config["data"], key: value} for key in ("num_positions", "num_states", "num_classes")
                   for value in (0, -1, "64", 6.5, True, [], 2**70)]  # fmt: skip
    for wrong in (
        [],
        {"num_positions": 3},
        *wrong_sizes,
        {**config["data"], "label_names": "x"},
        {**config["data"], "decoder": "x"},
    ):
        (export / "config.json").write_text(json.dumps({**config, "data": wrong}))
        with pytest.raises(CheckpointError, match="config.json: what it says of the data"):
            di4c.load(export, device="cpu")


@pytest.mark.parametrize("change", [{"class": 3}, {"class": None}, {"class": "nope:x"}, {"class": "os:system"}, {"shape": [1, 8]}, {"shape": 8},
                                    {"shape": ["a", 8, 8]}, {"num_states": None}, {"num_states": 1}, {"scale": 0}, {"scale": "x"},
                                    {"unknown": 1}], ids=repr)  # fmt: skip
def test_trouble_b10_a_damaged_decoder_is_told(tmp_path, change):
    export, *_ = exported("digits", tmp_path)
    config = json.loads((export / "config.json").read_text())
    config["data"]["decoder"] |= change
    (export / "config.json").write_text(json.dumps(config))
    model = di4c.load(export, device="cpu")
    with pytest.raises(CheckpointError, match="config.json: its decoder cannot be made"):
        model.decode(model.sample(1, 1, seed=0))


def test_trouble_b10_labels_that_are_none_of_the_classes_are_told(tmp_path):
    export, *_ = exported("digits", tmp_path)
    for labels in (torch.tensor([0, 10]), torch.tensor([-1]), torch.tensor([0.5]), torch.zeros(0, dtype=torch.int32)):
        save_file({"labels": labels}, export / "labels.safetensors")
        with pytest.raises(CheckpointError, match="labels.safetensors: .*expected labels 0 to 9"):
            di4c.load(export, device="cpu").sample(1, 1)


def test_trouble_b10_codes_of_a_tokenizer_that_cannot_travel(tmp_path, monkeypatch):
    """Sampling works; who asks to decode is told why not."""
    from di4c_plugins.tokenizers.vqgan import VQGAN as Network

    original = Network.__init__
    monkeypatch.setattr(
        Network, "__init__", lambda self, **options: original(self, **options) or setattr(self, "options", None)
    )
    export, *_ = exported("codes", tmp_path)
    model = di4c.load(export, device="cpu")
    with pytest.raises(SpecError, match="VQGAN does not keep its `options`"):
        model.decode(model.sample(1, 1, seed=0))


def test_the_model_card_says_what_the_export_is(tmp_path):
    export, *_ = exported("words", tmp_path)
    card = (export / "README.md").read_text()
    front, text = card.split("---\n")[1:3]
    assert yaml.safe_load(front) == {
        "library_name": "di4c", "license": "unknown", "pipeline_tag": "text-generation", "tags": ["di4c", "discrete-diffusion"],
    }  # fmt: skip
    for fact in ("**Task**: pretrain", "**Data**: text (path text.txt", "9 positions, 8 states", "**Process**: absorbing", "**Teacher**: denoiser",
                 "**Sampler**: ancestral", "**Made for steps**: 1, 2", "**Updates**: 3", "loss: 2.5", "## Licence"):  # fmt: skip
        assert fact in text
    assert str(tmp_path) not in card


def test_a_tokenizers_run_is_not_sampled(tmp_path):
    export, *_ = exported("digits", tmp_path)
    config = json.loads((export / "config.json").read_text())
    config["spec"] = {
        "task": "tokenizer", "seed": 0, "data": "digits", "train": config["spec"]["train"],
        "objective": {"name": "vq", "tokenizer": VQGAN},
    }  # fmt: skip
    (export / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="task tokenizer"):
        di4c.load(export)
