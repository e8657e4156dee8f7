"""Whose networks a sampler calls: counted, at hand in all their parts, and part of what results are kept under."""

import json
from dataclasses import replace

import pytest
import torch

import di4c
from di4c.contracts import Draws, LentTeacher, Sampler
from di4c.errors import DataError, TrainingError
from di4c.evaluation.comparison import entrant
from di4c.evaluation.generation import Recipe
from di4c.fingerprint import fingerprint
from di4c.losses.rollouts import Rollouts, load_or_roll_out
from di4c_plugins.latents.unit_cube import Uniform
from di4c_plugins.processes.absorbing import Absorbing
from di4c_plugins.processes.mdlm import Mdlm
from di4c_plugins.samplers.ancestral import Ancestral
from di4c_plugins.samplers.hybrid import Hybrid
from di4c_plugins.samplers.maskgit import MaskGITSampler
from di4c_plugins.teachers.averaged import Averaged
from tests.evaluation.conftest import PRETRAIN, distill, write_run
from tests.systems import tiny_student, tiny_teacher


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    teacher = write_run(folder / "teacher", PRETRAIN)
    return {"teacher": teacher, "student": write_run(folder / "student", distill(teacher))}


def loaded(run, sampler):
    return di4c.load(run, device="cpu", overrides=[f"eval.sampler={json.dumps(sampler)}"])


HYBRID = {"name": "hybrid", "sampler": "ancestral", "teacher_steps": 1}


@pytest.mark.parametrize(
    ("run", "sampler", "nfe"),
    [
        ("student", "ancestral", 4),
        ("student", HYBRID, 4),
        ("student", {**HYBRID, "teacher_steps": 9}, 4),
        ("student", {"name": "maskgit", "guidance": 2.0}, 8),
        ("teacher", {"name": "maskgit", "guidance": 2.0, "guide": "teacher"}, 8),
        ("student", {"name": "maskgit", "guidance": 2.0, "guide": "teacher"}, 8),
        ("student", {**HYBRID, "sampler": {"name": "maskgit", "guidance": 2.0}}, 8),
        ("student", {"name": "mdlm-ancestral", "cached": True}, None),
    ],
)
def test_trouble_b04_calls_of_every_network_a_sample_over_all_batches(runs, run, sampler, nfe):
    """Four steps, 25 samples in batches of 10; the networks themselves tell how many rows they were given."""
    model, seen = loaded(runs[run], sampler), []
    teacher = model._teacher if model.student is None else model.teacher()._teacher
    if model.student is not None:
        model.__dict__["sampler"] = di4c.config.build.build_sampler(model.spec, model.registry, model.process, teacher)
    for network in {teacher.backbone, model.network if model.student is None else model.student.backbone}:
        network.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    draws = Draws(0, count=25)
    made = Recipe(model.model(None, draws), model.sampler, 64, 4).batches(torch.zeros(25, dtype=torch.int64), draws, 10)
    assert made.nfe == sum(seen) / 25 and (nfe is None or made.nfe == nfe)


def test_trouble_b04_a_sampler_recipe_hand_counts_too():
    teacher, student = tiny_teacher(), tiny_teacher(seed=2)
    from di4c.evaluation.models import ProductModel

    sampler = Hybrid(teacher.process, sampler=Ancestral(teacher.process), teacher_steps=1, teacher=teacher)
    draws = Draws(0, count=5)
    assert Recipe(ProductModel(student), sampler, 6, 4).batches(None, draws, 2).nfe == 4


class Asking(Sampler):
    """Uses what a plugin may use of its teacher."""

    def __init__(self, process, *, teacher=None):
        self.process, self.teacher = process, teacher

    def step(self, denoiser, x_t, t, s, cond, draws):
        teacher = self.teacher
        assert teacher.process.num_states == self.process.num_states and teacher.num_positions == x_t.shape[1]
        features = teacher.backbone(x_t, t, cond)
        assert features.shape[-1] == teacher.backbone.width and list(teacher.network.parameters())
        teacher.parameterisation.active(x_t)
        prediction = teacher.components(x_t, t, cond)
        return self.process.posterior(x_t, prediction, t, s, draws)


DI4C_PLUGINS = {"samplers": {"asking": "Asking"}}


def test_trouble_b12_a_lent_teacher_has_all_that_a_teacher_has(runs):
    sampler = f"{__name__}:Asking"
    assert loaded(runs["student"], sampler).sample(2, 2, seed=0).shape == (2, 64)
    assert loaded(runs["teacher"], sampler).sample(2, 2, seed=0).shape == (2, 64)
    teacher = tiny_teacher()
    teacher.extra = "its own"
    lent = LentTeacher(lambda: teacher)
    assert lent.extra == "its own" and LentTeacher.of(lent) is lent and lent.to("cpu").freeze() is lent
    assert type(lent.student_backbone()) is type(teacher.backbone)
    with pytest.raises(AttributeError, match="absent"):
        lent.absent  # noqa: B018


def averaged(seed):
    """A mixture teacher: its network is always the same, its head is not."""
    student = tiny_student(tiny_teacher(), head="token", seed=1)
    for parameter in student.head.parameters():
        torch.nn.init.normal_(parameter, std=seed, generator=torch.Generator().manual_seed(seed))
    return Averaged(Absorbing(5), 6, student=student, latent=Uniform()).freeze()


