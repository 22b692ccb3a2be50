"""Dynamic evaluation against its update rule, written out over torch's own LSTM."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rnncli.errors import DataError, UsageError
from rnncli.evaluation.dynamic import (
    DynamicConfig,
    GradientStatistics,
    dynamic_nats,
    dynamic_note,
    gradient_statistics,
)
from rnncli.evaluation.language_model import stream_nats
from tests.evaluation.truth import DOUBLE, TorchTwin, random_ids, small_model

END = 3
EPSILON = 2e-5


def by_definition(twin, ids, config, rms=None):
    """Krause et al. 2018: predict, then theta += lambda d (theta0 - theta) - lr g / rms."""
    parameters = [p for p in twin.parameters() if p.requires_grad]
    trained = [p.detach().clone() for p in parameters]
    mean = 1.0 if rms is None else float(np.mean([r.mean() for r in rms]))
    state, before, total = None, END, 0.0
    for start in range(0, len(ids), config.segment):
        segment = ids[start : start + config.segment]
        log_p, _, state = twin(torch.tensor([before, *segment[:-1]]), state)
        state = tuple(s.detach() for s in state)
        nats = -log_p[torch.arange(len(segment)), torch.tensor(segment)]
        total += nats.sum().item()
        gradients = torch.autograd.grad(nats.mean(), parameters)
        with torch.no_grad():
            for k, (theta, g) in enumerate(zip(parameters, gradients, strict=True)):
                decay, divisor = torch.tensor(config.decay), torch.tensor(1.0)
                if rms is not None:
                    decay = (config.decay * rms[k] / mean).clamp(max=1.0)
                    divisor = rms[k] + EPSILON
                theta += decay * (trained[k] - theta) - config.lr * g / divisor
        before = segment[-1]
    return total


def in_the_twins_order(twin, model, values):
    """``values``, one for each of the model's parameters, as the twin orders its own."""
    named = dict(zip((n for n, _ in model.named_parameters()), values, strict=True))
    names = {"embedding.weight": "embedding.weight", "W": "output.W_hy", "b": "output.b"}
    for k in range(2):
        names |= {f"lstm.weight_ih_l{k}": f"stack.cells.{k}.W_xh"}
        names |= {f"lstm.weight_hh_l{k}": f"stack.cells.{k}.W_hh"}
        names |= {f"lstm.bias_ih_l{k}": f"stack.cells.{k}.a"}
    return [named[names[n]] for n, p in twin.named_parameters() if p.requires_grad]


def test_plain_gradient_steps_with_decay():
    model, ids = small_model(), random_ids(43)
    config = DynamicConfig(lr=0.3, decay=0.05, segment=5)
    truth = by_definition(TorchTwin(model), ids.astype(np.int64).tolist(), config)
    found = dynamic_nats(model, ids, END, config, None, run_as=DOUBLE, unk_id=1)
    assert found.nats == pytest.approx(truth, rel=1e-10)
    assert 0 < found.oov_nats < found.nats
    assert found.nats != pytest.approx(stream_nats(model, ids, END, run_as=DOUBLE).nats, rel=1e-3)


def test_steps_scaled_by_gradient_statistics():
    model, ids = small_model(), random_ids(43)
    config = DynamicConfig(lr=0.01, decay=0.05, segment=4)
    rms = tuple(torch.rand_like(p) + 0.05 for p in model.parameters())
    twin = TorchTwin(model)
    truth = by_definition(
        twin, ids.astype(np.int64).tolist(), config, in_the_twins_order(twin, model, rms)
    )
    statistics = GradientStatistics(rms, "0" * 64)
    found = dynamic_nats(model, ids, END, config, statistics, run_as=DOUBLE)
    assert found.nats == pytest.approx(truth, rel=1e-10)


def test_statistics_are_root_mean_squares_over_segments():
    model, ids = small_model(), random_ids(100 * 7)
    found = gradient_statistics(model, ids, END, segment=3, fingerprint="f", run_as=DOUBLE)
    twin, squares = TorchTwin(model), 0.0
    columns = torch.tensor(ids.astype(np.int64)).view(100, 7).t()
    before = torch.cat([torch.tensor([END]), columns[-1, :-1]])
    state, W = None, dict(twin.named_parameters())["W"]
    for start in (0, 3):  # a third segment would have one token a column
        inputs = torch.cat([before[None], columns])[start : start + 3]
        h, state = twin.lstm(twin.embedding(inputs), state)
        state = tuple(s.detach() for s in state)
        log_p = torch.log_softmax(h @ twin.W.t() + twin.b, -1)
        targets = columns[start : start + 3]
        loss = -log_p.gather(2, targets[..., None]).mean()
        squares = squares + torch.autograd.grad(loss, W)[0] ** 2
    mine = dict(zip((n for n, _ in model.named_parameters()), found.rms, strict=True))
    assert torch.allclose(mine["output.W_hy"], (squares / 2).sqrt(), rtol=1e-10, atol=0)


def test_without_learning_it_is_the_static_figure():
    model, ids = small_model(cell="gru-cho2014"), random_ids(31)
    config = DynamicConfig(lr=0.0, decay=0.5)
    found = dynamic_nats(model, ids, END, config, None, run_as=DOUBLE)
    assert found.nats == pytest.approx(stream_nats(model, ids, END, run_as=DOUBLE).nats, rel=1e-12)


def test_a_segment_is_predicted_before_it_is_learned():
    model, ids = small_model(), random_ids(5)
    config = DynamicConfig(lr=5.0, segment=5)
    found = dynamic_nats(model, ids, END, config, None, run_as=DOUBLE)
    assert found.nats == pytest.approx(stream_nats(model, ids, END, run_as=DOUBLE).nats, rel=1e-12)


def test_it_learns_and_leaves_the_model_alone():
    model, ids = small_model(tied=True), np.tile(random_ids(20), 30)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = dynamic_nats(model, ids, END, DynamicConfig(lr=0.5), None, run_as=DOUBLE)
    assert found.nats < 0.95 * stream_nats(model, ids, END, run_as=DOUBLE).nats
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    assert not any(p.requires_grad for p in model.parameters())


def test_notes_say_what_was_done():
    statistics = GradientStatistics((), "abcdef0123456789")
    assert dynamic_note(DynamicConfig(), None) == "dynamic:plain,lr=0.1,decay=0,segment=5"
    assert dynamic_note(DynamicConfig(decay=0.5), statistics) == (
        "dynamic:rms(abcdef012345),lr=5e-05,decay=0.5,segment=5"
    )


def test_too_little_training_text():
    with pytest.raises(DataError, match="at least 500"):
        gradient_statistics(
            small_model(), random_ids(499), END, segment=5, fingerprint="", run_as=DOUBLE
        )


@pytest.mark.parametrize("values", [{"lr": -1.0}, {"decay": 1.5}, {"segment": 0}])
def test_values_out_of_range_name_their_option(values):
    (name,) = values
    with pytest.raises(UsageError, match=f"--dynamic-{name}"):
        DynamicConfig(**values)
