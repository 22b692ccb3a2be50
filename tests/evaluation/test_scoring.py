"""Scores of lines and the texts they are written as."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from rnncli.errors import UsageError
from rnncli.evaluation.ensemble import load_ensemble
from rnncli.evaluation.score_formats import ScoreTotals, score_format
from rnncli.evaluation.scoring import LineScore, LineScorer
from rnncli.loading import Loaded
from rnncli.sections import TokenizerConfig
from rnncli.text.tokenizers import train_tokenizer
from tests.evaluation.truth import stepped
from tests.helpers import tiny_model

LINES = ["the cat sat", "", " \t ", "the zebra zebra", "a" * 300, "the cat sat"]
WORDS = train_tokenizer(TokenizerConfig(kind="word"), ["the the cat"])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Loaded]:
    folder = tmp_path_factory.mktemp("scoring")
    return load_ensemble([tiny_model(folder / str(k), seed=k, scale=4.0) for k in range(2)])


def test_each_line_by_itself(models: list[Loaded]):
    tokenizer = models[0].tokenizer
    for one, line in zip(LineScorer(models[:1])(LINES), LINES, strict=True):
        ids = [*tokenizer.encode(line), tokenizer.boundary_id]
        costs = stepped(models[0].model, tokenizer.boundary_id, ids)
        assert one.nats == pytest.approx(costs, rel=1e-5)
        assert one.tokens == tuple(ids)
        assert one.oov == sum(token == tokenizer.unk_id for token in ids)


def test_an_ensemble_of_lines(models: list[Loaded]):
    both = LineScorer(models)(LINES)
    for k, one in enumerate(both):
        costs = [LineScorer([m])(LINES)[k].nats for m in models]
        assert one.nats == pytest.approx(-np.log(np.exp(-np.array(costs)).mean(0)), rel=1e-12)
    twice = LineScorer([models[0], models[0]])(LINES)
    once = LineScorer(models[:1])(LINES)
    assert [s.total_nats for s in twice] == pytest.approx([s.total_nats for s in once], rel=1e-13)


@pytest.mark.parametrize("level", ["sentence", "word"])
def test_the_text_does_not_depend_on_the_batch(models: list[Loaded], level: str):
    rng = np.random.default_rng(1)
    lines = ["".join(rng.choice(list("the cat"), n)) for n in rng.integers(0, 90, 60)]
    texts = []
    for size in (1, 7, 32):
        scores = LineScorer(models[:1], lines_at_once=size)(lines)
        plain = score_format("plain", models[0].tokenizer, level=level)
        texts.append([plain.texts(one) for one in scores])
    assert texts[0] == texts[1] == texts[2]


def test_stripped_lines(models: list[Loaded]):
    spaced, bare = "  the cat ", "the cat"
    kept, same = LineScorer(models[:1])([spaced, bare])
    assert kept.total_nats != pytest.approx(same.total_nats)
    (stripped,) = LineScorer(models[:1], strip_lines=True)([spaced])
    assert stripped.total_nats == pytest.approx(same.total_nats, rel=1e-13)


# -- formats ---------------------------------------------------------------------------------

HALF, TENTH = math.log(2), math.log(10)


def fake(line: str, *nats: float) -> LineScore:
    """``line`` in the vocabulary </s> <unk> the cat, with the given costs."""
    tokens = (*WORDS.encode(line), WORDS.boundary_id)
    unknown = np.array([token == WORDS.unk_id for token in tokens])
    return LineScore(line, tokens, np.array(nats), unknown)


ONE = fake("the dog", HALF, 2 * TENTH, TENTH)
TOTALS = ScoreTotals()
TOTALS.add([ONE, fake("", HALF)])


def written(format: str, level: str, **options: str) -> tuple[list[str], list[str]]:
    how = score_format(format, WORDS, level=level, **options)
    return how.texts(ONE), how.end(TOTALS, "some.txt")


def test_plain():
    assert written("plain", "sentence") == (["-7.6009"], [])
    assert written("plain", "sentence", log_base="2") == (["-10.9658"], [])
    assert written("plain", "sentence", log_base="10") == (["-3.3010"], [])
    assert written("plain", "word") == (["the -0.6931\t<unk> -4.6052\t</s> -2.3026"], [])
    assert written("plain", "summary") == (
        [],
        [
            "lines                   2",
            "tokens                  4",
            "oov                     1",
            "logprob                 -8.2940",
            "perplexity              7.9527",
            "perplexity without oov  3.4200",
        ],
    )
    assert score_format("plain", WORDS).texts(fake("", 1e-9)) == ["0.0000"]


def test_json():
    (text,), end = written("json", "word", log_base="2")
    assert json.loads(text) == {
        "logprob": -10.9658,
        "tokens": 3,
        "oov": 1,
        "pieces": ["the", "<unk>", "</s>"],
        "logprobs": [-1.0, -6.6439, -3.3219],
    }
    assert end == []
    (text,), end = written("json", "sentence")
    assert json.loads(text) == {"logprob": -7.6009, "tokens": 3, "oov": 1}
    (text,) = written("json", "summary")[1]
    assert json.loads(text) == {
        "lines": 2, "tokens": 4, "oov": 1, "logprob": -8.294, "perplexity": 7.9527,
        "perplexity_without_oov": 3.42, "log_base": "e",
    }  # fmt: skip
    (nothing,) = score_format("json", WORDS, level="summary").end(ScoreTotals(), "-")
    assert json.loads(nothing)["perplexity"] is None
    assert json.loads(score_format("json", WORDS).texts(fake("", math.inf))[0])["logprob"] is None


def test_srilm():
    summary = [
        "file some.txt: 2 sentences, 2 words, 0 OOVs",
        "0 zeroprobs, logprob= -3.60206 ppl= 7.952707 ppl1= 63.24555",
    ]
    assert written("srilm", "sentence") == (
        [
            "the dog",
            "1 sentences, 2 words, 0 OOVs",
            "0 zeroprobs, logprob= -3.30103 ppl= 12.59921 ppl1= 44.72136",
            "",
        ],
        summary,
    )
    assert written("srilm", "word")[0] == [
        "the dog",
        "\tp( the | <s> ) \t= [rnn] 0.5 [ -0.30103 ]",
        "\tp( <unk> | the ...) \t= [rnn] 0.01 [ -2 ]",
        "\tp( </s> | <unk> ...) \t= [rnn] 0.1 [ -1 ]",
        "1 sentences, 2 words, 0 OOVs",
        "0 zeroprobs, logprob= -3.30103 ppl= 12.59921 ppl1= 44.72136",
        "",
    ]
    assert written("srilm", "summary") == ([], summary)
    assert (
        score_format("srilm", WORDS).texts(fake("", TENTH))[2].endswith("ppl= 10 ppl1= undefined")
    )


def test_kenlm():
    assert written("kenlm", "sentence") == (["Total: -3.30103 OOV: 1"], [])
    assert written("kenlm", "word") == (
        ["the=5 2 -0.30103\t<unk>=0 3 -2\t</s>=2 4 -1\tTotal: -3.30103 OOV: 1"],
        [],
    )
    assert written("kenlm", "summary") == (
        [],
        [
            "Perplexity including OOVs:\t7.952707",
            "Perplexity excluding OOVs:\t3.419952",
            "OOVs:\t1",
            "Tokens:\t4",
        ],
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "srlim"}, "--format: unknown value 'srlim'; did you mean 'srilm'"),
        ({"name": "plain", "level": "words"}, "--level: unknown value 'words'"),
        ({"name": "plain", "log_base": "3"}, "--log-base: unknown value '3'"),
        ({"name": "kenlm", "log_base": "e"}, "base 10 alone"),
    ],
)
def test_unknown_values(options: dict[str, str], message: str):
    name = options.pop("name")
    with pytest.raises(UsageError, match=message):
        score_format(name, WORDS, **options)


def test_pieces_of_characters_are_printable(tmp_path: Path):
    (model,) = load_ensemble([tiny_model(tmp_path)])
    (one,) = LineScorer([model])(["at\tz "])
    how = score_format("plain", model.tokenizer, level="word")
    pieces = [word.split(" ")[0] for word in how.texts(one)[0].split("\t")]
    assert pieces == ["a", "t", "<unk>", "<unk>", "▁", "</s>"]
