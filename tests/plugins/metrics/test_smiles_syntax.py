"""Well-formed SMILES."""

import pytest

from di4c_plugins.metrics.smiles_syntax import SmilesSyntax, well_formed


@pytest.mark.parametrize(
    "smiles",
    [
        "C",
        "CC(C)(C)C(=O)C(Oc1ccc(Cl)cc1)n1ccnc1",
        "CCCS(=O)c1ccc2[nH]c(=NC(=O)OC)[nH]c2c1",
        "C%10CC%10",
        "[Na+].[13C@@H](C)[O-]",
    ],
)
def test_molecules_are_well_formed(smiles):
    assert well_formed(smiles)


@pytest.mark.parametrize(
    "smiles", ["", "C(", "C)C(", "c1ccccc", "C()C", "(C)C", "CC=", "C(=)C", "1CC1", "C%10C", "=C", "C[UNK]C", "[MASK]"]
)
def test_unpaired_parts_are_not(smiles):
    assert not well_formed(smiles)


class Letters:
    """Decodes tokens by position in a string."""

    def decode(self, x):
        return ["".join("C1(). "[token] for token in row) for row in x.tolist()]


def test_only_molecules_between_separators_count():
    import torch

    # ")C.C1C1.C(" has one whole molecule, ".C(C.C." another two, of which one is broken
    rows = [[3, 0, 4, 0, 1, 0, 1, 4, 0, 2], [4, 0, 2, 0, 4, 0, 4, 5, 5, 5]]
    share = SmilesSyntax(data=Letters()).of(torch.tensor(rows))
    assert share == {"well_formed_share": pytest.approx(2 / 3)}
