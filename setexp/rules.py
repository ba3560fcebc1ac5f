"""Combinations of parts that cannot work, found before anything is built."""

from __future__ import annotations

import math
import re
from typing import Any

from setexp.figures.needs import DATA, PARTS
from setexp.training.settings import Evaluation, Select, Use
from setexp.training.summary import unreached

_LEAST = {
    "epochs": 0,
    "steps": 0,
    "until": 1,
    "stack": 0,
    "checkpoint_seconds": 0,
    "batch_size": 1,
    "eval_batch_size": 1,
    "slice": 1,
    "lr": 0,
    "lr_warmup": 0,
    "lr_warmup_epochs": 0,
    "lr_decay": 0,
    "lr_decay_steps": 1,
    "lr_factor": 0,
    "lr_max": 0,
    "lr_part_factor": 0,
    "average_from": 1,
    "weight_decay": 0,
    "clip": 0,
    "evaluate_every": 0,
    "log_every": 1,
}


def broken_rules(nodes: dict[str, Any], *, parts: bool = True) -> list[str]:
    """One sentence for each broken rule.

    Args:
        nodes: the resolved config.
        parts: ask whether the parts fit each other, which needs what their constructors ask for.
    """
    if not nodes.get("task"):
        return ["experiment=none: choose one, experiment=NAME; the names are in configs/experiment"]
    alone = (_unused, _sizes, _inner_steps, _trainer, _evaluations, _cross_validation, _figures)
    together = (_widths, _pooling, _unpooling, _places, _guess, _representation, _counts, _descent)
    return [m for rule in (*alone, _process, *(together if parts else ())) for m in rule(nodes)]


def rules_broken_by_data(nodes: dict[str, Any], dataset: Any, evaluation: Evaluation) -> list[str]:
    """One sentence for each rule between the config and how many sets there are.

    Raises:
        ConfigError: the evaluation names a split that the data does not have.
    """
    return _splits_without_batch(nodes, dataset, evaluation) + _batch_of_one(nodes, dataset)


def _part(nodes: dict[str, Any], path: str) -> dict[str, Any]:
    """A part of the task, "decoder.set_encoder"; {} where there is none."""
    part = nodes["task"]
    for key in path.split("."):
        part = part.get(key) or {}
    return part


def _is(part: dict[str, Any], name: str) -> bool:
    """Whether a part is of the class of that name."""
    return str(part.get("_target_", "")).endswith(f".{name}")


def _unused(nodes: dict[str, Any]) -> list[str]:
    task = nodes["task"]
    return [
        f"{part}={nodes[part].get('_target_', nodes[part])}: {task['_target_']} has no {part}; "
        "leave it out"
        for part in ("encoder", "decoder", "loss")
        if nodes.get(part) and part not in task
    ]


def _sizes(nodes: dict[str, Any]) -> list[str]:
    sizes = {f"dataset.{key}": n for key, n in nodes["dataset"].items() if key.endswith("_size")}
    sizes |= {key: nodes[key] for key in ("hidden", "latent")}
    return [
        f"{key}={size}: at least 1"
        for key, size in sizes.items()
        if isinstance(size, int) and size < 1
    ]


def _widths(nodes: dict[str, Any]) -> list[str]:
    data = nodes["dataset"]
    return [
        f"{path}.{key}={part[key]}: the data has dataset.{key}={data[key]}"
        for path in ("decoder", "decoder.initial", "decoder.head")
        if (part := _part(nodes, path))
        for key in ("set_size", "element_dim")
        if key in part and key in data and part[key] != data[key]
    ]


def _pooling(nodes: dict[str, Any]) -> list[str]:
    return [
        f"{path}.pooling.features={encoder['pooling']['features']}: "
        f"{path}.elements.widths ends in {encoder['elements']['widths'][-1]}"
        for path in ("encoder", "decoder.set_encoder")
        if (encoder := _part(nodes, path))
        and "features" in encoder.get("pooling", {})
        and encoder["pooling"]["features"] != encoder["elements"]["widths"][-1]
    ]


