"""The training loop: one for every experiment, for one seed or a stack of them."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from setexp.errors import ConfigError, NonFiniteError
from setexp.provenance import origin
from setexp.sets import Batch
from setexp.training import checkpoint
from setexp.training.evaluate import measure, measure_curves, measure_final
from setexp.training.optimise import (
    clip_gradients,
    inner_steps,
    learning_rate,
    load_states,
    make_optimizer,
    state_of_seed,
)
from setexp.training.precision import forward_in
from setexp.training.randomness import derive, rng_state, set_rng_state
from setexp.training.seeds import Alone, Stacked
from setexp.training.settings import Evaluation, Select, Trainer
from setexp.training.signals import StopRequest
from setexp.training.summary import selected, summarise, unreached
from setexp.training.tracking import Tracker

log = logging.getLogger(__name__)


def steps_per_epoch(dataset: Any, trainer: Trainer) -> int:
    """Batches in one pass over the training split."""
    whole, rest = divmod(dataset.sizes("train"), trainer.batch_size)
    return whole + (rest > 0 and not trainer.drop_last)


class Fit:
    """Training of some seeds that are at the same step, and their evaluation.

    Args:
        make_task: builds the model of a seed's index, with the global random state seeded.
        datasets: of each seed's run, with equally many batches.
        evaluation, trainer: see their classes.
        seeds: seeds; they are stacked if there are several.
        folders: a folder for each, which holds its checkpoint.
        device: where everything happens.
        open_tracker: tracker of a seed's index, given a W&B id to go on with and the step.
    """

    def __init__(
        self,
        make_task: Callable[[int], nn.Module],
        datasets: Sequence[Any],
        evaluation: Evaluation,
        trainer: Trainer,
        seeds: Sequence[int],
        folders: Sequence[Path],
        device: torch.device,
        open_tracker: Callable[[int, str | None, int], Tracker],
    ) -> None:
        self.datasets, self.evaluation, self.trainer = list(datasets), evaluation, trainer
        self.seeds, self.folders, self.device = list(seeds), list(folders), device
        tasks = []
        for index, seed in enumerate(seeds):
            torch.manual_seed(derive(seed, "weights"))
            tasks.append(make_task(index).to(device))
        self.learner: Alone | Stacked = Stacked(tasks) if len(tasks) > 1 else Alone(tasks[0])
        self.parameters = self.learner.named_parameters()
        self.optimizer = (
            make_optimizer(self.parameters, trainer, len(tasks)) if self.parameters else None
        )
        self.per_epoch = steps_per_epoch(self.datasets[0], trainer)
        self.total = trainer.epochs * self.per_epoch
        if trainer.steps is not None:
            self.total = min(self.total, trainer.steps)
        self.epochs = self.total // max(self.per_epoch, 1)  # whole ones
        self.end = self.total  # of this process
        if trainer.until is not None:
            self.end = min(self.total, trainer.until * self.per_epoch)
        self.step, self.seconds = 0, 0.0
        self.ahead = [0.0] * len(tasks)  # seconds that each took more than the first
        self.window: list[Tensor] = []
        self.window_sum = torch.zeros(len(tasks), dtype=torch.float64)
        self.window_count = torch.zeros(len(tasks), dtype=torch.long)
        self.best: list[dict[str, Any] | None] = [None] * len(tasks)
        self.reports: list[dict[str, float]] = [{} for _ in tasks]
        self.origin = origin(device)
        self.earlier: list[list[dict[str, Any]]] = [[] for _ in tasks]  # other origins of its steps
        identities = self._restore()
        self.trackers = [open_tracker(i, t, self.step) for i, t in enumerate(identities)]
        if trainer.compile:
            self.learner.compile()

    def train(self) -> None:
        """Run all remaining steps, or those up to a pause.

        Raises:
            NonFiniteError: a seed's loss or weights are NaN or infinite; the last checkpoint is
                from before.
            SystemExit: a signal asked to stop; a checkpoint was written first.
        """
        from tqdm import tqdm

        started, saved = time.monotonic() - self.seconds, time.monotonic()

        def clock() -> None:
            self.seconds = time.monotonic() - started

        with ExitStack() as stack:
            stack.callback(clock)
            stop = stack.enter_context(StopRequest())
            bar = stack.enter_context(
                tqdm(total=self.total, initial=self.step, disable=None, unit="step", smoothing=0.05)
            )
            if self.step == 0:
                self._rehearse()
                self._save()
            while self.step < self.end:
                epoch = self.step // self.per_epoch
                for batches in self._batches(epoch):
                    self._step(batches)
                    bar.update()
                    if self.step % self.trainer.log_every == 0:
                        bar.set_postfix_str(self._log(epoch))
                    if self.step % self.per_epoch == 0:
                        self._end_of_epoch(epoch)
                    due = time.monotonic() - saved > self.trainer.checkpoint_seconds
                    if due or stop.event:
                        clock()
                        self._save()
                        saved = time.monotonic()
                    if stop.event:
                        log.warning(
                            "a signal at step %d: saved; the same command resumes", self.step
                        )
                        stop.hand_over()
                    if self.step == self.end:
                        break
            self._check()
        self._save()

    def final(self, index: int) -> tuple[nn.Module, dict[str, float]]:
        """One seed's reported weights as a plain module, and its final metrics."""
        task = self.learner.module(index)
        best = self.best[index]
        if self.trainer.select is Select.best and best is not None:
            task.load_state_dict(best["model"])
        dataset, how = self.datasets[index], self._how(index)
        measured = measure_final(task, dataset, self.evaluation, **how)
        return task, measured | self.reports[index]

    def _rehearse(self) -> None:
        """Evaluate a batch of each split, so that what does not fit shows before training.

        Raises:
            ConfigError: it does not fit, or is never measured. A trial of less than an epoch
                measures little, and is only warned of that.
        """
        for mistake in unreached(vars(self.trainer), self.epochs):
            if self.epochs:
                raise ConfigError(mistake)
            log.warning(mistake)
        task, trainer = self.learner.module(0), self.trainer
        splits = dict.fromkeys(self.evaluation.final)
        if self.evaluation.during is not None and trainer.evaluate_every:
            splits = {self.evaluation.during: None} | splits
        passes = [(split, self.evaluation) for split in splits]
        curves, stats = self.evaluation.curves, self.evaluation.stats
        if curves and not stats:
            raise ConfigError(f"evaluation.curves={curves}: name the stats with evaluation.stats")
        if curves:
            passes.append(("+".join(curves), Evaluation(stats=stats)))
        for split, evaluation in passes:
            how = self._how(0) | {"when": "rehearsal", "batches": 1}
            try:
                measured = measure(task, self.datasets[0], split, evaluation, **how)
            except NonFiniteError:
                continue  # which training may mend, or will tell
            chosen = evaluation is self.evaluation and split == evaluation.during
            if chosen and (trainer.select is Select.best or trainer.milestones):
                selected(measured, trainer)

    def _batches(self, epoch: int) -> Iterator[tuple[Batch, ...]]:
        passes = [
            dataset.batches(
                "train",
                self.trainer.batch_size,
                torch.Generator(self.device).manual_seed(derive(seed, "train", epoch)),
                start=self.step % self.per_epoch,
                shuffle=True,
                drop_last=self.trainer.drop_last,
            )
            for dataset, seed in zip(self.datasets, self.seeds, strict=True)
        ]
        return zip(*passes, strict=True)

    def _forward(self, batches: tuple[Batch, ...], steps: int | None) -> Tensor:
        with forward_in(self.trainer.precision, self.device):
            return self.learner.losses(batches, steps)

    def _step(self, batches: tuple[Batch, ...]) -> None:
        epoch = self.step // self.per_epoch
        self._set_learning_rate(learning_rate(self.trainer, epoch, self.step))
        if self.optimizer is not None:
            self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros(self.learner.count, device=self.device)
        for part, share in _slices(batches, self.trainer):
            try:
                losses = self._forward(part, inner_steps(self.trainer, epoch)) * share
            except NonFiniteError as error:
                self._check()  # an earlier loss may be the cause
                self.step += 1  # where this run ends
                seeds = ", ".join(self._origin(seed, self.step) for seed in self.seeds)
                raise NonFiniteError(f"step {self.step} of {seeds}: {error}") from None
            if self.optimizer is not None:
                losses.sum().backward()
            total += losses.detach()
        if self.optimizer is not None:
            if self.trainer.clip is not None:
                clip_gradients(self.parameters.values(), self.trainer.clip, self.learner.count)
            self.optimizer.step()
        self.step += 1
        self.window.append(total)

    def _check(self) -> None:
        """Read the losses since the last check, which waits for the device, and judge them."""
        if not self.window:
            return
        losses = torch.stack(self.window).double().cpu()
        bad = (~losses.isfinite()).nonzero()
        if len(bad):
            row, index = bad[0].tolist()
            self.step += row + 1 - len(self.window)  # where this run ends
            raise NonFiniteError(
                f"loss of {self._origin(self.seeds[index], self.step)} is {losses[row, index]:g} "
                f"at step {self.step}; the checkpoint in {self.folders[index]} is from before"
            )
        self.window_sum += losses.sum(0)
        self.window_count += len(losses)
        self.window.clear()

    def _origin(self, seed: int, step: int) -> str:
        """What repeats a step's data: a seed and the seed of its epoch's pass."""
        return f"seed {seed} (data seed {derive(seed, 'train', (step - 1) // self.per_epoch)})"

    def _log(self, epoch: int) -> str:
        self._check()
        means = (self.window_sum / self.window_count).tolist()
        self.window_sum.zero_()
        self.window_count.zero_()
        for tracker, mean in zip(self.trackers, means, strict=True):
            rate = learning_rate(self.trainer, epoch, self.step - 1)  # the last step's
            tracker.log(self.step, {"epoch": epoch, "train/loss": mean, "train/lr": rate})
        return "loss " + " ".join(f"{m:.4g}" for m in means[:4])

    def _end_of_epoch(self, epoch: int) -> None:
        if epoch + 1 in self.trainer.report_at:
            self._check()
            for index, report in enumerate(self.reports):
                task, how = self.learner.module(index), self._how(index)
                measured = measure_final(task, self.datasets[index], self.evaluation, **how)
                report |= {f"{name}_ep{epoch + 1}": value for name, value in measured.items()}
        if self.evaluation.curves:
            self._check()
            size = self.trainer.eval_batch_size
            curves = measure_curves(self.learner, self.datasets, self.evaluation, size, self.device)
            for tracker, values in zip(self.trackers, curves, strict=True):
                tracker.log(self.step, {"epoch": epoch, **values})
        every = self.trainer.evaluate_every
        if not every or (epoch + 1) % every or self.evaluation.during is None:
            return
        self._check()
        for index, tracker in enumerate(self.trackers):
            task, split = self.learner.module(index), self.evaluation.during
            how = self._how(index) | {"steps": inner_steps(self.trainer, epoch)}
            dataset = self.datasets[index]
            measured = measure(task, dataset, split, self.evaluation, when=epoch, **how)
            values = {f"{split}/{k}": v for k, v in measured.items()}
            tracker.log(self.step, {"epoch": epoch, **values})
            self.reports[index] = summarise(
                self.reports[index], measured, self.trainer, epoch + 1, self.epochs
            )
            self._keep_best(index, measured)

    def _keep_best(self, index: int, measured: dict[str, float]) -> None:
        if self.trainer.select is not Select.best:
            return
        value, best = selected(measured, self.trainer), self.best[index]
        sign = 1 if self.trainer.select_lower else -1
        if best is None or math.isnan(best["value"]) or sign * value < sign * best["value"]:
            state = {k: v.clone() for k, v in self.learner.state(index).items()}
            self.best[index] = {"value": value, "step": self.step, "model": state}

    def _how(self, index: int) -> dict[str, Any]:
        size, seed = self.trainer.eval_batch_size, self.seeds[index]
        return {"batch_size": size, "seed": seed, "device": self.device}

    def _set_learning_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups if self.optimizer else ():
            group["lr"] = rate * group["times"]

    def _save(self) -> None:
        self._check()
        self._check_weights()
        for tracker in self.trackers:
            tracker.sync()
        for index, folder in enumerate(self.folders):
            checkpoint.save(
                folder / "checkpoint.pt",
                {
                    "step": self.step,
                    "seconds": self.seconds + self.ahead[index],
                    "seed": self.seeds[index],
                    "vocabulary": getattr(self.datasets[index], "vocabulary", None),
                    "sum": float(self.window_sum[index]),
                    "count": int(self.window_count[index]),
                    "model": {k: v.clone() for k, v in self.learner.state(index).items()},
                    "optimizer": state_of_seed(
                        self.optimizer, self.parameters, self.learner.count, index
                    ),
                    "best": self.best[index],
                    "reports": self.reports[index],
                    "origins": [*self.earlier[index], self.origin],
                    "rng": rng_state(self.device),
                    "tracker": self.trackers[index].identity,
                },
            )

    def _check_weights(self) -> None:
        """A gradient may be NaN where the loss is not: such weights are not worth keeping."""
        for index, seed in enumerate(self.seeds):
            state = self.learner.state(index)
            fine = [value.isfinite().all() for value in state.values()]
            for name, finite in zip(state, torch.stack(fine).tolist() if fine else (), strict=True):
                if not finite:
                    raise NonFiniteError(
                        f"{name} of {self._origin(seed, self.step)} is not finite after step "
                        f"{self.step}; the checkpoint in {self.folders[index]} is from before"
                    )

    def _restore(self) -> list[str | None]:
        """Go on from the folders' checkpoints; all must be at one step, or none has begun."""
        paths = [folder / "checkpoint.pt" for folder in self.folders]
        if not all(path.exists() for path in paths):
            torch.manual_seed(derive(self.seeds[0], "train"))
            return [None] * len(paths)
        states = [checkpoint.load(path) for path in paths]
        self.learner.load([s["model"] for s in states])
        if self.optimizer is not None:
            load_states(self.optimizer, self.parameters, [s["optimizer"] for s in states])
        self.step, self.seconds = states[0]["step"], states[0]["seconds"]
        self.ahead = [s["seconds"] - self.seconds for s in states]
        self.window_count = torch.tensor([s["count"] for s in states])
        self.window_sum = torch.tensor([s["sum"] for s in states], dtype=torch.float64)
        self.best = [s["best"] for s in states]
        self.reports = [s["reports"] for s in states]
        self.earlier = [[o for o in s.get("origins", []) if o != self.origin] for s in states]
        set_rng_state(states[0]["rng"], self.device)
        return [s["tracker"] for s in states]


def _slices(
    batches: tuple[Batch, ...], trainer: Trainer
) -> Iterator[tuple[tuple[Batch, ...], float]]:
    """Parts of all seeds' batches and the share of the sets they hold."""
    if trainer.slice is None:
        yield batches, 1.0
        return
    whole = len(tree_leaves(batches)[0])
    for at in range(0, whole, trainer.slice):
        rows = slice(at, at + trainer.slice)
        yield tree_map(itemgetter(rows), batches), min(trainer.slice, whole - at) / whole
