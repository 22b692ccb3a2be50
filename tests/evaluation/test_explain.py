"""Surprisal, units and gates, against the scores of lines and a model that is stepped."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rnncli.errors import UsageError
from rnncli.evaluation import explain as explaining
from rnncli.evaluation import units
from rnncli.evaluation.explain import Explained, Unit, explain, parse_unit
from rnncli.evaluation.gates import gate_names
from rnncli.evaluation.scoring import LineScorer
from rnncli.evaluation.units import FEATURES, Reading, top_units
from rnncli.loading import Loaded, load_language_model
from rnncli.nn.stack import Run
from rnncli.nn.state import CellState
from tests.helpers import tiny_model

LINES = ["the cat sat", "", "on the mat and", "x", "the dog " * 5]
CELLS: dict[str, dict[str, Any]] = {
    "lstm": {},
    "lstm coupled": {"cell": "lstm", "coupled_gates": True},
    "lstm normalised": {"cell": "lstm", "layer_norm": True},
    "lstm-peephole": {},
    "gru": {},
    "gru normalised": {"cell": "gru", "layer_norm": True},
    "gru-cho2014": {},
    "mingru": {},
    "rhn": {"transition_depth": 2},
    "lstm residual": {"cell": "lstm", "residual": "highway", "embedding_size": 16},
    "lstm zoneout": {"cell": "lstm", "zoneout": 0.2, "zoneout_cell": 0.3},
}


def load(folder: Path, kind: str = "lstm", **more: Any) -> Loaded:
    return load_language_model(tiny_model(folder, **{"cell": kind, **CELLS.get(kind, {}), **more}))


def stepped(loaded: Loaded, tokens: Sequence[int]) -> list[tuple[CellState, ...]]:
    """The layers' states after each token, one ``step`` at a time from the first state."""
    model = copy.deepcopy(loaded.model).double()
    state, states = model.start(None, 1), []
    with torch.no_grad():
        for token in tokens:
            _, state = model.step(torch.tensor([token]), state)
            states.append(state.layers)
    return states


def ids(loaded: Loaded, line: str) -> list[int]:
    return [*loaded.tokenizer.encode(line), loaded.tokenizer.boundary_id]


def flat(batches: Any) -> list[Explained]:
    return [one for batch in batches for one in batch]


