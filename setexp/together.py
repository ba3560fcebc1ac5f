"""Which runs train together, and their training: seeds and points of a sweep as one stack."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import torch
from omegaconf import OmegaConf

from setexp.crossval import Repeat
from setexp.errors import ConfigError, NonFiniteError, shortened
from setexp.experiment import Experiment, RunResult
from setexp.files import read_json, write_json
from setexp.processes import divided, spread
from setexp.training.loop import Fit
from setexp.training.randomness import for_run
from setexp.training.tracking import Tracker

Member = tuple[Experiment, int]  # a seed of an experiment


def train(experiments: Sequence[Experiment]) -> None:
    """Train the seeds of some experiments that have no result yet.

    Those at one step, of experiments that differ in numbers of their data alone, share a process.

    Raises:
        ConfigError: a seed's folder cannot be used.
        NonFiniteError: some seeds diverged; the others are finished.
    """
    if not experiments:
        return
    config = experiments[0].config  # of one command
    with ExitStack() as claims:
        pending = [(one, seed) for one in experiments for seed in one.pending(claims)]
        _prepare(pending)
        for one, seed in pending:
            one.run_of(seed).begin()
        validated = [(one, seed) for one, seed in pending if one.nodes["crossval"]["grid"]]
        failures = [f for one, seed in validated for f in _cross_validate(one, seed)]
        rest = [member for member in pending if member not in validated]
        parts = divided(list(_groups(rest)), config.processes)
        failures += [f for found in spread(_fit, parts, config) for f in found]
    if failures:
        raise NonFiniteError("\nerror: ".join(failures))


def _groups(pending: Sequence[Member]) -> Iterator[list[Member]]:
    """Those that train together."""
    alike: dict[tuple[str, int], list[Member]] = {}
    for one, seed in pending:
        alike.setdefault((one.kind(), one.step_of(seed)), []).append((one, seed))
    for members in alike.values():
        if members[0][0].stacks():
            yield members
        else:
            yield from ([member] for member in members)


def _fit(members: list[Member]) -> list[str]:
    """Train and record some seeds; how each that diverged did."""
    experiments, seeds = zip(*members, strict=True)
    folders = [one.folder_of(seed) for one, seed in members]
    for one in dict.fromkeys(experiments):
        one.announce([seed for other, seed in members if other is one])
    for folder in folders:
        write_json(folder / "status.json", {"status": "running"})
    with ExitStack() as noted:
        noted.enter_context(_early_end_noted(folders))
        fit = Fit(
            lambda index: experiments[index].task(seeds[index]),
            [for_run(one.dataset, seed) for one, seed in members],
            experiments[0].evaluation,
            OmegaConf.to_object(experiments[0].config.trainer),  # type: ignore[arg-type]
            seeds,
            folders,
            experiments[0].device,
            lambda index, identity, step: experiments[index].tracker(
                seeds[index], folders[index], identity, step
            ),
        )
        noted.enter_context(
            _early_end_noted(folders, fit.trackers, lambda: {"step": fit.step, "steps": fit.total})
        )
        try:
            fit.train()
        except NonFiniteError as error:
            if len(members) == 1:
                return experiments[0].record(fit, 0, str(error))
        except OSError as error:
            raise ConfigError(
                f"{error}; make room, or mend it, and the same command goes on"
            ) from error
        except Exception as error:
            if fit.step or isinstance(error, ConfigError | torch.OutOfMemoryError):
                raise
            raise ConfigError(
                f"the first batch failed: {type(error).__name__}: {shortened(error)}; do the parts "
                "fit each other and the data? HYDRA_FULL_ERROR=1 shows where"
            ) from error
        else:
            if len(members) > 1:
                print(f"{len(members)} runs trained as one stack in {fit.seconds:.1f} s")
            return [f for i, one in enumerate(experiments) for f in one.record(fit, i, None)]
    for folder, tracker in zip(folders, fit.trackers, strict=True):
        write_json(folder / "status.json", {"status": "interrupted"})  # until its turn comes
        tracker.finish({"status": "interrupted"})
    # each goes on alone, which changes nothing for those that are well
    return [failure for member in members for failure in _fit([member])]


def _prepare(pending: Sequence[Member]) -> None:
    """Make what the splits of runs wait for now: training holds signals back between its steps."""
    try:
        for one in dict.fromkeys(one for one, _ in pending):
            if hasattr(one.dataset, "prepare"):
                for split in one.splits:
                    one.dataset.prepare(split)
    except BaseException as error:
        for one, seed in pending:
            if not (one.folder_of(seed) / "result.json").exists():
                write_json(one.folder_of(seed) / "status.json", _ended(error))
        raise


def _cross_validate(one: Experiment, seed: int) -> list[str]:
    """Train and record the cross-validation of one seed; how it diverged, if it did."""
    folder, started = one.folder_of(seed), time.monotonic()
    one.announce([seed])
    own = for_run(one.dataset, seed)
    repeat = Repeat(one.config, own, one.evaluation, seed, folder, one.device)
    known = read_json(folder / "tracker.json")  # of an earlier start
    tracker = one.tracker(seed, folder, known and known["id"], 0)
    write_json(folder / "tracker.json", {"id": tracker.identity})
    write_json(folder / "status.json", {"status": "running"})
    failure, cost, metrics, point = None, None, None, repeat.points[0]
    with _early_end_noted([folder], [tracker]):
        try:
            cost = repeat.train()
            point, metrics = repeat.choose()
            metrics |= one.dataset.statistics
        except NonFiniteError as error:
            failure = str(error)
    if cost is None:
        cost = {"steps": 0, "seconds": time.monotonic() - started, "stacked": 1, "origins": []}
    with torch.device("meta"):
        parameters = sum(p.numel() for p in point.task().parameters())
    size = {"epochs": point.trainer.epochs, "steps": cost["steps"], "parameters": parameters}
    if earlier := one.elsewhere(cost["origins"]):
        size["earlier"] = earlier
    result = RunResult(metrics, size, cost["seconds"], cost["stacked"], failure)
    one.write(seed, result)
    tracker.finish({"metrics": metrics, "status": result.status})
    return [] if failure is None else [failure]


@contextmanager
def _early_end_noted(
    folders: Sequence[Path],
    trackers: Sequence[Tracker] = (),
    progress: Callable[[], dict[str, int]] = dict,
) -> Iterator[None]:
    """Where a signal or an error ends a run, the folders of seeds that still run say so."""
    try:
        yield
    except BaseException as error:
        ended = _ended(error)
        for index, folder in enumerate(folders):
            if read_json(folder / "status.json") == {"status": "running"}:
                with suppress(OSError):  # the disk may be full, which is what the error says
                    write_json(folder / "status.json", ended | progress())
                if trackers:
                    trackers[index].finish(ended)
        raise


def _ended(error: BaseException) -> dict[str, str]:
    """What a run's folder says of what ended it."""
    if isinstance(error, SystemExit | KeyboardInterrupt):
        return {"status": "interrupted"}
    return {"status": "failed", "why": str(error) or type(error).__name__}
