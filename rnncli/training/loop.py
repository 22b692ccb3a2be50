"""The training loop: a generator of events.

It knows no task: pieces, losses and validation come from a ``Task``. It never prints. Everything
it decides depends on the configuration, the seed and the state it saves, so that a run that was
stopped and resumed ends with the weights of one that was not; only ``max_seconds`` lets the clock
in.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import torch

from rnncli import runtime as machine
from rnncli.config import Config
from rnncli.errors import RnncliError
from rnncli.nn.cells import Cell
from rnncli.nn.omega import require_omega
from rnncli.training.events import (
    EvalReport,
    Event,
    Finished,
    Sample,
    Saved,
    Skipped,
    Started,
    StepReport,
)
from rnncli.training.optimizers import (
    Averaging,
    Optimizer,
    WeightNoise,
    WeightPenalty,
    clip,
    gradient_norm,
)
from rnncli.training.run_folder import RunFolder
from rnncli.training.schedule import Schedule
from rnncli.training.signals import StopSignals
from rnncli.training.task import Task, Validation
from rnncli.training.window import Window

REPORT_SECONDS = 0.5
PATIENT_NONFINITE_STEPS = 3
VALIDATION_COST = 0.6
"""A token of validation takes about this share of the time that one of training takes."""


class Diverged(RnncliError):
    """The loss or the gradient stopped being finite."""


class Loop:
    """One run in progress. Public attributes are what ``RunFolder`` saves and restores."""

    def __init__(
        self, config: Config, task: Task, place: RunFolder, stop: StopSignals, began: float
    ) -> None:
        self.config, self.task, self.place, self.stop = config, task, place, stop
        self.model = task.model
        self.parameters = list(self.model.parameters())
        self.cells = [module for module in self.model.modules() if isinstance(module, Cell)]
        self.optimizer = Optimizer(config.optimizer, self.model)
        self.averaging = Averaging(config.optimizer, self.model)
        self.schedule = Schedule(config.schedule)
        self.penalty = WeightPenalty(config.regularization, self.model)
        self.noise = WeightNoise(config.regularization.weight_noise, self.model)
        self.step = 0
        self.epoch = 0
        self.piece = 0
        self.skipped = 0
        self.nonfinite_run = 0
        self.best = math.inf
        self.best_nats = math.inf
        self.stale = 0
        self.validated_step = -1
        self.solved_step: int | None = None
        self.sampled = self.config.training.sampled_softmax > 0
        self.seconds_before = 0.0
        self.valid_seconds = self._save_seconds = 0.0
        self.began = began
        self.resumed_step = 0
        self._trained_tokens = 0
        self._trained_seconds = 0.0
        require_omega(config.regularization, self.model)
        task.begin_epoch(0)

    # -- where the run stands ----------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of the whole run, earlier parts included."""
        return self.seconds_before + time.monotonic() - self.began

    @property
    def epochs_done(self) -> float:
        return self.epoch + self.piece / max(1, self.task.pieces)

    def progress(self) -> float:
        """How much of the run is done, by the limit that is closest: 0 to 1."""
        training = self.config.training
        parts = [0.0]
        if training.epochs:
            parts.append(self.epochs_done / training.epochs)
        if training.max_steps:
            parts.append(self.step / training.max_steps)
        if training.max_seconds:
            parts.append(self.seconds / max(1e-9, training.max_seconds - self._reserve()))
        return min(1.0, max(parts))

    def _reserve(self) -> float:
        """Seconds kept back for the last validation and for saving."""
        seconds = self.valid_seconds
        if not seconds and self._trained_tokens:
            a_token = self._trained_seconds / self._trained_tokens
            seconds = self._validation_cost() * a_token * self.task.valid_tokens
        seconds += self._save_seconds
        return min(1.2 * seconds + 0.5, 0.3 * self.config.training.max_seconds)

    def _validation_cost(self) -> float:
        """Of a token, as a share of the time that one of training takes; where that is with a
        sampled vocabulary, validation's whole one costs more."""
        if not self.sampled:
            return VALIDATION_COST
        model = self.config.model
        width = model.embedding_size if model.tied else model.hidden_size
        weights = {id(weight): weight for cell in self.cells for weight in cell.parameters()}
        body = sum(weight.numel() for weight in weights.values())
        sampled = min(self.task.outputs, self.config.training.sampled_softmax)
        return VALIDATION_COST * (body + width * self.task.outputs) / (body + width * sampled)

    def _end(self) -> str | None:
        training = self.config.training
        if self.solved_step is not None:
            return f"solved at step {self.solved_step:,}"
        if training.epochs and self.epoch >= training.epochs:
            return f"{training.epochs} epochs are done"
        if training.max_steps and self.step >= training.max_steps:
            return f"{training.max_steps} steps are done"
        if training.max_seconds and self.seconds >= training.max_seconds - self._reserve():
            return f"{training.max_seconds:g} seconds are over"
        if training.patience and self.stale >= training.patience:
            return f"no better validation in {self.stale} in a row"
        return None

    def started(self, machine_name: str, notes: tuple[str, ...]) -> Started:
        training = self.config.training
        steps_an_epoch = math.ceil(self.task.pieces / training.accumulate)
        total = [steps_an_epoch * training.epochs] if training.epochs else []
        total += [training.max_steps] if training.max_steps else []
        return Started(
            config=self.config,
            parameters=sum(p.numel() for p in self.parameters),
            train_tokens=self.task.train_tokens,
            valid_tokens=self.task.valid_tokens,
            steps_an_epoch=steps_an_epoch,
            total_steps=min(total, default=0),
            engine=self.task.run_as.engine,
            machine=machine_name,
            resumed_step=self.resumed_step,
            notes=notes,
            quantity=self.task.quantity,
        )

    # -- the loop ----------------------------------------------------------------------------

    def events(self) -> Iterator[Event]:
        if self.resumed_step == 0:
            self.place.write_model(self, scores={})
            yield self._save(best=False)
        window = Window()
        last_save = time.monotonic()
        reason = self._end()
        while reason is None:
            skipped = self.one_step(window)
            if skipped is not None:
                yield skipped
            if window.seconds() >= REPORT_SECONDS and window.tokens:
                yield self._report(window)
                window = Window()
            at_epoch_end = self.piece >= self.task.pieces
            if at_epoch_end:
                self.epoch, self.piece = self.epoch + 1, 0
                self.task.begin_epoch(self.epoch)
            every = self.config.training.valid_every_steps
            due = self.step % every == 0 if every else at_epoch_end
            if due and self.step != self.validated_step:
                if window.tokens:
                    yield self._report(window)
                yield from self._validate()
                last_save = time.monotonic()
                window = Window()
            saving = time.monotonic() - last_save >= self.config.training.save_every_seconds > 0
            if window.tokens and (saving or self.stop.received is not None):
                yield self._report(window)  # a run that goes on from here begins a new one
                window = Window()
            if self.stop.received is not None:
                if self.validated_step < 0 and self.config.training.start_from is None:
                    self._write_unvalidated()
                yield self._save(best=False)
                raise self.stop.error(self.step)
            if saving:
                yield self._save(best=False)
                last_save = time.monotonic()
            reason = self._end()
        if window.tokens:
            yield self._report(window)
        if self.step != self.validated_step:
            yield from self._validate()
        yield self.place.record(
            Finished(
                step=self.step,
                epoch=self.epochs_done,
                reason=reason,
                best_score=self.best_nats if math.isfinite(self.best_nats) else math.nan,
                seconds=self.seconds,
                weights_sha256=self.place.weights_sha256(),
                peak_bytes=machine.peak_bytes(self.task.runtime.device),
                solved_step=self.solved_step,
                quantity=self.task.quantity,
            )
        )

    def one_step(self, window: Window) -> Skipped | None:
        """Run a piece, or ``training.accumulate`` of them, and move the weights; a step that is not
        finite leaves them alone."""
        began = time.monotonic()
        self.sampled = (
            self.config.training.sampled_softmax > 0
            and self.progress() < self.config.training.sampled_fraction
        )
        self.noise.add()
        stop = min(self.piece + self.config.training.accumulate, self.task.pieces)
        tokens, nats, scale, reason = 0, 0.0, 0.0, ""
        for piece in range(self.piece, stop):
            if piece > self.piece:
                self.task.accept(carry=True)
            loss = self.task.loss(piece, self.sampled)
            reason = "" if math.isfinite(loss.nats) else f"the loss is {loss.nats}"
            if reason:
                break
            if piece == self.piece:
                self.optimizer.zero_grad()
            # Of several pieces each counts by its tokens; the sum is divided once, below.
            alone = stop - self.piece == 1
            objective = loss.objective if alone else loss.objective * loss.tokens
            objective.backward()  # type: ignore[no-untyped-call]
            tokens += loss.tokens
            nats += loss.nats * loss.tokens
            scale += loss.lr_scale * loss.tokens
        self.noise.remove()
        norm = 0.0
        if not reason:
            gradients = [p.grad for p in self.parameters if p.grad is not None]
            if not alone:
                torch._foreach_div_(gradients, float(max(1, tokens)))
            self.penalty.add_gradients()
            norm = gradient_norm(gradients)
            if not math.isfinite(norm):
                reason = f"the gradient's norm is {norm}"
        if reason:
            return self._skip(reason, stop)
        clip(gradients, norm, self.config.optimizer)
        rate = self.config.optimizer.lr * (scale / max(1, tokens))
        rate *= self.schedule.factor(self.step, self.epoch, self.progress())
        self.optimizer.lr = rate
        self.optimizer.step()
        for cell in self.cells:
            cell.after_update()
        self.averaging.update()
        self.task.accept(carry=True)
        self.step, self.piece, self.nonfinite_run = self.step + 1, stop, 0
        clipped = 0.0 < self.config.optimizer.clip_norm < norm
        window.add(nats, tokens, norm, rate, clipped=clipped)
        self._trained_tokens += tokens
        self._trained_seconds += time.monotonic() - began
        return None

    def _skip(self, reason: str, stop: int) -> Skipped:
        """Leave out the pieces up to ``stop``."""
        batch = self.task.describe(self.piece)
        event = Skipped(self.step, self.epochs_done, batch, reason)
        self.place.record(event)
        self.skipped, self.nonfinite_run = self.skipped + 1, self.nonfinite_run + 1
        self.step, self.piece = self.step + 1, stop
        if self.nonfinite_run >= PATIENT_NONFINITE_STEPS:
            raise Diverged(
                f"{self.nonfinite_run} steps in a row were not finite, the last at step "
                f"{self.step}, epoch {self.epoch + 1}, {batch}: {reason}. The best model so far is "
                "kept; lower optimizer.lr or set optimizer.clip_norm"
            )
        self.task.accept(carry=False)
        return event

    def _report(self, window: Window) -> StepReport:
        report = StepReport(
            step=self.step,
            epoch=self.epochs_done,
            nats=window.nats / window.tokens,
            tokens=window.tokens,
            tokens_per_second=window.tokens / max(1e-9, window.seconds()),
            lr=window.lr,
            gradient_norm=window.norm,
            seconds=self.seconds,
            progress=self.progress(),
            sampled=self.sampled,
            skipped_steps=self.skipped,
            quantity=self.task.quantity,
            steps=window.steps,
            largest_gradient_norm=max(window.norms, default=0.0),
            gradient_norms=tuple(float(f"{norm:.4g}") for norm in window.norms),
            clipped_steps=window.clipped_steps,
        )
        self.place.record(report)
        return report

    def _validate(self) -> Iterator[Event]:
        """Validate, keep the model when it is the best or the last ones are kept, save the state
        to go on from."""
        started = time.monotonic()
        averaged = self.averaging.active
        if averaged:
            self.averaging.swap()
        validation = self.task.validate()
        best = validation is None and self._weights_are_finite()
        score = math.nan
        text = self.task.sample()
        if validation is not None:
            score = validation.nats / validation.tokens
            self.averaging.validated(score)
            self.schedule.validated(score, self.best_nats)
            measured = self._criterion(validation, score)
            if validation.solved and self.solved_step is None:
                self.solved_step = self.step
            best = (math.isfinite(score) and measured < self.best) or validation.solved
            self.stale = 0 if best else self.stale + 1
            self.best, self.best_nats = min(self.best, measured), min(self.best_nats, score)
        scores: dict[str, float] = {}
        if validation is not None:
            scores = self.task.quantity.scores(score)
            scores |= {f"valid_{name}": value for name, value in validation.scores.items()}
        if best:
            self.place.write_model(self, scores)
        measured_well = validation is None or math.isfinite(score)
        if self.config.training.keep_models and measured_well and self._weights_are_finite():
            self.place.keep_model(self, scores)
        if averaged:
            self.averaging.swap()
        self.valid_seconds = time.monotonic() - started
        self.validated_step = self.step
        if validation is not None:
            yield self.place.record(
                EvalReport(
                    step=self.step,
                    epoch=self.epochs_done,
                    score=score,
                    tokens=validation.tokens,
                    seconds=self.valid_seconds,
                    best=best,
                    averaged=averaged,
                    scores=validation.scores,
                    quantity=self.task.quantity,
                )
            )
        yield self.place.record(Sample(self.step, text))
        yield self._save(best)

    def _criterion(self, validation: Validation, loss: float) -> float:
        """What the best model has least of."""
        name = self.config.training.best_by
        if name == "loss":
            return loss
        return validation.scores[name] * (1 if name == "token_error_rate" else -1)

    def _weights_are_finite(self) -> bool:
        return all(bool(torch.isfinite(w).all()) for w in self.parameters)

    def _write_unvalidated(self) -> None:
        """Write the model as it is: better than the fresh one of before the first step."""
        if not self._weights_are_finite():
            return
        if self.averaging.active:
            self.averaging.swap()
        self.place.write_model(self, scores={})
        if self.averaging.active:
            self.averaging.swap()

    def _save(self, best: bool) -> Saved:
        started = time.monotonic()
        self.place.write_training_state(self)
        self._save_seconds = time.monotonic() - started
        self.place.drop_models(self.config.training.keep_models, self.step)
        return Saved(self.step, best)
