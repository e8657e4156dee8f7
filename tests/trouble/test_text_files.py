"""One opener of text: byte-order marks, compression, rows, bounded pieces, caches."""

import bz2
import codecs
import gzip
import json
import lzma
import threading
import tracemalloc

import pyarrow
import pyarrow.parquet
import pytest

from di4c.errors import DataError
from di4c_plugins.datasets import text_file
from di4c_plugins.datasets.text import Text
from di4c_plugins.datasets.text_documents import Documents
from di4c_plugins.datasets.text_encoding import Characters
from di4c_plugins.datasets.text_file import vocabulary_lines
from di4c_plugins.datasets.token_cache import _batches, cached_text
from di4c_plugins.teachers.hf_files import token_ids

ROWS = [{"text": "one é"}, {"text": None}, {"text": "two"}]
JSON_LINES = "\n".join(map(json.dumps, ROWS)) + "\n\n\n"
READ = ["one é", "two"]


def texts(path, **options) -> list[str]:
    return [text for text, _ in Documents(str(path), **options)]


def data(path, tmp_path, **options) -> Text:
    return Text(**{"length": 8, "path": str(path), "cache": str(tmp_path / "cache"), "held_out": 0.2, **options})


PACKERS = {
    "": lambda content: content,
    ".gz": gzip.compress,
    ".BZ2": bz2.compress,
    ".xz": lzma.compress,
    ".ZST": lambda content: pyarrow.compress(content, codec="zstd", asbytes=True),
}


@pytest.mark.parametrize("packed", PACKERS)
@pytest.mark.parametrize("name", ["x.ndjson", "x.jsonl", "x.NDJSON", "x.JsonL", "x.json"])
def test_trouble_05_json_lines_are_read_as_rows(tmp_path, name, packed):
    file = tmp_path / f"{name}{packed}"
    file.write_bytes(PACKERS[packed](JSON_LINES.encode()))
    assert texts(file) == READ
    if name != "x.json":
        assert texts(tmp_path) == READ


def test_trouble_05_json_under_another_name_is_refused(tmp_path):
    for name in ("x.log", "x", "x.json.txt.data"):
        (tmp_path / name).write_text(json.dumps({"text": "long " * 9000}) + "\n" + JSON_LINES)
        with pytest.raises(DataError, match="holds JSON lines; name it .jsonl"):
            texts(tmp_path / name)
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(b"id,text\n1,one\n"))
    with pytest.raises(DataError, match=r"x\.csv\.gz: a table"):
        texts(tmp_path / "x.csv.gz")
    (tmp_path / "x.json").write_text(json.dumps(ROWS, indent=1))
    with pytest.raises(DataError, match=r"x\.json:1: .*each line is one JSON object"):
        texts(tmp_path / "x.json")


