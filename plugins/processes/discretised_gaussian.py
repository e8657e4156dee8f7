"""Discretised Gaussian diffusion of ordered states, the pixel process of tauLDR."""

from di4c_plugins.processes.ctmc import ContinuousTimeChain
from di4c_plugins.processes.rates import ExponentialTime, gaussian_target_rate, log_gaussian


class DiscretisedGaussian(ContinuousTimeChain):
    """Levels that jump to near levels, and settle in a discretised Gaussian around the middle (Campbell et al. 2022).

    rate_sigma: reach of the jumps; target_sigma (tauLDR's Q_sigma): width of the stationary law, which is practically
    uniform if it exceeds S; ∫₀ᵗ β = time_base·(time_exponential^t − 1); prior_sigma: width of the law of x_1 in
    generation (target_sigma if not given). CIFAR-10: 6, 512, 3, 100.
    """

    def __init__(
        self,
        data_states: int,
        *,
        rate_sigma: float,
        target_sigma: float,
        time_base: float,
        time_exponential: float,
        prior_sigma: float | None = None,
        ratio_floor: float = 1e-9,
        min_time: float = 0.01,
    ):
        time = ExponentialTime(time_base, time_exponential)
        super().__init__(
            gaussian_target_rate(data_states, rate_sigma=rate_sigma, target_sigma=target_sigma),
            time,
            prior=log_gaussian(data_states, prior_sigma or target_sigma).exp(),
            ratio_floor=ratio_floor,
            min_time=min_time,
        )
