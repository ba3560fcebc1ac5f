"""Milestones of a run and averages of its last evaluations."""

from __future__ import annotations

from typing import Any

import pytest
from smoke_runs import complaint

from setexp.errors import ConfigError
from setexp.training.settings import Select, Trainer
from setexp.training.summary import summarise, unreached


def report(accuracies: list[float], **settings: Any) -> dict[str, float]:
    trainer = Trainer(
        **{"epochs": len(accuracies), "evaluate_every": 1, "select_metric": "accuracy",
           "select_lower": False, **settings}
    )  # fmt: skip
    said: dict[str, float] = {}
    for epoch, accuracy in enumerate(accuracies, start=1):
        if epoch % trainer.evaluate_every == 0:
            said = summarise(said, {"accuracy": accuracy}, trainer, epoch, trainer.epochs)
    return said


def test_a_milestone_is_the_first_epoch_that_reaches_it() -> None:
    said = report([0.2, 0.5, 0.4, 0.7], milestones=[0.5, 0.6, 0.9])
    assert said == {"epochs_to_0.5": 2, "epochs_to_0.6": 4}
    assert report([3.0, 1.0, 2.0], milestones=[1.5], select_lower=True) == {"epochs_to_1.5": 2}


def test_the_mean_is_that_of_the_last_epochs() -> None:
    assert report([0.1, 0.2, 0.4, 0.9], average_from=2) == pytest.approx({"accuracy_mean": 0.5})
    every = report([0.1, 0.2, 0.4, 0.9, 0.5], average_from=2, evaluate_every=2)
    assert every == pytest.approx({"accuracy_mean": 0.55})


def test_a_paused_run_has_no_mean_yet() -> None:
    said = report([0.1, 0.2, 0.4], average_from=2, epochs=5)
    assert said == pytest.approx({"accuracy_mean_so_far": 0.3})


def test_a_milestone_needs_a_metric() -> None:
    with pytest.raises(ConfigError, match="trainer.select_metric=loss: evaluated are accuracy"):
        report([0.5], milestones=[0.1], select_metric="loss")


def test_what_is_never_evaluated_is_refused() -> None:
    base = ["experiment=polygons_fspool", "scale=smoke", "trainer.evaluate_every=0"]
    assert complaint(*base, "trainer.milestones=[0.1]").startswith("trainer.milestones=[0.1]: name")
    assert complaint(*base, "trainer.average_from=2").startswith(
        "trainer.average_from=2: there are no evaluations to average"
    )


@pytest.mark.parametrize(
    ("settings", "epochs", "said"),
    [
        ({"report_at": [3, 4]}, 2, "trainer.report_at=[3, 4]: there are only trainer.epochs=2"),
        ({"report_at": [2]}, 2, None),
        ({"report_at": [1, 100]}, 2, None),  # a scale may have fewer epochs
        (
            {"average_from": 5, "evaluate_every": 2},
            5,
            "trainer.average_from=5: there are only trainer.epochs=5, evaluated every 2",
        ),
        ({"average_from": 5, "evaluate_every": 2}, 6, None),
        (
            {"select": Select.best, "evaluate_every": 3},
            2,
            "trainer.evaluate_every=3: the first evaluation comes too late to choose from",
        ),
        ({"milestones": [0.5], "evaluate_every": 3}, 2, "trainer.evaluate_every=3: the first"),
        ({"select": Select.best, "evaluate_every": 3}, 3, None),
    ],
)
def test_what_is_never_reached(settings: dict[str, Any], epochs: int, said: str | None) -> None:
    found = unreached(vars(Trainer(epochs=epochs, **settings)), epochs)
    assert [message.startswith(str(said)) for message in found] == ([True] if said else [])


def test_what_is_never_reached_in_some_steps() -> None:
    (said,) = unreached(vars(Trainer(epochs=9, steps=20, report_at=[4])), 2)
    assert "there are only 2 whole epochs in trainer.steps=20" in said
