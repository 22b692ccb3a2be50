"""Lines translated by encoder-decoders: source text in, hypotheses out."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from rnncli.decoding.alignment import Alignment, align, coverage, source_words_of
from rnncli.decoding.beam import BeamOptions, Hypothesis, beam_search, search
from rnncli.decoding.constraints import read_prefix
from rnncli.decoding.ensemble import Ensemble
from rnncli.decoding.protocol import AnyStepper
from rnncli.decoding.sampling import Limits, Sample, sample
from rnncli.decoding.search_options import SearchOptions
from rnncli.errors import UsageError
from rnncli.loading import LoadedTranslator
from rnncli.models.encoder_decoder import EncoderDecoder
from rnncli.models.prepared_decoder import prepare_decoder
from rnncli.runtime import begin_worker, one_thread
from rnncli.text.pairs import group_by_length, source_batch
from rnncli.text.protocol import LINE_END
from rnncli.text.tokenizers import Tokenizer
from rnncli.text.words import all_unseen, word_numbers

SOURCE_TOKENS = 1 << 14
"""At most so many tokens of sources are in a batch, unless one source alone has more."""


@dataclass(frozen=True)
class Translated:
    """A translation. ``logprob``: nats, the end counted; ``score``: after the penalties;
    ``finished``: it ended by itself rather than at the greatest length. ``pieces``: its tokens, the
    end too if it came, each with its log-probability in ``logprobs``; ``tokens``: their ids without
    the end; ``words``: which white-space
    word of ``text`` each piece but the end belongs to. ``alignment``: of words, by attention; None
    unless it was asked for and the model attends."""

    text: str
    logprob: float
    score: float
    finished: bool
    tokens: tuple[int, ...] = ()
    pieces: tuple[str, ...] = ()
    logprobs: tuple[float, ...] = ()
    words: tuple[int, ...] = ()
    alignment: Alignment | None = None

    def word_logprobs(self) -> list[float]:
        """Nats of each white-space word of ``text``: those of its pieces together."""
        sums = [0.0] * (max(self.words, default=-1) + 1)
        for word, logprob in zip(self.words, self.logprobs, strict=False):  # without the end
            sums[word] += logprob
        return sums


@dataclass(frozen=True)
class _Job:
    """A line to translate. ``source``: its tokens as the model reads them; ``source_words``: the
    word of each; ``prefix``: what the translation begins with."""

    number: int
    line: str
    source: np.ndarray[tuple[int], np.dtype[np.int64]]
    prefix: str = ""
    prefix_ids: tuple[int, ...] = ()
    source_words: list[int] = field(default_factory=list)


def translator_of(
    models: Sequence[LoadedTranslator],
    options: SearchOptions,
    *,
    weights: str = "float32",
    workers: int = 1,
) -> Translator:
    """A ``Translator`` with models that were loaded together; its errors."""
    headers = [one.header for one in models]
    options = options.fitted(
        max(header.target_ratio for header in headers),
        max(header.longest_target for header in headers),
    )
    return Translator(
        [one.model for one in models], models[0].tokenizer, options,
        reverse_source=models[0].config.model.reverse_source,
        source_tokenizer=models[0].source_tokenizer, weights=weights, workers=workers,
    )  # fmt: skip


class Translator:
    """One model, or an ensemble of several with one vocabulary. Raises UsageError for options that
    need attention when no model has any."""

    def __init__(
        self,
        models: Sequence[EncoderDecoder],
        tokenizer: Tokenizer,
        options: SearchOptions,
        *,
        reverse_source: bool = False,
        source_tokenizer: Tokenizer | None = None,
        weights: str = "float32",
        workers: int = 1,
    ) -> None:
        """``source_tokenizer``: of a source with a vocabulary of its own. ``weights``: how the
        decoders' are kept, one of ``rnncli.models.packed.PRECISIONS``. ``workers``: batches that
        are translated at once on a processor, each by a thread of its own; the text is the
        same."""
        self._workers = workers
        self._tokenizer, self._options, self._reverse = tokenizer, options, reverse_source
        self._source_tokenizer = source_tokenizer or tokenizer
        steppers = [prepare_decoder(model, weights) for model in models]
        self._stepper: AnyStepper = (
            steppers[0] if len(steppers) == 1 else Ensemble(steppers, mixed=False)
        )
        self._attending = [model for model in models if model.attends]
        self._device = models[0].source_embedding.weight.device
        for name in ("coverage_penalty", "replace_unk"):
            if getattr(options, name) and not self.attends:
                raise UsageError(f"{name}: it needs attention, and this model has none")
        if options.replace_unk and tokenizer.kind != "word":
            raise UsageError(
                f"replace_unk: of words, and this model writes tokens of kind {tokenizer.kind!r}"
            )

    @property
    def attends(self) -> bool:
        """Whether any of the models has attention, and so an alignment."""
        return bool(self._attending)

    def __call__(
        self, lines: Sequence[str], *, prefixes: Sequence[str] | None = None, first: int = 0
    ) -> list[list[Translated]]:
        """The hypotheses for each line, best first, or its samples as they were drawn; none for a
        line without a word. ``prefixes``: what the translation of each line begins with. ``first``:
        the number of the first line; samples depend on the seed and the line's number."""
        jobs = [
            self._job(first + k, line, prefix)
            for k, (line, prefix) in enumerate(
                zip(lines, prefixes or [""] * len(lines), strict=True)
            )
        ]
        lengths = np.array([len(job.source) for job in jobs], np.int64)
        begun = np.array([len(job.prefix_ids) for job in jobs], np.int64)
        keys = lengths * (1 + int(begun.max(initial=0))) + begun
        found: list[list[Translated]] = [[] for _ in jobs]
        parts: list[list[int]] = []
        for group in group_by_length(keys, keys, self._options.batch_size, None):
            length = int(lengths[group[0]])
            at_once = max(1, SOURCE_TOKENS // (length + 1))
            for k in range(0, len(group) if length else 0, at_once):
                parts.append([int(n) for n in group[k : k + at_once]])
        batches = [[jobs[n] for n in part] for part in parts]
        for part, translated in zip(parts, self._translate_all(batches), strict=True):
            for number, some in zip(part, translated, strict=True):
                found[number] = some
        return found

    def _translate_all(self, batches: list[list[_Job]]) -> list[list[list[Translated]]]:
        """Those of ``_translate``, in order. A step of a few rows is too little for the threads of
        torch, but batches know nothing of each other."""
        workers = min(self._workers, len(batches)) if self._device.type == "cpu" else 1
        with one_thread():
            if workers < 2:
                return [self._translate(jobs) for jobs in batches]
            with ThreadPoolExecutor(workers, initializer=begin_worker) as pool:
                return list(pool.map(self._translate, batches))

    def best(self, lines: Sequence[str]) -> list[str]:
        """The best translation of each line; empty for a line without one."""
        return [found[0].text if found else "" for found in self(lines)]

    def source_length(self, line: str) -> int:
        """How many tokens the model reads of a line, without its end."""
        return len(self._encode(line))

    def knows_nothing_of(self, line: str) -> bool:
        """Whether a line, not a blank one, has no token that was seen in training."""
        return bool(line.strip()) and (
            not (ids := self._encode(line)) or all_unseen(self._source_tokenizer, ids)
        )

    def _encode(self, line: str) -> list[int]:
        return self._source_tokenizer.encode(line) if line.strip() else []

    def _job(self, number: int, line: str, prefix: str) -> _Job:
        ids = self._encode(line)
        words = []
        if self._options.align or self._options.replace_unk:
            last = len(line.split()) - 1  # a tokenizer from elsewhere may see more words
            words = [min(w, last) for w in word_numbers(self._source_tokenizer, ids, line)]
        if self._reverse:
            ids, words = ids[::-1], words[::-1]
        begin = tuple(self._tokenizer.encode(prefix)) if prefix else ()
        return _Job(number, line, np.array(ids, np.int64), prefix, begin, words)

    def _translate(self, jobs: Sequence[_Job]) -> list[list[Translated]]:
        """Jobs whose sources have one length, and whose prefixes have one."""
        options = self._options
        source = torch.from_numpy(
            source_batch([job.source for job in jobs], self._source_tokenizer.boundary_id)
        ).to(self._device)
        with torch.inference_mode():
            found = self._draw(jobs, source) if options.sampling else self._search(jobs, source)
            weights = None
            if options.coverage_penalty:
                found, weights = self._cover(found, self._weights(source, found))
            found = [hypotheses[: options.n_best] for hypotheses in found]
            if weights is None and self.attends and (options.align or options.replace_unk):
                weights = self._weights(source, found)
        return [
            [
                self._translated(job, one, weights[row][k] if weights else None)
                for k, one in enumerate(hypotheses)
            ]
            for row, (job, hypotheses) in enumerate(zip(jobs, found, strict=True))
        ]

    def _begin(self, jobs: Sequence[_Job], source: Tensor) -> tuple[Tensor, Tensor, BeamOptions]:
        """The boundary before each translation (B,), the prefixes (B, P), and what is searched
        for."""
        boundary = self._tokenizer.boundary_id
        first = torch.full((len(jobs),), boundary, device=self._device)
        prefix = torch.tensor(
            [job.prefix_ids for job in jobs], dtype=torch.int64, device=self._device
        )
        longest = self._options.longest(len(source) - 1, prefix.shape[1])
        return first, prefix, self._options.beam(longest, boundary)

    def _search(self, jobs: Sequence[_Job], source: Tensor) -> list[list[Hypothesis]]:
        first, prefix, beam = self._begin(jobs, source)
        state = self._stepper.start(source, len(jobs))
        find = search if self._options.coverage_penalty else beam_search
        return find(self._stepper, first, state, beam, prefix)

    def _draw(self, jobs: Sequence[_Job], source: Tensor) -> list[list[Hypothesis]]:
        first, prefix, beam = self._begin(jobs, source)
        options, boundary = self._options, self._tokenizer.boundary_id
        assert options.sampling is not None
        state = self._stepper.start(source, len(jobs))
        last, state, given = read_prefix(self._stepper, first, state, prefix)
        each = torch.arange(len(jobs), device=self._device).repeat_interleave(options.n_best)
        names = [(job.number, k) for job in jobs for k in range(options.n_best)]
        events = sample(
            self._stepper, last[each], state.select(each),
            decoders=[self._tokenizer.decoder() for _ in names],
            limits=Limits(beam.max_new_tokens, options.min_new_tokens, end_ids=(boundary,)),
            filters=options.sampling, seed=options.seed, names=names,
            no_repeat_ngram=options.no_repeat_ngram, history=prefix[each],
        )  # fmt: skip
        drawn = {event.row: event for event in events if isinstance(event, Sample)}
        before = given.tolist()
        found: list[list[Hypothesis]] = [[] for _ in jobs]
        for row in range(len(names)):
            one, job = drawn[row], row // options.n_best
            finished = one.finish_reason == "stop"
            tokens = jobs[job].prefix_ids + (one.tokens[:-1] if finished else one.tokens)
            logprobs = (*before[job], *one.logprobs)
            score = beam.score(sum(logprobs), len(logprobs))
            found[job].append(Hypothesis(tokens, sum(logprobs), score, finished, logprobs))
        return found

    def _cover(
        self, found: Sequence[list[Hypothesis]], weights: Sequence[list[Tensor]]
    ) -> tuple[list[list[Hypothesis]], list[list[Tensor]]]:
        """Both in the order of the scores that the coverage penalty leaves; samples as they were
        drawn."""
        beta = self._options.coverage_penalty
        ranked: list[list[Hypothesis]] = []
        kept: list[list[Tensor]] = []
        for hypotheses, looked in zip(found, weights, strict=True):
            both = [
                (replace(one, score=one.score + beta * coverage(w)), w)
                for one, w in zip(hypotheses, looked, strict=True)
            ]
            if self._options.sampling is None:
                both.sort(key=lambda pair: -pair[0].score)
            ranked.append([one for one, _ in both])
            kept.append([w for _, w in both])
        return ranked, kept

    def _weights(self, source: Tensor, found: Sequence[list[Hypothesis]]) -> list[list[Tensor]]:
        """How much each token of each hypothesis, with its end, looked at each token of its source
        without its end: (T, n); the mean of an ensemble's models. source: (n + 1, B)."""
        flat = [(column, one) for column, some in enumerate(found) for one in some]
        longest = 1 + max((len(one.tokens) for _, one in flat), default=0)
        at_once = max(1, SOURCE_TOKENS // len(source))
        weights: list[list[Tensor]] = [[] for _ in found]
        for k in range(0, len(flat), at_once):
            part = flat[k : k + at_once]
            inputs = torch.full((longest, len(part)), self._tokenizer.boundary_id)
            for place, (_, one) in enumerate(part):
                inputs[1 : 1 + len(one.tokens), place] = torch.tensor(one.tokens, dtype=torch.int64)
            columns = torch.tensor([column for column, _ in part], device=self._device)
            sources, inputs = source[:, columns], inputs.to(self._device)
            each = [model.attention_weights(sources, inputs) for model in self._attending]
            looked = torch.stack(each).mean(0).cpu()
            for place, (column, one) in enumerate(part):
                weights[column].append(looked[: len(one.logprobs), place, :-1])
        return weights

    def _translated(self, job: _Job, one: Hypothesis, weights: Tensor | None) -> Translated:
        tokens, begun = one.tokens, len(job.prefix_ids)
        words = word_numbers(self._tokenizer, tokens)
        pieces = tuple(self._tokenizer.pieces(tokens))
        alignment = None
        if self._options.align and weights is not None:
            alignment = align(weights[: len(tokens)], words, job.source_words)
        if self._tokenizer.kind == "word":
            spelled = [*job.prefix.split(), *pieces[begun:]]
            if self._options.replace_unk and weights is not None:
                found = source_words_of(weights[: len(tokens)], words, job.source_words)
                source = job.line.split()
                for k in range(begun, len(tokens)):
                    if tokens[k] == self._tokenizer.unk_id:
                        spelled[k] = source[found[k]]
            text = " ".join(spelled)
        else:
            decoder = self._tokenizer.decoder()
            new = [decoder.push(token) for token in tokens][begun:]
            text = job.prefix + "".join(new) + decoder.finish()
        end = (LINE_END,) if one.finished else ()
        return Translated(
            text, one.logprob, one.score, one.finished, tokens, pieces + end, one.logprobs,
            tuple(words), alignment,
        )  # fmt: skip
