"""What a plugin author implements, and the few values that pass between the parts; nothing else.

process → x_t → backbone → features ┐
                 λ → student head ──┴→ Prediction → (output head, chunk by chunk) → estimator → [B] nats
"""

from di4c.contracts.backbone import (
    AffineOutputHead,
    AffineRows,
    Backbone,
    Context,
    IdentityOutputHead,
    Modulation,
    Reduction,
    TwoPartBackbone,
)
from di4c.contracts.calls import Calls
from di4c.contracts.dataset import Batch, DataSource, Split
from di4c.contracts.decoder import Decoder
from di4c.contracts.estimator import LossEstimator, Statistics
from di4c.contracts.head import StudentHead
from di4c.contracts.latent import LambdaSampler
from di4c.contracts.lent import LentTeacher
from di4c.contracts.metric import Generation, Metric
from di4c.contracts.modes import evaluating
from di4c.contracts.objective import Objective, Pretraining, ProbeBatch
from di4c.contracts.parameterisation import LOG_ZERO, Parameterisation, Raw
from di4c.contracts.pipeline import Measured, Pipeline, Runs, merged
from di4c.contracts.posterior import Posterior
from di4c.contracts.prediction import CHUNK_BYTES, Denoiser, Prediction
from di4c.contracts.process import ForwardProcess
from di4c.contracts.proposal import Proposal, Proposed
from di4c.contracts.sampler import Sampler
from di4c.contracts.teacher import Teacher
from di4c.contracts.tempering import Tempering
from di4c.contracts.time_sampler import IntervalTimeSampler, TimeSampler
from di4c.contracts.tokenizer import ImageTokenizer
from di4c.contracts.weights import strict_load
from di4c.draws import Draws, categorical, cumulated, placed
from di4c.kernels.backend import kernels_apply

__all__ = [
    "CHUNK_BYTES", "LOG_ZERO", "AffineOutputHead", "AffineRows", "Backbone", "Batch", "Calls", "Context", "DataSource", "Decoder", "Denoiser",
    "Draws", "ForwardProcess", "Generation", "IdentityOutputHead", "ImageTokenizer", "IntervalTimeSampler", "LambdaSampler",
    "LentTeacher", "LossEstimator", "Measured", "Metric", "Modulation", "Objective", "Parameterisation", "Pipeline",
    "Posterior", "Prediction", "Pretraining", "ProbeBatch", "Proposal", "Proposed", "Raw", "Reduction", "Runs", "Sampler", "Split", "Statistics",
    "StudentHead", "Teacher", "Tempering", "TimeSampler",
    "TwoPartBackbone", "categorical", "cumulated", "evaluating", "kernels_apply", "merged", "placed", "strict_load",
]  # fmt: skip