@pytest.mark.parametrize("packed", PACKERS)
def test_trouble_05_plain_text_is_unpacked_whatever_the_case(tmp_path, packed):
    file = tmp_path / f"X.TXT{packed}"
    file.write_bytes(PACKERS[packed](b"a line\nand one more"))
    assert texts(file, division="line") == texts(tmp_path, division="line") == ["a line", "and one more"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-16-le", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("packed", PACKERS)
def test_trouble_13_a_byte_order_mark_is_no_text(tmp_path, encoding, packed):
    marks = {"utf-16-be": codecs.BOM_UTF16_BE, "utf-16-le": codecs.BOM_UTF16_LE, "utf-32-be": codecs.BOM_UTF32_BE}
    for name, content, wanted in (("x.txt", "é one\ntwo", "é one\ntwo"), ("y.jsonl", JSON_LINES, "one étwo")):
        content = marks.get(encoding, b"") + content.encode(encoding)
        (tmp_path / f"{name}{packed}").write_bytes(PACKERS[packed](content))
        assert "".join(texts(tmp_path / f"{name}{packed}")) == wanted
    alphabet = data(tmp_path / f"x.txt{packed}", tmp_path, length=3, held_out=0.4).encoding.alphabet
    assert alphabet == "\n enotwé"


def test_trouble_20_blank_lines_and_nulls_are_no_rows_and_faults_name_theirs(tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_bytes(codecs.BOM_UTF8 + JSON_LINES.encode())
    assert texts(file) == READ
    rows = [json.dumps(ROWS[0])] * 5
    for broken in (
        '{"text": "a',
        "[1]",
        '"text"',
        "7",
        '{"text": 7}',
        '{"other": "a"}',
        '{"text": "\\ud800"}',
        "[" * 100_000,
    ):
        file.write_text("\n".join([*rows[:2], "", *rows[2:4], broken, *rows]))
        with pytest.raises(DataError, match=r"x\.jsonl:6: ") as error:
            texts(file)
        assert "\n" not in str(error.value) and "line 1 column" not in str(error.value).split("(")[0]


def test_trouble_26_parquet_that_holds_no_text_names_the_file(tmp_path):
    table = pyarrow.table({"text": [1, 2], "words": ["a", None], "many": [["a"], ["b"]]})
    file = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(table, file)
    absent = "no column 'none'; there is text, words, many"
    for column, said in (("text", "holds int64, no text"), ("many", "no text"), ("none", absent)):
        with pytest.raises(DataError, match=rf"x\.parquet: .*{said}"):
            texts(file, column=column)
    assert texts(file, column="words") == ["a"]
    text = pyarrow.string()
    kinds = {"l": pyarrow.large_string(), "v": pyarrow.string_view(), "d": pyarrow.dictionary(pyarrow.int32(), text)}
    columns = {name: pyarrow.array(["a", None], text).cast(kind) for name, kind in kinds.items()}
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    assert [texts(file, column=name) for name in kinds] == [["a"]] * 3


def test_trouble_26_an_unusable_cache_is_named(tmp_path):
    (tmp_path / "x.txt").write_text("some words " * 30)
    (tmp_path / "occupied").write_text("a file")
    for cache in (
        tmp_path / "occupied",
        tmp_path / "occupied" / "inside",
        "/dev/null",
        "/proc/none",
        tmp_path / ("x" * 300),
    ):
        with pytest.raises(DataError, match="choose a folder with data.cache"):
            data(tmp_path / "x.txt", tmp_path, cache=str(cache))
        with pytest.raises(DataError, match="choose a folder with data.cache"):
            data(tmp_path / "x.txt", tmp_path, cache=str(cache), normalise="letters").split("train")


@pytest.mark.parametrize(
    "path", ["x" * 300, "a\0b", "/dev/null", "/dev/stdin", "~nobody-of-this-name/x", "/proc/self/mem/x"]
)
def test_trouble_26_paths_that_cannot_be_are_named(tmp_path, path):
    with pytest.raises(DataError, match="data.path"):
        data(path, tmp_path)


def test_trouble_24_a_line_of_a_vocabulary_is_an_id(tmp_path):
    words = ["[PAD]", "[UNK]", "[MASK]", "a", "\u2028", "\x85", "\x0c", "\x1c", "", "b", "\u2029x", "\x0b"]
    for end in ("\n", "\r\n"):
        for last in ("", end):
            (tmp_path / "vocab.txt").write_bytes((end.join(words) + last).encode())
            assert vocabulary_lines(tmp_path / "vocab.txt") == words
            assert token_ids(tmp_path) == {word: i for i, word in enumerate(words)}
    (tmp_path / "vocab.txt").write_bytes(codecs.BOM_UTF8 + "\n".join(words).encode())
    assert vocabulary_lines(tmp_path / "vocab.txt")[0] == "[PAD]"


def test_trouble_24_smiles_tokens_keep_their_ids(tmp_path):
    from tools.smiles_tokenizer import write_tokenizer

    (tmp_path / "vocab.txt").write_text("[UNK]\nC\n\u2028\nO\n", encoding="utf-8")
    vocabulary = json.loads(write_tokenizer(tmp_path).read_text())["model"]["vocab"]
    assert vocabulary == {"[UNK]": 0, "C": 1, "\u2028": 2, "O": 3}


SHAPES = {
    "lines": "some words of a text\n" * 300,
    "no line end": "some words of a text " * 300,
    "no space": "x" * 6000,
    "few line ends": ("some words " * 90 + "\n") * 6,
    "line ends alone": "\n" * 500 + "x" + "\n" * 500,
    "spaces alone": " " * 3000 + "x",
    "exactly a piece": "x" * 128,
    "exactly two pieces": "a word" + " " * 122 + "y" * 128,
    "paragraphs": "one\ntwo\n\n\nthree\n" * 100,
    "wide spaces": "日本 " * 2000,
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("division", ["file", "line", "blank-line"])
def test_trouble_30_pieces_are_bounded_and_lose_nothing(tmp_path, monkeypatch, shape, division):
    content = SHAPES[shape]
    (tmp_path / "x.txt").write_text(content, encoding="utf-8")
    whole = _joined(Documents(str(tmp_path / "x.txt"), division=division))
    monkeypatch.setattr(text_file, "PIECE", 128)
    monkeypatch.setattr(text_file, "REST", 64)
    monkeypatch.setattr(text_file, "LONGEST_WORD", 16)
    pieces = list(Documents(str(tmp_path / "x.txt"), division=division))
    assert max(len(text) for text, _ in pieces) <= 2 * 128 + 16 + 1
    assert [text.lstrip() for text in _joined(pieces)] == [text.lstrip() for text in whole] and pieces[-1][1]
    if division == "file":
        assert whole == [content]


def test_trouble_30_places_count_lines_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(text_file, "PIECE", 64)
    (tmp_path / "x.txt").write_text("".join(f"line {i} of the text\n\n" for i in range(1, 200)))
    for division in ("file", "line", "blank-line"):
        for piece in Documents(str(tmp_path / "x.txt"), division=division).pieces():
            for i, word in enumerate(piece.text.split("line ")[1:]):
                place = piece.place(sum(len(part) + 5 for part in piece.text.split("line ")[: i + 1]))
                assert place == f"{tmp_path}/x.txt:{2 * int(word.split()[0]) - 1}"


def test_trouble_30_text_without_line_ends_takes_no_more_memory(tmp_path, monkeypatch):
    """Peak of reading and encoding 1.6 MB, in pieces of 64 kB: of the order of a piece, with line ends and without."""
    monkeypatch.setattr(text_file, "PIECE", 2**16)
    monkeypatch.setattr(text_file, "REST", 2**14)
    monkeypatch.setattr("di4c_plugins.datasets.token_cache.CHARACTERS_AT_A_TIME", 2**16)
    peaks = {}
    for name, space in (("lines", "\n"), ("words", " ")):
        (tmp_path / f"{name}.txt").write_text(f"some words{space}" * 150_000)
        encoding = Characters("\n abcdefghijklmnopqrstuvwxyz")
        tracemalloc.start()
        for batch in _batches(Documents(str(tmp_path / f"{name}.txt")).pieces()):
            encoding.encode([piece.text for piece in batch])
        peaks[name] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert max(peaks.values()) < 3e6 and peaks["words"] < 1.5 * peaks["lines"] + 1e5, peaks


def _joined(pieces) -> list[str]:
    """The documents of which the pieces are parts."""
    documents, part = [], ""
    for text, ends in pieces:
        part += text
        if ends:
            documents.append(part)
            part = ""
    return documents + ([part] if part else [])


def test_trouble_b13_ranks_that_count_one_alphabet_share_no_file(tmp_path):
    made = []

    def make() -> str:
        made.append(1)
        return "abc" * 1000

    found: list[str] = []
    file = tmp_path / "deep" / "alphabet.json"
    ranks = [threading.Thread(target=lambda: found.append(cached_text(file, make))) for _ in range(8)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    assert found == ["abc" * 1000] * 8 and len(made) == 1
    assert sorted(path.suffix for path in (tmp_path / "deep").iterdir()) == [".json", ".lock"]


def test_a_changed_reading_uses_no_cache_of_the_earlier_one(tmp_path, monkeypatch):
    (tmp_path / "x.txt").write_text("some words " * 30)
    first = data(tmp_path / "x.txt", tmp_path).fingerprint()
    folders = len(list((tmp_path / "cache").glob("tokens-*[!k]")))
    monkeypatch.setattr("di4c_plugins.datasets.text.READING", 99)
    assert data(tmp_path / "x.txt", tmp_path).fingerprint() == first
    assert len(list((tmp_path / "cache").glob("tokens-*[!k]"))) == folders + 1


@pytest.mark.parametrize(("row", "told"), [
    ('{"text": ["a", "b"]}', r"x\.jsonl:2: 'text' holds a list, no text; there is text"),
    ('{"text": 3}', r"x\.jsonl:2: 'text' holds a int, no text"),
    ('{"words": "a"}', r"x\.jsonl:2: no field 'text'; there is words"),
    ('["a"]', r"x\.jsonl:2: a list, not one object"),
])  # fmt: skip
def test_trouble_20_a_row_without_text_says_what_it_holds(tmp_path, row, told):
    (tmp_path / "x.jsonl").write_text('{"text": "a b c"}\n' + row)
    with pytest.raises(DataError, match=told):
        list(Documents(str(tmp_path / "x.jsonl")))


@pytest.mark.parametrize(
    ("content", "told"),
    [("", "holds no text"), (" \n\n", "holds no text"), ("12 34", "nothing in its text has a token")],
)
def test_a_source_without_tokens_is_named(tmp_path, content, told):
    (tmp_path / "x.txt").write_text(content)
    with pytest.raises(DataError, match=rf"data\.path: .*x\.txt: {told}"):
        Text(length=4, path=str(tmp_path / "x.txt"), alphabet="abc", cache=str(tmp_path / "cache")).split("train")
