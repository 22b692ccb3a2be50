"""Output layers: losses, gradients and probabilities that are what they claim to be."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rnncli.nn import softmax
from rnncli.nn.softmax import AdaptiveSoftmax, SampledVocabulary, Softmax
from rnncli.sections import ModelConfig
from tests.nn.cases import assert_equal, randomize

N, H, V = 40, 6, 11


def layer(vocab_size: int = V, size: int = H) -> Softmax:
    output = Softmax(ModelConfig(), size, vocab_size).double()
    randomize(output)
    return output


def rows(scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """h (N, H), targets (N,), scale (N,)."""
    generator = torch.Generator().manual_seed(4)
    h = torch.randn(N, H, generator=generator, dtype=torch.float64) * scale
    targets = torch.randint(V, (N,), generator=generator)
    weights = torch.rand(N, generator=generator, dtype=torch.float64)
    return h.requires_grad_(), targets, weights


def gradients(loss: Tensor, h: Tensor, output: Softmax) -> tuple[Tensor, ...]:
    assert output.W_hy is not None
    return torch.autograd.grad(loss, [h, output.W_hy, output.b])


def expected_loss(output: Softmax, h: Tensor, targets: Tensor, scale: Tensor) -> Tensor:
    return (F.cross_entropy(output.logits(h, None), targets, reduction="none") * scale).sum()


@pytest.mark.parametrize("chunk_bytes", [1, 20 * V * 8, 1 << 25])
@pytest.mark.parametrize("size", [1.0, 3000.0])
def test_the_loss_and_its_gradients_are_cross_entropy_s(
    size: float, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one chunk or several; with logits so large that probabilities are 0 in float64."""
    monkeypatch.setattr(softmax, "CHUNK_BYTES", chunk_bytes)
    output = layer()
    h, targets, scale = rows(size)
    loss = output.loss(h, targets, scale, None, torch.float64)
    expected = expected_loss(output, h, targets, scale)
    if size > 1:
        p = torch.softmax(output.logits(h, None), 1)
        assert bool((p.gather(1, targets[:, None]) == 0).any())
    assert_equal(loss, expected)
    for mine, theirs in zip(
        gradients(loss * 0.7, h, output), gradients(expected * 0.7, h, output), strict=True
    ):
        assert_equal(mine, theirs)
    assert_equal(output.nats(h, targets, None), -_log_p(output, h, targets))


def _log_p(output: Softmax, h: Tensor, targets: Tensor) -> Tensor:
    log_p = torch.log_softmax(output.logits(h, None), -1)
    return log_p.gather(1, targets.unsqueeze(1)).squeeze(1)


def test_the_loss_in_bfloat16_is_near() -> None:
    output = layer().float()
    h, targets, scale = (t.detach().float() if t.is_floating_point() else t for t in rows())
    h.requires_grad_()
    loss = output.loss(h, targets, scale, None, torch.bfloat16)
    expected = expected_loss(output, h, targets, scale)
    assert loss.dtype == torch.float32
    assert 0 < abs(float(loss.detach()) / float(expected.detach()) - 1) < 5e-3
    for mine, theirs in zip(
        gradients(loss, h, output), gradients(expected, h, output), strict=True
    ):
        assert mine.dtype == torch.float32
        assert float((mine - theirs).norm() / theirs.norm()) < 2e-2


def test_no_gradient_where_none_is_wanted() -> None:
    output = layer().requires_grad_(False)
    h, targets, scale = rows()
    output.loss(h, targets, scale, None, torch.float64).backward()
    (expected,) = torch.autograd.grad(expected_loss(output, h, targets, scale), h)
    assert_equal(h.grad, expected)
    assert output.b.grad is None


def test_no_rows_cost_nothing() -> None:
    output = layer()
    h, targets, scale = (t[:0] for t in rows())
    loss = output.loss(h, targets, scale, None, torch.float64)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert output.b.grad is not None and not bool(output.b.grad.any())


def test_an_untrained_layer_can_predict_frequencies() -> None:
    output = layer()
    counts = torch.tensor([5, 0, 0, 15, 30, 0, 25, 5, 10, 10, 0])
    output.start_from(counts)
    p = torch.softmax(output.logits(torch.zeros(H, dtype=torch.float64), None), 0)
    torch.testing.assert_close(p, (counts / 100.0).double(), rtol=0, atol=5e-3)
    assert bool((p > 0).all())


# -- sampled ----------------------------------------------------------------------------------


def test_with_every_word_a_candidate_the_sampled_softmax_is_the_full_one() -> None:
    output = layer()
    h, targets, scale = rows()
    sampling = SampledVocabulary(torch.arange(1, V + 1), 20_000, torch.device("cpu"))
    loss = output.loss(h, targets, scale, None, torch.float64, sampling)
    expected = expected_loss(output, h, targets, scale)
    assert_equal(loss, expected)
    for mine, theirs in zip(
        gradients(loss, h, output), gradients(expected, h, output), strict=True
    ):
        assert_equal(mine, theirs)


