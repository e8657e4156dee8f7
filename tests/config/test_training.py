"""The train section as the engine gets it."""

from di4c.config.spec import read_spec
from di4c.engine.options import TrainOptions
from tests.config.specs import PRETRAIN, changed, written


def test_trouble_b21_a_spec_holds_the_engines_options(tmp_path):
    spec = read_spec(written(tmp_path, changed(PRETRAIN, train__compile=True, train__teacher_placement="offloaded")))
    assert isinstance(spec.train, TrainOptions) and spec.train.compile and spec.train.teacher_placement == "offloaded"
