"""Text data: sources, encodings, packing, the cache on disk."""

import gzip
import json

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from di4c.errors import DataError, SpecError
from di4c_plugins.datasets.packing import Packing
from di4c_plugins.datasets.text import Text
from di4c_plugins.datasets.text_documents import Documents
from di4c_plugins.datasets.text_encoding import load_tokenizer
from di4c_plugins.datasets.token_cache import TokenCache

SENTENCES = [
    f"the {n} old sailors of the sea went home, all {n} of them." for n in ("two", "three", "four", "nine") * 30
]


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "a.txt").write_text("\n\n".join(SENTENCES[:60]))
    (folder / "b.txt").write_text("\n\n".join(SENTENCES[60:]))
    return folder


def text(corpus, tmp_path, **options) -> Text:
    return Text(**{"length": 16, "path": str(corpus), "held_out": 0.1, "cache": str(tmp_path / "cache"), **options})


def everything(data: Text, name: str) -> torch.Tensor:
    split = data.split(name)
    return split.batch(torch.arange(len(split))).x_0


def test_characters_are_packed_with_a_separator_after_each_document(corpus, tmp_path):
    data = text(corpus, tmp_path, documents="blank-line", test_path=str(corpus / "b.txt"))
    packed = "".join(data.decode(everything(data, "train")))
    stream = "".join(sentence + "\n" for sentence in SENTENCES)
    assert packed == stream[: len(packed)] and len(stream) - len(packed) < 16
    assert data.num_states == len(set(stream))
    assert "".join(data.decode(everything(data, "test"))).startswith(SENTENCES[60])


