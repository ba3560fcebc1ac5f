"""What of a config determines a run's numbers."""

from __future__ import annotations

from dataclasses import fields
from enum import Enum
from typing import Any

from smoke_runs import config

from setexp.overrides import axes
from setexp.science import differences, science_of
from setexp.training.settings import Precision, Trainer


def test_science_is_what_changes_numbers() -> None:
    base = ["experiment=polygons_fspool"]
    before = science_of(config(*base), "data")
    assert before["data"] == "data" and "pretrained" not in before and "crossval" not in before
    same = config(*base, "trainer.log_every=7", "trainer.compile=true", "paths.data=elsewhere")
    assert differences(before, science_of(same, "data")) == []
    other = config(*base, "trainer.lr=0.5", "trainer.precision=bf16")
    found = differences(before, science_of(other, "more"))
    precision = f"trainer.precision: {Precision.float32.name} -> {Precision.bf16.name}"
    assert found == ["data: data -> more", "trainer.lr: 0.001 -> 0.5", precision]


def test_where_data_is_and_is_kept_makes_no_other_run() -> None:
    where = ["dataset.root=elsewhere", "dataset.resident=never", "crossval.stack=3"]
    assert axes(["experiment=dspn_clevr_state", *where, "hidden=8"]) == {"hidden": 8}
    first, second = (config("experiment=dspn_clevr_state", *w) for w in ([], where[:2]))
    assert differences(science_of(first, "data"), science_of(second, "data")) == []


def test_runs_from_before_a_setting_go_on() -> None:
    now = science_of(config("experiment=polygons_fspool"), "data")
    assert "slice" not in now["trainer"] and "double" not in now["evaluation"]
    noted = now | {"trainer": now["trainer"] | {"slice": None}}  # by a version that wrote it
    assert differences(noted, now) == [] == differences(now, noted)
    sliced = science_of(config("experiment=polygons_fspool", "trainer.slice=4"), "data")
    assert differences(now, sliced) == ["trainer.slice: None -> 4"]
    padded = ["experiment=mnist_fspool", "dataset.pad_multiple=32"]
    one, many = (science_of(config(*overrides), "data") for overrides in (padded[:1], padded))
    assert "pad_multiple" not in one["dataset"]
    assert differences(one, many) == ["dataset.pad_multiple: None -> 32"]


def test_every_setting_of_the_trainer_counts_but_where_and_how() -> None:
    def changed(value: Any) -> Any:
        if isinstance(value, Enum):
            return next(other for other in type(value) if other is not value)
        return not value if isinstance(value, bool) else [value, 1]

    base = config("experiment=polygons_fspool")
    ignored = set()
    for field in fields(Trainer):
        other = base | {
            "trainer": base["trainer"] | {field.name: changed(base["trainer"][field.name])}
        }
        if not differences(science_of(base, ""), science_of(other, "")):
            ignored.add(field.name)
    assert ignored == {"until", "log_every", "checkpoint_seconds", "stack", "compile"}