def test_candidates_hold_every_target_once() -> None:
    torch.manual_seed(0)
    sampling = SampledVocabulary(torch.ones(500), 30, torch.device("cpu"))
    targets = torch.tensor([7, 300, 7, 499])
    ids, places, shift = sampling.candidates(targets)
    assert torch.equal(ids[places], targets)
    assert torch.equal(ids, ids.unique()) and 4 <= len(ids) <= 33
    assert bool((shift > 0).all()) and shift.shape == ids.shape


def test_words_are_drawn_by_the_power_of_their_counts() -> None:
    sampling = SampledVocabulary(torch.tensor([16.0, 81.0, 1.0]), 1, torch.device("cpu"))
    assert_equal(sampling.q, torch.tensor([8.0, 27.0, 1.0], dtype=torch.float64) / 36)
    assert_equal(sampling.p, torch.tensor([16.0, 81.0, 1.0], dtype=torch.float64) / 98)


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("target", [0, 2])
def test_the_normaliser_is_estimated_without_bias(
    target: int, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The expected estimate of sum over w of exp(logit(w)), over every draw of candidates and every
    batch of other targets, each with its probability, is that sum; for one row with its target."""
    words, size = 3, 2
    output = layer(words)
    sampling = SampledVocabulary(torch.tensor([5, 1, 3]), size, torch.device("cpu"))
    h = rows()[0].detach()[:1].expand(batch, H)
    first = torch.zeros(batch, dtype=torch.float64)
    first[0] = 1.0
    expectation = total = 0.0
    for others in itertools.product(range(words), repeat=batch - 1):
        for drawn in itertools.product(range(words), repeat=size):
            chance = math.prod(float(sampling.p[w]) for w in others)
            chance *= math.prod(float(sampling.q[w]) for w in drawn)

            def multinomial(
                weights: Tensor, n: int, replacement: bool, drawn: tuple[int, ...] = drawn
            ) -> Tensor:
                assert (n, replacement) == (size, True) and torch.equal(weights, sampling.q)
                return torch.tensor(drawn)

            monkeypatch.setattr(torch, "multinomial", multinomial)
            targets = torch.tensor([target, *others])
            nats = output.loss(h, targets, first, None, torch.float64, sampling).detach()
            logit = output.logits(h[0], None)[target].detach()
            expectation += chance * float(torch.exp(nats + logit))
            total += chance
    assert total == pytest.approx(1.0)
    normaliser = float(output.logits(h[0], None).detach().exp().sum())
    assert expectation == pytest.approx(normaliser, rel=1e-6)


def test_the_sampled_loss_converges_to_the_full_one() -> None:
    """With real draws: the error of its mean falls as more words are drawn."""
    torch.manual_seed(0)
    output, vocabulary = layer(200), torch.arange(1, 201)
    h, targets, scale = rows()
    full = float(expected_loss(output, h, targets, scale).detach())
    errors = []
    for size in (20, 800):
        sampling = SampledVocabulary(vocabulary, size, torch.device("cpu"))
        losses = [
            float(output.loss(h, targets, scale, None, torch.float64, sampling).detach())
            for _ in range(40)
        ]
        errors.append(abs(sum(losses) / len(losses) / full - 1))
    assert errors[1] < 0.02 and errors[1] < errors[0] < 0.3


# -- adaptive ---------------------------------------------------------------------------------


@pytest.mark.parametrize("cutoffs", [(), (3, 7), (2, 500)])
@pytest.mark.parametrize("vocab_size", [2, 30])
def test_adaptive_log_probabilities(cutoffs: tuple[int, ...], vocab_size: int) -> None:
    torch.manual_seed(0)
    config = ModelConfig(output="adaptive", adaptive_cutoffs=cutoffs)
    output = AdaptiveSoftmax(config, 32, vocab_size).double()
    h = torch.randn(5, 4, 32, dtype=torch.float64)
    targets = torch.randint(vocab_size, (20,))
    log_p = output.logits(h, None)
    assert log_p.shape == (5, 4, vocab_size)
    assert_equal(torch.logsumexp(log_p, -1), torch.zeros(5, 4, dtype=torch.float64))
    nats = output.nats(h.view(20, 32), targets, None)
    assert_equal(nats, -log_p.view(20, -1).gather(1, targets.unsqueeze(1)).squeeze(1))
    scale = torch.rand(20, dtype=torch.float64)
    loss: Any = output.loss(h.view(20, 32), targets, scale, None, torch.bfloat16)
    assert_equal(loss, (nats * scale).sum())
    loss.backward()
    assert all(p.grad is not None for p in output.parameters() if p.numel())
