import itertools

import pytest

from di4c.evaluation.finding import finding

STEPS = (1, 2, 8)


def rows(values, name="frechet_distance"):
    """Rows of {model or (model, size): values at 1, 2 and 8 steps, each a mean or a (mean, std)}."""
    made = []
    for key, told in values.items():
        model, size = key if isinstance(key, tuple) else (key, "inf" if key == "student" else None)
        for steps, value in zip(STEPS, told, strict=False):
            mean, std = value if isinstance(value, tuple) else (value, 0.0)
            made.append(
                {"model": model, "steps": steps, "mixture_size": size, "metrics": {name: {"mean": mean, "std": std}}}
            )
    return made


def found(values, higher=False, known=None, name="frechet_distance"):
    return finding(rows(values, name), known or {}, {name: higher})


TEACHER = {"teacher": (50.0, 30.0, 20.0)}


@pytest.mark.parametrize(
    ("student", "said"),
    [
        ((10.0,), "is better than the teacher: Fréchet distance 10.00 against 50.00 (0.20 of it), better than the teacher's 8 steps"),
        ((25.0,), "(0.50 of it), better than the teacher's 2 steps (30.00)"),
        ((20.0,), "(0.40 of it), and as good as the teacher's 8 steps (20.00)"),
        ((45.0,), "(0.90 of it), but worse than the teacher's 2 steps."),
        ((60.0,), "is worse than the teacher: Fréchet distance 60.00 against 50.00 (1.20 of it)."),
        ((50.1,), "is as good as the teacher"),
        (((45.0, 6.0),), "is as good as the teacher"),
    ],
)  # fmt: skip
def test_the_sentence_says_what_the_table_does(student, said):
    sentence = found(TEACHER | {"student": student})
    assert sentence.startswith("At 1 step the student ") and said in sentence


def test_what_is_left_without_correlation_is_told():
    sentence = found(TEACHER | {"student": (25.0,), ("student", "product"): (51.0,)})
    assert sentence.endswith("; without correlation (product) it has 51.00.")


def test_a_metric_may_be_better_when_it_is_higher():
    values = {"teacher": (0.2, 0.3, 0.5), "student": (0.4,)}
    assert "is better than" in found(values, higher=True) and "better than the teacher's 2 steps" in found(values, True)
    assert "is worse than" in found(values, higher=False)


def test_the_steps_are_the_fewest_that_both_have():
    made = rows(TEACHER | {"student": (1.0, 15.0)})
    made = [row for row in made if (row["model"], row["steps"]) != ("student", 1)]
    assert finding(made, {}, {"frechet_distance": False}).startswith("At 2 steps the student is better")


def test_a_metric_without_a_good_direction_is_passed_over():
    made = rows(TEACHER | {"student": (10.0,)})
    for row in made:
        row["metrics"] = {"entropy": {"mean": 1.0, "std": 0.0}} | row["metrics"]
    assert "Fréchet" in finding(made, {}, {"entropy": None, "frechet_distance": False})
    assert finding(made, {}, {"entropy": None, "frechet_distance": None}) == ""


def test_a_teacher_alone():
    known = {"frechet_distance": {"mean": 5.5, "std": 0.1}}
    told = "The teacher's Fréchet distance is 50.00 at 1 step and 20.00 at 8 steps; real training data have 5.500."
    assert found(TEACHER, known=known) == told


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_not_judged(bad):
    assert found({"teacher": (bad, 30.0, 20.0), "student": (10.0, 10.0)}).startswith("At 2 steps")
    assert found({"teacher": (bad,), "student": (bad,)}) == ""


def test_zero_and_negative_references_have_no_ratio():
    for reference in (0.0, -1.0):
        assert "of it" not in found({"teacher": (reference,), "student": (2.0,)})


def test_one_sentence_whatever_the_numbers():
    for teacher, student in itertools.product([(1.0, 1.0, 1.0), (3.0, 2.0, 1.0), (1.0, 2.0, 3.0)], repeat=2):
        sentence = found({"teacher": teacher, "student": student})
        assert sentence.endswith(".") and sentence.count(". ") == 0
