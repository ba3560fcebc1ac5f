"""Combinations of parts that cannot work, found before anything is built."""

from __future__ import annotations

from typing import Any


def broken_rules(nodes: dict[str, Any]) -> list[str]:
    """One sentence for each broken rule; `nodes` is the resolved config."""
    if not nodes.get("task"):
        return ["experiment=none: choose one, experiment=NAME; the names are in configs/experiment"]
    mistakes = [
        *_widths(nodes),
        *_pooling(nodes),
        *_unpooling(nodes),
        *_representation(nodes),
        *_trainer(nodes),
    ]
    if nodes["mode"] not in ("train", "eval"):
        mistakes.append(f"mode={nodes['mode']}: use train or eval")
    return mistakes


def _widths(nodes: dict[str, Any]) -> list[str]:
    data, decoder = nodes["dataset"], nodes["task"].get("decoder", {})
    return [
        f"decoder.{key}={decoder[key]}: the data has dataset.{key}={data[key]}"
        for key in ("set_size", "element_dim")
        if key in decoder and key in data and decoder[key] != data[key]
    ]


def _pooling(nodes: dict[str, Any]) -> list[str]:
    encoders = {
        "encoder": nodes["task"].get("encoder"),
        "decoder.set_encoder": nodes["task"].get("decoder", {}).get("set_encoder"),
    }
    return [
        f"{path}.pooling.features={encoder['pooling']['features']}: "
        f"{path}.elements.widths ends in {encoder['elements']['widths'][-1]}"
        for path, encoder in encoders.items()
        if encoder
        and "features" in encoder.get("pooling", {})
        and encoder["pooling"]["features"] != encoder["elements"]["widths"][-1]
    ]


def _unpooling(nodes: dict[str, Any]) -> list[str]:
    decoder, encoder = nodes["task"].get("decoder", {}), nodes["task"].get("encoder", {})
    if not decoder.get("_target_", "").endswith("FSUnpoolDecoder"):
        return []
    pooling = encoder.get("pooling") or {}
    if not pooling.get("relaxed"):
        return ["decoder=fsunpool: it inverts a relaxed FSPool; set encoder.pooling.relaxed=true"]
    if pooling["features"] != decoder["hidden"][-1]:
        return [
            f"decoder.hidden={decoder['hidden']}: its last width must be "
            f"encoder.pooling.features={pooling['features']}"
        ]
    return []


def _representation(nodes: dict[str, Any]) -> list[str]:
    task = nodes["task"]
    if task.get("representation_weight") and not task["decoder"].get("set_encoder"):
        return [
            f"task.representation_weight={task['representation_weight']}: "
            "only a decoder with a set encoder has a representation loss; set it to 0"
        ]
    return []


def _trainer(nodes: dict[str, Any]) -> list[str]:
    trainer, data = nodes["trainer"], nodes["dataset"]
    mistakes = [
        f"trainer.{key}={trainer[key]}: at least {least}"
        for key, least in (
            ("epochs", 0),
            ("batch_size", 1),
            ("eval_batch_size", 1),
            ("log_every", 1),
        )
        if trainer[key] < least
    ]
    size = data.get("train_size")
    if size and trainer["batch_size"] > size:
        mistakes.append(
            f"trainer.batch_size={trainer['batch_size']}: dataset.train_size={size} holds no batch"
        )
    if trainer["select"] in ("best",) and not trainer["select_metric"]:
        mistakes.append("trainer.select=best: name the metric with trainer.select_metric")
    return mistakes
