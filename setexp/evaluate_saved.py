"""`mode=eval checkpoint=PATH`: the final evaluation of saved weights, with other settings."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

from torch import nn

from setexp.build import build
from setexp.crossval import seed_of_fold
from setexp.errors import ConfigError, shortened
from setexp.experiment import Experiment
from setexp.files import read_json, write_json
from setexp.provenance import origin
from setexp.report.records import slug
from setexp.science import differences, jsonable
from setexp.training import checkpoint
from setexp.training.evaluate import measure_final
from setexp.training.randomness import for_run
from setexp.training.settings import Select


def evaluate_saved(one: Experiment) -> None:
    """Measure saved weights as an experiment's evaluation says, and write that beside them.

    Raises:
        ConfigError: they are of another model, or nothing is measured or can be written.
        NonFiniteError: a metric is NaN or infinite.
    """
    path = Path(one.config.checkpoint)
    state = checkpoint.load(path, one.device)
    checkpoint.check_vocabulary(path, state, one.dataset)
    task = _with_weights(one, path, state)
    whose, dataset = _run_and_data(one, path, state["seed"])
    at, steps = one.evaluation.at, one.axes.get("decoder.steps")
    if at and steps is not None and steps not in at:
        print(f"decoder.steps={steps} is not evaluated; add it to evaluation.at={at}")
    size = one.config.trainer.eval_batch_size
    how = {"batch_size": size, "seed": state["seed"], "device": one.device}
    measured = measure_final(task, dataset, one.evaluation, **how)
    if not measured:
        raise ConfigError(
            "mode=eval: nothing is measured at the end of this experiment; name a split, "
            "'+evaluation.final={test: \"\"}'"
        )
    for name, value in measured.items():
        print(f"  {name:<24} {value:.6g}")
    about = one.about(whose["seed"]) | whose | {"steps": state["step"], **origin(one.device)}
    kept = path.parent / _name(about, read_json(path.with_name("result.json")))
    record = kept.with_name(f"{kept.name}.json")
    try:
        write_json(record, about | {"metrics": measured})
    except OSError as error:
        raise ConfigError(
            f"checkpoint={path}: cannot write {record}: {error.strerror}; copy the checkpoint to "
            "a folder of your own"
        ) from None
    print(f"record: {record}")
    one.pictures(task, kept, whose["seed"], "the same command")


def _run_and_data(one: Experiment, path: Path, seed: int) -> tuple[dict[str, int], Any]:
    """The run that a checkpoint's seed is of, and its data: those of a fold, if it is a member's.

    Raises:
        ConfigError: it is of no fold of this cross-validation.
    """
    for run, fold in product(one.config.seeds, range(getattr(one.dataset, "folds", 0))):
        if seed == seed_of_fold(run, fold):
            return {"seed": run, "fold": fold}, for_run(one.dataset, run).fold(fold)
    if one.nodes["crossval"]["grid"]:
        raise ConfigError(
            f"seeds={list(one.config.seeds)}: checkpoint={path} is of no fold of these; give the "
            "seed of its cross-validation, or crossval.grid=null if it is of none"
        )
    return {"seed": seed}, for_run(one.dataset, seed)


def _with_weights(one: Experiment, path: Path, state: dict[str, Any]) -> nn.Module:
    """The model with the weights that a run reports."""
    science = read_json(path.with_name("science.json"))
    if changed := "" if science is None else _other_encoders(science, one.nodes):
        raise ConfigError(f"checkpoint={path}: another model ({changed}); {_remedy(path)}")
    task = build(one.nodes["task"], "task").to(one.device)
    best = one.nodes["trainer"]["select"] is Select.best and state["best"]
    try:
        task.load_state_dict((best or state)["model"])
    except RuntimeError as error:
        raise ConfigError(
            f"checkpoint={path}: another model: {shortened(error)}; {_remedy(path)}"
        ) from None
    return task


def _other_encoders(science: Mapping[str, Any], nodes: Mapping[str, Any]) -> str:
    """How a run's encoder, or the one its decoder inverts, differs from a config's; "" if neither.

    Weights that fit may mean something else in another: a mean in place of a maximum. How a decoder
    descends is not compared: that may be changed for an evaluation.
    """
    before, now = (
        {
            "encoder": sections["encoder"],
            "decoder": {"set_encoder": (sections["decoder"] or {}).get("set_encoder")},
        }
        for sections in (science, jsonable(nodes))
    )
    return ", ".join(differences(before, now))


def _remedy(path: Path) -> str:
    """Where the overrides are that a checkpoint's model needs."""
    beside, above = path.parent, path.parent.parent.parent.parent
    if (beside / "config.yaml").exists():
        return "give the overrides of its run, whose config.yaml is beside it"
    if (above / "config.yaml").exists() and beside.parent.parent.name == "members":
        return (
            f"give the overrides of its cross-validation, see {above}/config.yaml, and those of "
            f"its point, {beside.parent.name}"
        )
    return "give the overrides of the run it is of"


def _name(about: Mapping[str, Any], result: Mapping[str, Any] | None) -> str:
    """A name for an evaluation that no other one has: in what it differs from its run.

    Args:
        result: the run's record; None where there is none, and the command's axes are the name.
    """
    now, before = (
        {key: record[key] for key in ("experiment", "scale", "source")} | record["axes"]
        for record in (about, {**about, "axes": {}} if result is None else result)
    )
    known = now.keys() | before.keys()
    other = {k: now.get(k, "default") for k in known if now.get(k, ...) != before.get(k, ...)}
    return f"evaluation-{slug(other)}" if other else "evaluation"
