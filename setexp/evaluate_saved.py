"""`mode=eval checkpoint=PATH`: the final evaluation of saved weights, with other settings."""

from __future__ import annotations

from pathlib import Path

from setexp.build import build
from setexp.errors import ConfigError
from setexp.experiment import Experiment, draw, other_encoder
from setexp.files import write_json
from setexp.provenance import origin
from setexp.training import checkpoint
from setexp.training.evaluate import measure_final
from setexp.training.randomness import for_run
from setexp.training.settings import Select


def evaluate_saved(one: Experiment) -> None:
    """Measure saved weights as an experiment's evaluation says, and write that beside them.

    Raises:
        ConfigError: they are of another model, of none, or their folder cannot be written.
        NonFiniteError: a metric is NaN or infinite.
    """
    config, nodes, dataset, device = one.config, one.nodes, one.dataset, one.device
    state = checkpoint.load(Path(config.checkpoint), device)
    checkpoint.check_vocabulary(config.checkpoint, state, dataset)
    if changed := other_encoder(Path(config.checkpoint).parent, nodes):
        raise ConfigError(
            f"checkpoint={config.checkpoint}: another model ({changed}); give the overrides of "
            "its run, whose config.yaml is beside it"
        )
    task = build(nodes["task"], "task").to(device)
    best = nodes["trainer"]["select"] is Select.best and state["best"]
    try:
        task.load_state_dict((best or state)["model"])
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"checkpoint={config.checkpoint}: another model: {reason}; give the overrides "
            "of its run, whose config.yaml is beside it"
        ) from None
    at, steps = one.evaluation.at, one.axes.get("decoder.steps")
    if at and steps is not None and steps not in at:
        print(f"decoder.steps={steps} is not evaluated; add it to evaluation.at={at}")
    size, seed = config.trainer.eval_batch_size, state["seed"]
    own = for_run(dataset, seed)
    measured = measure_final(task, own, one.evaluation, batch_size=size, seed=seed, device=device)
    if not measured:
        raise ConfigError(
            "mode=eval: nothing is measured at the end of this experiment; name a split, "
            "'+evaluation.final={test: \"\"}'"
        )
    path = Path(config.checkpoint).with_name("evaluation.json")
    about = {
        "experiment": config.name,
        "axes": one.axes,
        "scale": config.scale,
        "source": dataset.source,
        "data": dataset.fingerprint,
        "seed": seed,
        "steps": state["step"],
        **origin(device),
    }
    for name, value in measured.items():
        print(f"  {name:<24} {value:.6g}")
    try:
        write_json(path, about | {"metrics": measured})
    except OSError as error:
        raise ConfigError(
            f"checkpoint={config.checkpoint}: cannot write {path}: {error.strerror}; copy the "
            "checkpoint to a folder of your own"
        ) from None
    print(f"record: {path}")
    draw(nodes["figures"], task, dataset, path.parent / "evaluation", seed, device)
