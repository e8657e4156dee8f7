"""The contracts as checks that plugin authors run: each raises AssertionError that says what does not hold.

    from di4c.testing import check_teacher
    check_teacher(MyTeacher(...))

All run in seconds on a CPU. Random checks use tolerances of five standard errors.
"""

from di4c.dry_run import check_pipeline
from di4c.testing.data import check_dataset, check_metric, check_tokenizer
from di4c.testing.networks import check_backbone, check_teacher
from di4c.testing.posteriors import check_posterior
from di4c.testing.processes import check_process, check_sampler
from di4c.testing.students import check_estimator, check_head, check_latent
from di4c.testing.training import check_objective, check_time_sampler

__all__ = [
    "check_backbone", "check_dataset", "check_estimator", "check_head", "check_latent", "check_metric",
    "check_objective", "check_pipeline", "check_posterior", "check_process", "check_sampler", "check_teacher",
    "check_time_sampler",
    "check_tokenizer",
]  # fmt: skip
