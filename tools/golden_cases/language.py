"""Reference numbers of the language system: MDLM's network and samplers, self-BLEU."""

from golden_cases.checks import Kind

KINDS: list[Kind] = []
