"""n-gram distances, lagged pairs, self-BLEU and generative perplexity."""

import math

import pytest
import torch

from di4c.contracts import Batch, DataSource, Draws, Generation, Prediction, Split
from di4c.errors import DataError, SpecError
from di4c_plugins.metrics.generative_perplexity import GenerativePerplexity, sequence_entropy
from di4c_plugins.metrics.ngrams import LaggedPairs, NGrams, ngram_cells, shares
from di4c_plugins.metrics.self_bleu import SelfBleu, bleu, self_bleu
from di4c_plugins.parameterisations.subs import Subs
from di4c_plugins.processes.mdlm import Mdlm
from di4c_plugins.samplers.mdlm_ancestral import MdlmAncestral

STATES, LENGTH = 7, 20


def gpt2() -> tuple[type, type]:
    """The classes of its configuration and model."""
    transformers = pytest.importorskip("transformers")
    return transformers.GPT2Config, transformers.GPT2LMHeadModel


class Chain(DataSource):
    """Sequences of a Markov chain: each token is likely to be followed by the next one."""

    num_positions, num_states = LENGTH, STATES

    def split(self, name: str) -> "Split":
        return Rows(chain(400, seed=0 if name == "train" else 1))


class Rows(Split):
    def __init__(self, x: torch.Tensor) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, indices, draws=None) -> Batch:
        return Batch(self.x[indices])


