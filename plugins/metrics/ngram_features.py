"""Features of sequences of tokens that need no network and no download: which n-grams they hold."""

from collections.abc import Callable

import torch
from torch import Tensor

BUCKETS = 2**16
"""N-grams are hashed into so many counts; two that meet are taken for one."""

ORDER = 3


def ngram_features(x: Tensor, dimensions: int) -> Callable[[Tensor], Tensor]:
    """Tokens [n, D] → [n, ≤ dimensions] float64 of length 1: counts of n-grams of 1 to 3 tokens, TF-IDF, singular vectors.

    How rare an n-gram is, and the first `dimensions` right singular vectors of the table, are those of the sequences x.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer

    counts = HashingVectorizer(analyzer=_ngrams, n_features=BUCKETS, norm=None, alternate_sign=False)
    rank = min(dimensions, len(x) - 1)
    made = make_pipeline(counts, TfidfTransformer(sublinear_tf=True), TruncatedSVD(rank, random_state=0), Normalizer())
    made.fit(x.tolist())
    return lambda y: torch.from_numpy(made.transform(y.tolist())).double()


def _ngrams(tokens: list[int]) -> list[str]:
    words = list(map(str, tokens))
    return [" ".join(words[i : i + n]) for n in range(1, ORDER + 1) for i in range(len(words) - n + 1)]
