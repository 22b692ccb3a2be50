"""``rnncli tokenize train|encode|decode``: tokenizers as filters, without torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from rnncli.cli.console import note
from rnncli.cli.outputs import require_writable
from rnncli.cli.streams import LineReader, OnBadInput, filter_lines, open_lines
from rnncli.errors import DataError, UsageError
from rnncli.sections import TOKENIZERS, TokenizerConfig

if TYPE_CHECKING:
    from rnncli.text.tokenizers import Tokenizer

EXAMPLES = {
    "train": """
rnncli tokenize train book.txt --out book.tok --tokenizer bpe --vocab-size 500
rnncli tokenize train book.txt --out book.model --tokenizer unigram --vocab-size 500
""",
    "encode": """
rnncli tokenize encode book.tok book.txt
echo "Hello there." | rnncli tokenize encode book.tok --ids
""",
    "decode": """
rnncli tokenize encode book.tok book.txt | rnncli tokenize decode book.tok
echo "101 32 99" | rnncli tokenize decode book.tok --ids
""",
}

_DEFAULT = TokenizerConfig()
_REPLACEMENT = "\ufffd"

TokenizerFile = Annotated[
    str,
    Argument(
        metavar="TOKENIZER",
        help="A file of 'tokenize train', a sentencepiece .model, a model or a run's folder.",
        show_default=False,
    ),
]
InputFile = Annotated[
    str | None,
    Argument(metavar="FILE", help="Lines; gzip if it ends in .gz. Default: standard input."),
]
BadInput = Annotated[
    OnBadInput, Option("--on-bad-input", help="What becomes of a line that makes no sense.")
]


def train(
    corpus: Annotated[
        list[str], Argument(metavar="CORPUS...", help="Text files; .gz, or - for standard input.")
    ],
    out: Annotated[
        Path, Option("--out", help="The file to write; sentencepiece's own format if .model.")
    ],
    tokenizer: Annotated[
        str, Option("--tokenizer", metavar="|".join(TOKENIZERS), help="The kind of tokens.")
    ] = _DEFAULT.kind,
    vocab_size: Annotated[
        int, Option("--vocab-size", metavar="N", help="At most so many tokens; 0: by the kind.")
    ] = _DEFAULT.vocab_size,
    min_count: Annotated[
        int, Option("--min-count", metavar="N", help="Leave out what is rarer (word, char).")
    ] = _DEFAULT.min_count,
    on_bad_input: BadInput = OnBadInput.REPLACE,
) -> None:
    """Train a tokenizer on text files."""
    from rnncli.text.lines import Source
    from rnncli.text.tokenizers import train_tokenizer

    if min_count != _DEFAULT.min_count and tokenizer not in ("word", "char"):
        raise UsageError(f"--min-count: {tokenizer} counts no words or characters; leave it out")
    config = TokenizerConfig(kind=tokenizer, vocab_size=vocab_size, min_count=min_count)
    if out.suffix == ".model" and tokenizer not in ("bpe", "unigram"):
        raise UsageError(
            f"--out {out}: a .model file holds a bpe or unigram tokenizer, not {tokenizer!r}; "
            "use another ending, such as .tok"
        )
    require_writable(str(out))
    notes: list[str] = []
    lines = _training_lines(corpus, on_bad_input, notes)
    if tokenizer == "byte":  # it learns nothing, but what is given must be there
        for path in corpus:
            Source.of(path)
    trained = train_tokenizer(config, lines)
    for text in notes:
        note(text)
    if out.suffix == ".model":
        from rnncli.files import write_atomically

        write_atomically(out, [trained.to_bytes()])
    else:
        from rnncli.checkpoint import write_tokenizer

        write_tokenizer(out, trained)
    note(f"wrote {out}: {trained.kind}, {trained.vocab_size} tokens")


def encode(
    tokenizer: TokenizerFile,
    file: InputFile = None,
    ids: Annotated[bool, Option("--ids", help="Write numbers instead of pieces.")] = False,
    on_bad_input: BadInput = OnBadInput.REPLACE,
) -> None:
    """Turn each line into its pieces, or ids, separated by spaces."""
    loaded = load_tokenizer(Path(tokenizer))

    def spell(line: str) -> str:
        tokens = loaded.encode(line)
        return " ".join(map(str, tokens) if ids else loaded.pieces(tokens))

    any_bytes = loaded.kind == "byte"
    with open_lines(file, on_bad_input=on_bad_input, any_bytes=any_bytes) as reader:
        filter_lines(reader, lambda lines: map(spell, lines))


def decode(
    tokenizer: TokenizerFile,
    file: InputFile = None,
    ids: Annotated[bool, Option("--ids", help="Read numbers instead of pieces.")] = False,
    on_bad_input: BadInput = OnBadInput.REPLACE,
) -> None:
    """Turn lines of pieces, or ids, back into text."""
    loaded = load_tokenizer(Path(tokenizer))
    with open_lines(file, on_bad_input=on_bad_input) as reader:
        filter_lines(reader, lambda lines: _decode_lines(loaded, reader, lines, ids))


SUBCOMMANDS = (train, encode, decode)


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a sentencepiece ``.model``, or of any file of rnncli that has one."""
    if path.suffix == ".model" and not path.is_dir():
        from rnncli.text.tokenizers import load_sentencepiece

        return load_sentencepiece(path)
    from rnncli.checkpoint import read_tokenizer

    return read_tokenizer(path)


def _training_lines(
    corpora: list[str], on_bad_input: OnBadInput, notes: list[str]
) -> Iterator[str]:
    """All lines; ``notes``: as of ``read_lines``. Raises DataError when none has a character."""
    from rnncli.text.lines import read_lines

    empty = True
    for corpus in corpora:
        for line in read_lines(corpus, on_bad_input=on_bad_input, notes=notes):
            empty = empty and not line
            yield line
    if empty:
        raise DataError(f"{', '.join(corpora)}: no text to train a tokenizer on")


def _decode_lines(
    tokenizer: Tokenizer, reader: LineReader, lines: list[str], as_ids: bool
) -> Iterator[str]:
    for number, line in enumerate(lines, reader.lines - len(lines) + 1):
        words = [word for word in line.split(" ") if word]
        try:
            yield tokenizer.decode(_tokens(tokenizer, words, as_ids))
        except DataError as error:
            yield reader.bad_line(number, str(error), _decode_rest(tokenizer, words, as_ids))


def _decode_rest(tokenizer: Tokenizer, words: list[str], as_ids: bool) -> str:
    """The text of ``words``, with U+FFFD for those that are no tokens."""
    spaced = tokenizer.kind == "word"
    decoder, texts = tokenizer.decoder(), []
    for word in words:
        try:
            (token,) = _tokens(tokenizer, [word], as_ids)
            texts.append(tokenizer.decode([token]) if spaced else decoder.push(token))
        except DataError:
            texts.append(decoder.finish() + _REPLACEMENT)
    return (" " if spaced else "").join([*texts, *([] if spaced else [decoder.finish()])])


def _tokens(tokenizer: Tokenizer, words: list[str], as_ids: bool) -> list[int]:
    if not as_ids:
        return tokenizer.ids(words)
    for word in words:
        if not (word.isascii() and word.isdigit() and len(word) <= 9):
            raise DataError(f"{word[:40]!r} is not a token id")
    return [int(word) for word in words]