@settings(deadline=None)
@given(tokens=st.integers(60, 5000), block=st.integers(1, 20), held_out=st.floats(0.02, 0.4))
def test_packing_deals_every_block_to_one_part(tokens, block, held_out):
    try:
        packing = Packing(tokens, block, held_out)
    except DataError:
        assert tokens // block < round(1 / held_out)
        return
    parts = [packing.sequence(np.arange(packing.count(part)), part) for part in ("train", "test")]
    assert sorted(np.concatenate(parts).tolist()) == list(range(tokens // block))
    assert packing.count("test") >= 1
    assert packing.count("test") / packing.blocks <= 1 / round(1 / held_out) + 1e-9


def test_letters_are_lowercase_words(tmp_path):
    (tmp_path / "x.txt").write_text("Hello,  WORLD 42!\nAgain é. " * 20)
    data = text(tmp_path / "x.txt", tmp_path, normalise="letters")
    assert data.num_states == 28
    assert "hello world again " in "".join(data.decode(everything(data, "train")))


def test_an_alphabet_leaves_other_characters_out(corpus, tmp_path):
    data = text(corpus, tmp_path, alphabet="aeiou ")
    assert data.num_states == 7
    assert set("".join(data.decode(everything(data, "train")))) == set("aeiou \n")


@pytest.fixture
def tokenizer(tmp_path):
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    made.train_from_iterator(SENTENCES, trainer)
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    made.model.save(str(folder))
    made.save(str(tmp_path / "tokenizer.json"))
    return folder


def test_gpt2_files_and_tokenizer_json_agree(tokenizer, tmp_path):
    by_files, by_json = load_tokenizer(str(tokenizer)), load_tokenizer(str(tmp_path / "tokenizer.json"))
    sentence = "the nine sailors, 99 — é\n"
    ids = by_files.encode(sentence, add_special_tokens=False).ids
    assert ids == by_json.encode(sentence, add_special_tokens=False).ids
    assert by_files.decode(ids, skip_special_tokens=False) == sentence
    assert by_files.token_to_id("<|endoftext|>") == 0


def test_subwords_are_wrapped_in_separators(corpus, tmp_path, tokenizer):
    data = text(corpus, tmp_path, tokenizer=str(tokenizer), wrap=True, documents="blank-line", length=12)
    x = everything(data, "train")
    assert x.shape[1] == 12 and (x[:, 0] == 0).all() and (x[:, -1] == 0).all()
    assert data.num_states == 300
    assert SENTENCES[0][:20] in data.decode(x)[0]
    assert "".join(data.token_text(int(token)) for token in x[0]) == data.decode(x[:1])[0]


def test_sources_of_every_kind_give_the_same_documents(tmp_path, monkeypatch):
    rows = [{"body": sentence} for sentence in SENTENCES[:5]]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with gzip.open(tmp_path / "b.txt.gz", "wt") as file:
        file.write("\n".join(SENTENCES[:5]))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "c.parquet")
    asked = {}

    def load_dataset(name, configuration, split, streaming):
        asked.update(name=name, split=split, streaming=streaming)
        return iter(rows)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    wanted = [(sentence, True) for sentence in SENTENCES[:5]]
    assert list(Documents(str(tmp_path / "a.jsonl"), column="body")) == wanted
    assert list(Documents(str(tmp_path / "b.txt.gz"), division="line")) == wanted
    assert list(Documents(str(tmp_path / "c.parquet"), column="body")) == wanted
    assert list(Documents(dataset="some/text", column="body")) == wanted
    assert asked == {"name": "some/text", "split": "train", "streaming": True}


def test_a_long_file_comes_in_pieces_that_make_one_document(tmp_path, monkeypatch):
    monkeypatch.setattr("di4c_plugins.datasets.text_file.PIECE", 100)
    (tmp_path / "long.txt").write_text("\n".join(SENTENCES))
    pieces = list(Documents(str(tmp_path / "long.txt")))
    assert len(pieces) > 10 and [ends for _, ends in pieces[:-1]] == [False] * (len(pieces) - 1) and pieces[-1][1]
    assert "".join(piece for piece, _ in pieces) == "\n".join(SENTENCES)


def test_the_cache_is_written_once_and_follows_the_source(corpus, tmp_path, monkeypatch):
    first = text(corpus, tmp_path)
    digest = first.fingerprint()
    monkeypatch.setattr("di4c_plugins.datasets.token_cache._write", lambda *a: pytest.fail("written again"))
    assert text(corpus, tmp_path).fingerprint() == digest
    assert isinstance(text(corpus, tmp_path)._caches["train"].tokens, np.memmap)
    monkeypatch.undo()
    (corpus / "b.txt").write_text("other words of the sea " * 40)
    assert text(corpus, tmp_path).fingerprint() != digest


def test_a_writer_that_fails_leaves_no_cache(corpus, tmp_path, monkeypatch):
    def failing(*arguments):
        yield np.zeros(5)
        raise OSError("No space left on device")

    monkeypatch.setattr("di4c_plugins.datasets.text.encoded", failing)
    data = text(corpus, tmp_path)
    with pytest.raises(DataError, match="No space left"):
        data.split("train")
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    monkeypatch.undo()
    assert len(text(corpus, tmp_path).split("train")) > 10


def test_a_damaged_cache_is_named(corpus, tmp_path):
    text(corpus, tmp_path).split("train")
    (folder,) = [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    (folder / "tokens.bin").write_bytes(b"1")
    with pytest.raises(DataError, match="damaged token cache"):
        TokenCache.open(folder)


def test_most_tokens_reads_no_further(corpus, tmp_path):
    assert len(text(corpus, tmp_path, most_tokens=500, test_path=str(corpus)).split("train")) == 500 // 16


def test_prompts_have_free_tokens(corpus, tmp_path):
    data = text(corpus, tmp_path, alphabet="abcdefghijklmnopqrstuvwxyz ", length=12)
    known = data.prompt(prefix="the ", suffix="sea", infill="o_d")
    assert (known == -1).tolist() == [False] * 5 + [True] + [False] + [True] * 2 + [False] * 3
    assert data.decode(known[:4][None]) == ["the "]
    with pytest.raises(DataError, match="the prompt has 13 tokens"):
        data.prompt(prefix="a" * 13)
    with pytest.raises(DataError, match="no token for '4', '2'"):
        data.prompt(suffix="at 42")


def test_prompts_of_wrapped_sequences_stand_between_the_separators(corpus, tmp_path, tokenizer):
    data = text(corpus, tmp_path, tokenizer=str(tokenizer), wrap=True, length=12)
    known = data.prompt(prefix="the", suffix="sea")
    end = data.encoding.separator
    assert known[0] == known[-1] == end and (known[1:-1] != end).all() and (known == -1).any()
    assert data.decode(known[known >= 0][1:-1][None]) == ["thesea"]
    with pytest.raises(DataError, match="separators at both ends included"):
        data.prompt(prefix="the sea " * 12)


def test_samples_are_shown_as_text(corpus, tmp_path):
    data = text(corpus, tmp_path)
    path = data.save_grid(everything(data, "train")[:2], tmp_path / "samples.png")
    assert path.suffix == ".txt" and path.read_text().startswith("[1]\nthe two old sail\n\n[2]\n")


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"path": None}, SpecError, "either `path`"),
        ({"path": "/nowhere"}, DataError, "no such file or folder"),
        ({"tokenizer": "/nowhere/at all"}, DataError, "data.tokenizer"),
        ({"held_out": 0.0}, SpecError, "held_out"),
        ({"normalise": "letters", "tokenizer": "x"}, SpecError, "characters"),
        ({"separator": "ab"}, DataError, "separator"),
    ],
)
def test_what_cannot_be_is_said(corpus, tmp_path, options, error, said):
    with pytest.raises(error, match=said):
        text(corpus, tmp_path, **options)


def test_faults_of_sources_are_named(corpus, tmp_path):
    (tmp_path / "binary.txt").write_bytes(b"\xff\x00\xfe\x80")
    (tmp_path / "x.parquet").write_bytes(b"no parquet")
    (tmp_path / "x.jsonl").write_text('{"other": 1}')
    for name, said in [
        ("binary.txt", "cannot be read as text"),
        ("x.parquet", "parquet"),
        ("x.jsonl", "no field 'text'"),
    ]:
        with pytest.raises(DataError, match=said):
            text(tmp_path / name, tmp_path, alphabet="abc").split("train")
    with pytest.raises(DataError, match="no split 'valid'"):
        text(corpus, tmp_path).split("valid")
    with pytest.raises(DataError, match="sequences"):
        text(corpus, tmp_path, length=3000).split("train")
