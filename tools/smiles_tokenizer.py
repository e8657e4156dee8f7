"""Writes a tokenizer.json for SMILES from a vocab.txt of whole tokens: python tools/smiles_tokenizer.py FOLDER

Models of reactions (rxnfp's, for one) publish the vocabulary alone. FOLDER holds vocab.txt and gets tokenizer.json.
"""

import argparse
import sys
from pathlib import Path

from di4c.command_line import command, path_argument

PATTERN = r"\[[^\]]+\]|Br|Cl|%\d\d|>>|."
"""A bracket atom, a halogen of two letters, a ring closure of two digits, a reaction's arrow, or one character."""


def write_tokenizer(folder: Path) -> Path:
    """The tokenizer.json of a folder with vocab.txt, one token a line, [UNK] among them."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    from di4c_plugins.datasets.text_file import vocabulary_lines

    lines = vocabulary_lines(folder / "vocab.txt")
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(lines)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(PATTERN), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=path_argument)
    print(write_tokenizer(parser.parse_args().folder))


if __name__ == "__main__":
    sys.exit(main())
