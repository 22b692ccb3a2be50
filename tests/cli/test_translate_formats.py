"""``rnncli translate``: what goes in and what comes out, in the tests' own process."""

from __future__ import annotations

import json
import math
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rnncli.checkpoint import read_model, write_model
from rnncli.decoding.filters import Filters
from rnncli.decoding.search_options import SearchOptions
from rnncli.errors import DataError, UsageError
from rnncli.evaluation.nbest import parse
from rnncli.translation import Translator, translator_of
from tests.cli.in_process import Run, in_process
from tests.helpers import RNNCLI, cli_env, run_cli
from tests.translators import lines, write_translator

LINES = lines(30, seed=2)


@pytest.fixture
def translate(capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    yield from in_process("translate", capfd)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_translator(tmp_path_factory.mktemp("words") / "run", "word")


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    path = tmp_path / "sources.txt"
    path.write_text("".join(f"{line}\n" for line in LINES))
    return path


def objects(out: str) -> list[dict]:
    return [json.loads(line) for line in out.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "field", "expected"),
    [
        (("--beam-size", 3), "beam_size", 3),
        (("--batch-size", 7), "batch_size", 7),
        (("--patience", "inf"), "patience", math.inf),
        (("--length-penalty", 0.4), "length_penalty", 0.4),
        (("--length-normalization", "avg"), "length_normalization", "avg"),
        (("--coverage-penalty", 0.2), "coverage_penalty", 0.2),
        (("--min-new-tokens", 2), "min_new_tokens", 2),
        (("--max-new-tokens", 9), "max_new_tokens", 9),
        (("--max-ratio", 1.5), "max_ratio", 1.5),
        (("--max-extra", 4), "max_extra", 4),
        (("--no-repeat-ngram", 3), "no_repeat_ngram", 3),
        (("--n-best", 2, "--json"), "n_best", 2),
        (("--replace-unk",), "replace_unk", True),
        (("--sample", "--seed", 5), "seed", 5),
        (("--sample", "--temperature", 0.5), "sampling", Filters(temperature=0.5)),
        (("--sample", "--top-k", 3), "sampling", Filters(top_k=3)),
        (("--sample", "--top-p", 0.8), "sampling", Filters(top_p=0.8)),
    ],
    ids=str,
)
def test_options_reach_the_search(
    arguments: tuple[Any, ...],
    field: str,
    expected: object,
    translate: Run,
    folder: Path,
    sources: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[SearchOptions] = []

    def spy(models: object, options: SearchOptions, **more: Any) -> Translator:
        seen.append(options)
        return translator_of(models, options, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("rnncli.translation.translator_of", spy)
    translate(folder, sources, *arguments)
    assert getattr(seen[0], field) == expected != getattr(SearchOptions(), field)


def test_json_has_scores_by_token_and_word(translate: Run, folder: Path, sources: Path) -> None:
    *plain, _ = translate(folder, sources).split("\n")
    answers = objects(translate(folder, sources, "--json"))
    for line, text, one in zip(LINES, plain, answers, strict=True):
        assert one["source"] == line
        if not line:
            assert one["translations"] == [] and text == ""
            continue
        (best,) = one["translations"]
        assert best["text"] == text
        assert best["tokens"] == len(best["pieces"]) == len(best["logprobs"])
        assert sum(best["logprobs"]) == pytest.approx(best["logprob"], abs=0.01)
        words = text.split()
        assert len(best["word_logprobs"]) == len(best["alignment"]) == len(words)
        assert [t for _, t in best["alignment"]] == list(range(len(words)))
        assert all(0 <= s < len(line.split()) for s, _ in best["alignment"])


def test_json_input_passes_other_fields_on(translate: Run, folder: Path, tmp_path: Path) -> None:
    requests = tmp_path / "requests.jsonl"
    requests.write_text(
        '{"id": 7, "source": "the cat", "more": {"a": [1, null]}}\n'
        "\n"
        '{"source": "the cat", "prefix": "dog dog"}\n'
        "the cat\n"
        '{"source": 3}\n'
        '{"source": "the cat", "prefix": null}\n'
        '["the cat"]\n'
        '{"source": "the\\ncat", "translations": "old"}'
    )
    found = objects(translate(folder, requests, "--json-input", "--json"))
    assert len(found) == 8
    assert (found[0]["id"], found[0]["more"], found[0]["source"]) == (
        7,
        {"a": [1, None]},
        "the cat",
    )
    text = found[0]["translations"][0]["text"]
    assert found[2]["translations"][0]["text"].startswith("dog dog")
    for k in (1, 3, 4, 5, 6):
        assert found[k] == {"source": "", "translations": []}
    assert found[7]["translations"][0]["text"] == text and found[7]["source"] == "the\ncat"
    assert "4 bad lines" in translate.err and "line 4: not JSON" in translate.err
    out = translate(folder, requests, "--json-input", "--prefix", "a").split("\n")
    assert out[0].startswith("a") and out[2].startswith("dog dog") and len(out) == 9
    with pytest.raises(DataError, match=r"requests\.jsonl:4: not JSON"):
        translate(folder, requests, "--json-input", "--on-bad-input", "error")


def test_lines_before_one_that_is_an_error_are_answered(
    translate: Run, folder: Path, tmp_path: Path
) -> None:
    """However fast they came."""
    requests = tmp_path / "requests.jsonl"
    good = '{"source": "the cat"}\n'
    (answer,) = translate(folder, "--json-input", _piped(requests, good)).splitlines()
    requests.write_text(good * 3 + "no object\n" + good)
    done = run_cli("translate", folder, requests, "--json-input", "--on-bad-input", "error")
    assert done.returncode == 65 and done.stdout.decode().splitlines() == [answer] * 3


def _piped(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_numbers_that_json_has_not_make_a_bad_line(
    translate: Run, folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text(
        '{"source": "the cat", "x": NaN}\n{"source": "the cat", "x": 1e999}\n'
        '{"source": "the cat", "x": 1e300, "prefix": ""}\n'
    )
    out = translate(folder, path, "--json-input", "--json", "--prefix", "dog").splitlines()
    one, other, good = (json.loads(line, parse_constant=pytest.fail) for line in out)
    assert one == other == {"source": "", "translations": []} and good["x"] == 1e300
    assert "2 bad lines" in translate.err and "NaN is no number in it" in translate.err
    path.write_text('{"source": "the cat"}\n')
    free, led = (
        objects(translate(folder, path, "--json-input", "--json", *more))[0]
        for more in ((), ("--prefix", "the"))
    )
    assert good["translations"] == free["translations"] != led["translations"]  # its own is none


def test_a_line_that_is_bad_twice_is_one_bad_line(
    translate: Run, folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_bytes(b"\xff\n")
    translate(folder, path, "--json-input")
    assert ": 1 bad line " in translate.err


def test_half_a_character_costs_no_other_line(translate: Run, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text(
        '{"source": "the cat", "prefix": "\\ud800"}\n{"source": "\\udfff", "id": "\\ud800"}\n'
    )
    one, _ = objects(translate(folder, path, "--json-input", "--json"))
    assert one["translations"][0]["text"].startswith("\ufffd")
    assert translate(folder, path, "--json-input").count("\n") == 2
    passed = ["\ud800", "\udc80"]
    path.write_text(json.dumps({"source": "the cat", "id": passed}) + "\n")
    (same,) = objects(translate(folder, path, "--json-input", "--json"))
    assert same["id"] == passed


def test_text_that_looks_like_json_is_text(translate: Run, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text('{"source": "the cat"}\n')
    (one,) = objects(translate(folder, path, "--json"))
    assert one["source"] == '{"source": "the cat"}'


@pytest.mark.parametrize("format", ["moses", "tsv"])
def test_n_best_lists_are_read_back(
    format: str, translate: Run, folder: Path, sources: Path
) -> None:
    out = translate(folder, sources, "--n-best", 3, "--format", format)
    entries = [parse(line, format) for line in out.splitlines()]
    expected = objects(translate(folder, sources, "--n-best", 3, "--json"))
    for number, one in enumerate(expected):
        own = [entry for entry in entries if entry.id == str(number)]
        assert [entry.text for entry in own] == [t["text"] for t in one["translations"]] or not own[
            0
        ].text
        for entry, t in zip(own, one["translations"], strict=False):
            assert entry.score == pytest.approx(t["score"], abs=1e-4)
            if format == "moses":
                assert entry.features == f"logprob= {t['logprob']:.4f}"
    assert [int(entry.id) for entry in entries] == sorted(int(entry.id) for entry in entries)
    assert {int(entry.id) for entry in entries} == set(range(len(LINES)))


def test_alignments_are_one_line_each(
    translate: Run, folder: Path, sources: Path, tmp_path: Path
) -> None:
    path = tmp_path / "pharaoh"
    plain = translate(folder, sources, "--batch-size", 2)
    assert translate(folder, sources, "--alignments", path, "--batch-size", 2) == plain
    found = path.read_text().split("\n")
    assert found.pop() == "" and len(found) == len(LINES)
    for one, line in zip(objects(translate(folder, sources, "--json")), found, strict=True):
        pairs = one["translations"][0]["alignment"] if one["translations"] else []
        assert line == " ".join(f"{s}-{t}" for s, t in pairs)


def test_alignments_are_whole_or_not_there(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "pharaoh"
    path.write_text("old\n")
    done = run_cli(
        "translate", folder, "--on-bad-input", "error", "--alignments", path,
        input=b"the cat\n" * 300 + b"\xff\n",
    )  # fmt: skip
    assert done.returncode == 65 and path.read_text() == "old\n"
    assert [p.name for p in tmp_path.iterdir()] == ["pharaoh"]


def test_samples_depend_on_seed_and_number_alone(
    translate: Run, folder: Path, sources: Path
) -> None:
    options = ("--sample", "--n-best", 2, "--format", "tsv", "--temperature", 1.5)
    whole = translate(folder, sources, *options, "--seed", 3)
    for batch_size in (1, 7):
        more = ("--batch-size", batch_size)
        assert translate(folder, sources, *options, "--seed", 3, *more) == whole
    assert translate(folder, sources, *options, "--seed", 4) != whole
    assert translate(folder, sources, *options) != translate(folder, sources, *options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--n-best", 2), "--n-best: needs --json, or --format"),
        (("--n-best", 6, "--json"), "a beam of 5 has no more"),
        (("--format", "tsv", "--json"), "--json and --format tsv: give one"),
        (("--temperature", 2), "--temperature: it needs --sample"),
        (("--sample", "--beam-size", 2), "--beam-size: samples are drawn"),
        (("--sample", "--top-p", 0), "top_p: 0 is out of range"),
        (("--alignments", "-"), "--alignments -: standard output"),
        (("--length-normalization", "none"), "length_normalization: unknown value 'none'"),
        (("--min-new-tokens", 9, "--max-new-tokens", 8), "min_new_tokens: 9 is more"),
    ],
)
def test_options_that_do_not_go_together(
    options: tuple[object, ...], message: str, translate: Run, folder: Path, sources: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        translate(folder, sources, *options)  # type: ignore[arg-type]


def test_without_attention_there_is_no_alignment(
    translate: Run, sources: Path, tmp_path: Path
) -> None:
    plain = write_translator(tmp_path / "run", "char", attention="none", direction="forward")
    for one in objects(translate(plain, sources, "--json")):
        assert all("alignment" not in t for t in one["translations"])
    for option, value in (("--alignments", tmp_path / "x"), ("--coverage-penalty", 1)):
        with pytest.raises(UsageError, match="attention"):
            translate(plain, sources, option, value)


def test_what_cannot_be_translated_is_a_line_and_a_warning(
    translate: Run, folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "text"
    path.write_text("жщю\n" + " ".join(["cat"] * 10_000) + "\nthe cat\n" + "чё\n" * 4)
    out = translate(folder, path, "--max-new-tokens", 30)
    assert len(out.split("\n")) == 8
    assert "line 1: nothing in it was seen in training: 'жщю'" in translate.err
    assert translate.err.count("nothing in it was seen") == 4
    assert "2 more lines: nothing in it was seen" in translate.err
    assert "as long as" not in translate.err  # its file does not say what it has seen


def test_a_line_far_longer_than_any_in_training_is_warned_about(
    translate: Run, tmp_path: Path
) -> None:
    run = write_translator(tmp_path / "run", "word", provenance={"longest_source": 3})
    path = tmp_path / "text"
    path.write_text("cat " * 6 + "\n" + "cat " * 7 + "\n")
    assert translate(run, path, "--beam-size", 1).count("\n") == 2
    warning = "line 2: more than twice as long as any line in training (3 tokens): 'cat cat "
    assert warning in translate.err
    assert "line 1: more than twice" not in translate.err
    saved = read_model(run)
    write_model(
        run / "model.safetensors",
        config=saved.config.with_values({"data.max_length": 5}),
        tokenizer=saved.tokenizer,
        weights=saved.weights,
        scores={},
        provenance=saved.header.provenance,
    )
    translate(run, path, "--beam-size", 1)
    assert "more than twice" not in translate.err
    for number in (1, 2):
        assert f"line {number}: longer than any line in training (5 tokens)" in translate.err


def test_lengths_and_repeats(translate: Run, folder: Path, sources: Path) -> None:
    out = translate(folder, sources, "--min-new-tokens", 4, "--max-ratio", 0, "--max-extra", 6,
                    "--no-repeat-ngram", 1)  # fmt: skip
    for line, text in zip(LINES, out.removesuffix("\n").split("\n"), strict=True):
        words = text.split()
        assert 4 <= len(words) <= 6 or not line
        assert len(set(words)) == len(words)


def _assert_alike(found: Any, expected: Any) -> None:
    """The same but for the last digit of numbers, which goes with how many lines run at once."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            _assert_alike(found[name], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            _assert_alike(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=2e-4)
    else:
        assert found == expected


def test_a_typed_line_is_answered_at_once_and_as_in_a_pipe(
    translate: Run, folder: Path, sources: Path
) -> None:
    expected = translate(folder, sources, "--json").splitlines()
    with subprocess.Popen(
        [*RNNCLI, "translate", str(folder), "--json"], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, env=cli_env(),
    ) as process:  # fmt: skip
        assert process.stdin and process.stdout
        for line, answer in zip(LINES[:6], expected[:6], strict=True):
            process.stdin.write(f"{line}\n".encode())
            process.stdin.flush()
            typed = json.loads(process.stdout.readline())
            _assert_alike(typed, json.loads(answer))
        process.stdin.close()
        assert process.wait() == os.EX_OK
