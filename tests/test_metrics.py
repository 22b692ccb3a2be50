import json
import math
from dataclasses import dataclass

import pytest

from rnncli import __version__
from rnncli.errors import DataError
from rnncli.metrics import LanguageModelScores


@dataclass
class Counts:
    tokens: int = 8
    words: int = 4
    characters: int = 20
    bytes: int = 25
    oov: int = 2


def scores(nats: float = 8 * math.log(16), oov_nats: float = 0.0, **counts: int):
    return LanguageModelScores(nats, oov_nats, Counts(**counts), "word", "carried")


def test_every_unit_of_one_loss():
    """8 tokens at 4 bits each: 32 bits, over 4 words, 20 characters, 25 bytes."""
    found = scores()
    assert found.perplexity == pytest.approx(16)
    assert found.word_perplexity == pytest.approx(2**8)
    assert found.bits_per_character == pytest.approx(32 / 20)
    assert found.bits_per_byte == pytest.approx(32 / 25)


def test_without_unknown_tokens_their_loss_and_their_number_are_left_out():
    found = scores(nats=6 * math.log(8) + 2 * math.log(100), oov_nats=2 * math.log(100))
    assert found.perplexity_without_oov == pytest.approx(8)
    assert found.perplexity > found.perplexity_without_oov
    assert scores(oov=0).perplexity_without_oov == scores().perplexity
    assert math.isnan(scores(nats=1.0, oov_nats=1.0, oov=8).perplexity_without_oov)


def test_signatures_tell_what_was_counted():
    signature = f"rnncli:{__version__}|tokens:word|eos:counted|unk:counted|state:carried"
    assert scores().signature == signature
    by_name = {score.name: score for score in scores().scores()}
    assert by_name["perplexity"].signature == signature
    assert by_name["perplexity_without_oov"].signature == signature.replace(
        "unk:counted", "unk:left-out"
    )
    assert by_name["bits_per_byte"].unit == "bits"


def test_the_json_object_has_the_keys_of_the_contract():
    found = scores().to_dict()
    assert {
        "nats", "tokens", "words", "characters", "bytes", "oov", "perplexity", "word_perplexity",
        "bits_per_character", "bits_per_byte", "state",
    } <= found.keys()  # fmt: skip
    assert found["state"] == "carried"
    assert found["oov"] == 2
    assert json.loads(json.dumps(found)) == found


def test_a_hopeless_model_is_infinitely_perplexed():
    assert scores(nats=1e6).perplexity == math.inf


def test_no_text():
    with pytest.raises(DataError, match="no text to measure"):
        scores(tokens=0)