def _unpooling(nodes: dict[str, Any]) -> list[str]:
    decoder, pooling = _part(nodes, "decoder"), _part(nodes, "encoder.pooling")
    if not _is(decoder, "FSUnpoolDecoder"):
        return []
    if not pooling.get("relaxed"):
        return ["decoder=fsunpool: it inverts a relaxed FSPool; set encoder.pooling.relaxed=true"]
    if [pooling["features"]] != decoder["hidden"][-1:]:
        return [
            f"decoder.hidden={decoder['hidden']}: its last width must be "
            f"encoder.pooling.features={pooling['features']}"
        ]
    return []


def _places(nodes: dict[str, Any]) -> list[str]:
    """An encoder that yields elements and no vector needs a decoder that reads them."""
    if not _is(_part(nodes, "encoder"), "PositionCNN") or "latent" not in _part(nodes, "decoder"):
        return []
    return ["encoder=position_cnn: it yields no vector; use decoder=slot_attention or slot_mlp"]


def _guess(nodes: dict[str, Any]) -> list[str]:
    """Set refiners begin with the encoder's elements and aim at its vector."""
    if not _is(_part(nodes, "decoder.initial"), "EncodedSet"):
        return []
    aim = _part(nodes, "decoder.set_encoder.pooling").get("features")
    latent = _part(nodes, "encoder").get("latent")
    if None in (aim, latent) or aim == latent:
        return []
    return [
        f"encoder.latent={latent}: decoder.set_encoder.pooling.features={aim}; a set "
        "refiner compares these vectors"
    ]


def _representation(nodes: dict[str, Any]) -> list[str]:
    weight = nodes["task"].get("representation_weight")
    if weight and not _part(nodes, "decoder.set_encoder"):
        return [
            f"task.representation_weight={weight}: "
            "only a decoder with a set encoder has a representation loss; set it to 0"
        ]
    return []


def _counts(nodes: dict[str, Any]) -> list[str]:
    """A decoder that adds a count needs an encoder that counts, and the other way round."""
    counts, counter = _part(nodes, "decoder").get("counts"), _part(nodes, "encoder.count")
    if counts is None or bool(counter) == (counts != 0):
        return []
    return [
        f"decoder.counts={counts}: give the numbers of what encoder.count yields, and 0 where that "
        "is null"
    ]


def _inner_steps(nodes: dict[str, Any]) -> list[str]:
    at = nodes["evaluation"]["at"]
    if at and "steps" not in _part(nodes, "decoder"):
        return [f"evaluation.at={at}: only DSPN has inner steps; set it to [] for this decoder"]
    return [f"evaluation.at={at}: inner steps are at least 0"] if min(at, default=0) < 0 else []


def _descent(nodes: dict[str, Any]) -> list[str]:
    """Inner steps on the mean over a batch depend on its size, which is to be one everywhere."""
    trainer, mistakes = nodes["trainer"], []
    implicit = _part(nodes, "decoder").get("gradient") == "implicit"
    if implicit and _part(nodes, "loss").get("steps") == "all":
        mistakes.append("loss.steps=all: an implicit gradient has the last set alone; use last")
    if _part(nodes, "decoder.descent").get("reduction") != "batch_mean":
        return mistakes
    size = trainer["batch_size"]
    wanted = {
        "trainer": {"eval_batch_size": size, "slice": None, "drop_last": True},
        "evaluation": {"drop_last": True},
    }
    return mistakes + [
        f"{part}.{key}={nodes[part][key]}: DSPN's inner steps depend on how many sets are "
        f"together, trainer.batch_size={size}; keep {value}, or use "
        "decoder.descent.reduction=per_sample"
        for part, values in wanted.items()
        for key, value in values.items()
        if nodes[part][key] != value
    ]


