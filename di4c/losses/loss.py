"""Di4C's losses in the paper's symbols; for all systems alike.

    distillation   E_{x_δ} KL( p^ψ_{0|δ} ‖ p^θ_{0|δ} )                        near t = 0, where the teacher is right
    consistency    E_{x_t} KL( p^θ_{0|u} ∘ p^ψ_{u|t} ‖ p^θ_{0|t} )            elsewhere
    data           E_{x_0, x_t} −log p^θ_{0|t}(x_0 | x_t)

and beside them, where it is asked for,

    marginal       E_{x_t} Σ_d KL( p^{ψ,d}_{0|t} ‖ E_λ p^{θ,d}_{0|t}(·; λ) )

(Hayakawa et al., ICML 2025, sections 3.3 and 4.) What is drawn for them is in inputs.py, how −log p^θ is estimated in the
loss-estimator plugins, and what the sums over positions and components are in mixture/reference.py.
"""

from dataclasses import dataclass

from torch import Tensor

from di4c.contracts import Statistics
from di4c.diagnostics.mixture import effective_components
from di4c.losses.inputs import LossInputs
from di4c.losses.terms import ConsistencyTerm, DataTerm, DistillationTerm, MarginalTerm
from di4c.mixture.every_sample import every_sample
from di4c.mixture.marginals import Marginals
from di4c.mixture.sums import Query, statistics

TERMS = ("data", "consistency", "distillation", "marginal")


@dataclass(frozen=True)
class Di4CLoss:
    """The weighted sum of the terms on the inputs of a step; a term that is None is left out."""

    data: DataTerm | None = None
    consistency: ConsistencyTerm | None = None
    distillation: DistillationTerm | None = None
    marginal: MarginalTerm | None = None
    chunk_bytes: int | None = None

    def __call__(self, inputs: LossInputs) -> dict[str, Tensor]:
        """{"loss": [B] nats, and its parts "data", "consistency", "distillation", "marginal", …: [B], weighted as they enter it}.

        Where λ is proposed also what ProposedComponents tell.
        """
        parts: dict[str, Tensor] = {}
        found = self._statistics(inputs)
        if "data" in found:
            parts |= self.data_loss(found["data"], inputs.t)
        if "consistency" in found:
            parts |= self.consistency_loss(found["consistency"], inputs.t)
        if "distillation" in found:
            parts["distillation"] = self.distillation_loss(found["distillation"], inputs)
        if inputs.proposed is not None:
            parts |= inputs.proposed.told(found["data"])
        if "marginal" in found:
            parts["marginal"] = self.marginal.weight * found["marginal"].kl
        terms = [parts[name] for name in TERMS if name in parts]
        total = sum(terms) if terms else _nothing(inputs)
        effective = {
            f"{name}_effective_components": effective_components(statistics) for name, statistics in found.items()
            if statistics.joint is not None
        }  # fmt: skip
        return {
            name: value.to(inputs.student.accumulation_dtype)
            for name, value in {"loss": total, **parts, **effective}.items()
        }

    def data_loss(self, statistics: Statistics, t: Tensor) -> dict[str, Tensor]:
        """a(t)·correlated + marginal: −log p^θ_{0|t}(x_0 | x_t), [B] nats, and the two parts unweighted.

        With the control variate the teacher's marginals stand in for the data's: a bias where the teacher is not exact.
        """
        correlated, marginal = self.data.estimator(statistics)
        data = self.data.weight * (self.data.gate(t).to(correlated) * correlated + marginal)
        return {"data": data, "data_correlated": correlated, "data_marginal": marginal}

    def consistency_loss(self, statistics: Statistics, t: Tensor) -> dict[str, Tensor]:
        """KL( p^θ_{0|u} ∘ p^ψ_{u|t} ‖ p^θ_{0|t} ) up to a constant in θ: [B] nats, and its two parts unweighted."""
        correlated, marginal = self.consistency.estimator(statistics)
        weight = self.consistency.weight / self.consistency.probability * self.consistency.holds(t).to(correlated)
        return {
            "consistency": weight * (correlated + marginal),
            "consistency_correlated": correlated,
            "consistency_marginal": marginal,
        }

    def distillation_loss(self, statistics: Statistics, inputs: LossInputs) -> Tensor:
        """(1/M) Σ_m Σ_d KL( p^{ψ,d}_{0|δ} ‖ p^{θ,d}_{0|δ}(·; λ_m) ), an upper bound of the KL by convexity: [B] nats."""
        surrogate = statistics.componentwise_kl
        if inputs.distilled_student is not None:  # times of its own: B·copies examples of one component
            return self.distillation.weight * surrogate.unflatten(0, (len(inputs.t), -1)).mean(1)
        return self.distillation.weight * self.distillation.holds(inputs.t).to(surrogate) * surrogate

    def _statistics(self, inputs: LossInputs) -> dict[str, Statistics]:
        """The sums each term needs: one pass over the student at t, one more where distillation has its own times."""
        queries: dict[str, Query] = {}
        if self.data is not None:
            certain = inputs.x_0.new_zeros(len(inputs.x_0), 1) if "log_law" in self.data.estimator.needs else None
            queries["data"] = Query(self.data.estimator.needs, inputs.x_0[:, None], inputs.teacher, log_law=certain)
        if inputs.target is not None:
            queries["consistency"] = self._consistency_query(inputs)
        componentwise = frozenset({"componentwise_kl"})
        if inputs.distils and inputs.distilled_student is None:
            queries["distillation"] = Query(componentwise, None, inputs.teacher)
        if self.marginal is not None:
            queries["marginal"] = Query(frozenset({"kl"}), None, inputs.teacher)
        found = statistics(inputs.student, list(queries.values()), chunk_bytes=self.chunk_bytes)
        named = dict(zip(queries, found, strict=True))
        if inputs.proposed is not None:
            named |= inputs.proposed.of_own(named)
        if inputs.distils and inputs.distilled_student is not None:
            query = Query(componentwise, None, inputs.distilled_teacher)
            named["distillation"] = statistics(inputs.distilled_student, [query], chunk_bytes=self.chunk_bytes)[0]
        return named

    def _consistency_query(self, inputs: LossInputs) -> Query:
        """The target's samples, or every x with its law where the estimator asks for it."""
        needs, target = self.consistency.estimator.needs, inputs.target
        if "log_law" not in needs:
            return Query(needs, inputs.target_samples, target, inputs.target_weights, inputs.target_joint)
        prediction = target.prediction if isinstance(target, Marginals) else target
        samples, log_law = every_sample(prediction, chunk_bytes=self.chunk_bytes)
        return Query(needs, samples, target, log_law=log_law)


def _nothing(inputs: LossInputs) -> Tensor:
    """The loss where no term is due, 0 with a gradient of 0: [B]. A step that has none is one like all others for the engine."""
    return inputs.t.new_zeros(len(inputs.t)) + 0 * inputs.student.features.sum()
