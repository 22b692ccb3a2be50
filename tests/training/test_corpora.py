"""Strange corpora: each trains, or ends with an error that says what is wrong."""

import os

import pytest

from rnncli.errors import DataError, FileError
from rnncli.loading import load_language_model
from tests.training.runs import run, tiny_config

TRAINS = {
    "two characters": "ab",
    "one line without its end": "the cat sat on the mat",
    "two lines": "a\nb\n",
    "blank lines": "\n\n\n\n",
    "fewer tokens than a batch has": "ab\ncd\n",
    "NUL bytes": f"a{chr(0)}b{chr(0)}\n" * 9,
    "line separators": f"a{chr(0x2028)}b{chr(0x2029)}c{chr(0x85)}d{chr(11)}e\n" * 9,
    "carriage returns": "ab\r\ncd\r\n" * 9,
    "a byte-order mark": f"{chr(0xFEFF)}ab\n" * 9,
    "escape sequences": f"{chr(27)}[31mred{chr(27)}[0m\n" * 9,
    "not UTF-8": "grüße\nab\n".encode("latin-1") * 9,
}


@pytest.mark.parametrize("name", TRAINS)
@pytest.mark.parametrize("kind", ["byte", "char", "word", "bpe"])
def test_strange_texts_train(kind, name, tmp_path):
    content = TRAINS[name]
    path = tmp_path / "text.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    state = "carried" if kind in ("byte", "word") else "reset"
    config = tiny_config(path, tokenizer__kind=kind, training__state=state, training__max_steps=2)
    events = run(config, tmp_path / "run")
    assert events[-1].step == 2
    notes = " ".join(events[0].notes)
    assert ("not UTF-8" in notes) == (name == "not UTF-8" and kind != "byte")
    load_language_model(tmp_path / "run")


def test_one_character(tmp_path):
    """It has no second one to hold out; it and the end of its line are learnt."""
    path = tmp_path / "text.txt"
    path.write_text("a")
    events = run(tiny_config(path, training__max_steps=3), tmp_path / "run")
    assert (events[0].train_tokens, events[0].valid_tokens) == (2, 0)
    assert "too small to hold any of it out" in events[0].notes[0]
    assert events[-1].step == 3


@pytest.mark.slow
def test_a_line_of_ten_megabytes(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(b"the cat sat " * 850_000)
    (tmp_path / "valid.txt").write_text("the cat\n")
    for state in ("carried", "reset"):
        config = tiny_config(
            path,
            training__state=state,
            training__max_steps=2,
            data__valid=str(tmp_path / "valid.txt"),
        )
        events = run(config, tmp_path / state)
        assert events[0].train_tokens == 12 * 850_000 + 1
        assert events[-1].step == 2


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda path: path.write_bytes(b""), DataError, r"text\.txt: empty"),
        (lambda path: None, FileError, r"text\.txt: No such file"),
        (lambda path: path.mkdir(), FileError, r"text\.txt: Is a directory"),
        (lambda path: path.symlink_to(path), FileError, r"text\.txt: Too many levels"),
    ],
)
def test_texts_that_are_none(make, error, message, text, tmp_path):
    folder = tmp_path / "inner"
    folder.mkdir()
    make(folder / "text.txt")
    with pytest.raises(error, match=message):
        run(tiny_config(folder / "text.txt"), tmp_path / "run")
    with pytest.raises(error, match=message):
        run(tiny_config(text, data__valid=str(folder / "text.txt")), tmp_path / "run")
    if error is DataError:  # an empty file among others is said, and left out
        both = tiny_config(text, data__train=[str(folder / "text.txt"), str(text)])
        assert "is empty." in run(both, tmp_path / "run")[0].notes[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_text(text, tmp_path):
    text.chmod(0)
    with pytest.raises(FileError, match=r"text\.txt: Permission denied"):
        run(tiny_config(text), tmp_path / "run")


def test_weights_that_leave_nothing(text, tmp_path):
    with pytest.raises(DataError, match=r"data\.weights leave nothing to train on"):
        run(tiny_config(text, data__weights=[0.0]), tmp_path / "run")
    assert not (tmp_path / "run/config.toml").exists()


def test_the_last_twentieth_is_held_out(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("".join(f"{k:03}\n" for k in range(100)))
    config = tiny_config(path, data__valid_fraction=0.05, training__max_steps=1)
    started = run(config, tmp_path / "run")[0]
    assert (started.train_tokens, started.valid_tokens) == (380, 20)
    assert started.notes[0].startswith("The last 5 of 100 lines are held out for validation")