def test_trouble_b06_rollouts_are_kept_under_all_that_they_depend_on(tmp_path):
    options, teacher = Rollouts(number=6, steps=2, cache=tmp_path / "pool.pt"), tiny_teacher()
    process = teacher.process

    def roll_out(teacher=teacher, sampler=None, classes=3, options=options, draws=None):
        return load_or_roll_out(options, teacher, sampler or Ancestral(process), classes, draws or Draws(0))

    def hybrid(**changes):
        return Hybrid(
            **({"process": process, "sampler": Ancestral(process), "teacher_steps": 1, "teacher": teacher} | changes)
        )

    variants = [
        dict(sampler=MaskGITSampler(process)), dict(sampler=MaskGITSampler(process, gumbel_temperature=1.0)),
        dict(sampler=MaskGITSampler(process, logit_scale=2.0)), dict(sampler=hybrid()), dict(sampler=hybrid(teacher_steps=2)),
        dict(sampler=hybrid(sampler=MaskGITSampler(process))), dict(sampler=hybrid(teacher=tiny_teacher(seed=3))),
        dict(classes=2), dict(options=replace(options, steps=3)), dict(draws=Draws(1)), dict(teacher=tiny_teacher(seed=5)),
        dict(teacher=averaged(1)), dict(teacher=averaged(2)),
    ]  # fmt: skip
    for noise in ("log-linear", "cosine"):
        other = tiny_teacher()
        other.process = Mdlm(5, noise=noise)
        variants.append(dict(teacher=other, sampler=Ancestral(other.process)))
    roll_out()
    for number, variant in enumerate(variants):
        with pytest.raises(DataError, match="another teacher, process, sampler"):
            roll_out(**variant)
        options.cache.unlink()
        roll_out(**variant)
        assert roll_out(**variant) is not None, number
        if number == 4:  # the same, made anew
            assert roll_out(sampler=hybrid(teacher_steps=2, teacher=tiny_teacher())) is not None


@pytest.mark.parametrize("content", [b"", b"not a pickle", None], ids=["empty", "foreign", "folder"])
def test_trouble_b06_a_cache_that_is_none_is_told(tmp_path, content):
    cache = tmp_path / "pool.pt"
    if content is None:
        (cache / "inside").mkdir(parents=True)
    else:
        cache.write_bytes(content)
    with pytest.raises(DataError, match="pool.pt"):
        load_or_roll_out(Rollouts(number=2, steps=1, cache=cache), tiny_teacher(), Ancestral(Absorbing(5)), 3, Draws(0))


def test_trouble_b06_a_cells_identity_has_the_guides_weights(runs, tmp_path):
    other = write_run(tmp_path / "other", PRETRAIN | {"seed": 7, "plugins": []})

    def identity(sampler):
        return dict(entrant("student", "inf", loaded(runs["student"], sampler)).identity)

    guided = {"name": "maskgit", "guidance": 2.0, "guide": "teacher"}
    assert "guides" not in identity("ancestral") and "guides" not in identity({**guided, "guide": "self"})
    named = {**HYBRID, "teacher": {"name": "denoiser", "run": str(runs["teacher"])}}
    assert identity(HYBRID)["guides"] == identity(named)["guides"] == identity(guided)["guides"]
    assert (
        identity({**named, "teacher": {"name": "denoiser", "run": str(other)}})["guides"] != identity(named)["guides"]
    )


@pytest.mark.parametrize("ranks", [3, 5])
def test_trouble_b13_fewer_samples_than_ranks(monkeypatch, ranks):
    """Ranks without a share give nothing; together they give what one rank gives."""
    options, teacher, shares = Rollouts(number=2, steps=1), tiny_teacher(), []
    monkeypatch.setattr(
        "di4c.losses.rollouts._gathered", lambda x_0, cond, size: shares.append((x_0, cond)) or (x_0, cond)
    )
    for classes in (3, None):
        shares.clear()
        for rank in range(ranks):
            load_or_roll_out(options, teacher, Ancestral(teacher.process), classes, Draws(0), rank, ranks)
        x_0, cond = (torch.cat(column) for column in zip(*shares, strict=True))
        whole = load_or_roll_out(options, teacher, Ancestral(teacher.process), classes, Draws(0))
        assert torch.equal(x_0, whole.x_0) and len(cond) == 2


def test_trouble_07_a_network_without_numbers_is_told_and_no_mask_comes_out(runs):
    model = loaded(runs["teacher"], "ancestral")
    for parameter in model.network.parameters():
        parameter.data.fill_(torch.nan)
    with pytest.raises(TrainingError, match="outputs are NaN or infinite"):
        model.sample(2, 2, seed=0)


def test_fingerprints_see_options_and_not_what_is_derived():
    schedule = [
        Mdlm(4, noise=noise, epsilon=epsilon)
        for noise, epsilon in (("cosine", 0.1), ("cosine", 0.2), ("log-linear", 0.1))
    ]
    assert len({fingerprint(process) for process in schedule}) == 3
    assert fingerprint(Mdlm(4)) == fingerprint(Mdlm(4)) and fingerprint(1) != fingerprint("1") != fingerprint(True)
