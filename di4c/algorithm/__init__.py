"""Di4C itself, written once for all systems.

    mixture     sums over positions and components, chunk by chunk; draws from a mixture
    student     the mixture denoiser p^θ(x_0 | x_t) = E_λ ∏_d p^{θ,d}(x_0^d | x_t; λ)
    times       the laws of t and of the teacher's step t − u
    objective   the three losses and the module that trains on them
    pretraining the teacher's bound
    diagnostics what tells a mixture from a product
    advice      how many components a run needs, from measured bias and variance
    rollouts    data-free reference: the teacher's own samples
"""
