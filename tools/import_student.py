"""Turns a published Di4C student into a run folder: python tools/import_student.py --spec SPEC --out RUN

The spec's teacher is the published student itself (di4c-text, di4c-maskgit, …); its network and λ layers are what is
kept. The folder can be sampled from and evaluated as if it had been trained here. Nothing is trained.
"""

import argparse
import dataclasses
from pathlib import Path

from di4c.command_line import path_argument, reporting
from di4c.files import replacing_folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spec", required=True, type=path_argument, help="a spec whose teacher is a published student")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="changes a value of the spec; repeatable"
    )
    parser.add_argument("--out", required=True, type=path_argument, help="the run folder to make")
    arguments = parser.parse_args()
    with reporting():
        print(import_student(arguments.spec, arguments.set, arguments.out))


def import_student(spec_file: Path, overrides: list[str], out: Path) -> Path:
    """Writes OUT/spec.yaml and OUT/export; OUT. Raises SpecError where the student would not be the published one."""
    from safetensors.torch import save_file

    from di4c.config.build import build_data, build_latent, build_process, build_student, build_teacher, portable
    from di4c.config.registry import Registry
    from di4c.config.spec import read_spec, save_spec
    from di4c.engine.export import write_export
    from di4c.errors import SpecError

    spec = dataclasses.replace(read_spec(spec_file, [*overrides, f"train.run={out}"]), pipeline=None)
    if spec.task != "distill":
        raise SpecError(
            f"{spec_file}: task: expected distill, found {spec.task}; a published student is the teacher of one"
        )
    if out.exists():
        raise SpecError(f"{out}: exists already; give a new folder")
    registry = Registry.default(spec.plugins)
    data = build_data(spec, registry)
    teacher = build_teacher(spec, registry, data, build_process(spec, registry, data))
    student = build_student(spec, registry, teacher, build_latent(spec, registry))
    _check_same(spec_file, teacher, student)
    weights = {key: value.detach().clone().contiguous() for key, value in student.state_dict().items()}
    facts = {"step": 0, "weights": "published", "commit": None}
    exported = portable(spec, teacher).to_dict()
    with replacing_folder(out) as run:
        write = lambda folder: save_file(weights, folder / "model.safetensors")
        write_export(run / "export", exported, facts, write, data=data, told=spec.to_dict())
        save_spec(spec, run / "spec.yaml")
    return out


def _check_same(spec_file: Path, teacher, student) -> None:
    import torch

    from di4c.errors import SpecError

    head = getattr(teacher, "head", None)
    if head is None:
        told = "has no λ layers; name the published student as teacher (di4c-text, di4c-maskgit, …)"
        raise SpecError(f"{spec_file}: teacher: {told}")
    theirs, ours = head.state_dict(), student.head.state_dict()
    if theirs.keys() != ours.keys() or not all(torch.equal(theirs[key], ours[key]) for key in theirs):
        told = f"{type(student.head).__name__} is not the student's own {type(head).__name__}"
        raise SpecError(f"{spec_file}: student.head: {told}")


if __name__ == "__main__":
    main()
