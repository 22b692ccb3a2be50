"""The sample data: formats, what each set is meant to teach, and that make.py makes it again."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from itertools import combinations, pairwise
from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parent.parent / "sample_data"
MAKE = DATA / "make.py"
GENERATED = sorted(
    path.name for path in DATA.iterdir() if path.suffix in (".tsv", ".txt") and path.stem != "book"
)
UPOS = "ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X"


def read(name: str) -> list[str]:
    """The lines of a file, every one of them ended."""
    text = (DATA / name).read_bytes().decode("utf-8")
    assert text.endswith("\n") and "\r" not in text
    return text[:-1].split("\n")


def columns(name: str) -> list[tuple[str, str]]:
    rows = [tuple(line.split("\t")) for line in read(name)]
    assert all(len(row) == 2 and all(row) for row in rows)
    return [(row[0], row[1]) for row in rows]


def sentences(name: str) -> list[list[tuple[str, str]]]:
    blocks = "\n".join(read(name)).split("\n\n")
    return [
        [(token, tag) for token, tag in (line.split("\t") for line in block.split("\n"))]
        for block in blocks
    ]


def make(out: Path, hash_seed: str = "0") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(MAKE), "--out", str(out)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_make_writes_the_committed_files_again(tmp_path: Path, hash_seed: str) -> None:
    assert make(tmp_path, hash_seed).returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == GENERATED
    for name in GENERATED:
        assert (tmp_path / name).read_bytes() == (DATA / name).read_bytes(), name


def test_make_needs_a_folder_that_exists(tmp_path: Path) -> None:
    done = make(tmp_path / "missing")
    assert done.returncode == 2
    assert "missing is not a folder" in done.stderr
    assert not (tmp_path / "missing").exists()


def test_sizes() -> None:
    assert sum((DATA / name).stat().st_size for name in GENERATED) < 600_000
    assert 105_000 <= (DATA / "book.txt").stat().st_size <= 130_000


def test_the_readme_names_every_file() -> None:
    text = (DATA / "README.md").read_text("utf-8")
    assert all(f"`{name}`" in text for name in [*GENERATED, "book.txt", "make.py"])


def test_book_is_one_paragraph_a_line() -> None:
    lines = read("book.txt")
    assert all(line == line.strip() and "  " not in line for line in lines)
    assert not any(not above and not below for above, below in pairwise(lines))
    chapters = [match[1] for line in lines if (match := re.match(r"Chapter (\d+)\. \S", line))]
    assert chapters == [str(number) for number in range(1, 16)]
    assert len(" ".join(lines).split()) > 19_000


def test_book_does_not_repeat_itself() -> None:
    assert [line for line, count in Counter(read("book.txt")).items() if count > 1 < len(line)] == [
        '"Yes, sir."',
        "Turn, wheel, turn,",
        "So turn, wheel, turn.",
    ]
    words = (DATA / "book.txt").read_text("utf-8").split()
    runs = Counter(tuple(words[at : at + 8]) for at in range(len(words) - 7))
    assert sum(count for count in runs.values() if count > 1) < 0.005 * len(words)


@pytest.mark.parametrize(
    ("stem", "train_count", "valid_count"),
    [("pairs", 2000, 200), ("sentiment", 600, 100), ("pronunciation", 1500, 150)],
)
def test_two_columns(stem: str, train_count: int, valid_count: int) -> None:
    train, valid = columns(f"{stem}.tsv"), columns(f"{stem}.valid.tsv")
    assert (len(train), len(valid)) == (train_count, valid_count)
    key = 1 if stem == "sentiment" else 0
    keys = [row[key] for row in train + valid]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("stem", "column"), [("pairs", 0), ("pairs", 1), ("sentiment", 1), ("pronunciation", 1)]
)
def test_validation_words_are_known_from_training(stem: str, column: int) -> None:
    train = {word for row in columns(f"{stem}.tsv") for word in row[column].split()}
    valid = {word for row in columns(f"{stem}.valid.tsv") for word in row[column].split()}
    assert valid <= train


def test_german_puts_its_verbs_where_the_clause_wants_them() -> None:
    rows = columns("pairs.tsv") + columns("pairs.valid.tsv")
    main = [de for en, de in rows if re.match(r"(Anna|Karl|Emil|Zoë) opens [^,]*\.$", en)]
    main = [de for de in main if " und " not in de and "weil" not in de]
    assert main and all(re.fullmatch(r"\w+ macht .* auf \.", de) for de in main)
    clauses = [(en.rsplit(" that ", 1)[1], de) for en, de in rows if " , dass " in de]
    last = [de for en, de in clauses if re.search(r"\b(opens|closes)\b", en)]
    assert last and all(de.endswith(("aufmacht .", "zumacht .")) for de in last)
    fronted = [(m[1], de) for en, de in rows if (m := re.match(r"today ([A-ZÄ]\w+) ", en))]
    assert fronted and all(re.match(rf"heute \w+ {name} ", de) for name, de in fronted)
    helped = r"\b(thanked|helped|answered|followed) the (\w+ )?(man|captain|child)\b"
    dative = [de for en, de in rows if re.search(helped, en)]
    assert dative and all(re.search(r"\bdem (\w+en )?(Mann|Kapitän|Kind)\b", de) for de in dative)
    numbers = [de for en, de in rows if " twenty-five " in f" {en} "]
    assert numbers and all("fünfundzwanzig" in de for de in numbers)


def test_sentiment_is_told_by_the_order_of_the_words() -> None:
    rows = columns("sentiment.tsv")
    labels: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for label, text in rows:
        labels[tuple(sorted(text.split()))].add(label)
    both = sum(len(labels[tuple(sorted(text.split()))]) == 2 for _, text in rows)
    assert both / len(rows) > 0.6
    for name in ("sentiment.tsv", "sentiment.valid.tsv"):
        count = Counter(label for label, _ in columns(name))
        assert set(count) == {"negative", "positive"} and count["negative"] == count["positive"]


def test_tags() -> None:
    train, valid = sentences("tags.tsv"), sentences("tags.valid.tsv")
    assert (len(train), len(valid)) == (400, 60)
    texts = [" ".join(token for token, _ in sentence) for sentence in train + valid]
    assert len(set(texts)) == len(texts)
    readings: dict[str, set[str]] = defaultdict(set)
    for token, tag in (pair for sentence in train for pair in sentence):
        readings[token].add(tag)
    assert set().union(*readings.values()) <= set(UPOS.split())
    assert all(tag in readings[token] for sentence in valid for token, tag in sentence)
    assert {word for word, tags in readings.items() if len(tags) > 1} >= {
        "can", "fish", "light", "that", "watch",
    }  # fmt: skip


def frames(piece: str) -> list[tuple[int, ...]]:
    """Notes of each frame, bass first; () for silence."""
    return [() if frame == "-" else tuple(map(int, frame.split(","))) for frame in piece.split(" ")]


def test_music_has_four_voices_in_their_ranges() -> None:
    train, valid = read("music.txt"), read("music.valid.txt")
    assert (len(train), len(valid)) == (80, 10)
    assert len(set(train + valid)) == 90
    for piece in train + valid:
        assert "-" in piece.split(" ")
        for notes in filter(None, frames(piece)):
            assert len(notes) == 4 and list(notes) == sorted(set(notes))
            assert all(
                low <= note <= high
                for note, low, high in zip(notes, (40, 48, 55, 60), (60, 67, 74, 79), strict=True)
            )


def test_music_has_no_parallel_fifths_or_octaves() -> None:
    for piece in read("music.txt"):
        for before, after in pairwise(frames(piece)):
            if not before or not after:
                continue
            for low, high in combinations(range(4), 2):
                interval = (after[high] - after[low]) % 12
                moved = after[low] != before[low] and after[high] != before[high]
                same = (before[high] - before[low]) % 12 == interval
                assert not (moved and same and interval in (0, 7)), (before, after)


@pytest.mark.parametrize(
    ("word", "phonemes"),
    [
        ("cage", "K AY J"),
        ("cent", "S E N T"),
        ("phase", "F AY Z"),
        ("wrong", "R O NG"),
        ("nation", "N AY SH O N"),
        ("ladder", "L A D ER"),
        ("big", "B I K"),
        ("bigo", "B EYE G O"),
        ("knigh", "N EYE"),
        ("quince", "K W I N S"),
        ("arrow", "A R O W"),
        ("xunk", "Z U NG K"),
    ],
)
def test_pronunciation_follows_its_context(
    word: str, phonemes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(DATA))
    rules = importlib.import_module("generators.pronunciation")
    assert " ".join(rules.pronounce(word)) == phonemes