@pytest.fixture(autouse=True)
def _short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even a short line is run in several pieces."""
    monkeypatch.setattr(explaining, "PIECE", 7)


@pytest.fixture(scope="module")
def lstm(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load(tmp_path_factory.mktemp("explain"), scale=4.0)


def test_surprisal_is_what_score_gives(lstm: Loaded) -> None:
    found = flat(explain(lstm, [LINES[:2], LINES[2:]]))
    for one, line, score in zip(found, LINES, LineScorer([lstm])(LINES), strict=True):
        assert (one.line, one.tokens) == (line, score.tokens)
        assert one.values == pytest.approx(score.nats / math.log(2), rel=1e-10)


def test_a_carried_state_goes_on_from_line_to_line(lstm: Loaded) -> None:
    """However the lines are batched, they are one stream."""
    boundary = lstm.tokenizer.boundary_id
    stream = [boundary] + [token for line in LINES for token in ids(lstm, line)]
    model = copy.deepcopy(lstm.model).double()
    state, bits = model.start(None, 1), []
    with torch.no_grad():
        for before, token in pairwise(stream):
            logits, state = model.step(torch.tensor([before]), state)
            bits.append(-torch.log_softmax(logits[0], 0)[token].item() / math.log(2))
    h = [float(layers[1][0][0, 3]) for layers in stepped(lstm, stream)[1:]]
    for batches in ([LINES], [[line] for line in LINES], [LINES[:3], [], LINES[3:]]):
        carried = flat(explain(lstm, batches, state="carried"))
        assert np.concatenate([one.values for one in carried]) == pytest.approx(bits, rel=1e-9)
        of_unit = flat(explain(lstm, batches, state="carried", unit=Unit(1, 3)))
        assert np.concatenate([one.values for one in of_unit]) == pytest.approx(h, rel=1e-9)
    with pytest.raises(UsageError, match="--state: unknown value 'kept'"):
        flat(explain(lstm, [LINES], state="kept"))


@pytest.mark.parametrize("kind", CELLS)
def test_a_unit_is_what_stepping_the_model_gives(kind: str, tmp_path: Path) -> None:
    loaded = load(tmp_path, kind)
    for layer, number in ((0, 0), (1, 2)):
        found = flat(explain(loaded, [LINES], unit=Unit(layer, number)))
        for one, line in zip(found, LINES, strict=True):
            read = [loaded.tokenizer.boundary_id, *ids(loaded, line)]
            states = stepped(loaded, read)[1:]
            expected = [float(layers[layer][0][0, number]) for layers in states]
            assert one.values == pytest.approx(expected, rel=1e-9, abs=1e-12)


EMITTING: dict[str, dict[str, Any]] = {
    "qrnn": {},
    "qrnn ifo": {"cell": "qrnn", "pooling": "ifo", "window": 3},
    "sru": {},
    "sru zoneout": {"cell": "sru", "zoneout": 0.2},
    "do-rnn": {"output_size": 5},
}
"""Cells whose output is made from the state that they carry."""


def emitted(loaded: Loaded, tokens: Sequence[int]) -> np.ndarray[Any, Any]:
    """What a single layer gives after each token: (T, H)."""
    model = copy.deepcopy(loaded.model).double()
    with torch.no_grad():
        read = torch.tensor(tokens).unsqueeze(1)
        y, _ = model.hidden(read, model.start(None, 1), Run("deferred", torch.float64))
    return y[:, 0].numpy()


@pytest.mark.parametrize("kind", EMITTING)
def test_a_unit_is_what_goes_on_to_the_next_layer(kind: str, tmp_path: Path) -> None:
    loaded = load(tmp_path, kind, layers=1, **EMITTING[kind])
    for one in flat(explain(loaded, [LINES], unit=Unit(0, 2))):
        read = [loaded.tokenizer.boundary_id, *one.tokens]
        assert one.values == pytest.approx(emitted(loaded, read)[1:, 2], rel=1e-9, abs=1e-12)
        state = of([layers[0] for layers in stepped(loaded, read)], 0, 2)[1:]
        assert one.values != pytest.approx(state, rel=1e-3), "the state it is made from"


def test_units_of_an_output_network(tmp_path: Path) -> None:
    model = load(tmp_path, "do-rnn", layers=1, output_size=5).model
    assert parse_unit("1:5", "", model) == Unit(0, 4, "")
    with pytest.raises(UsageError, match="choices: 1 to 5"):
        parse_unit("1:6", "", model)


@pytest.mark.parametrize("kind", [kind for kind in CELLS if kind != "rhn"])
def test_gates_make_the_next_state(kind: str, tmp_path: Path) -> None:
    """With the cell's last equation, which puts its gates together, they give h again."""
    loaded = load(tmp_path, kind, layers=1)
    (cell,) = loaded.model.stack.layers
    read = [loaded.tokenizer.boundary_id, *ids(loaded, LINES[0])]
    states = [layers[0] for layers in stepped(loaded, read)]
    for number in (0, 5):
        gates = {
            name: flat(explain(loaded, [LINES[:1]], unit=Unit(0, number, name)))[0].values
            for name in gate_names(cell)
        }
        before, after = states[:-1], states[1:]
        h, old_h = (of(series, 0, number) for series in (after, before))
        if "zoneout" in kind:
            c, old_c = (of(series, 1, number) for series in (after, before))
            assert 0.7 * remade(gates, old_c) + 0.3 * old_c == pytest.approx(c, rel=1e-9)
        elif "normalised" in kind and "lstm" in kind:
            c, old_c = (of(series, 1, number) for series in (after, before))
            assert remade(gates, old_c) == pytest.approx(c, rel=1e-9)
            assert gates["cell"] == pytest.approx(c)
        elif "lstm" in kind:
            c = remade(gates, of(before, 1, number))
            assert gates["cell"] == pytest.approx(c, rel=1e-9)
            if "residual" not in kind:
                assert gates["output"] * np.tanh(c) == pytest.approx(h, rel=1e-9)
        elif "gru" in kind and kind != "mingru":
            z, n = gates["update"], gates["candidate"]
            assert z * old_h + (1 - z) * n == pytest.approx(h, rel=1e-9)
            assert ((gates["reset"] > 0) & (gates["reset"] < 1)).all()
        else:
            f = gates["forget"]
            candidate = (h - f * old_h) / (1 - f)  # linear: it does not depend on the state
            assert candidate[5] == pytest.approx(candidate[9], rel=1e-6), "both have read an a"


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("mogrifier", {"rounds": 3, "rank": 4}),
        ("slstm", {"heads": 2}),
        ("slstm", {"forget_gate": "exp"}),
        ("rhn", {"transition_depth": 2}),
        ("rhn", {"transition_depth": 2, "coupled_gates": False}),
        ("qrnn", {"pooling": "f"}),
        ("qrnn", {"pooling": "fo"}),
        ("qrnn", {"pooling": "ifo", "window": 3}),
        ("sru", {}),
        ("sru", {"recurrent_vectors": True}),
        ("rg-lru", {}),
        ("rhn", {"transition_depth": 2, "layer_norm": True}),
        ("slstm", {"heads": 2, "layer_norm": True}),
        ("qrnn", {"layer_norm": True}),
        ("fs-rnn", {"fast_layers": 3}),
        ("fs-rnn", {"layer_norm": True, "slow_size": 8}),
        ("gru", {"transition_depth": 3, "layer_norm": True}),
        ("gru-cho2014", {"transition_depth": 2}),
        ("lstm", {"transition_depth": 2}),
        ("lstm-peephole", {"transition_depth": 2, "layer_norm": True}),
    ],
    ids=str,
)
def test_gates_of_other_cells_make_their_states_too(
    kind: str, more: dict[str, Any], tmp_path: Path
) -> None:
    loaded = load(tmp_path, kind, layers=1, embedding_size=16, **more)
    (cell,) = loaded.model.stack.layers
    read = [loaded.tokenizer.boundary_id, *ids(loaded, LINES[0])]
    states = [layers[0] for layers in stepped(loaded, read)]
    before, after = states[:-1], states[1:]
    g = {
        name: np.array(flat(explain(loaded, [LINES[:1]], unit=Unit(0, 5, name)))[0].values)
        for name in gate_names(cell)
    }
    h, old_h = (of(series, 0, 5) for series in (after, before))
    out = np.array(flat(explain(loaded, [LINES[:1]], unit=Unit(0, 5)))[0].values)
    if "transition_depth" in more and kind != "rhn":
        last = more["transition_depth"]
        assert [name for name in g if name.startswith("candidate")] == [
            f"candidate_{k}" for k in range(1, last + 1)
        ]
        value = old_h if "gru" in kind else of(before, 1, 5)
        for k in range(1, last + 1):
            if "gru" in kind:
                z = g[f"update_{k}"]
                value = z * value + (1 - z) * g[f"candidate_{k}"]
            else:
                value = g[f"forget_{k}"] * value + g[f"input_{k}"] * g[f"candidate_{k}"]
        assert value == pytest.approx(h if "gru" in kind else g["cell"], rel=1e-6)
    elif kind == "fs-rnn":
        fast, slow = of(before, 1, 5), of(before, 3, 5)
        for k in range(1, more.get("fast_layers", 2) + 1):
            fast = g[f"forget_F{k}"] * fast + g[f"input_F{k}"] * g[f"candidate_F{k}"]
        assert fast == pytest.approx(of(after, 1, 5), rel=1e-6)
        slow = g["forget_S"] * slow + g["input_S"] * g["candidate_S"]
        assert slow == pytest.approx(of(after, 3, 5), rel=1e-6)
        with pytest.raises(UsageError, match="choices: 1 to 8"):
            parse_unit("1:9", "forget_S", loaded.model)
    elif kind == "mogrifier":
        c = of(after, 1, 5)
        assert g["cell"] == pytest.approx(c) and g["output"] * np.tanh(c) == pytest.approx(h)
    elif kind == "slstm":
        c, n, old_c, old_n = (of(series, part, 5) for series in (after, before) for part in (1, 2))
        mean = g["forget"] * old_c / old_n + (1 - g["forget"]) * g["candidate"]
        assert mean == pytest.approx(c / n, rel=1e-6)
        assert g["output"] * c / n == pytest.approx(h, rel=1e-6)
    elif kind == "rhn":
        s = old_h
        for n in (1, 2):
            t = g[f"transform_{n}"]
            s = g[f"candidate_{n}"] * t + s * g.get(f"carry_{n}", 1 - t)
        assert s == pytest.approx(h, rel=1e-6)
    elif kind == "qrnn":
        taken = g.get("input", 1 - g["forget"])
        assert g["forget"] * old_h + taken * g["candidate"] == pytest.approx(h, rel=1e-6)
        assert g.get("output", 1.0) * h == pytest.approx(out, rel=1e-6)
    elif kind == "sru":
        c = of(after, len(states[0]) - 1, 5)
        past = (out - g["reset"] * c) / (1 - g["reset"])  # x: equal for equal characters
        assert past[5] == pytest.approx(past[9], rel=1e-4), "both have read an a"
    else:
        x = (h - g["forget"] * old_h) / (np.sqrt(1 - g["forget"] ** 2) * g["input"])
        assert x[5] == pytest.approx(x[9], rel=1e-4), "both have read an a"
        assert ((g["recurrence"] > 0) & (g["recurrence"] < 1)).all()


