"""Draws samples of a trained model: a picture, or text."""

import argparse

from di4c.command_line import number, path_argument, positive, reporting


def main(arguments: list[str] | None = None, prog: str | None = None) -> None:
    options = _parser(prog).parse_args(arguments)
    with reporting():
        sample(options)


def sample(options: argparse.Namespace) -> None:
    """Writes the samples as the data set shows them: a picture, or text."""
    import di4c

    model = di4c.load(options.run, device=options.device, compile=options.compile, overrides=options.set)
    x_0 = model.sample(
        options.num, options.steps, options.label, mixture_size=options.mixture_size, seed=options.seed,
        batch_size=options.batch_size, known=_prompt(model, options), temperature=options.temperature, top_p=options.top_p,
    )  # fmt: skip
    print(model.save_grid(x_0, options.out, options.label))


def _prompt(model, options: argparse.Namespace):
    """The known tokens of --prefix, --suffix and --infill, or None without any of them."""
    given = {name: getattr(options, name) for name in ("prefix", "suffix", "infill") if getattr(options, name)}
    return model.prompt(**given) if given else None


def _parser(prog: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, type=path_argument, help="a run folder or an export folder")
    parser.add_argument("--steps", required=True, type=number(1), help="sampling steps")
    parser.add_argument("--num", type=number(1), default=64, help="number of samples (64)")
    parser.add_argument(
        "--out", required=True, type=path_argument, help="the file to write; .png or .txt is added where it is missing"
    )
    parser.add_argument(
        "--label", type=number(), help="the class of all samples (default: as frequent as in the training data)"
    )
    parser.add_argument("--prefix", default="", help="text that every sample begins with")
    parser.add_argument("--suffix", default="", help="text that every sample ends with")
    parser.add_argument("--infill", default="", help="text after the prefix, _ for every free token")
    parser.add_argument(
        "--mixture-size", help="λ restricted to that many atoms, or 'product' (default: the whole prior)"
    )
    parser.add_argument(
        "--temperature", type=positive(), help="of every prediction (the spec's eval.temperature, else 1)"
    )
    parser.add_argument(
        "--top-p", type=positive(1), help="draw among the likeliest states (the spec's eval.top_p, else 1)"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="changes eval or data of the run's spec, e.g. eval.sampler.guidance=3; repeatable")  # fmt: skip
    parser.add_argument("--seed", type=number(), default=0, help="seed of all draws (0)")
    parser.add_argument("--batch-size", type=number(1), default=256, help="samples at a time (256)")
    parser.add_argument("--compile", action="store_true", help="torch.compile the network; pays off for many samples")
    parser.add_argument("--device", help="cpu, cuda, … (default: a GPU if there is one)")
    return parser
