"""What is sampled and measured: a teacher, or a student under one prior of λ."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from di4c.config.eval_spec import MixtureSize
from di4c.contracts import Denoiser, Draws, LambdaSampler, Prediction, Teacher
from di4c.mixture.student import MixtureStudent, atoms_denoiser, mixture_denoiser, product_denoiser


class Model(ABC):
    """p(x_0 | x_t) in the two forms that evaluation needs: one draw of λ to sample with, many to compute likelihoods."""

    @abstractmethod
    def denoiser(self, draws: Draws) -> Denoiser:
        """The denoiser of a sampler; λ, if there is one, is drawn afresh for every sequence at every call."""

    @abstractmethod
    def components(self, x_t: Tensor, t: Tensor, cond: Tensor | None, draws: Draws, num: int) -> Prediction:
        """Components at x_t whose weighted mean is p: `num` draws of λ, or exactly the atoms of a finite prior."""


@dataclass(frozen=True)
class ProductModel(Model):
    """A model without a λ of its own: a teacher as it is."""

    teacher: Teacher

    def denoiser(self, draws: Draws) -> Denoiser:
        return self.teacher.denoiser(draws)

    def components(self, x_t: Tensor, t: Tensor, cond: Tensor | None, draws: Draws, num: int) -> Prediction:
        return self.teacher.components(x_t, t, cond)


@dataclass(frozen=True)
class MixtureModel(Model):
    """A student with the whole prior."""

    student: MixtureStudent
    latent: LambdaSampler

    def denoiser(self, draws: Draws) -> Denoiser:
        return mixture_denoiser(self.student, self.latent, draws)

    def components(self, x_t: Tensor, t: Tensor, cond: Tensor | None, draws: Draws, num: int) -> Prediction:
        number = self.latent.num_atoms or num
        lam = self.latent.sample(number, draws).to(x_t.device)
        return self.student.predict(x_t, t, cond, lam, self.latent.log_weights(number).to(x_t.device))


@dataclass(frozen=True)
class AtomsModel(Model):
    """A student with λ restricted to K atoms [K, L] of weights [K]."""

    student: MixtureStudent
    atoms: Tensor
    weights: Tensor

    def denoiser(self, draws: Draws) -> Denoiser:
        return atoms_denoiser(self.student, self.atoms, self.weights, draws)

    def components(self, x_t: Tensor, t: Tensor, cond: Tensor | None, draws: Draws, num: int) -> Prediction:
        lam = self.atoms.to(x_t.device).expand(len(x_t), -1, -1)
        return self.student.predict(x_t, t, cond, lam, self.weights.log().to(x_t.device))


class MarginalsModel(MixtureModel):
    """The product of a student's λ-averaged marginals: what is left of it without correlation."""

    def denoiser(self, draws: Draws) -> Denoiser:
        return product_denoiser(self.student, self.latent, draws)

    def components(self, x_t: Tensor, t: Tensor, cond: Tensor | None, draws: Draws, num: int) -> Prediction:
        return super().components(x_t, t, cond, draws, num).average()


def student_model(student: MixtureStudent, latent: LambdaSampler, mixture_size: MixtureSize, draws: Draws) -> Model:
    """The student under the prior of λ that `mixture_size` (not None) names; `draws` shift the K atoms."""
    if mixture_size == "inf":
        return MixtureModel(student, latent)
    if mixture_size == "product":
        return MarginalsModel(student, latent)
    return AtomsModel(student, *latent.discretised(mixture_size, draws.child("atoms", mixture_size)))
