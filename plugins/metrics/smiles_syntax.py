"""Whether generated SMILES strings are well-formed: brackets and ring closures must agree over long distances."""

import re
from collections import Counter

from torch import Tensor

from di4c.contracts import DataSource
from di4c.errors import SpecError
from di4c_plugins.metrics.reference import OfTokens

TOKEN = re.compile(r"\[[^\]]+\]|Br|Cl|%\d\d|>>|.")
BRACKET = re.compile(r"\[\d*([A-Z][a-z]?|[bcnops]|se|as)@{0,2}(H\d?)?([+-]\d?|\++|-+)?(:\d+)?\]")
BONDS = set("-=#$:/\\~")


class SmilesSyntax(OfTokens):
    """`well_formed_share`: of the molecules between two separators, those whose parentheses and ring closures pair up.

    Only syntax is judged, not valence. Molecules that begin or end outside of the sequence do not count; where a sample holds
    none between separators, it adds none. The data set decodes tokens to text.
    """

    higher_is_better = True

    def __init__(self, *, data: DataSource, separator: str = ".", max_references: int = 10_000):
        if not hasattr(data, "decode"):
            raise SpecError("metric smiles-syntax needs text data (data: {name: text, …})")
        self.data, self.separator, self.max_references = data, separator, max_references

    def of(self, x: Tensor) -> dict[str, float]:
        molecules = [piece for text in self.data.decode(x) for piece in text.split(self.separator)[1:-1]]
        good = sum(well_formed(molecule) for molecule in molecules)
        return {"well_formed_share": good / max(len(molecules), 1)}


def well_formed(smiles: str) -> bool:
    """Whether branches close after they open, every ring closure has its partner, no bond ends in nothing, and brackets hold an atom."""
    tokens = TOKEN.findall(smiles)
    depth, rings = 0, Counter(token.lstrip("%") for token in tokens if token.isdigit() or token[0] == "%")
    for before, token in zip(["", *tokens], tokens, strict=False):
        depth += (token == "(") - (token == ")")
        if token[0] == "[" and not BRACKET.fullmatch(token):  # [UNK], a vocabulary's word for what it does not know
            return False
        if depth < 0 or (token in "()" and before in {"", "("}) or (token == ")" and before in BONDS):
            return False
    atoms = tokens and (tokens[0].isalpha() or tokens[0][0] == "[") and tokens[-1] not in BONDS
    return bool(atoms) and depth == 0 and all(count % 2 == 0 for count in rings.values())
