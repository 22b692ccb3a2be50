"""A text at hand as token ids, as ``rnncli.text.corpus.encode_file`` gives those of a file."""

from __future__ import annotations

import hashlib

import numpy as np

from rnncli.errors import DataError
from rnncli.text.corpus import Counts, TokenStream
from rnncli.text.protocol import Ids, id_dtype, without_surrogates
from rnncli.text.tasks import Chunk, EncodeTask, TextOptions
from rnncli.text.tokenizers import Tokenizer


def encode_string(tokenizer: Tokenizer, text: str, *, strip_lines: bool = False) -> TokenStream:
    """A text as ids, as ``encode_file`` gives those of a file. Raises DataError if it is empty."""
    if not text:
        raise DataError("the text is empty; expected at least one line")
    options = TextOptions(strip_lines, byte_exact=tokenizer.kind == "byte")
    text = without_surrogates(text).removesuffix("\n") + "\n"
    data = text.encode()
    header, payload = EncodeTask(tokenizer, options).run(Chunk(data, "text", 1))
    ids: Ids = np.frombuffer(payload, id_dtype(tokenizer.vocab_size))
    counts = Counts().plus(header, again=False)
    return TokenStream(ids, counts, hashlib.sha256(data).hexdigest())