def _trainer(nodes: dict[str, Any]) -> list[str]:
    trainer = nodes["trainer"]
    mistakes = [
        f"trainer.{key}={trainer[key]}: at least {least}"
        for key, least in _LEAST.items()
        if trainer[key] is not None and not trainer[key] >= least
    ]
    mistakes += [
        f"trainer.{key}={trainer[key]}: at least {least} each"
        for key, least in {
            "report_at": 1,
            "lr_epochs": 0,
            "inner_epochs": 1,
            "inner_steps": 0,
        }.items()
        if min(trainer[key], default=least) < least
    ]
    mistakes += [
        f"trainer.{key}={value}: a finite number"
        for key, value in trainer.items()
        if isinstance(value, float) and math.isinf(value)
    ]
    if trainer["slice"] and _is(nodes["dataset"], "TUDataset"):
        mistakes.append(f"trainer.slice={trainer['slice']}: graphs are one list; set it to null")
    steps, epochs = trainer["inner_steps"], trainer["inner_epochs"]
    if steps and "steps" not in _part(nodes, "decoder"):
        mistakes.append(f"trainer.inner_steps={steps}: this decoder has none; set it to []")
    if (steps or epochs) and len(steps) != len(epochs) + 1:
        mistakes.append(
            f"trainer.inner_epochs={epochs}: trainer.inner_steps={steps} must name one number more"
        )
    if trainer["epochs"] > 0:  # or nothing is trained, and a new model measured
        mistakes += unreached(trainer, trainer["epochs"])
    return mistakes


def _evaluations(nodes: dict[str, Any]) -> list[str]:
    """What is made of evaluations during training needs such, and some of it the metric's name."""
    trainer = nodes["trainer"]
    during = trainer["evaluate_every"] and nodes["evaluation"]["during"] is not None
    readers = [
        ("milestones", trainer["milestones"], "to read"),
        ("average_from", trainer["average_from"], "to average"),
        ("select", trainer["select"] is Select.best, "to choose from"),
    ]
    mistakes = []
    for key, asked, purpose in readers:
        said = f"trainer.{key}={_said(trainer[key])}"
        if asked and key != "average_from" and not trainer["select_metric"]:
            mistakes.append(f"{said}: name the metric with trainer.select_metric")
        if asked and not during:
            mistakes.append(
                f"{said}: there are no evaluations {purpose}; set trainer.evaluate_every and "
                "evaluation.during"
            )
    return mistakes


def _cross_validation(nodes: dict[str, Any]) -> list[str]:
    """Selection needs whole curves of all members, on splits it knows."""
    crossval, trainer, curves = nodes["crossval"], nodes["trainer"], nodes["evaluation"]["curves"]
    if not crossval["grid"]:
        return []
    mistakes = [
        f"{section}.{key}={_said(nodes[section][key])}: a cross-validation {does}; "
        f"set it to {_said(wanted)}"
        for section, key, wanted, does in (
            ("trainer", "until", None, "trains all its epochs"),
            ("trainer", "steps", None, "trains all its epochs"),
            ("trainer", "select", Select.last, "selects by its curves"),
            ("trainer", "report_at", [], "reports its choice alone"),
            ("evaluation", "during", None, "reads its curves alone"),
            ("pretrained", "use", Use.none, "begins with fresh weights"),
        )
        if nodes[section][key] != wanted
    ]
    if trainer["epochs"] == 0:
        mistakes.append("trainer.epochs=0: a cross-validation selects one of them; at least 1")
    if "folds" not in nodes["dataset"]:
        mistakes.append(
            f"crossval.grid={crossval['grid']}: {nodes['dataset']['_target_']} has no folds; "
            "leave it out"
        )
    if not {"val", "test"} <= set(curves) or "accuracy" not in nodes["evaluation"]["stats"]:
        mistakes.append(
            f"evaluation.curves={curves}: a cross-validation selects by accuracy on val and reads "
            "test; name both, and the stat"
        )
    mistakes += [
        f"crossval.together={key}: points that share a stack share its trainer; leave it out"
        for key in crossval["together"]
        if key.startswith("trainer.")
    ]
    if crossval["stack"] < 1:
        mistakes.append(f"crossval.stack={crossval['stack']}: at least 1")
    return mistakes


