"""The registered samplers on small spaces, each with the exact law of what it says it draws."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from di4c.config.construct import create
from di4c.config.registry import Registry
from di4c.contracts import Denoiser, Draws, ForwardProcess, Sampler, Teacher
from di4c.mixture.student import MixtureStudent, mixture_denoiser
from di4c_plugins.backbones.dit import DiT
from di4c_plugins.datasets.enumerable import Enumerable
from di4c_plugins.heads.readout import Readout
from di4c_plugins.latents.categorical import Categorical
from di4c_plugins.processes.maskgit import MaskGITProcess
from theory.sampler_laws import halton_law, leap_matrix, maskgit_law, min_time_law
from theory.spaces import Chain, even_times, every_component, processes, teacher_of

ENTRY_TIME = 0.6
"""From which on the corrector of the leaping cases corrects."""


@dataclass(frozen=True)
class Case:
    """A sampler on a teacher or student, with the exact law [S^D] of its samples in `steps` steps."""

    name: str
    sampler: Sampler
    teacher: Teacher
    steps: int
    law: Callable[[], Tensor]
    denoiser: Callable[[Draws], Denoiser] | None = None

    def samples(self, draws: Draws) -> Tensor:
        """One x_0 a row of `draws`, by the sampler itself: [n, D]."""
        denoiser = self.teacher.predict if self.denoiser is None else self.denoiser(draws.child("model"))
        x_1 = self.teacher.process.prior(self.teacher.num_positions, draws.child("x_1"))
        return self.sampler.sample(denoiser, x_1, self.steps, None, draws.child("steps"))


def made(name: str, process: ForwardProcess, teacher: Teacher | None = None, **options) -> Sampler:
    """The registered sampler of that name."""
    return create(Registry.default(), "samplers", {"name": name, **options}, {"process": process, "teacher": teacher})


def every_case() -> list[Case]:
    """Cases of all samplers; a masked space of 2 states at 4 positions, chains of 3 states at 3 and 2 positions."""
    masked, chain, pair = (Enumerable(positions=d, states=s, spread=1.5) for d, s in ((4, 2), (3, 3), (2, 3)))
    teachers = {name: teacher_of(process, chain) for name, process in processes(3).items()}
    cases = [ancestral_case(name, teacher) for name, teacher in teachers.items()]
    cases += masked_cases(teacher_of(processes(2)["absorbing"], masked))
    cases += maskgit_cases(teacher_of(MaskGITProcess(2, schedule="cosine"), masked))
    for name in ("uniform", "discretised Gaussian"):
        cases += min_time_cases(name, teachers[name])
        cases += leaping_cases(name, teacher_of(teachers[name].process, pair))
    return cases + student_cases(teachers["absorbing"])


def ancestral_case(name: str, teacher: Teacher) -> Case:
    law = partial(Chain.of(teacher).law, even_times(3))
    return Case(f"ancestral, {name}", made("ancestral", teacher.process), teacher, 3, law)


def masked_cases(teacher: Teacher) -> list[Case]:
    """Two names of the ancestral step, and MDLM's sampler with its last fill as a draw."""
    process, law, end = teacher.process, Chain.of(teacher).law, 1e-5
    grid = [*torch.linspace(1, end, 4, dtype=torch.float64).tolist(), 0.0]
    cases = [Case("analytic", made("analytic", process), teacher, 3, partial(law, even_times(3)))]
    for cached in (False, True):
        sampler = made("mdlm-ancestral", process, final="draw", cached=cached, end=end)
        cases.append(Case(f"mdlm-ancestral{', cached' * cached}", sampler, teacher, 3, partial(law, grid)))
    return cases


def maskgit_cases(teacher: Teacher) -> list[Case]:
    process, chain, cases = teacher.process, Chain.of(teacher), []
    for annealing in ("random", "none", "linear"):
        sampler = made("maskgit", process, annealing=annealing, gumbel_temperature=1.5)
        law = partial(maskgit_law, chain, 3, annealing=annealing, temperature=1.5)
        cases.append(Case(f"maskgit, {annealing} order", sampler, teacher, 3, law))
    return [*cases, Case("halton", made("halton", process), teacher, 3, partial(halton_law, chain, 3))]


def min_time_cases(name: str, teacher: Teacher) -> list[Case]:
    """tauLDR's ancestral steps, x_0 drawn, and by argmax."""
    chain, cases = Chain.of(teacher), []
    for final in ("draw", "argmax"):
        sampler = made("tauldr-ancestral", teacher.process, final=final, min_time=0.1)
        law = partial(min_time_law, chain, sampler.times(3), chain.step, final=final)
        cases.append(Case(f"tauldr-ancestral, {name}, {final}", sampler, teacher, 3, law))
    return cases


def leaping_cases(name: str, teacher: Teacher) -> list[Case]:
    """Leaps of ordered and unordered states, and a corrector after each leap."""
    chain, cases = Chain.of(teacher), []
    corrected = {"corrector_steps": 2, "corrector_scale": 0.7, "corrector_entry_time": ENTRY_TIME}
    for ordered in (True, False):
        for kind, options in (("tau-leaping", {}), ("predictor-corrector", corrected)):
            sampler = made(kind, teacher.process, ordered=ordered, final="draw", min_time=0.1, **options)
            title = f"{kind}, {name}, {'ordered' if ordered else 'unordered'}"
            step = partial(leap_step, partial(leap_matrix, chain, ordered=ordered), corrected=bool(options))
            cases.append(Case(title, sampler, teacher, 4, partial(min_time_law, chain, sampler.times(4), step)))
    return cases


def leap_step(leap: Callable[..., Tensor], t: float, s: float, *, corrected: bool) -> Tensor:
    """A leap from t to s, and from ENTRY_TIME on two corrections at s."""
    if not corrected or t > ENTRY_TIME:
        return leap(t, t - s)
    corrector = leap(s, 0.7 * (t - s), forward=True)
    return leap(t, t - s) @ corrector @ corrector


def student_cases(teacher: Teacher) -> list[Case]:
    """A mixture student with a fresh λ in every step, and the same handing over to the teacher for its last step."""
    student, latent = random_student(teacher)
    process, positions, times = teacher.process, teacher.num_positions, even_times(3)
    mixture = every_component(student, latent)
    in_turn = lambda x, t: teacher.predict(x, t) if t[0] <= times[2] else mixture(x, t)
    fresh = lambda draws: mixture_denoiser(student, latent, draws)
    ancestral, hybrid = (
        made("ancestral", process),
        made("hybrid", process, teacher, sampler="ancestral", teacher_steps=1),
    )
    alone, handed = (Chain(process, predict, positions).law for predict in (mixture, in_turn))
    return [
        Case("ancestral, mixture student", ancestral, teacher, 2, partial(alone, even_times(2)), fresh),
        Case("hybrid, student then teacher", hybrid, teacher, 3, partial(handed, times), fresh),
    ]


def random_student(teacher: Teacher, atoms: int = 4) -> tuple[MixtureStudent, Categorical]:
    """A small student with random weights and unequal atoms of λ."""
    latent = Categorical(atoms=atoms, weights=[1.0, 2.0, 3.0, 4.0])
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        backbone = DiT(teacher.num_positions, teacher.process.num_states, width=16, depth=1, heads=2)
        for parameter in backbone.parameters():
            torch.nn.init.normal_(parameter, std=0.25)
        head = Readout(latent.dim, backbone, rank=8, scale=2.0)
    student = MixtureStudent(
        backbone, head, parameterisation=teacher.parameterisation, num_states=teacher.process.num_states
    )
    return student.eval().requires_grad_(False), latent
