"""bpe and unigram: exact round trips, soft limits, determinism, models from elsewhere."""

import io
import random
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from rnncli.errors import DataError, FileError, ModelError, UsageError
from rnncli.sections import TokenizerConfig
from rnncli.text import subword_training
from rnncli.text.subword import SubwordTokenizer
from rnncli.text.tokenizers import load_sentencepiece, tokenizer_from_bytes, train_tokenizer

KINDS = ("bpe", "unigram")
NASTY = "ab cd\t\x00\r\u2581\u2585\u2047\u2028\u3000é\ufffd</s><unk><0x41>😀"


@cache
def trained(kind: str, vocab_size: int = 400) -> SubwordTokenizer:
    rng = random.Random(5)
    words = ["the", "a", "cat", "catches", "dog", "dogs", "Straße", "naïve", "mouse", "house"]
    lines = [" ".join(rng.choices(words, k=8)) for _ in range(300)]
    tokenizer = train_tokenizer(TokenizerConfig(kind=kind, vocab_size=vocab_size), lines)
    assert isinstance(tokenizer, SubwordTokenizer)
    return tokenizer


@pytest.mark.parametrize("kind", KINDS)
@given(line=st.text(max_size=60) | st.text(alphabet=NASTY, max_size=60))
def test_any_text_comes_back(kind: str, line: str) -> None:
    tokenizer = trained(kind)
    ids = tokenizer.encode(line)
    assert tokenizer.decode(ids) == line
    decoder = tokenizer.decoder()
    assert "".join([decoder.push(token) for token in ids]) + decoder.finish() == line
    assert tokenizer.ids(tokenizer.pieces(ids)) == ids
    assert tokenizer.boundary_id not in ids
    assert tokenizer.unk_id not in ids


@pytest.mark.parametrize("kind", KINDS)
@given(line=st.text(alphabet="thecatdogs ", max_size=60))
def test_words_one_by_one_are_the_whole_line(kind: str, line: str) -> None:
    tokenizer = trained(kind)
    processor = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.to_bytes())
    assert tokenizer.splits_at_spaces
    assert tokenizer.encode(line) == processor.EncodeAsIds(line)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.lists(st.text(alphabet=NASTY, max_size=20), max_size=5),
    st.sampled_from([0, 260, 261, 265, 300]),
)
def test_a_tiny_corpus_trains_within_the_limit(kind: str, lines: list[str], size: int) -> None:
    tokenizer = train_tokenizer(TokenizerConfig(kind=kind, vocab_size=size), lines)
    assert 258 < tokenizer.vocab_size <= (size or 8000)
    for line in lines:
        assert tokenizer.decode(tokenizer.encode(line)) == line


def test_lone_surrogates_become_replacement_characters() -> None:
    tokenizer = trained("bpe")
    assert tokenizer.decode(tokenizer.encode("a\ud800b\udcffc😀")) == "a\ufffdb\ufffdc😀"


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_are_learnt_and_boundaries_end_lines(kind: str) -> None:
    tokenizer = trained(kind)
    assert "▁the" in tokenizer.pieces(tokenizer.encode("see the cat"))
    assert tokenizer.pieces([tokenizer.boundary_id]) == ["</s>"]
    ids = tokenizer.encode_text("the cat\n dog").tolist()
    first, second = tokenizer.encode("the cat"), tokenizer.encode(" dog")
    assert ids == [*first, tokenizer.boundary_id, *second]
    assert tokenizer.decode(ids) == "the cat\n dog"
    for wrong in (-1, tokenizer.vocab_size):
        with pytest.raises(DataError, match="outside the vocabulary"):
            tokenizer.decode([wrong])
    with pytest.raises(DataError, match="'zzz'"):
        tokenizer.ids(["zzz"])


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_deterministic(kind: str) -> None:
    trained.cache_clear()
    first = trained(kind)
    trained.cache_clear()
    assert trained(kind).fingerprint == first.fingerprint
    again = tokenizer_from_bytes(kind, first.to_bytes())
    assert again.encode("a naïve dog") == first.encode("a naïve dog")


def test_too_small_a_vocabulary_is_refused() -> None:
    with pytest.raises(UsageError, match=r"259 is too small for kind 'bpe'.*at least 260"):
        train_tokenizer(TokenizerConfig(kind="bpe", vocab_size=259), ["a"])


