"""Distinct n-grams, known words, precision and recall: what repetition, misspelling and missing modes do to them."""

import pytest
import torch

from di4c.contracts import Batch, DataSource, Draws, Split
from di4c.errors import SpecError
from di4c_plugins.metrics.distinct import DistinctNGrams
from di4c_plugins.metrics.known_words import KnownWords
from di4c_plugins.metrics.precision_recall import PrecisionRecall
from tests.plugins.metrics.test_text_metrics import LENGTH, Chain, chain, generation, independent

ALPHABET = "abcdefghijklmnopqrstuvwxyz ."
TRAIN = ["on the cat sat by", "a dog and the cat", "in the house of a"]
TEST = ["on the dog sat by"]


def tokens(texts):
    return torch.tensor([[ALPHABET.index(letter) for letter in text] for text in texts])


class Letters:
    def decode(self, x):
        return ["".join(ALPHABET[token] for token in row) for row in x.tolist()]


class Rows(Split):
    def __init__(self, x):
        self.x = x

    def __len__(self):
        return len(self.x)

    def batch(self, indices, draws=None):
        return Batch(self.x[indices])


class Text(DataSource):
    num_positions, num_states = len(TRAIN[0]), len(ALPHABET)

    def split(self, name):
        return Rows(tokens(TRAIN if name == "train" else TEST))

    def decoder(self):
        return Letters()


def test_distinct_and_repeated_n_grams_by_hand():
    x = torch.tensor([[0, 1, 0, 1], [2, 2, 2, 2]])
    data = Chain()
    found = DistinctNGrams(data=data, orders=[1, 2])(generation(x))
    assert found == {"distinct1": 3 / 8, "repeated1": 5 / 8, "distinct2": 3 / 6, "repeated2": 3 / 6}


def test_repetition_shows_in_distinct_n_grams_whatever_it_repeats():
    metric = DistinctNGrams(data=Chain())
    real = metric.reference_values(200, Draws(0, count=200))
    one_over_again = metric.of(chain(1, seed=3).expand(200, -1))
    in_itself = metric.of(chain(200, seed=3)[:, :5].repeat(1, LENGTH // 5))
    assert one_over_again["distinct4"] < real["distinct4"] / 5 and one_over_again["repeated4"] < 0.5
    assert in_itself["repeated4"] > 2 * real["repeated4"]


@pytest.mark.parametrize("orders", [[], [0], [LENGTH + 1], [2, 2]])
def test_orders_that_cannot_be(orders):
    with pytest.raises(SpecError, match="metric distinct: orders"):
        DistinctNGrams(data=Chain(), orders=orders)


@pytest.mark.parametrize(("text", "share"), [
    ("by the cat sat on", 9 / 13),  # no known word ends in "by", none begins with "on"
    ("xx the cqt sat zz", 6 / 13),
    ("..the...cat...sat", 9 / 9),
    ("the" * 5 + "th", 0),
    ("." * 17, 0),
])  # fmt: skip
def test_the_share_of_letters_in_known_words(text, share):
    """Known: the, cat, sat, dog, and, house, of; at the edges also what begins or ends one of them."""
    assert KnownWords(data=Text())(generation(tokens([text]))) == {"known_word_share": pytest.approx(share)}


def test_words_that_an_edge_cuts_are_known_by_their_beginning_or_end():
    metric = KnownWords(data=Text())
    assert metric.share(["se of the cat hou"]) == 1.0  # hou|se is one
    assert metric.share(["ho of the cat use"]) == pytest.approx(8 / 13)
    assert metric.share(["ous"]) == 1.0 and metric.share(["oux"]) == 0.0


def test_rare_words_may_be_left_out_and_the_reference_value_is_the_held_out_texts():
    assert KnownWords(data=Text(), min_count=2).share([". the cat house ."]) == pytest.approx(3 / 11)
    metric = KnownWords(data=Text())
    assert metric.reference_values(5, Draws(0, count=5)) == {"known_word_share": pytest.approx(9 / 13)}
    assert metric.higher_is_better


def test_known_words_are_of_text():
    class Pictures(Text):
        def decoder(self):
            return None

    class Numbers(Letters):
        def decode(self, x):
            return [0 for _ in x]

    class Odd(Text):
        def decoder(self):
            return Numbers()

    for data, told in ((Pictures(), "do not say what samples read as"), (Odd(), "are no text")):
        with pytest.raises(SpecError, match=told):
            KnownWords(data=data)(generation(tokens(TEST)))
    with pytest.raises(SpecError, match="both are at least 1"):
        KnownWords(data=Text(), min_count=0)


def test_features_of_n_grams_tell_what_is_wrong_from_what_is_missing():
    metric = PrecisionRecall(data=Chain(), features="ngrams", dimensions=16, neighbours=5)
    real = metric.reference_values(300, Draws(0, count=300))
    assert min(real.values()) > 0.7
    assert metric(generation(independent(300)))["precision"] < real["precision"] - 0.3
    few = metric.of(chain(10, seed=3).repeat_interleave(30, 0))  # ten real sequences over and over
    assert few["recall"] < 0.1 and few["precision"] > 0.5
    assert metric.of(chain(300, seed=5)) == metric.of(chain(300, seed=5))
    assert torch.allclose(metric._held_out.norm(dim=1), torch.ones(len(metric._held_out)).double())


def test_features_of_n_grams_need_a_dimension():
    with pytest.raises(SpecError, match="precision-recall: dimensions is 0; 'ngrams' needs at least 1"):
        PrecisionRecall(data=Chain(), features="ngrams", dimensions=0)
