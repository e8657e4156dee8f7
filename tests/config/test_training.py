"""The train section as the engine gets it."""

import dataclasses

from tests.config.specs import PRETRAIN, changed, written

from di4c.config.spec import read_spec
from di4c.config.train_spec import TrainSpec
from di4c.engine.options import TrainOptions


def test_trouble_b21_a_spec_and_the_engine_share_their_options_and_defaults(tmp_path):
    said, taken = (
        {field.name: field.default for field in dataclasses.fields(kind)} for kind in (TrainSpec, TrainOptions)
    )
    assert said.pop("run") and said == taken
    spec = read_spec(written(tmp_path, changed(PRETRAIN, train__compile=True, train__teacher_placement="offloaded")))
    assert isinstance(spec.train, TrainOptions) and spec.train.compile and spec.train.teacher_placement == "offloaded"