def test_many_characters_leave_room_for_pieces() -> None:
    lines = ["".join(chr(0x4E00 + n) for n in range(900))] + ["the cat the cat"] * 400
    tokenizer = train_tokenizer(TokenizerConfig(kind="bpe", vocab_size=300), lines)
    assert tokenizer.vocab_size <= 300
    assert "▁cat" in tokenizer.pieces(range(tokenizer.vocab_size))
    assert tokenizer.decode(tokenizer.encode(lines[0])) == lines[0]


def test_the_sample_is_bounded_and_even(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"{n:09d}" for n in range(1000)]
    sample = subword_training._sample(lines, 2000)
    assert 1000 < sum(map(len, sample)) <= 2000
    numbers = [int(line) for line in sample]
    assert set(np.diff(numbers).tolist()) == {8}
    assert subword_training._sample(["ab " * 3000], 10**6) != ["ab " * 3000]
    assert "".join(subword_training._sample(["ab " * 3000], 10**6)) == "ab " * 3000


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_printed(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    tokenizer = train_tokenizer(TokenizerConfig(kind=kind), ["some text", "\u2585"])
    tokenizer.encode("some other")
    with pytest.raises(ModelError):
        tokenizer_from_bytes(kind, tokenizer.to_bytes()[:-9])
    assert capfd.readouterr() == ("", "")


def foreign(path: Path, **options: object) -> Path:
    """A model as sentencepiece makes it by default: NFKC, a space before every line."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(["the cat sat on the mat", "a dog and a cat"] * 20),
        model_writer=model,
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=3,
        **options,
    )
    path.write_bytes(model.getvalue())
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_models_from_elsewhere_follow_their_own_rules(kind: str, tmp_path: Path) -> None:
    path = foreign(tmp_path / "x.model", model_type=kind)
    tokenizer = load_sentencepiece(path)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    assert tokenizer.kind == kind
    assert tokenizer.boundary_id == processor.eos_id()
    for line in ("the cat", "  the   cat ", "ｃａｔ"):
        assert tokenizer.encode(line) == processor.EncodeAsIds(line)
        assert tokenizer.decode(tokenizer.encode(line)) == processor.decode(tokenizer.encode(line))
    assert tokenizer.unk_id in tokenizer.encode("Z")
    assert tokenizer.decode(tokenizer.encode_text("the cat\na dog\n").tolist()) == (
        "the cat\na dog\n"
    )
    config = TokenizerConfig(kind=kind, model=str(path))
    assert train_tokenizer(config, ["unused"]).fingerprint == tokenizer.fingerprint


def test_a_model_without_an_end_gets_one(tmp_path: Path) -> None:
    path = foreign(tmp_path / "x.model", model_type="bpe", eos_id=-1)
    size = sentencepiece.SentencePieceProcessor(model_file=str(path)).get_piece_size()
    tokenizer = load_sentencepiece(path)
    assert (tokenizer.boundary_id, tokenizer.vocab_size) == (size, size + 1)
    assert tokenizer.decode([*tokenizer.encode("the cat"), size]) == "the cat\n"
    assert tokenizer.ids(tokenizer.pieces([size])) == [size]


def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"cannot read .*missing\.model"):
        load_sentencepiece(tmp_path / "missing.model")
    path = tmp_path / "x.model"
    path.write_text("not a model")
    with pytest.raises(DataError, match=r"x\.model: "):
        load_sentencepiece(path)
    foreign(path, model_type="char")
    with pytest.raises(DataError, match="of type char; it must be bpe or unigram"):
        load_sentencepiece(path)
    with pytest.raises(ModelError, match="the model inside is bpe"):
        tokenizer_from_bytes("unigram", trained("bpe").to_bytes())


@pytest.mark.parametrize("kind", KINDS)
def test_cut_and_flipped_models_are_refused_or_work(kind: str) -> None:
    model = trained(kind).to_bytes()
    rng = random.Random(2)
    for size in rng.sample(range(len(model)), 30):
        with pytest.raises(ModelError):
            tokenizer_from_bytes(kind, model[:size])
    for place in rng.sample(range(len(model)), 60):
        flipped = bytearray(model)
        flipped[place] ^= 1 << rng.randrange(8)
        try:
            tokenizer = tokenizer_from_bytes(kind, bytes(flipped))
        except ModelError:
            continue
        tokenizer.decode(tokenizer.encode("the cat é"))
