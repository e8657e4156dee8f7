import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import di4c
from di4c.errors import CheckpointError, RegistryError, SpecError


@pytest.fixture
def copied(runs, tmp_path):
    """A copy of the student's run that a test may damage."""
    return shutil.copytree(runs["student"], tmp_path / "copy")


def test_samples_of_a_run_and_of_its_export_agree(runs):
    run, export = (di4c.load(path, device="cpu") for path in (runs["student"], runs["student"] / "export"))
    x_0 = run.sample(5, steps=2, seed=3)
    assert x_0.shape == (5, 64) and x_0.dtype == torch.int64
    assert x_0.min() >= 0 and x_0.max() < run.data.num_states  # no mask is left
    assert torch.equal(x_0, export.sample(5, steps=2, seed=3))


def test_randomness_comes_from_seed_or_generator(runs):
    model = di4c.load(runs["student"], device="cpu")
    made = [model.sample(4, 1, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])
    before = torch.get_rng_state()
    model.sample(4, 1, seed=0)
    assert torch.equal(before, torch.get_rng_state())


def test_samples_do_not_depend_on_the_batch_size(runs):
    model = di4c.load(runs["teacher"], device="cpu")
    assert torch.equal(model.sample(7, 2, seed=0, batch_size=3), model.sample(7, 2, seed=0, batch_size=7))


@pytest.mark.parametrize("size", [1, 4, "4", "inf", "product"])
def test_every_mixture_size_samples(runs, size):
    assert di4c.load(runs["student"], device="cpu").sample(3, 2, mixture_size=size, seed=0).shape == (3, 64)


def test_one_label_for_all_or_one_each(runs):
    model = di4c.load(runs["teacher"], device="cpu")
    same = model.sample(3, 1, cond=4, seed=0)
    assert torch.equal(same, model.sample(3, 1, cond=[4, 4, 4], seed=0))
    assert torch.equal(same, model.sample(3, 1, cond=torch.tensor([4, 4, 4]), seed=0))
    assert not torch.equal(same, model.sample(3, 1, cond=5, seed=0))


@pytest.mark.parametrize("cond", [10, -2, [1, 2], torch.zeros(3, 1)])
def test_bad_labels_say_what_is_allowed(runs, cond):
    with pytest.raises(SpecError, match="label 0 to 9"):
        di4c.load(runs["teacher"], device="cpu").sample(3, 1, cond=cond)


def test_mixture_size_of_a_model_without_lambda(runs):
    with pytest.raises(SpecError, match="without λ"):
        di4c.load(runs["teacher"], device="cpu").sample(3, 1, mixture_size=4)


def test_mixture_size_that_is_none_of_the_words(runs):
    with pytest.raises(SpecError, match="inf or product"):
        di4c.load(runs["student"], device="cpu").sample(3, 1, mixture_size="many")


def test_the_teacher_of_a_student_is_the_pretrained_one(runs):
    student = di4c.load(runs["student"], device="cpu")
    teacher = di4c.load(runs["teacher"], device="cpu")
    assert student.teacher().digest == teacher.digest != student.digest
    assert torch.equal(student.teacher().sample(4, 2, seed=1), teacher.sample(4, 2, seed=1))
    with pytest.raises(SpecError, match="has no teacher"):
        teacher.teacher()
    with pytest.raises(CheckpointError, match="give the run folder"):
        di4c.load(runs["student"] / "export", device="cpu").teacher()


def test_loaded_networks_are_frozen_and_in_eval_mode(runs):
    network = di4c.load(runs["student"], device="cpu").network
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())


def test_absent_folder(tmp_path):
    with pytest.raises(CheckpointError, match="no such folder"):
        di4c.load(tmp_path / "nothing")


def test_a_file_instead_of_a_folder(runs):
    with pytest.raises(CheckpointError, match="is a file"):
        di4c.load(runs["student"] / "spec.yaml")


def test_foreign_folder_names_what_it_holds(tmp_path):
    (tmp_path / "weights.bin").touch()
    with pytest.raises(CheckpointError, match="weights.bin"):
        di4c.load(tmp_path)


def test_unfinished_run(copied):
    shutil.rmtree(copied / "export")
    (copied / "checkpoints").mkdir()
    with pytest.raises(CheckpointError, match="--resume"):
        di4c.load(copied)


def test_foreign_configuration(copied):
    (copied / "export" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(CheckpointError, match="not the configuration of an export"):
        di4c.load(copied)


def test_truncated_weights(copied):
    file = copied / "export" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        di4c.load(copied)


def test_weights_of_another_model_name_the_first_differences(copied):
    file = copied / "export" / "model.safetensors"
    tensors = load_file(file)
    save_file({f"module.{name}": tensor for name, tensor in tensors.items()}, file)
    with pytest.raises(CheckpointError) as caught:
        di4c.load(copied)
    message = str(caught.value)
    assert "missing from the file: backbone." in message
    assert "carry the prefix 'module.'" in message


def test_a_hybrid_ends_with_the_runs_teacher_or_with_any_other(runs):
    """With all steps the teacher's, its samples are those of the teacher that is named."""
    hybrid = {"name": "hybrid", "sampler": "ancestral", "teacher_steps": 2}

    def samples(**changes):
        overrides = [f"eval.sampler={json.dumps(hybrid | changes)}"]
        return di4c.load(runs["student"], device="cpu", overrides=overrides).sample(4, 2, seed=0)

    own = samples()
    assert torch.equal(own, samples(teacher={"name": "denoiser", "run": str(runs["teacher"])}))
    averaged = samples(teacher={"name": "averaged", "run": str(runs["student"]), "components": 4})
    assert not torch.equal(own, averaged)
    with pytest.raises(RegistryError, match="eval.sampler.teacher.name: no teacher named 'denoisr'"):
        samples(teacher={"name": "denoisr", "run": str(runs["teacher"])})


def test_sampler_and_data_can_be_changed(runs):
    def samples(part, *overrides):
        return di4c.load(runs["student"] / part, device="cpu", overrides=overrides).sample(4, 2, cond=0, seed=0)

    by_argmax = ("eval.sampler={name: mdlm-ancestral, end: 0.5}", "data.split_seed=3")
    assert not torch.equal(samples(""), samples("", *by_argmax))
    assert torch.equal(samples("", *by_argmax), samples("export", *by_argmax, "eval.sampler.final=argmax"))


def test_a_sampler_that_keeps_predictions_is_refused_for_a_network_that_reads_the_time(runs):
    overrides = ["eval.sampler={name: mdlm-ancestral, cached: true}"]
    with pytest.raises(
        SpecError, match="eval.sampler: MdlmAncestral keeps predictions.*DiT reads the time.*cached: false"
    ):
        di4c.load(runs["student"], device="cpu", overrides=overrides).sample(1, 2, cond=0, seed=0)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("latent.name=gaussian", "only eval and data can be changed"),
        ("eval.sampler.guidnce=2", "guidnce"),
        ("eval.sampler=ancestrall", "Did you mean 'ancestral'"),
    ],
)
def test_other_overrides_are_told(runs, override, said):
    with pytest.raises((SpecError, RegistryError), match=said):
        di4c.load(runs["student"], device="cpu", overrides=[override]).sample(1, 1)