def _said(value: Any) -> Any:
    """A value as a command line has it."""
    return "null" if value is None else getattr(value, "name", value)


def _figures(nodes: dict[str, Any]) -> list[str]:
    """Pictures are of the data, and of the parts, that they are made for."""
    mistakes, data = [], nodes["dataset"]
    for figure in nodes["figures"].values():
        name = (figure or {}).get("_target_", "").rpartition(".")[2]
        kind, target, said = DATA.get(name, ("", None, ""))
        path, part = PARTS.get(name, ("", ""))
        path = path.format(**figure or {})
        if kind and not (_is(data, kind) and target in (None, data.get("target"))):
            mistakes.append(f"figures={name}: only dataset={said} has them; use none")
        elif part and not _is(_part(nodes, path) if path else nodes["task"], part):
            mistakes.append(f"figures={name}: {path or 'task'} is no {part}; use none")
    return mistakes


def _process(nodes: dict[str, Any]) -> list[str]:
    mistakes = []
    if nodes["mode"] not in ("train", "eval"):
        mistakes.append(f"mode={nodes['mode']}: use train or eval")
    if nodes["mode"] == "eval" and not nodes["checkpoint"]:
        mistakes.append("mode=eval: name the weights with checkpoint=outputs/.../checkpoint.pt")
    if nodes["mode"] == "train" and nodes["checkpoint"]:
        mistakes.append(f"checkpoint={nodes['checkpoint']}: only mode=eval reads one; leave it out")
    if not re.fullmatch(r"[\w-]+", str(nodes["name"])):
        mistakes.append(f"name={nodes['name']}: it names a folder; use letters, digits, - and _")
    if nodes["threads"] is not None and nodes["threads"] < 1:
        mistakes.append(f"threads={nodes['threads']}: at least 1, or null for all cores")
    if nodes["processes"] < 1:
        mistakes.append(f"processes={nodes['processes']}: at least 1")
    for key in ("rows", "columns"):
        if nodes[key] is not None:  # of a table's run it is gone by now
            mistakes.append(f"{key}={nodes[key]}: chooses a part of a table; add -m table=NAME")
    if not nodes["seeds"] or len(set(nodes["seeds"])) < len(nodes["seeds"]):
        mistakes.append(f"seeds={nodes['seeds']}: name at least one, and each once")
    return mistakes


def _splits_without_batch(nodes: dict[str, Any], dataset: Any, evaluation: Evaluation) -> list[str]:
    trainer = nodes["trainer"]
    needed = [("train", "batch_size")] if trainer["drop_last"] else []
    final = {str(s) for s in (evaluation.during, *evaluation.final) if s is not None}
    for split in sorted(final | set(evaluation.curves)):
        dataset.sizes(split)  # refuses one that it does not have
    if evaluation.drop_last:
        needed += [(split, "eval_batch_size") for split in sorted(final)]
    return [
        f"trainer.{key}={trainer[key]}: no full batch of {split}, whose size is "
        f"{dataset.sizes(split)}; give at most that"
        for split, key in needed
        if dataset.sizes(split) < trainer[key]
    ]


def _batch_of_one(nodes: dict[str, Any], dataset: Any) -> list[str]:
    """Batch norm refuses a lone vector, which would show at the end of the first epoch."""
    if not _is(_part(nodes, "decoder"), "AnswerClassifier"):
        return []
    trainer = nodes["trainer"]
    size = trainer["batch_size"]
    last = dataset.sizes("train") % size if not trainer["drop_last"] else 0
    if 1 not in (size, last):
        return []
    return [
        f"trainer.batch_size={size}: batch norm cannot train on a batch of one set, as the last of "
        "an epoch would be; choose another size"
    ]
