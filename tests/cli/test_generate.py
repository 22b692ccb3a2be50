"""``rnncli generate``: pipes, terminals, prompts of all kinds."""

import json
import math
import os
import pty
import subprocess
from pathlib import Path

import pytest
import torch
import typer

from rnncli import cli
from rnncli.cli.generate import _read_prompt, _stream, _visible
from rnncli.decoding.sampling import Piece, Sample
from rnncli.errors import FileError, UsageError
from rnncli.loading import load_language_model
from tests.helpers import RNNCLI, cli_env, run_cli, tiny_model

TEXT = "the cat sat on the mat and the dog ran\n"


@pytest.fixture(scope="module")
def char(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("char"), text=TEXT, scale=6.0)


@pytest.fixture(scope="module")
def word(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("word"), text=TEXT, tokenizer="word", scale=6.0)


@pytest.fixture(scope="module")
def byte(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("byte"), tokenizer="byte")


@pytest.fixture
def generate(capsys):
    """Run the command in this process: its standard output, its standard error."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()

    def run(*args):
        command = typer.main.get_command(cli.load_app("generate"))
        with command.make_context("generate", [*map(str, args), "--threads", "1"]) as context:
            command.invoke(context)
        return capsys.readouterr()

    yield run
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)
    torch.set_flush_denormal(False)


def records(generate, *args):
    return [json.loads(line) for line in generate(*args, "--json").out.splitlines()]


def test_the_same_seed_gives_the_same_text(generate, char):
    one = generate(char, "--seed", 4, "--max-new-tokens", 60).out
    again = generate(char, "--seed", 4, "--max-new-tokens", 60).out
    other = generate(char, "--seed", 5, "--max-new-tokens", 60).out
    assert one == again != other
    assert len(one) == 60  # the text and nothing else: no newline is added


def test_a_sample_is_the_same_alone_and_among_others(generate, char):
    (alone,) = records(generate, char, "--seed", 4, "--max-new-tokens", 30)
    several = records(generate, char, "--seed", 4, "--max-new-tokens", 30, "--num-samples", 5)
    assert [r["sample"] for r in several] == [0, 1, 2, 3, 4]
    assert several[0]["text"] == alone["text"]
    assert len({r["text"] for r in several}) == 5


def test_json_says_what_came_and_how_probable_it_was(generate, char):
    (record,) = records(generate, char, "--prompt", "the c", "--seed", 1, "--max-new-tokens", 20)
    assert list(record) == ["prompt", "text", "tokens", "logprob", "finish_reason", "sample"]
    assert (record["prompt"], record["tokens"], record["finish_reason"]) == ("the c", 20, "length")
    loaded = load_language_model(char)
    ids = [loaded.tokenizer.boundary_id, *loaded.tokenizer.encode("the c")]
    new = loaded.tokenizer.encode_text(record["text"]).tolist()
    state, total = loaded.model.start(None, 1), 0.0
    for k, token in enumerate([*ids, *new][:-1]):
        logits, state = loaded.model.step(torch.tensor([token]), state)
        if k >= len(ids) - 1:
            total += float(torch.log_softmax(logits[0], 0)[new[k - len(ids) + 1]])
    assert record["logprob"] == pytest.approx(total, abs=1e-3)


def test_several_samples_are_a_line_each(generate, char):
    args = (char, "--seed", 2, "--num-samples", 6, "--max-new-tokens", 50)
    texts = [r["text"] for r in records(generate, *args)]
    lines = generate(*args).out.splitlines()
    assert any("\n" in text for text in texts)
    assert [line.replace("\\n", "\n") for line in lines] == texts


def test_backslashes_are_told_from_newlines(generate, tmp_path):
    model = tiny_model(tmp_path, text="\\n\nn\\\n")
    args = (model, "--seed", 2, "--num-samples", 3, "--max-new-tokens", 30)
    lines = generate(*args).out.splitlines()
    texts = [r["text"] for r in records(generate, *args)]
    assert [line.encode().decode("unicode_escape") for line in lines] == [
        text.replace("\ufffd", "\u00ef\u00bf\u00bd") for text in texts
    ]


def test_a_stop_ends_the_text_before_it(generate, char):
    args = ("--seed", 3, "--max-new-tokens", 200, "--num-samples", 4)
    for record in records(generate, char, *args, "--stop", "t", "--stop", "at"):
        assert "t" not in record["text"] and record["finish_reason"] == "stop"
    (long,) = records(generate, char, *args[:4], "--stop", "t", "--min-new-tokens", 50)
    assert long["tokens"] >= 50


def test_greedy_is_the_beam_of_one_up_to_the_lines_end(generate, char):
    greedy = generate(char, "--prompt", "the", "--greedy", "--max-new-tokens", 25).out
    (beam,) = records(generate, char, "--prompt", "the", "--beam-size", 1, "--max-new-tokens", 25)
    assert beam["text"] == greedy.split("\n")[0]


def test_a_beam_gives_its_best_in_order(generate, char):
    args = ("--prompt", "the", "--beam-size", 6, "--max-new-tokens", 12)
    found = records(generate, char, *args, "--num-samples", 4)
    assert [r["logprob"] for r in found] == sorted((r["logprob"] for r in found), reverse=True)
    assert len({r["text"] for r in found}) == 4 and not any("\n" in r["text"] for r in found)
    assert generate(char, *args).out == found[0]["text"]


def test_words_follow_the_prompt_with_a_space(generate, word):
    out = generate(word, "--prompt", "the cat", "--seed", 1, "--max-new-tokens", 6).out
    assert out.startswith((" ", "\n"))
    assert not generate(word, "--seed", 1, "--max-new-tokens", 6).out.startswith(" ")


def test_no_unk(generate, word):
    args = (word, "--temperature", 4, "--num-samples", 20, "--seed", 1, "--max-new-tokens", 30)
    assert "<unk>" in generate(*args).out
    assert "<unk>" not in generate(*args, "--no-unk").out
    assert "<unk>" not in generate(word, "--beam-size", 3, "--num-samples", 3, "--no-unk").out


def test_a_prompt_with_unseen_characters_warns_once(generate, char):
    done = generate(char, "--prompt", "the ßß", "--max-new-tokens", 5, "--num-samples", 2)
    assert len(done.out.splitlines()) == 2
    assert done.err.count("\n") == 1 and "2 of its 6 tokens" in done.err


def test_an_ensemble_of_one_model_twice_is_that_model(generate, char):
    args = ("--prompt", "a", "--seed", 1, "--max-new-tokens", 20)
    (one,) = records(generate, char, *args)
    (two,) = records(generate, char, "-m", char, *args)
    assert two["text"] == one["text"] and math.isclose(two["logprob"], one["logprob"], rel_tol=1e-4)


def test_models_of_an_ensemble_generate_what_they_score(generate, char, tmp_path):
    """Both mix them by the mean of their probabilities."""
    other = tiny_model(tmp_path, text=TEXT, seed=9, scale=6.0)
    args = ("-m", other, "--greedy", "--max-new-tokens", 400, "--stop", "\n")
    (record,) = records(generate, char, *args)
    assert record["finish_reason"] == "stop" and record["text"]
    done = run_cli("score", char, "-m", other, input=(record["text"] + "\n").encode())
    assert float(done.stdout) == pytest.approx(record["logprob"], abs=2e-3)


def test_models_may_all_be_given_as_options(generate, char):
    args = ("--prompt", "a", "--seed", 1, "--max-new-tokens", 20)
    assert generate("-m", char, "-m", char, *args).out == generate(char, "-m", char, *args).out
    with pytest.raises(UsageError, match="Missing argument 'MODEL'"):
        generate(*args)


def test_models_of_an_ensemble_share_their_vocabulary(generate, char, word, tmp_path):
    other = tiny_model(tmp_path, text=TEXT, seed=9, scale=6.0)
    args = ("--seed", 1, "--max-new-tokens", 40)
    both = generate(char, "-m", other, *args).out
    assert both not in (generate(char, *args).out, generate(other, *args).out)
    with pytest.raises(UsageError, match="different vocabularies"):
        generate(char, "-m", word)


def test_bytes_come_out_as_they_are_and_json_stays_valid(generate, byte):
    args = ("--seed", 1, "--max-new-tokens", 300)
    done = run_cli("generate", byte, *args)
    assert done.returncode == 0 and len(done.stdout) == 300
    (record,) = records(generate, byte, *args)
    assert record["text"] == done.stdout.decode("utf-8", "replace") and "\ufffd" in record["text"]


def test_the_prompt_from_everywhere_is_the_same(generate, char, tmp_path):
    args = ("--seed", "1", "--max-new-tokens", "20")
    expected = generate(char, "--prompt", "the\ncat", *args).out
    (tmp_path / "prompt").write_bytes(b"the\ncat\n")
    assert generate(char, "--prompt-file", tmp_path / "prompt", *args).out == expected
    done = run_cli("generate", char, "--prompt", "-", *args, input=b"the\ncat\n")
    assert done.stdout.decode() == expected
    assert expected != generate(char, "--prompt", "the\ncat\n", *args).out


def test_a_byte_order_mark_before_a_prompt_is_dropped(tmp_path):
    (tmp_path / "prompt").write_bytes("\ufeffthe \ufeff\n".encode())
    path = str(tmp_path / "prompt")
    assert _read_prompt(None, path, any_bytes=False) == "the \ufeff"
    assert _read_prompt(None, path, any_bytes=True) == "\ufeffthe \ufeff"


def test_a_prompt_that_is_not_utf8(generate, char, byte, tmp_path):
    (tmp_path / "prompt").write_bytes(b"the \xff")
    args = ("--prompt-file", tmp_path / "prompt", "--max-new-tokens", 3)
    assert "not UTF-8" in generate(char, *args).err
    assert generate(byte, *args, "--json").err == ""


@pytest.mark.parametrize(
    ("args", "error", "named"),
    [
        (("--prompt", "a", "--prompt-file", "b"), UsageError, "--prompt-file"),
        (("--prompt-file", "no such file"), FileError, "no such file"),
        (("--temperature", "0"), UsageError, "temperature"),
        (("--top-p", "1.5"), UsageError, "top_p"),
        (("--min-new-tokens", "600"), UsageError, "min_new_tokens"),
        (("--stop", ""), UsageError, "stop"),
        (("--beam-size", "2", "--top-k", "3"), UsageError, "--beam-size"),
        (("--greedy", "--temperature", "0.5"), UsageError, "--greedy"),
        (("--beam-size", "2", "--num-samples", "3"), UsageError, "--num-samples"),
        (("--weights", "int3"), UsageError, "weights.*int8"),
    ],
)
def test_what_makes_no_sense_is_refused(generate, char, args, error, named):
    with pytest.raises(error, match=named):
        generate(char, *args)


def test_a_reader_that_has_seen_enough_ends_it_quietly(char):
    """A text of a billion characters, of which ten are read."""
    with subprocess.Popen(
        [*RNNCLI, "generate", str(char), "--max-new-tokens", "1000000000"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=cli_env(),
    ) as process:  # fmt: skip
        assert len(process.stdout.read(10)) == 10
        process.stdout.close()
        assert (process.wait(timeout=60), process.stderr.read()) == (141, b"")


def on_terminal(*args: str | Path) -> str:
    ours, theirs = pty.openpty()
    with subprocess.Popen([*RNNCLI, *map(str, args)], env=cli_env(), stdout=theirs) as process:
        os.close(theirs)
        text = b""
        try:
            while chunk := os.read(ours, 1 << 16):
                text += chunk
        except OSError:  # how Linux says that the other end is closed
            pass
    os.close(ours)
    assert process.returncode == 0
    return text.decode().replace("\r\n", "\n")


def test_a_terminal_shows_the_text_and_ends_the_line(char, generate):
    args = (char, "--seed", "1", "--max-new-tokens", "30")
    plain = generate(*args).out
    assert on_terminal("generate", *args) == plain + "\n" * (not plain.endswith("\n"))


def test_samples_are_shown_one_after_the_other_as_they_grow(capsys):
    def events():
        yield Piece(0, "a")
        assert capsys.readouterr().out == "a"
        yield Piece(1, "x")
        assert capsys.readouterr().out == ""
        yield Piece(1, "y\n")
        yield Sample(1, (1, 2), "xy\n", 0.0, "stop")
        assert capsys.readouterr().out == ""
        yield Piece(0, "b")
        assert capsys.readouterr().out == "b"
        yield Sample(0, (1, 2), "ab", 0.0, "stop")
        assert capsys.readouterr().out == "\n\n--- 2 ---\nxy\n\n--- 3 ---\n"
        yield Piece(2, "z")
        assert capsys.readouterr().out == "z"
        yield Sample(2, (1,), "z", 0.0, "length")

    _stream(events(), 3)
    assert capsys.readouterr().out == "\n"


def test_a_terminal_is_not_told_what_to_do():
    assert _visible("a\tb\nc é\u4e2d") == "a\tb\nc é\u4e2d"
    assert _visible("\x1b[2J\x07\u202e") == "\ufffd[2J\ufffd\ufffd"
