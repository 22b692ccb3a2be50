"""What is found for lines, whatever they stand among."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from rnncli.decoding.alignment import coverage, source_words_of
from rnncli.decoding.filters import Filters
from rnncli.decoding.search_options import SearchOptions
from rnncli.errors import DataError, UsageError
from rnncli.nn.stack import Run
from rnncli.text.pairs import source_batch
from rnncli.text.tokenizers import Tokenizer
from rnncli.text.words import word_numbers
from rnncli.translation import Translated, Translator
from tests.translators import lines, network, tokenizer_of

LINES = lines(40, seed=5)
MODELS: tuple[dict[str, Any], ...] = (
    {},
    {"attention": "none", "direction": "forward"},
    {"attention": "additive", "look_up": "before", "cell": "gru"},
    {"look_up": "feeding", "layers": 2},
)


def translator(kind: str = "word", model: dict[str, Any] | None = None, **options: Any) -> Any:
    tokenizer = tokenizer_of(kind)
    return Translator([network(tokenizer, **(model or {}))], tokenizer, SearchOptions(**options))


def texts(found: list[list[Translated]]) -> list[list[str]]:
    return [[one.text for one in some] for some in found]


@pytest.mark.parametrize("model", MODELS, ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {"beam_size": 1},
        {"beam_size": 4, "n_best": 3},
        {"beam_size": 3, "no_repeat_ngram": 2, "min_new_tokens": 2},
        {"sampling": Filters(top_k=5), "n_best": 2, "seed": 3},
    ],
    ids=str,
)
def test_batches_and_order_change_nothing(model: dict[str, Any], options: dict[str, Any]) -> None:
    whole = texts(translator(model=model, batch_size=32, **options)(LINES))
    assert [bool(some) for some in whole] == [bool(line.strip()) for line in LINES]
    for batch_size in (1, 7):
        assert texts(translator(model=model, batch_size=batch_size, **options)(LINES)) == whole
    if "sampling" in options:  # by the number of the line: as long as that stays
        apart = translator(model=model, **options)
        parts = [apart(LINES[k : k + 9], first=k) for k in range(0, len(LINES), 9)]
        assert [some for part in parts for some in texts(part)] == whole
        return
    order = random.Random(1).sample(range(len(LINES)), len(LINES))
    shuffled = texts(translator(model=model, batch_size=7, **options)([LINES[k] for k in order]))
    assert shuffled == [whole[k] for k in order]


def test_eight_bits_change_nothing_of_that() -> None:
    tokenizer = tokenizer_of("word")
    model = network(tokenizer)

    def found(batch_size: int, texts_in: list[str]) -> list[list[str]]:
        options = SearchOptions(3, batch_size, n_best=3)
        return texts(Translator([model], tokenizer, options, weights="int8")(texts_in))

    whole = found(32, LINES)
    assert found(1, LINES) == found(7, LINES) == whole
    assert found(7, LINES[::-1]) == whole[::-1]


def test_workers_share_the_batches_and_change_nothing() -> None:
    tokenizer = tokenizer_of("word")
    model, options = network(tokenizer, look_up="feeding"), SearchOptions(3, 4)
    threads = torch.get_num_threads()
    alone, several = (
        Translator([model], tokenizer, options, workers=workers)(LINES) for workers in (1, 3)
    )
    assert texts(several) == texts(alone)
    assert torch.get_num_threads() == threads
    broken = Translator([model], tokenizer, options, workers=3)
    with torch.no_grad():
        model.output.b.fill_(float("nan"))
    with pytest.raises(DataError, match="not numbers"):
        broken(LINES)


@pytest.mark.parametrize("model", MODELS, ids=str)
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_beam_of_one_is_greedy(model: dict[str, Any], penalty: float) -> None:
    """A search written with the model's nats alone finds the same."""
    tokenizer = tokenizer_of("word")
    one = network(tokenizer, **model)
    found = translator(model=model, beam_size=1, length_penalty=penalty, max_extra=3)(LINES)
    for line, some in zip(LINES, found, strict=True):
        if not some:
            continue
        ids = tokenizer.encode(line)
        source = torch.tensor([*ids, tokenizer.boundary_id]).unsqueeze(1)
        tokens = [tokenizer.boundary_id]
        for _ in range(2 * len(ids) + 3):
            inputs = torch.tensor(tokens).unsqueeze(1).expand(-1, tokenizer.vocab_size)
            targets = inputs.roll(-1, 0).clone()
            targets[-1] = torch.arange(tokenizer.vocab_size)
            nats = one.nats(source.expand(-1, tokenizer.vocab_size), inputs, targets, Run())
            tokens.append(int(nats[-1].argmin()))
            if tokens[-1] == tokenizer.boundary_id:
                break
        ended = tokens[-1] == tokenizer.boundary_id
        assert some[0].text == tokenizer.decode(tokens[1 : -1 if ended else None])
        assert some[0].finished == ended


