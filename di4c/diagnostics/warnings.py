"""What the diagnostics of a mixture warn of, and what helps."""

from collections.abc import Mapping

COLLAPSED = (
    "the mixture has collapsed to a product (or has not formed yet): λ carries almost no information about x_0, so that "
    "one-step samples cannot have correlated positions. Try a higher learning rate for the student head "
    "(train.optimizer.lr_multipliers, e.g. {head: 5}) or a larger initial scale of it (student.head.scale), a heavier "
    "data term (objective.data.weight, gate), more components (objective.components), latent: categorical with "
    "components: all"
)
UNUSED = (
    "come from atoms of λ that explain none of the data: they get no gradient of the likelihood, but are drawn like the others. "
    "Put weight on the marginals (objective.data.estimator: control-variate, with gate.shape: linear or gate.scale below 1), "
    "or take fewer atoms (latent.atoms)"
)
UNUSED_OF = {"unused_atoms": "of the one-step samples", "unused_atoms_small_t": "of the steps from t = 1/4"}
POSTERIOR = (
    "the posterior of λ has collapsed to the prior: λ tells nothing of x_0. Try a slow start (objective.proposal.beta near 0, "
    "warmup a quarter of the steps) with free bits (free_bits), a higher learning rate for the student head or the posterior "
    "(train.optimizer.lr_multipliers, e.g. {head: 3, posterior: 3}), more weight of t = 1 (objective.time)"
)
UNUSED_SHARE = 1 / 5
"""What is warned of in the second half of a run."""


def mixture_warnings(found: Mapping[str, float], progress: float) -> dict[str, str]:
    """{name: warning} by what `mixture_diagnostics`, `posterior_diagnostics` and `unused_atoms` found; as Objective.warnings."""
    told = {}
    if found.get("mixture_collapsed", 0) > 0:
        told["mixture-collapsed"] = COLLAPSED
    for name, of_what in UNUSED_OF.items():
        if found.get(name, 0) > UNUSED_SHARE and progress >= 1 / 2:
            told[name.replace("_", "-")] = f"{found[name]:.0%} {of_what} {UNUSED}"
    if found.get("posterior_collapsed", 0) > 0 and progress >= 1 / 2:
        told["posterior-collapsed"] = POSTERIOR
    return told
