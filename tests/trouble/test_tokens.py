"""States of tokenizers: every id has one, the mask is none of them, and special tokens in a corpus are text."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from di4c.contracts import DataSource
from di4c.errors import DataError, SpecError
from di4c.testing import check_dataset
from di4c_plugins.datasets.digits import TensorSplit
from di4c_plugins.datasets.text import Text
from di4c_plugins.datasets.text_encoding import Subwords
from di4c_plugins.metrics.nll import LikelihoodBound
from di4c_plugins.processes.absorbing import Absorbing

WORDS = {"[UNK]": 0, "\n": 1, "the": 2, "sea": 3, "ship": 4, "[MASK]": 5, "[": 6, "]": 7, "MASK": 8, "[SEP]": 9}


def word_level(
    vocabulary=WORDS, *, special=("[MASK]", "[SEP]"), split=pre_tokenizers.Whitespace, unknown="[UNK]"
) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(dict(vocabulary), **({"unk_token": unknown} if unknown else {})))
    tokenizer.pre_tokenizer = split()
    tokenizer.add_special_tokens(list(special))
    return tokenizer


def byte_level(*special: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    options = {"vocab_size": 280, "show_progress": False, "initial_alphabet": pre_tokenizers.ByteLevel.alphabet()}
    options["special_tokens"] = ["<|endoftext|>", *special]
    tokenizer.train_from_iterator(["the sea and the ship " * 9], trainers.BpeTrainer(**options))
    return tokenizer


def text(tmp_path, tokenizer: Tokenizer, content: str, **options) -> Text:
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "x.txt").write_text(content)
    given = {
        "length": 4,
        "path": str(tmp_path / "x.txt"),
        "tokenizer": str(tmp_path / "tokenizer.json"),
        "separator": "\n",
    }
    return Text(**{**given, "cache": str(tmp_path / "cache"), "held_out": 0.2, **options})


@pytest.mark.parametrize("holes", [{}, {"ship": 4}, {"ship": 11}, {"sea": 40, "ship": 7}])
def test_trouble_03_states_are_the_largest_id_and_one(tmp_path, holes):
    vocabulary = {"[UNK]": 0, "\n": 1, "the": 2, "sea": 3, "ship": 5, **holes}
    data = text(tmp_path, word_level(vocabulary, special=()), "the sea the ship " * 20)
    assert data.num_states == max(vocabulary.values()) + 1
    process = Absorbing(data.num_states)
    assert process.mask_index not in vocabulary.values()
    check_dataset(data, process)
    x = data.split("train").batch(torch.arange(1)).x_0
    assert data.decode(x)[0].split() == ["the", "sea", "the", "ship"]


def test_trouble_03_states_count_added_tokens(tmp_path):
    tokenizer = word_level()
    tokenizer.add_tokens(["sailor"])
    assert Subwords(tokenizer, separator="\n").size == 11


def test_trouble_04_a_special_token_in_a_corpus_is_text(tmp_path):
    tokenizer = word_level()
    data = text(tmp_path, tokenizer, "the sea [MASK] the ship " * 20)
    check_dataset(data, Absorbing(data.num_states, mask_index=WORDS["[MASK]"]))
    tokens = data.split("train").batch(torch.arange(4)).x_0.flatten().tolist()
    assert [WORDS["the"], WORDS["sea"], 6, 8, 7] == tokens[:5]


@pytest.mark.parametrize("mask", ["[MASK]", "<mask>", "<|mask|>"])
def test_trouble_04_bytes_of_a_special_token_are_text(tmp_path, mask):
    tokenizer = byte_level(mask)
    content = f"the sea {mask} and\nthe ship{mask}. "
    data = text(tmp_path, tokenizer, content * 20, separator="<|endoftext|>", test_path=str(tmp_path / "x.txt"))
    check_dataset(data, Absorbing(data.num_states, mask_index=tokenizer.token_to_id(mask)))
    split = data.split("train")
    assert content in "".join(data.decode(split.batch(torch.arange(len(split))).x_0))


def test_trouble_04_a_separator_in_a_corpus_stays_one(tmp_path):
    tokenizer = byte_level("<mask>")
    encoding = Subwords(tokenizer)
    plain, special = encoding.encode(["the sea<|endoftext|>the ship", "the <mask> sea<|endoftext|>the ship"])
    assert plain.count(0) == special.count(0) == 1
    assert encoding.decode(special) == "the <mask> sea<|endoftext|>the ship"


def test_texts_without_special_tokens_are_encoded_as_before():
    tokenizer = byte_level("<mask>")
    texts = ["the sea, and the ship", "", " é 日本\n", "a<|endoftext|>b"]
    wanted = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    assert Subwords(tokenizer).encode(texts) == wanted
    assert not tokenizer.encode_special_tokens


@pytest.mark.parametrize("special", [("[MASK]", "[SEP]"), ()])
@pytest.mark.parametrize("split", [pre_tokenizers.WhitespaceSplit, lambda: pre_tokenizers.Split(" ", "removed")])
def test_trouble_04_a_word_that_is_the_mask_is_refused_with_its_place(tmp_path, special, split):
    content = "the sea \n the ship \n" * 10 + "the [MASK] sea \n" + "the sea " * 20
    data = text(tmp_path, word_level(special=special, split=split), content, documents="file")
    with pytest.raises(DataError, match=r"x\.txt:21: '\[MASK\]' is a special token of data\.tokenizer") as error:
        data.split("train")
    assert "\n" not in str(error.value)


def test_trouble_04_a_row_that_holds_the_mask_names_its_number(tmp_path):
    rows = ['{"text": "the sea the ship"}'] * 20
    rows[12] = '{"text": "the [MASK]"}'
    (tmp_path / "x.jsonl").write_text("\n".join(rows))
    tokenizer = word_level(split=pre_tokenizers.WhitespaceSplit)
    with pytest.raises(DataError, match=r"x\.jsonl:13: '\[MASK\]'"):
        text(tmp_path, tokenizer, "", path=str(tmp_path / "x.jsonl")).split("train")


class Tokens(DataSource):
    """Data that hold what they are given."""

    num_positions, num_states = 4, 5

    def __init__(self, x_0):
        self.x_0 = torch.tensor(x_0)

    def split(self, name):
        return TensorSplit(self.x_0)


GOOD = [[0, 1, 2, 3], [1, 2, 3, 0], [2, 3, 0, 1]]


@pytest.mark.parametrize(("token", "told"), [(4, "the process's mask"), (5, "states 0 to 4"), (-1, "states 0 to 4")])
def test_trouble_04_a_mask_in_the_data_reaches_no_loss(token, told):
    data, process = Tokens([*GOOD[:2], [2, 3, token, 1]]), Absorbing(4, mask_index=4)
    split = data.checked_split("train", process)
    assert torch.equal(split.batch(torch.tensor([1, 0])).x_0, data.x_0[[1, 0]]) and len(split) == 3
    with pytest.raises(DataError, match=f"train example 2 has token {token} at position 2, .*{told}"):
        split.batch(torch.tensor([0, 2]))
    metric = LikelihoodBound(data=data, process=process)
    with pytest.raises(DataError, match="test example 2"):
        metric._test.batch(torch.arange(3))
    with pytest.raises(AssertionError, match="mask|num_states"):
        check_dataset(data, process)


def test_trouble_04_training_reads_checked_data(monkeypatch, tmp_path):
    """What the engine is given refuses a mask, whatever the data set is."""
    import di4c.pipeline.training as training

    data, given = Tokens([[4, 4, 4, 4]]), {}
    parts = type("Parts", (), {"data": data, "process": Absorbing(4, mask_index=4), "teacher": None, "objective": None})
    monkeypatch.setattr(training, "build", lambda *a, **k: parts)
    monkeypatch.setattr(training, "portable", lambda spec, teacher: spec)
    monkeypatch.setattr(training, "train", lambda objective, split, **k: given.update(split=split))
    run = type("Train", (), {"run": tmp_path})
    spec = type("Spec", (), {"plugins": [], "train": run, "seed": 0, "deepspeed": {}, "to_dict": lambda self=None: {}})
    training.train_spec(spec, resume=False)
    with pytest.raises(DataError, match="the process's mask"):
        given["split"].batch(torch.tensor([0]))


def test_data_sets_that_break_the_contract_are_caught():
    check_dataset(Tokens(GOOD), Absorbing(4))
    with pytest.raises(AssertionError, match="num_states"):
        check_dataset(Tokens([[0, 1, 2, 5]]))
    with pytest.raises(AssertionError, match="the process's mask"):
        check_dataset(Tokens([[0, 1, 2, 4]] * 3), Absorbing(4, mask_index=4))
    with pytest.raises(AssertionError, match="no example"):
        check_dataset(Tokens(torch.zeros(0, 4, dtype=torch.long).tolist()))


@pytest.mark.parametrize(
    ("tokenizer", "prompt", "words"),
    [
        (word_level(), "the zebra sea yak", ["zebra", "yak"]),
        (word_level(), "the sea 日本", ["日本"]),
        (word_level(unknown=None), "the zebra", ["WordLevel error"]),
        (word_level(split=pre_tokenizers.WhitespaceSplit), "the [MASK]", ["[MASK]"]),
    ],
)  # fmt: skip
def test_trouble_14_an_unknown_word_of_a_prompt_is_named(tmp_path, tokenizer, prompt, words):
    data = text(tmp_path, tokenizer, "the sea the ship " * 20, length=8)
    for place in ("prefix", "suffix", "infill"):
        with pytest.raises(DataError) as error:
            data.prompt(**{place: prompt})
        assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)
    assert data.prompt(prefix="the sea").tolist() == [2, 3, *[-1] * 6]


def test_trouble_14_models_of_every_kind_name_what_they_lose():
    pieces = Tokenizer(models.WordPiece({"[UNK]": 0, "hel": 1, "##lo": 2, "e": 3, "x": 4}, unk_token="[UNK]"))
    pieces.normalizer, pieces.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    unigram = Tokenizer(models.Unigram([("<unk>", 0.0), ("▁a", -1.0), ("▁b", -1.5)], unk_id=0))
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    lossy = Tokenizer(models.BPE())
    lossy.pre_tokenizer = pre_tokenizers.Whitespace()
    lossy.train_from_iterator(
        ["hello the world"], trainers.BpeTrainer(vocab_size=90, special_tokens=["x"], show_progress=False)
    )
    cases = [(pieces, "x", "Hello é e\u0301", "hello quux", "quux"), (unigram, "▁b", "a b", "a zebra b", "zebra")]
    cases += [(lossy, "x", "hello world", "hello zürich", "zürich")]
    for tokenizer, separator, good, bad, word in cases:
        encoding = Subwords(tokenizer, separator=separator)
        assert encoding.known(good) == encoding.encode([good])[0]
        with pytest.raises(DataError, match=f"no token for '{word}'"):
            encoding.known(bad)
    everything = Subwords(byte_level())
    assert everything.decode(everything.known("wörld 日本 \n\t é")) == "wörld 日本 \n\t é"


def test_trouble_14_special_tokens_in_a_prompt_are_words_like_others(tmp_path):
    """Read as text they fall apart, here into parts of which the tokenizer has none or all."""
    data = text(tmp_path, word_level({**WORDS, "CLS": 10}, special=("[MASK]", "[CLS]")), "the sea " * 30, length=8)
    assert data.decoder().prompt(prefix="the [MASK]").tolist() == [2, 6, 8, 7, -1, -1, -1, -1]
    (tmp_path / "poor").mkdir()
    poor = {word: number for word, number in WORDS.items() if word not in ("[", "]", "MASK")}
    data = text(tmp_path / "poor", word_level(poor), "the sea " * 30)
    for prompt in ("[MASK]", "the [SEP]", "[UNK]"):
        with pytest.raises(DataError, match=r"no token for '\[(MASK|SEP|UNK)\]'"):
            data.decoder().prompt(prefix=prompt)


def test_trouble_14_words_that_were_added_are_known():
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0, "b": 1, "ab": 2, "\n": 3}, merges=[("a", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_tokens(["xyz"])
    encoding = Subwords(tokenizer, separator="\n")
    assert encoding.known("ab xyz b") == [2, 4, 1]
    with pytest.raises(DataError, match="no token for 'xq'"):
        encoding.known("ab xq xyz")


@pytest.mark.parametrize(
    "asked", [{"prefix": None}, {"infill": 3}, {"suffix": ["the"]}, {"infill": "a_b", "blank": ""}], ids=repr
)
def test_trouble_14_a_prompt_is_text(tmp_path, asked):
    with pytest.raises(SpecError, match="prompt: expected a text as"):
        text(tmp_path, word_level(), "the sea " * 30).decoder().prompt(**asked)
