"""Byte, char and word: vocabularies, round trips, pieces, streams, damaged bytes."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnncli.errors import DataError, ModelError, UsageError
from rnncli.sections import TokenizerConfig
from rnncli.text.tokenizers import Tokenizer, tokenizer_from_bytes, train_tokenizer

LINES = ["the cat sat on the mat", "the dog, the <unk> and the cat", " tab\there ▁ \u2028 é"]


def trained(kind: str, lines: list[str] = LINES, **options: int) -> Tokenizer:
    return train_tokenizer(TokenizerConfig(kind=kind, **options), lines)


def streamed(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    decoder = tokenizer.decoder()
    return [decoder.push(token) for token in ids] + [decoder.finish()]


@given(st.binary(max_size=60))
def test_byte_keeps_any_bytes(data: bytes) -> None:
    byte = trained("byte")
    text = data.decode("utf-8", "surrogateescape")
    ids = byte.encode(text)
    assert bytes(ids) == data
    assert byte.decode(ids).encode("utf-8", "surrogateescape") == data
    assert "".join(streamed(byte, ids)) == byte.decode(ids)
    assert byte.ids(byte.pieces(ids)) == ids
    assert byte.encode_text(text).tolist() == ids


@given(st.text(max_size=40))
def test_char_keeps_what_it_knows_and_marks_the_rest(line: str) -> None:
    char = trained("char")
    known = set("".join(LINES)) | {"\n"}
    ids = char.encode(line)
    assert char.decode(ids) == "".join(c if c in known else "\ufffd" for c in line)
    assert char.encode_text(line).tolist() == ids
    assert char.ids(char.pieces(ids)) == ids
    assert "".join(streamed(char, ids)) == char.decode(ids)


@given(st.text(alphabet="thecatdog, \t\n</s>unk\u2028", max_size=60))
def test_word_is_white_space_and_the_lines_end(text: str) -> None:
    word = trained("word")
    known = set(" ".join(LINES).split())
    lines = text.split("\n")
    expected = [" ".join(w if w in known else "<unk>" for w in line.split()) for line in lines]
    ids = word.encode_text(text).tolist()
    assert word.decode(ids) == "\n".join(expected)
    assert word.boundary_id not in word.encode(lines[0])
    assert "".join(streamed(word, ids)) == word.decode(ids)
    assert word.ids(word.pieces(ids)) == ids


def test_vocabularies_go_by_frequency_then_code_point() -> None:
    assert trained("char", ["bbaac"]).decode(range(5)) == "\n\ufffdabc"
    word = trained("word", ["b b a a c </s> <unk>"])
    assert word.pieces(range(word.vocab_size)) == ["</s>", "<unk>", "a", "b", "c"]


@pytest.mark.parametrize("kind", ["char", "word"])
def test_rare_or_surplus_entries_become_unknown(kind: str) -> None:
    lines = ["a b a b a", "c"]
    smaller = trained(kind, lines, min_count=2)
    assert smaller.encode("c") == [smaller.unk_id]
    assert smaller.unk_id not in smaller.encode("b")
    least = trained(kind, ["aaa bbb aaa"], vocab_size=3)
    assert least.vocab_size == 3
    with pytest.raises(UsageError, match=r"tokenizer\.vocab_size: 2 .* at least 3"):
        trained(kind, lines, vocab_size=2)


def test_byte_has_no_other_size() -> None:
    with pytest.raises(UsageError, match="always has 256"):
        trained("byte", vocab_size=300)


def test_boundaries_decode_as_newlines() -> None:
    for kind in ("byte", "char", "word"):
        tokenizer = trained(kind)
        ids = [*tokenizer.encode("the cat"), tokenizer.boundary_id, *tokenizer.encode("the mat")]
        assert tokenizer.decode(ids) == "the cat\nthe mat"
        assert tokenizer.encode_text("the cat\nthe mat").tolist() == ids


def test_a_stream_gives_whole_characters_only() -> None:
    assert streamed(trained("byte"), list("é€".encode())) == ["", "é", "", "", "€", ""]
    assert streamed(trained("byte"), [0xE2, 0x82]) == ["", "", "\udce2\udc82"]


def test_pieces_are_printable_and_distinct() -> None:
    assert trained("byte").pieces([10, 32, 97, 255]) == ["<0x0A>", "▁", "a", "<0xFF>"]
    char = trained("char")
    pieces = char.pieces(range(char.vocab_size))
    assert len(set(pieces)) == char.vocab_size
    assert not any(piece.split() != [piece] or not piece.isprintable() for piece in pieces)
    assert {"<0x0A>", "<unk>", "▁", "<0x2581>", "<0x2028>"} <= set(pieces)


@pytest.mark.parametrize("kind", ["byte", "char", "word"])
def test_ids_and_pieces_outside_the_vocabulary_are_named(kind: str) -> None:
    tokenizer = trained(kind)
    with pytest.raises(DataError, match="'no such piece' is not in the vocabulary"):
        tokenizer.ids(["no such piece"])
    for wrong in (-1, tokenizer.vocab_size):
        for use in (tokenizer.decode, tokenizer.pieces, lambda ids: tokenizer.decoder().push(*ids)):
            with pytest.raises(DataError, match=f"token id {wrong} is outside"):
                use([wrong])


@pytest.mark.parametrize("kind", ["byte", "char", "word"])
def test_bytes_make_the_same_tokenizer_again(kind: str) -> None:
    tokenizer = trained(kind)
    data = tokenizer.to_bytes()
    again = tokenizer_from_bytes(kind, data)
    every = list(range(tokenizer.vocab_size))
    assert again.pieces(every) == tokenizer.pieces(every)
    assert again.fingerprint == hashlib.sha256(kind.encode() + data).hexdigest()


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("byte", b""),
        ("char", b""),
        ("char", b"\xff"),
        ("char", b"[]"),
        ("char", b"[" * 100_000),
        ("char", b'{"chars": 3}'),
        ("char", b'{"chars": "aa"}'),
        ("char", b'{"chars": "a\\n"}'),
        ("word", b"{}"),
        ("word", b'{"words": "ab"}'),
        ("word", b'{"words": [1]}'),
        ("word", b'{"words": ["a", "a"]}'),
        ("word", b'{"words": ["</s>"]}'),
        ("word", b'{"words": ["a b"]}'),
        ("bpe", b""),
        ("bpe", b"\x00" * 9),
        ("unigram", b"\xff" * 50),
        ("morse", b"{}"),
    ],
)
def test_damaged_bytes_are_refused(kind: str, data: bytes) -> None:
    with pytest.raises(ModelError):
        tokenizer_from_bytes(kind, data)


def test_ids_take_two_bytes_where_they_can() -> None:
    assert trained("word").encode_text("the cat\n").dtype == np.uint16
    many = trained("word", [f"w{n}" for n in range(65_535)])
    assert many.vocab_size == 65_537
    assert many.encode_text("w65534").dtype == np.uint32
    assert many.decode(many.encode_text("w65534").tolist()) == "w65534"