def chain(n: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(STATES, (n, LENGTH), generator=generator)
    follow = torch.rand(n, LENGTH, generator=generator) < 0.8
    for d in range(1, LENGTH):
        x[:, d] = torch.where(follow[:, d], (x[:, d - 1] + 1) % STATES, x[:, d])
    return x


def independent(n: int) -> torch.Tensor:
    """The chain's marginals without its correlation."""
    return torch.randint(STATES, (n, LENGTH), generator=torch.Generator().manual_seed(2))


def generation(x: torch.Tensor, **given) -> Generation:
    return Generation(
        **{
            "x_0": x,
            "cond": None,
            "steps": 4,
            "sampler": None,
            "denoiser": None,
            "components": None,
            "draws": Draws(0, count=max(len(x), 1)),
            **given,
        }
    )


def test_shares_count_cells_and_the_rest():
    got = shares(torch.tensor([5, 1, 1, 9, 2]), torch.tensor([1, 5]))
    torch.testing.assert_close(got, torch.tensor([0.4, 0.2, 0.4], dtype=torch.float64))


def test_ngram_cells_tell_ngrams_apart():
    x = torch.cartesian_prod(*[torch.arange(STATES)] * 4)
    for n in (1, 2, 3, 4):
        first = ngram_cells(x, n).view(len(x), -1)[:, 0]
        assert len(first.unique()) == STATES**n


def test_pairs_at_a_distance_need_one():
    data = Chain()
    data.num_positions = 1
    for given in (lambda: LaggedPairs(data=Chain(), longest=0), lambda: LaggedPairs(data=data)):
        with pytest.raises(SpecError, match="lagged-pairs: longest"):
            given()
    with pytest.raises(SpecError, match="cells is 0"):
        NGrams(data=Chain(), cells=0)


@pytest.mark.parametrize("kind", [NGrams, LaggedPairs])
def test_correlation_is_seen_beyond_the_reference_and_marginals_are_not(kind):
    metric = kind(data=Chain())
    real, product = metric(generation(chain(400, seed=5))), metric(generation(independent(400)))
    known = metric.reference_values(400, Draws(0, count=400))
    main = "ngram_tv" if kind is NGrams else "lagged_pair_tv"
    assert real[main] < 1.3 * known[main] < 0.7 * product[main]
    if kind is NGrams:
        assert product["ngram1_tv"] < 0.05 and product["ngram2_tv"] > 0.4
        assert set(known) == {"ngram_tv", "ngram1_tv", "ngram2_tv", "ngram3_tv", "ngram4_tv"}


def test_distances_are_zero_for_the_reference_itself():
    assert NGrams(data=Chain())(generation(chain(400, seed=1)))["ngram4_tv"] == 0


def test_order_beyond_the_length_is_refused():
    with pytest.raises(SpecError, match="order"):
        NGrams(data=Chain(), order=21)


def test_bleu_by_hand():
    candidate, reference = ["a", "b", "c", "d"], ["a", "b", "x", "d", "e"]
    # precisions 3/4, 1/3, then none: 0.1/2 and 0.1/1; the reference is one token longer
    by_hand = math.exp(1 - 5 / 4) * (3 / 4 * 1 / 3 * 0.1 / 2 * 0.1 / 1) ** 0.25
    assert bleu(candidate, [reference]) == pytest.approx(by_hand, rel=1e-12)
    assert bleu(candidate, [candidate]) == 1.0
    assert bleu(candidate, [["z"]]) == 0.0
    assert self_bleu([candidate] * 3) == [1.0] * 3


def test_self_bleu_of_samples_in_groups():
    metric = SelfBleu(data=Chain(), group=2)
    same = chain(1, seed=3).repeat(4, 1)
    assert metric(generation(same))["self_bleu"] == pytest.approx(100)
    assert metric(generation(chain(40, seed=3)))["self_bleu"] < 60
    with pytest.raises(SpecError, match="do not fill one group"):
        metric(generation(same[:1]))


def test_tokens_that_read_alike_count_as_the_same():
    data = Chain()
    data.token_text = lambda token: "x"
    assert SelfBleu(data=data, group=2).of(chain(4, seed=3)) == pytest.approx(100)


def test_continuations_keep_held_out_prefixes_and_differ_in_lambda_between_groups():
    process = Mdlm(STATES)
    sizes = []

    def components(x_t, t, cond, draws, num):
        sizes.append((len(x_t), draws.count, num))
        return Prediction.from_logits(torch.zeros(*x_t.shape, STATES + 1), x_t, Subs(process))

    metric = SelfBleu(data=Chain(), group=5, prefix=8, prefixes=6, length=12, batch_size=12)
    given = generation(torch.empty(0, LENGTH), sampler=MdlmAncestral(process), components=components)
    x = metric.continuations(given)
    assert x.shape == (30, 12) and (x < STATES).all()
    known = x[:, :8].unflatten(0, (6, 5))
    assert (known == known[:, :1]).all() and torch.equal(known[0, 0], chain(400, seed=1)[0, :8])
    assert set(sizes) == {(10, 10, 1)}
    value = metric(given)
    assert list(value) == ["self_bleu_prefix8"] and 0 < value["self_bleu_prefix8"] < 100
    assert not metric.needs_samples


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judge")
    torch.manual_seed(0)
    GPT2Config, GPT2LMHeadModel = gpt2()
    config = GPT2Config(
        vocab_size=STATES, n_positions=LENGTH + 1, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    return str(folder)


def test_perplexity_is_the_judges_and_independent_of_batches(judge):
    x = chain(5, seed=4)
    model = gpt2()[1].from_pretrained(judge).eval()
    with torch.no_grad():
        log_p = model(x).logits[:, :-1].log_softmax(-1).gather(-1, x[:, 1:, None])
    found = GenerativePerplexity(data=Chain(), judge=judge, batch_size=2)(generation(x))
    assert found["judge_nll_nats_per_token"] == pytest.approx(-log_p.mean().item(), rel=1e-5)
    assert found["generative_perplexity"] == pytest.approx(math.exp(-log_p.mean().item()), rel=1e-5)
    assert found["judge_tokens"] == LENGTH - 1 and found["judge_wrap_bos"] == 0
    assert found["sequence_entropy_nats"] == pytest.approx(sum(map(sequence_entropy, x)) / 5)


def test_wrapping_and_length_are_recorded(judge):
    found = GenerativePerplexity(data=Chain(), judge=judge, wrap="bos", length=6)(generation(chain(3, seed=4)))
    assert (found["judge_wrap_bos"], found["judge_tokens"]) == (1, 6)


def test_padding_does_not_change_the_score(judge):
    metric = GenerativePerplexity(data=Chain(), judge=judge)
    sequences = [[1, 2, 3], [2, 3, 4, 5, 6, 0]]
    alone = [metric._score([s], "cpu") for s in sequences]
    together = metric._score(sequences, "cpu")
    assert together[1] == 7
    assert together[0] == pytest.approx(sum(nll for nll, _ in alone), rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_samples_that_decode_to_nothing_are_not_scored(judge, monkeypatch, batch_size):
    metric, x = GenerativePerplexity(data=Chain(), judge=judge, batch_size=batch_size), chain(4, seed=4)
    given = {0: [], 1: [3], 2: [1, 2, 3], 3: []}
    monkeypatch.setattr(metric, "tokens", lambda row: given[next(i for i in given if torch.equal(x[i], row))])
    found = metric.of(x, "cpu")
    assert found["judge_tokens"] == 2 / 4
    assert found["judge_nll_nats_per_token"] == pytest.approx(metric._score([[1, 2, 3]], "cpu")[0] / 2)


def test_sequence_entropy():
    assert sequence_entropy(torch.tensor([1, 1, 1])) == 0
    assert sequence_entropy(torch.tensor([0, 1, 2, 3])) == pytest.approx(math.log(4))


def test_judges_that_cannot_be_are_named(judge, tmp_path):
    with pytest.raises(SpecError, match="name a judge"):
        GenerativePerplexity(data=Chain())
    with pytest.raises(SpecError, match="cannot decode"):
        GenerativePerplexity(data=Chain(), judge=judge, retokenize=True)
    with pytest.raises(DataError, match="cannot load judge"):
        GenerativePerplexity(data=Chain(), judge=str(tmp_path)).of(chain(1, seed=0), "cpu")
    with pytest.raises(DataError, match="retokenize: true"):
        GenerativePerplexity(data=Chain(), judge=judge).of(torch.full((1, LENGTH), STATES), "cpu")
