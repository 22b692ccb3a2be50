"""The words that tokens belong to."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
import sentencepiece

from rnncli.sections import TokenizerConfig
from rnncli.text.tokenizers import Tokenizer, load_sentencepiece, train_tokenizer
from rnncli.text.words import all_unseen, word_numbers

LINES = ["the cat sat on the mat", "thé   nàïve cats\tand  rats", " a leading space "] * 20


def trained(kind: str) -> Tokenizer:
    size = 300 if kind in ("bpe", "unigram") else 0
    return train_tokenizer(TokenizerConfig(kind, vocab_size=size), LINES)


@pytest.mark.parametrize("kind", ["byte", "char", "word", "bpe", "unigram"])
def test_the_pieces_of_a_word_spell_it(kind: str) -> None:
    tokenizer = trained(kind)
    rng = random.Random(1)
    alphabet = "the cats  \tné€😀\u3000"
    lines = [*LINES[:3], *("".join(rng.choices(alphabet, k=rng.randrange(20))) for _ in range(60))]
    for line in lines:
        ids = tokenizer.encode(line)
        numbers = word_numbers(tokenizer, ids, line)
        words = line.split()
        assert numbers == sorted(numbers) and len(numbers) == len(ids)
        if not words:
            continue
        assert set(numbers) == set(range(len(words)))
        if kind in ("byte", "bpe", "unigram"):
            for number, word in enumerate(words):
                own = [token for token, n in zip(ids, numbers, strict=True) if n == number]
                assert tokenizer.decode(own).strip() == word


def test_white_space_goes_with_the_word_after_it() -> None:
    tokenizer = trained("char")
    assert word_numbers(tokenizer, tokenizer.encode(" the cat ")) == [0, 0, 0, 0, 1, 1, 1, 1, 1]
    assert word_numbers(tokenizer, tokenizer.encode("  ")) == [0, 0]
    assert word_numbers(tokenizer, []) == []


def test_an_unseen_character_may_be_white_space() -> None:
    tokenizer = train_tokenizer(TokenizerConfig("char"), ["ab"])
    assert word_numbers(tokenizer, tokenizer.encode("a b"), "a b") == [0, 1, 1]


def test_an_unknown_piece_that_was_written_is_a_word(tmp_path: Path) -> None:
    """Foreign models may spell nothing by bytes; one that was read stands where it stood."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=model, vocab_size=40, model_type="bpe",
        minloglevel=2,
    )  # fmt: skip
    path = tmp_path / "foreign.model"
    path.write_bytes(model.getvalue())
    tokenizer = load_sentencepiece(path)
    ids = tokenizer.encode("the catж sat")
    assert tokenizer.unk_id in ids
    assert max(word_numbers(tokenizer, ids, "the catж sat")) == 2
    text = tokenizer.decode(ids)
    assert max(word_numbers(tokenizer, ids)) == len(text.split()) - 1 > 2


@pytest.mark.parametrize("kind", ["char", "word", "bpe", "unigram"])
def test_lines_of_unseen_characters_are_known(kind: str) -> None:
    tokenizer = trained(kind)
    assert all_unseen(tokenizer, tokenizer.encode("жщю"))
    assert all_unseen(tokenizer, tokenizer.encode("жщю жю"))
    assert not all_unseen(tokenizer, tokenizer.encode("жщю cat"))
    assert not all_unseen(tokenizer, [])