def of(states: Sequence[CellState], part: int, number: int) -> np.ndarray[Any, Any]:
    return np.array([float(state[part][0, number]) for state in states])


def remade(gates: dict[str, Any], c: Any) -> Any:
    return gates["forget"] * c + gates["input"] * gates["candidate"]


@pytest.mark.parametrize(
    ("unit", "gate", "message"),
    [
        ("2", "", "--unit '2': expected LAYER:UNIT"),
        ("a:1", "", "expected LAYER:UNIT"),
        ("1:-1", "", "expected LAYER:UNIT"),
        ("3:1", "", "there is no layer 3; choices: 1 to 2"),
        ("0:1", "", "there is no layer 0"),
        ("2:17", "", "layer 2 has no unit 17; choices: 1 to 16"),
        ("2:0", "", "no unit 0"),
        ("2:1", "forgot", "no gate 'forgot'; did you mean 'forget'"),
    ],
)
def test_units_and_gates_that_are_not_there(
    unit: str, gate: str, message: str, lstm: Loaded
) -> None:
    with pytest.raises(UsageError, match=message):
        parse_unit(unit, gate, lstm.model)
    assert parse_unit("2:16", "cell", lstm.model) == Unit(1, 15, "cell")


def test_a_cell_without_gates(tmp_path: Path) -> None:
    loaded = load(tmp_path, "elman")
    with pytest.raises(UsageError, match="layer 1 has no gate 'forget'; it has none"):
        parse_unit("1:1", "forget", loaded.model)


