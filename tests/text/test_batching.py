"""Streams of columns, weighted parts, batches of lines."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnncli.text.batching import LineBatches, Stream, weighted_parts
from rnncli.text.corpus import Counts, TokenStream

BOUNDARY = 0
PARTS = st.lists(
    st.lists(st.integers(0, 5), max_size=30).map(lambda ids: np.array(ids, np.uint16)), max_size=4
)


def joined(parts: list[npt.NDArray[np.uint16]]) -> list[int]:
    return [int(token) for part in parts for token in part]


@given(PARTS, st.integers(1, 6), st.integers(1, 7))
def test_columns_are_the_text_in_order(
    parts: list[npt.NDArray[np.uint16]], batch_size: int, step: int
) -> None:
    stream = Stream(parts, batch_size, 99)
    tokens = joined(parts)
    length = len(tokens) // batch_size
    assert stream.length == length
    columns: list[list[int]] = [[] for _ in range(batch_size)]
    before: list[list[int]] = [[] for _ in range(batch_size)]
    for start in range(0, length, step):
        inputs, targets = stream.window(start, min(start + step, length))
        for array in (inputs, targets):
            assert array.shape == (min(step, length - start), batch_size)
            assert array.dtype == np.int64
            assert array.flags.c_contiguous
        for column in range(batch_size):
            columns[column] += targets[:, column].tolist()
            before[column] += inputs[:, column].tolist()
    assert [token for column in columns for token in column] == tokens[: length * batch_size]
    shifted = [99, *tokens][: length * batch_size]
    assert [token for column in before for token in column] == shifted


def test_windows_outside_are_refused() -> None:
    stream = Stream([np.arange(10, dtype=np.uint16)], 2, 0)
    assert stream.window(5, 5)[0].shape == (0, 2)
    for start, stop in ((-1, 2), (3, 2), (0, 6)):
        with pytest.raises(IndexError, match="outside 0 to 5"):
            stream.window(start, stop)


def stream_of(start: int, stop: int) -> TokenStream:
    return TokenStream(np.arange(start, stop, dtype=np.uint16), Counts(), "")


def test_weights_repeat_and_slice() -> None:
    rng = np.random.default_rng(1)
    parts = weighted_parts([stream_of(0, 10), stream_of(10, 20), stream_of(20, 30)], [2.3, 0, 1],
                           0, rng)  # fmt: skip
    assert [len(part) for part in parts] == [10, 10, 3, 10]
    assert np.all(np.diff(parts[2].astype(int)) == 1)
    assert set(joined(parts)) == set(range(10)) | set(range(20, 30))
    assert all(part.base is not None or len(part) == 10 for part in parts)  # nothing is copied
    assert joined(weighted_parts([stream_of(0, 4)], [], 0, rng)) == [0, 1, 2, 3]


def test_slices_move_through_the_stream() -> None:
    def starts(seed: int | None) -> list[int]:
        rng = np.random.default_rng(3)
        return [
            int(weighted_parts([stream_of(0, 100)], [0.1], epoch,
                               np.random.default_rng(seed) if seed else rng)[0][0])
            for epoch in range(30)
        ]  # fmt: skip

    assert len(set(starts(None))) > 10
    assert len(set(starts(4))) > 10
    assert starts(4) == starts(4)


@given(PARTS, st.integers(1, 5), st.none() | st.integers(0, 9))
def test_every_line_comes_once_and_whole(
    parts: list[npt.NDArray[np.uint16]], batch_size: int, seed: int | None
) -> None:
    expected: list[list[int]] = []
    for part in parts:
        line: list[int] = []
        for token in part.tolist():
            line.append(token)
            if token == BOUNDARY:
                expected.append(line)
                line = []
        if line:
            expected.append(line)
    batches = LineBatches(parts, batch_size, BOUNDARY)
    assert batches.lengths.tolist() == [len(line) for line in expected]
    epoch = batches.epoch(None if seed is None else np.random.default_rng(seed))
    seen: list[int] = []
    for number in range(len(epoch)):
        lines = epoch.lines(number)
        inputs, targets, mask = epoch.batch(number)
        assert 1 <= len(lines) <= batch_size
        assert inputs.shape == targets.shape == mask.shape
        assert inputs.dtype == targets.dtype == np.int64
        assert mask.any(axis=0).all()
        assert mask[-1].any()
        for column, line_number in enumerate(lines.tolist()):
            found = targets[mask[:, column], column].tolist()
            assert found == expected[line_number]
            assert mask[: len(found), column].all()
            assert inputs[mask[:, column], column].tolist() == [BOUNDARY, *found[:-1]]
            assert (targets[~mask[:, column], column] == BOUNDARY).all()
        seen += lines.tolist()
    assert sorted(seen) == list(range(len(expected)))


def lines_of(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.uint16]:
    ids = np.ones(int(lengths.sum()), np.uint16)
    ids[np.cumsum(lengths) - 1] = BOUNDARY
    return ids


def test_lines_of_like_length_meet_others_each_epoch() -> None:
    lengths = np.random.default_rng(0).geometric(0.05, 5000)
    batches = LineBatches([lines_of(lengths)], 32, BOUNDARY)
    rng = np.random.default_rng(1)
    first, second = batches.epoch(rng), batches.epoch(rng)
    padded = sum(mask.size for mask in (first.batch(n)[2] for n in range(len(first))))
    assert padded < 1.15 * lengths.sum()
    assert len(first) < 1.1 * 5000 / 32
    groups = [{frozenset(e.lines(n).tolist()) for n in range(len(e))} for e in (first, second)]
    assert len(groups[0] & groups[1]) < 10
    widths = [len(first.batch(n)[0]) for n in range(len(first))]
    assert widths != sorted(widths)
    again = batches.epoch(np.random.default_rng(1))
    assert all(np.array_equal(again.lines(n), first.lines(n)) for n in range(len(first)))


def test_one_huge_line_does_not_pad_the_others() -> None:
    lengths = np.array([5] * 100 + [100_000] + [7] * 100)
    epoch = LineBatches([lines_of(lengths)], 32, BOUNDARY).epoch()
    assert sum(epoch.batch(n)[2].size for n in range(len(epoch))) < 1.1 * lengths.sum()
