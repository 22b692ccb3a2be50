"""Training of sentencepiece models on the fly, such that every text comes back exactly."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator

import sentencepiece

from rnncli.errors import UsageError
from rnncli.sections import TokenizerConfig
from rnncli.text.protocol import SPACE_MARK
from rnncli.text.subword import SubwordTokenizer

DEFAULT_VOCAB_SIZE = 8000
SAMPLE_CHARS = 16_000_000
_LONGEST = 1000  # characters of a training sentence; sentencepiece skips those over 4192 bytes
_RESERVED = 258  # 256 bytes, </s>, <unk>
_COVERAGE = 0.9999
_KEPT_FROM_TRAINING = SPACE_MARK + "\u2585"  # sentencepiece's own marks


def train_subword(config: TokenizerConfig, lines: Iterable[str]) -> SubwordTokenizer:
    """A bpe or unigram model of at most ``config.vocab_size`` pieces (8000 if that is 0), fewer
    when the text has not so many. The same lines always give the same model. Raises UsageError for
    a vocabulary too small for the 256 bytes.

    No normalisation, no added space; characters that the vocabulary has no room for are spelled as
    bytes. From a large text, evenly spaced lines of some 16 million characters are used.
    """
    size = config.vocab_size or DEFAULT_VOCAB_SIZE
    if size < _RESERVED + 2:
        raise UsageError(
            f"tokenizer.vocab_size: {size} is too small for kind {config.kind!r}, which has the "
            f"256 bytes, '</s>' and '<unk>'; it must be at least {_RESERVED + 2}"
        )
    sample = _sample(lines, SAMPLE_CHARS)
    chars = _frequent_chars(sample, max(1, (size - _RESERVED) // 2))
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=_sentences(sample, chars),
        model_writer=model,
        model_type=config.kind,
        vocab_size=size,
        hard_vocab_limit=False,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        eos_id=0,
        unk_id=1,
        bos_id=-1,
        pad_id=-1,
        num_threads=4,  # a constant: the sums of unigram training depend on it
        minloglevel=3,
    )
    return SubwordTokenizer(model.getvalue())


def _sample(lines: Iterable[str], limit: int) -> list[str]:
    """Evenly spaced pieces of ``lines``, ``limit`` characters at most, in one pass: whenever there
    are more, every other one is dropped."""
    kept: list[str] = []
    size, stride = 0, 1
    for number, piece in enumerate(piece for line in lines for piece in _cut(line)):
        if number % stride:
            continue
        kept.append(piece)
        size += len(piece)
        while size > limit and len(kept) > 1:
            kept = kept[::2]
            stride *= 2
            size = sum(map(len, kept))
    return kept


def _cut(line: str) -> Iterator[str]:
    """``line`` in pieces of at most ``_LONGEST`` characters, cut before a space where possible."""
    start = 0
    while len(line) - start > _LONGEST:
        space = line.rfind(" ", start + 1, start + _LONGEST)
        end = space if space > 0 else start + _LONGEST
        yield line[start:end]
        start = end
    yield line[start:]


def _frequent_chars(sample: list[str], room: int) -> set[str]:
    """The characters that get a piece of their own: ``room`` at most, none that prints as nothing
    or as white space, none of the rarest that make up the last ten-thousandth of the text."""
    counts: Counter[str] = Counter()
    for line in sample:
        counts.update(line)
    wanted = sorted(
        (char for char in counts if char.isprintable() and char not in _KEPT_FROM_TRAINING),
        key=lambda char: (-counts[char], char),
    )
    enough = _COVERAGE * sum(counts[char] for char in wanted)
    chars, covered = {" "}, 0
    for char in wanted:
        if len(chars) >= room or covered >= enough:
            break
        chars.add(char)
        covered += counts[char]
    return chars


def _sentences(sample: list[str], chars: set[str]) -> Iterator[str]:
    """The sample, cut at all other characters. A lone space comes first: it must have a piece even
    where the text has none, since as bytes it would be a U+2581."""
    yield " "
    seen = set().union(*sample) if sample else set()
    table = {ord(char): "\n" for char in seen - chars}
    for line in sample:
        yield from filter(None, line.translate(table).split("\n"))
