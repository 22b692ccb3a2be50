"""log p(target | source): against the step contract, by brute force, whatever runs beside it."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rnncli.decoding.ensemble import Ensemble
from rnncli.decoding.protocol import AnyStepper
from rnncli.decoding.search_options import SearchOptions
from rnncli.evaluation.pair_scoring import PairScorer
from rnncli.loading import LoadedTranslator, load_translators
from rnncli.translation import Translator
from tests.helpers import tiny_translator

KINDS: tuple[dict[str, Any], ...] = (
    {},
    {"attention": "none", "bridge": "last", "direction": "forward", "reverse_source": True},
    {"attention": "additive", "look_up": "before"},
    {"attention": "dot", "look_up": "feeding", "layers": 2, "direction": "forward"},
    {"look_up": "layers", "layers": 2, "source_text": "der Kater the cat sat"},
)
PAIRS = [
    ("the cat sat", "sat mat"),
    ("the", ""),
    ("", "the cat"),
    ("", ""),
    ("the zebra sat", "on zebra the mat the mat"),
    ("the cat sat", "cat"),
    ("mat", "sat mat"),
]


def translators(folder: Path, count: int = 1, **model: Any) -> list[LoadedTranslator]:
    return load_translators(
        [tiny_translator(folder / str(k), seed=k, **model) for k in range(count)]
    )


def stepped(models: list[LoadedTranslator], source: str, target: str) -> list[float]:
    """-log p of each target token, one step after the other."""
    tokenizer, reverse = models[0].tokenizer, models[0].config.model.reverse_source
    each = [one.model for one in models]
    stepper: AnyStepper = each[0] if len(each) == 1 else Ensemble(each, mixed=False)
    reader = models[0].source_tokenizer or tokenizer
    ids = reader.encode(source)
    boundary = tokenizer.boundary_id
    x = torch.tensor([*(ids[::-1] if reverse else ids), reader.boundary_id]).unsqueeze(1)
    state, last, nats = stepper.start(x, 1), boundary, []
    for token in (*tokenizer.encode(target), boundary):
        logits, state = stepper.step(torch.tensor([last]), state)
        nats.append(-float(torch.log_softmax(logits, 1)[0, token]))
        last = token
    return nats


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_sum_over_the_step_contract(kind: dict[str, Any], count: int, tmp_path: Path) -> None:
    models = translators(tmp_path, count, **kind)
    for one, (source, target) in zip(PairScorer(models)(PAIRS), PAIRS, strict=True):
        assert one.nats == pytest.approx(stepped(models, source, target), rel=1e-5, abs=1e-6)
        assert one.line == target
        assert one.tokens == (*models[0].tokenizer.encode(target), models[0].tokenizer.boundary_id)
        assert one.oov == target.split().count("zebra")


@pytest.mark.parametrize("count", [1, 2])
def test_the_targets_of_a_source_share_a_probability_of_one(count: int, tmp_path: Path) -> None:
    scorer = PairScorer(translators(tmp_path, count, text="a b"))
    words = ("<unk>", "a", "b")  # and </s>: the whole vocabulary
    ended = begun = 0.0
    for length in range(5):
        targets = [" ".join(each) for each in itertools.product(words, repeat=length)]
        scores = scorer([("b a a", target) for target in targets])
        if length < 4:
            ended += sum(float(np.exp(-one.total_nats)) for one in scores)
        else:
            begun = sum(float(np.exp(-one.nats[:-1].sum())) for one in scores)
    assert ended + begun == pytest.approx(1, rel=1e-12)
    assert min(ended, begun) > 1e-3


@pytest.mark.parametrize("count", [1, 2])
def test_neither_batch_nor_order_matters(count: int, tmp_path: Path) -> None:
    models, rng = translators(tmp_path, count), random.Random(0)
    words = ["the", "cat", "sat", "on", "mat", "zebra"]
    pairs = [
        (" ".join(rng.choices(words, k=rng.randrange(6))), " ".join(rng.choices(words, k=n % 9)))
        for n in range(60)
    ]
    first = [one.nats for one in PairScorer(models, pairs_at_once=1)(pairs)]
    for size in (7, 64):
        order = rng.sample(range(60), 60)
        again = PairScorer(models, pairs_at_once=size)([pairs[k] for k in order])
        for k, one in zip(order, again, strict=True):
            assert one.nats == pytest.approx(first[k], rel=1e-12)
    quick = PairScorer(models, dtype=torch.float32)(pairs)
    for one, nats in zip(quick, first, strict=True):
        assert one.nats == pytest.approx(nats, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("count", [1, 2])
def test_what_translate_finds_has_the_score_that_it_says(count: int, tmp_path: Path) -> None:
    models = translators(tmp_path, count)
    options = SearchOptions(beam_size=8, max_new_tokens=6, n_best=8)
    lines = ["the cat", "mat", "on the mat the cat sat"]
    ends = set()
    for more in (0.0, 3.0):  # ends are rare, and frequent
        for loaded in models:
            loaded.model.output.b.data[loaded.tokenizer.boundary_id] += more
        translator = Translator([one.model for one in models], models[0].tokenizer, options)
        scorer = PairScorer(models)
        for line, found in zip(lines, translator(lines), strict=True):
            for one in found:
                (score,) = scorer([(line, one.text)])
                assert one.tokens == score.tokens[:-1]
                nats = score.nats if one.finished else score.nats[:-1]
                assert -one.logprob == pytest.approx(nats.sum(), rel=1e-4)
                ends.add(one.finished)
    assert ends == {True, False}


def test_nothing_gives_nothing(tmp_path: Path) -> None:
    assert PairScorer(translators(tmp_path))([]) == []