# -- units that follow something -------------------------------------------------------------


def test_what_a_reading_tells() -> None:
    text = 'a "b c" (d [e]) f\n“x” g"\nh'
    reading = Reading()
    rows = []
    for char in text:
        reading.read(char)
        rows.append(dict(zip(FEATURES, reading.features(), strict=True)))
    at = {char: rows[text.index(char)] for char in "abcdefgxh)]"}
    assert [at[c]["place in the line"] for c in "abfxh"] == [1, 4, 17, 2, 1]
    assert at["c"]["place in the word"] == 1
    assert rows[text.index(" ")]["place in the word"] == 0
    assert [c for c in "abcdefgxh" if at[c]["inside quotes"]] == ["b", "c", "x"]
    assert [c for c in "abcdefgxh)]" if at[c]["inside brackets"]] == ["d", "e", "]"]
    together = Reading()
    together.read(text)
    assert together.features() == tuple(rows[-1].values())


def test_top_units_are_those_that_correlate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "_PIECE", 10)
    text = 'the cat "sat on" the mat (and the dog) ran\n'
    loaded = load_language_model(tiny_model(tmp_path, text=text))
    lines = ['the "cat sat" on (the mat)', "", "and the dog ran"] * 2
    found = top_units(loaded, [lines[:4], lines[4:]], 40)
    assert len(found) == 32, "all units of two layers of 16"
    boundary = loaded.tokenizer.boundary_id
    read = [token for line in lines for token in [*loaded.tokenizer.encode(line), boundary]]
    states = stepped(loaded, read)
    reading, features = Reading(), []
    for char in "".join(line + "\n" for line in lines):
        reading.read(char)
        features.append(reading.features())
    by_feature = dict(zip(FEATURES, np.array(features).T, strict=True))
    for one in found:
        h = of([layers[one.layer - 1] for layers in states], 0, one.unit - 1)
        every = {name: np.corrcoef(h, f)[0, 1] for name, f in by_feature.items()}
        assert one.correlation == pytest.approx(every[one.feature], rel=1e-6)
        assert abs(one.correlation) == pytest.approx(max(map(abs, every.values())), rel=1e-6)
    sizes = [abs(one.correlation) for one in found]
    assert sizes == sorted(sizes, reverse=True)
    assert top_units(loaded, [], 3) == []