@pytest.mark.parametrize("kind", ["word", "char", "bpe", "byte"])
def test_scores_are_those_of_the_model(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    model = network(tokenizer)
    for options in ({"n_best": 3}, {"n_best": 2, "sampling": Filters(), "seed": 1}):
        find = Translator([model], tokenizer, SearchOptions(length_penalty=0.5, **options))  # type: ignore[arg-type]
        for line, some in zip(LINES[:8], find(LINES[:8]), strict=True):
            for one in some:
                ids = tokenizer.ids(one.pieces[: -1 if one.finished else None])
                end = [tokenizer.boundary_id]
                source = torch.tensor([*tokenizer.encode(line), *end]).unsqueeze(1)
                targets = torch.tensor(ids + end * one.finished).unsqueeze(1)
                inputs = torch.tensor([*end, *ids])[: len(targets)].unsqueeze(1)
                nats = model.nats(source, inputs, targets, Run()).squeeze(1).tolist()
                assert one.logprobs == pytest.approx([-n for n in nats], abs=1e-3)
                assert one.logprob == pytest.approx(-sum(nats), abs=1e-3)
                assert one.score == pytest.approx(one.logprob / ((5 + len(nats)) / 6) ** 0.5)
                assert one.text == tokenizer.decode(ids)
                words = one.word_logprobs()
                assert len(words) == len(one.text.split()) or kind != "word"
                assert sum(words) == pytest.approx(sum(one.logprobs[: len(ids)]))


@pytest.mark.parametrize("kind", ["word", "char", "bpe"])
@pytest.mark.parametrize("sampled", [False, True])
def test_a_translation_begins_as_it_is_told(kind: str, sampled: bool) -> None:
    sampling = Filters() if sampled else None
    find = translator(kind, beam_size=3, sampling=sampling, max_extra=30)
    plain = find(LINES)
    prefixes = ["", "the cat", "a", "zebra the"] * 10
    found = find(LINES, prefixes=prefixes)
    for line, prefix, some, before in zip(LINES, prefixes, found, plain, strict=True):
        assert bool(some) == bool(line.strip())
        for one in some:
            assert one.text.startswith(prefix) and len(one.text) >= len(prefix)
            if not prefix:
                assert one.text == before[0].text


def weights_of(model: Any, tokenizer: Tokenizer, line: str, one: Translated) -> torch.Tensor:
    ids = tokenizer.ids(one.pieces[: -1 if one.finished else None])
    source = source_batch([torch.tensor(tokenizer.encode(line)).numpy()], tokenizer.boundary_id)
    inputs = torch.tensor([tokenizer.boundary_id, *ids]).unsqueeze(1)
    found = model.attention_weights(torch.from_numpy(source), inputs)[: len(one.logprobs), 0, :-1]
    assert isinstance(found, torch.Tensor)
    return found


@pytest.mark.parametrize("kind", ["word", "char", "bpe"])
@pytest.mark.parametrize("reverse", [False, True])
def test_alignments_follow_attention(kind: str, reverse: bool) -> None:
    tokenizer = tokenizer_of(kind)
    model = network(tokenizer)
    find = Translator(
        [model], tokenizer, SearchOptions(n_best=2, align=True), reverse_source=reverse
    )
    for line, some in zip(LINES, find(LINES), strict=True):
        for one in some:
            ids = tokenizer.encode(line)
            source = source_batch([torch.tensor(ids).numpy()], tokenizer.boundary_id)
            if reverse:
                source[:-1] = source[:-1][::-1].copy()
            target = tokenizer.ids(one.pieces[: -1 if one.finished else None])
            inputs = torch.tensor([tokenizer.boundary_id, *target]).unsqueeze(1)
            looked = model.attention_weights(torch.from_numpy(source), inputs)[:, 0, :-1]
            if reverse:
                looked = looked.flip(1)
            expected = source_words_of(
                looked[: len(target)], word_numbers(tokenizer, target), word_numbers(tokenizer, ids)
            )
            assert one.alignment == tuple((s, t) for t, s in enumerate(expected))
            if kind == "word":
                assert len(one.alignment) == len(one.text.split())


def test_coverage_decides_among_all_that_ended() -> None:
    tokenizer = tokenizer_of("word")
    model = network(tokenizer)
    plain, covering = (
        Translator(
            [model], tokenizer, SearchOptions(4, n_best=4, coverage_penalty=beta, max_new_tokens=4)
        )(LINES)
        for beta in (0.0, 20.0)
    )
    for line, some in zip(LINES, covering, strict=True):
        scores = [one.score for one in some]
        assert scores == sorted(scores, reverse=True)
        for one in some:
            looked = weights_of(model, tokenizer, line, one)
            expected = one.logprob / ((5 + len(one.logprobs)) / 6) + 20.0 * coverage(looked)
            assert one.score == pytest.approx(expected, abs=1e-3)
    assert texts(plain) != texts(covering)


def test_unknown_words_come_from_the_source() -> None:
    tokenizer = tokenizer_of("word")
    assert tokenizer.unk_id is not None
    model = network(tokenizer)
    model.output.b[tokenizer.unk_id] += 8.0
    options = SearchOptions(no_repeat_ngram=3, align=True)
    find, replace = (
        Translator([model], tokenizer, option)
        for option in (options, SearchOptions(no_repeat_ngram=3, align=True, replace_unk=True))
    )
    sources = [f"zebra{k} {line} yak{k}" for k, line in enumerate(LINES)]
    prefixes = ["emu"] * len(sources)
    replaced = 0
    for line, (plain,), (one,) in zip(
        sources, find(sources, prefixes=prefixes), replace(sources, prefixes=prefixes), strict=True
    ):
        assert one.alignment == plain.alignment and one.alignment is not None
        assert one.text.split()[0] == plain.text.split()[0] == "emu"
        for (s, t), word in list(zip(one.alignment, plain.text.split(), strict=True))[1:]:
            if word == "<unk>":
                replaced += 1
                word = line.split()[s]
            assert one.text.split()[t] == word
    assert replaced > 10


def test_lengths_are_kept_to() -> None:
    for options, low, high in (
        ({"min_new_tokens": 5, "max_new_tokens": 7}, 5, 7),
        ({"max_ratio": 0.0, "max_extra": 2}, 0, 2),
        ({"max_ratio": 0.0, "max_extra": 0, "min_new_tokens": 3}, 3, 4),  # the end may come then
    ):
        for some in translator(**options)(LINES):  # type: ignore[arg-type]
            for one in some:
                words = len(one.text.split())
                assert low <= words <= high and (words + one.finished) <= max(high, 1)


def test_an_ensemble_aligns_by_the_mean() -> None:
    tokenizer = tokenizer_of("word")
    models = [network(tokenizer, 1), network(tokenizer, 2, attention="additive")]
    models.append(network(tokenizer, 3, attention="none", direction="forward"))
    find = Translator(models, tokenizer, SearchOptions(align=True))
    for line, some in zip(LINES, find(LINES), strict=True):
        for one in some:
            looked = sum(weights_of(m, tokenizer, line, one) for m in models[:2])
            assert isinstance(looked, torch.Tensor)
            expected = looked[: len(one.text.split())].argmax(1).tolist()
            assert [s for s, _ in one.alignment or ()] == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_best": 6}, "n_best: 6 is more than a beam of 5"),
        ({"max_ratio": float("nan")}, "max_ratio"),
        ({"max_ratio": -1.0}, "max_ratio"),
        ({"length_penalty": 1000.0}, "length_penalty: 1000 is out of range; .* from 0 to 20"),
        ({"coverage_penalty": -1.0}, "coverage_penalty"),
        ({"min_new_tokens": 9, "max_new_tokens": 8}, "min_new_tokens: 9 is more than"),
        ({"no_repeat_ngram": -1}, "no_repeat_ngram"),
        ({"length_normalization": "x"}, "length_normalization"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SearchOptions(**options)


def test_limits_that_nobody_gave_are_those_of_the_training_pairs() -> None:
    """A target of characters has many times the tokens of a source of words."""
    assert SearchOptions().longest(10, 0) == 30
    assert SearchOptions().fitted(1.1, 40).longest(10, 0) == 30
    assert SearchOptions().fitted(8.0, 40).longest(10, 0) == 90
    assert SearchOptions().fitted(8.0, 40).longest(1000, 0) == 500
    assert SearchOptions().fitted(8.0, 2000).longest(1000, 0) == 3000
    given = SearchOptions(max_ratio=1.5, max_extra=0, max_new_tokens=20).fitted(8.0, 2000)
    assert (given.longest(10, 0), given.longest(1000, 0)) == (15, 20)
    assert SearchOptions(max_ratio=float("inf"), max_new_tokens=70).longest(3, 0) == 70


def test_what_needs_attention_or_words_says_so() -> None:
    plain = {"attention": "none", "direction": "forward"}
    for options in ({"coverage_penalty": 1.0}, {"replace_unk": True}):
        with pytest.raises(UsageError, match=rf"{next(iter(options))}: it needs attention"):
            translator(model=plain, **options)
    with pytest.raises(UsageError, match="replace_unk: of words"):
        translator("char", replace_unk=True)


def test_a_long_line_is_one_line_among_others() -> None:
    long = " ".join(["cat"] * 10_000)
    find = translator(beam_size=2, max_new_tokens=20, align=True)
    found = find(["the cat", long, long, "", "a dog"])
    assert [len(some) for some in found] == [1, 1, 1, 0, 1]
    assert texts([found[1]]) == texts([found[2]])
    assert find.source_length(long) == 10_000 and not find.knows_nothing_of(long)
    assert find.knows_nothing_of("zebra yak") and not find.knows_nothing_of(" ")
