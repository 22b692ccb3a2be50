"""Parallel text: reading, errors that name the place, groups without padding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnncli.errors import DataError, UsageError
from rnncli.sections import TokenizerConfig
from rnncli.text.pairs import (
    PairFiles,
    encode_pairs,
    group_by_length,
    pair_files,
    read_pairs,
    source_batch,
    target_batch,
)
from rnncli.text.tokenizers import train_tokenizer


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_table_and_two_files_are_the_same(tmp_path: Path) -> None:
    table = write(tmp_path / "t.tsv", "a b\tx\nc\ty z\n")
    source, target = write(tmp_path / "s", "a b\nc\n"), write(tmp_path / "t", "x\ny z")
    pairs = list(read_pairs(PairFiles(table=table)))
    assert pairs == [("a b", "x"), ("c", "y z")]
    assert list(read_pairs(PairFiles(source=source, target=target))) == pairs


def test_lines_that_are_not_utf8_are_counted_once_all_are_read(tmp_path: Path) -> None:
    source, target = tmp_path / "s", tmp_path / "t"
    source.write_bytes(b"a\nb\xff\nc\n")
    target.write_bytes(b"\xffx\ny\n\xff\xff\n")
    notes: list[str] = []
    pairs = read_pairs(PairFiles(source=str(source), target=str(target)), notes)
    assert list(pairs) == [("a", "\ufffdx"), ("b\ufffd", "y"), ("c", "\ufffd\ufffd")]
    assert sorted(notes) == [
        f"{source}: 1 of 3 lines were not UTF-8; each has U+FFFD for what was not.",
        f"{target}: 2 of 3 lines were not UTF-8; each has U+FFFD for what was not.",
    ]
    assert list(read_pairs(PairFiles(table=write(tmp_path / "p", "a\tb\n")), notes))
    assert len(notes) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\tb\nc\n", r"t\.tsv:2: 1 column; expected two, source TAB target"),
        ("a\tb\tc\n", r"t\.tsv:1: 3 columns; expected two"),
        ("a\tb\n \tc\n", r"t\.tsv:2: the source is empty"),
        ("a\t\n", r"t\.tsv:1: the target is empty"),
    ],
)
def test_lines_that_are_no_pairs(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(read_pairs(PairFiles(table=write(tmp_path / "t.tsv", text))))


@pytest.mark.parametrize(("left", "right"), [(2, 4), (5, 3)])
def test_unequal_files_are_told_with_both_counts(tmp_path: Path, left: int, right: int) -> None:
    source, target = write(tmp_path / "s", "a\n" * left), write(tmp_path / "t", "b\n" * right)
    with pytest.raises(DataError, match=rf"s has {left} lines and .*t {right};"):
        list(read_pairs(PairFiles(source=source, target=target)))


def test_what_files_there_must_be() -> None:
    assert pair_files(["a"], [], []) == [PairFiles(table="a")]
    assert pair_files([], ["a"], ["b"]) == [PairFiles(source="a", target="b")]
    for tables, source, target in ((["a"], ["b"], ["c"]), ([], ["a"], []), ([], [], [])):
        with pytest.raises(UsageError):
            pair_files(tables, source, target)


def test_length_filter_and_reversal() -> None:
    tokenizer = train_tokenizer(TokenizerConfig(kind="word"), ["a b c", "x y z w"])
    pairs = [("a b c", "x"), ("a", "x y z w"), ("b", "y")]
    plain = encode_pairs(pairs, tokenizer, tokenizer, max_length=3)
    assert (len(plain), plain.dropped, plain.target_tokens) == (2, 1, 4)
    backward = encode_pairs(pairs, tokenizer, tokenizer, reverse=True)
    assert backward.sources[0].tolist() == plain.sources[0][::-1].tolist()
    assert backward.targets[0].tolist() == plain.targets[0].tolist()


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 9)), max_size=60), st.booleans())
def test_groups_hold_every_line_once_and_one_length(sizes: list[tuple[int, int]], drawn: bool):
    lengths = np.array([a for a, _ in sizes], np.int64)
    seconds = np.array([b for _, b in sizes], np.int64)
    rng = np.random.default_rng(3) if drawn else None
    groups = group_by_length(lengths, seconds, 4, rng)
    assert sorted(n for group in groups for n in group.tolist()) == list(range(len(sizes)))
    for group in groups:
        assert 1 <= len(group) <= 4
        assert len(set(lengths[group].tolist())) == 1


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 9)), max_size=60), st.integers(1, 60))
def test_groups_by_tokens_hold_no_more(sizes: list[tuple[int, int]], tokens: int) -> None:
    """Of both sides, the source's end counted and the second side padded; or one line alone. The
    line that begins the next group of its length would not have fitted."""
    lengths, seconds = (np.array([pair[side] for pair in sizes], np.int64) for side in (0, 1))
    groups = group_by_length(lengths, seconds, 4, None, tokens)
    assert sorted(number for group in groups for number in group) == list(range(len(sizes)))

    def padded(group: list[int]) -> int:
        return len(group) * (int(lengths[group[0]]) + 1 + int(seconds[group].max()))

    for group, after in zip(groups, [*groups[1:], None], strict=False):
        assert len(set(lengths[group])) == 1
        assert len(group) == 1 or padded(list(group)) <= tokens
        if after is not None and lengths[after[0]] == lengths[group[0]]:
            assert padded([*group, after[0]]) > tokens


def test_batches() -> None:
    lines = [np.array([5, 6]), np.array([7])]
    assert source_batch([lines[0], lines[0][::-1]], 0).tolist() == [[5, 6], [6, 5], [0, 0]]
    inputs, targets, mask = target_batch(lines, 0)
    assert inputs.tolist() == [[0, 0], [5, 7], [6, 0]]
    assert targets.tolist() == [[5, 7], [6, 0], [0, 0]]
    assert mask.tolist() == [[True, True], [True, True], [True, False]]