def test_top_units_are_units_of_the_output(tmp_path: Path) -> None:
    """As ``--unit`` shows them, also where the state is another one."""
    loaded = load(tmp_path, "do-rnn", layers=1, output_size=5)
    lines = ["the cat sat on the mat", "and the dog ran"]
    found = top_units(loaded, [lines], 9)
    assert sorted(one.unit for one in found) == [1, 2, 3, 4, 5]
    outputs = emitted(loaded, [token for line in lines for token in ids(loaded, line)])
    reading, features = Reading(), []
    for char in "".join(line + "\n" for line in lines):
        reading.read(char)
        features.append(reading.features())
    for one in found:
        followed = np.array(features)[:, FEATURES.index(one.feature)]
        expected = np.corrcoef(outputs[:, one.unit - 1], followed)[0, 1]
        assert one.correlation == pytest.approx(expected, rel=1e-6)


def test_values_are_independent_of_the_lines_run_together(lstm: Loaded) -> None:
    together = flat(explain(lstm, [LINES], unit=Unit(0, 1)))
    alone = flat(explain(lstm, [[line] for line in LINES], unit=Unit(0, 1)))
    for a, b in zip(together, alone, strict=True):
        assert a.values == pytest.approx(b.values, rel=1e-12)
    assert isinstance(lstm.model.embedding.weight, Tensor)
    assert lstm.model.embedding.weight.dtype == torch.float32, "the model itself was changed"


def test_a_projections_units_are_those_of_h_and_its_gates_those_of_the_cells(tmp_path: Path):
    path = tiny_model(tmp_path, cell="lstm", projection_size=5, layers=1)
    model = load_language_model(path).model
    assert parse_unit("1:5", "", model) == Unit(0, 4, "")
    with pytest.raises(UsageError, match="choices: 1 to 5"):
        parse_unit("1:6", "", model)
