"""The train section as the engine gets it."""

import dataclasses

from tests.config.specs import PRETRAIN, changed, written

from di4c.config.spec import read_spec
from di4c.config.train_spec import TrainSpec
from di4c.config.training import train_options
from di4c.engine.options import TrainOptions


def test_a_spec_can_say_every_option_of_the_engine(tmp_path):
    said, taken = ({field.name for field in dataclasses.fields(kind)} for kind in (TrainSpec, TrainOptions))
    assert said - {"run"} == taken
    spec = read_spec(written(tmp_path, changed(PRETRAIN, train__compile=True, train__teacher_placement="offloaded")))
    options = train_options(spec)
    assert options.compile is True and options.teacher_placement == "offloaded" and options.steps == spec.train.steps
