"""Average precision against the released evaluators, an oracle in plain Python, and its laws."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from smoke_runs import config
from torch import Tensor

from setexp.build import build, check
from setexp.errors import ConfigError
from setexp.metrics.average_precision import (
    BoxAveragePrecision,
    StateAveragePrecision,
    box_closeness,
    state_closeness,
)
from setexp.metrics.precision_recall import Matching, Scope, TieOrder, area, match
from setexp.sets import SetBatch

SWITCHES = list(itertools.product(Scope, Matching, TieOrder))
DISTANCES = [math.inf, 1.5, 0.75, 0.375]
IOUS = [0.25, 0.5, 1.0]

# Where a test says nothing else, the rules are those of DSPN's evaluator.
DSPN = {"scope": Scope.dataset, "matching": Matching.voc, "tie_order": TieOrder.string}
box_precision = partial(BoxAveragePrecision, **DSPN)
state_precision = partial(StateAveragePrecision, **DSPN, strict=False)

Golden = Callable[[str], dict[str, Tensor]]


def sets(data: dict[str, Tensor], images: slice = slice(None)) -> tuple[SetBatch, SetBatch]:
    prediction = SetBatch(data["prediction"][images], data["confidence"][images])
    return prediction, SetBatch(data["target"][images], data["mask"][images])


def values(measured: dict[str, float]) -> Tensor:
    return torch.tensor(list(measured.values()), dtype=torch.float64)


def same(measured: dict[str, float], expected: Tensor) -> None:
    torch.testing.assert_close(values(measured), expected, rtol=0, atol=1e-12, equal_nan=True)


def hits(data: dict[str, Tensor], closeness: Tensor, at: Tensor) -> Tensor:
    order = data["confidence"].argsort(dim=1, descending=True, stable=True)
    ranked = closeness.gather(1, order.unsqueeze(-1).expand_as(closeness))
    return match(ranked, at, Matching.voc, strict=False).sum((1, 2))


# The released evaluators


@pytest.mark.parametrize(("plus_one", "suffix"), [(False, ""), (True, "_plus_one")])
def test_boxes_equal_the_released_evaluator(golden: Golden, plus_one: bool, suffix: str) -> None:
    data = golden("ap_boxes")
    thresholds = data["thresholds"].tolist()
    metric = box_precision(thresholds=thresholds, plus_one=plus_one, suffix=suffix)
    measured = metric(*sets(data))
    assert list(measured) == [f"AP{t}{suffix}" for t in (50, 60, 70, 80, 90, 95, 98, 99)]
    same(measured, data["ap" + suffix])
    closeness = box_closeness(
        data["prediction"], data["target"], data["mask"] == 1, plus_one=plus_one
    )
    assert torch.equal(hits(data, closeness, data["thresholds"]), data["hits" + suffix])


def test_states_equal_the_released_evaluator(golden: Golden) -> None:
    data = golden("ap_state")
    measured = state_precision(thresholds=data["thresholds"].tolist())(*sets(data))
    assert list(measured) == ["APinf", "AP1", "AP0.75", "AP0.5", "AP0.25", "AP0.125"]
    same(measured, data["ap"])
    closeness = state_closeness(data["prediction"], data["target"], data["mask"] == 1)
    assert torch.equal(hits(data, closeness, -data["thresholds"]), data["hits"])


@pytest.mark.parametrize("name", ["boxes", "state"])
def test_ties_between_images_follow_file_names(golden: Golden, name: str) -> None:
    data = golden(f"ap_{name}")
    arguments: dict[str, Any] = {"thresholds": [0.5], "tie_order": TieOrder.index}
    metric = (
        box_precision(plus_one=False, **arguments)
        if name == "boxes"
        else state_precision(**arguments)
    )
    released = data["ap"][data["thresholds"] == 0.5]
    assert abs(values(metric(*sets(data))) - released) > 1e-3


def idspn(data: dict[str, Tensor], scope: Scope) -> StateAveragePrecision:
    return state_precision(
        thresholds=data["thresholds"].tolist(),
        scope=scope,
        matching=Matching.greedy_unused,
        strict=True,
    )


def test_idspn_equals_the_released_function(golden: Golden) -> None:
    data = golden("ap_idspn")
    same(idspn(data, Scope.first_in_batch)(*sets(data)), data["ap_released"])
    alone = idspn(data, Scope.per_image)
    for image, expected in enumerate(data["ap_per_image"]):
        same(alone(*sets(data, slice(image, image + 1))), expected)
    voc = state_precision(thresholds=data["thresholds"].tolist())
    same(voc(*sets(data)), data["ap_dataset"])


def test_an_image_without_targets_is_left_out_of_means(golden: Golden) -> None:
    data = golden("ap_idspn")
    assert data["ap_per_image"][4].isnan().all()
    expected = data["ap_per_image"][[0, 1, 2, 3, 5]].mean(0)
    same(idspn(data, Scope.per_image)(*sets(data)), expected)


def test_first_images_weigh_as_much_as_their_batches(golden: Golden) -> None:
    data = golden("ap_idspn")
    metric = state_precision(
        thresholds=data["thresholds"].tolist(),
        scope=Scope.first_in_batch,
        matching=Matching.greedy_unused,
        strict=True,
        batch_size=5,
    )
    same(metric(*sets(data)), (5 * data["ap_per_image"][0] + data["ap_per_image"][5]) / 6)


def test_idspn_experiments_report_both_definitions(golden: Golden) -> None:
    nodes = config("experiment=clevr_idspn")["evaluation"]
    assert not nodes["drop_last"] and nodes["final"] == {"test": ""}
    metrics = build(nodes["metrics"], "evaluation.metrics")
    data = golden("ap_idspn")
    thresholds = ("inf", "1", "0.5", "0.25", "0.125", "0.0625")
    wanted = [data["thresholds"].tolist().index(float(t)) for t in thresholds]
    for name, suffix, released in (("state", "", "ap_dataset"), ("first", "_first", "ap_released")):
        measured = metrics[name](*sets(data))
        assert list(measured) == [f"AP{t}{suffix}" for t in thresholds]
        same(measured, data[released][wanted])
    # of 130 images, all without a hit but the last batch's first
    good, bad = batch([state(1, 1)]), batch([state(9, 1)])
    target = SetBatch(good.x.expand(130, 1, 18), good.mask.expand(130, 1))
    x = torch.cat([bad.x.expand(128, 1, 18), good.x.expand(1, 1, 18), bad.x])
    measured = metrics["first"](SetBatch(x, target.mask), target)
    assert measured["AP1_first"] == pytest.approx(2 / 130)


# Worked by hand


def state(position: float, confidence: float, attribute: int = 0) -> list[float]:
    row = [position / 3, 0.0, 0.0] + [0.0] * 15 + [confidence]
    row[3] = row[5] = row[13] = row[16] = 1.0
    if attribute:
        row[5], row[5 + attribute] = 0.0, 1.0
    return row


def batch(*images: list[list[float]]) -> SetBatch:
    rows = torch.tensor(images, dtype=torch.float64)
    return SetBatch(rows[..., :-1], rows[..., -1])


def test_one_perfect_image_and_one_without_a_hit() -> None:
    target = batch([state(1, 1)], [state(2, 1)])
    prediction = batch([state(1, 0.5)], [state(9, 0.9)])
    arguments: dict[str, Any] = {"thresholds": [1.0], "matching": Matching.greedy_unused}
    measured = {
        scope: state_precision(scope=scope, **arguments)(prediction, target)["AP1"]
        for scope in Scope
    }
    # One curve for both: a false positive, then a hit: precision 1/2 at recall 1/2.
    assert measured == {Scope.first_in_batch: 1.0, Scope.per_image: 0.5, Scope.dataset: 0.25}


def test_an_all_zero_prediction_can_match() -> None:
    prediction = SetBatch(torch.zeros(1, 1, 18), torch.zeros(1, 1))
    metric = state_precision(thresholds=[math.inf, 1])
    assert metric(prediction, batch([state(2, 1)])) == {"APinf": 1.0, "AP1": 0.0}
    assert metric(prediction, batch([state(2, 1, attribute=1)])) == {"APinf": 0.0, "AP1": 0.0}


def test_matchings_differ_on_a_second_detection() -> None:
    # Both detections are nearest to the first target; the second target is within reach, too.
    target = batch([state(0, 1), state(1, 1)])
    prediction = batch([state(0, 0.9), state(0.25, 0.8)])
    for matching, expected in ((Matching.voc, 0.5), (Matching.greedy_unused, 1.0)):
        metric = state_precision(thresholds=[1], matching=matching)
        assert metric(prediction, target) == {"AP1": expected}
    # Greedy: the first is too far and takes the target all the same. voc: only hits take.
    target, prediction = batch([state(0, 1)]), batch([state(2, 0.9), state(0, 0.8)])
    for matching, expected in ((Matching.voc, 0.5), (Matching.greedy_unused, 0.0)):
        metric = state_precision(thresholds=[1], matching=matching)
        assert metric(prediction, target) == {"AP1": expected}


def test_strict_excludes_the_threshold_itself() -> None:
    target, prediction = batch([state(0, 1)]), batch([state(0.75, 1)])
    for strict in (False, True):
        metric = state_precision(thresholds=[0.75, math.inf], strict=strict)
        assert metric(prediction, target) == {"AP0.75": 1.0 - strict, "APinf": 1.0}


def test_area_worked_by_hand() -> None:
    # Precisions 1, 1/2, 2/3, 2/4, 3/5 of four targets: interpolated 1, 2/3, 3/5 at the hits.
    found = torch.tensor([[1, 0, 1, 0, 1], [0, 0, 0, 0, 0], [0, 1, 1, 1, 1]], dtype=torch.bool)
    expected = torch.tensor([(1 + 2 / 3 + 3 / 5) / 4, 0, 4 / 5], dtype=torch.float64)
    torch.testing.assert_close(area(found, torch.tensor(4.0)), expected)
    assert area(found[1], torch.tensor(0.0)).isnan()


def test_a_split_without_targets_has_no_precision() -> None:
    prediction, target = batch([state(0, 1)]), batch([[0.0] * 19])
    for scope in Scope:
        assert math.isnan(state_precision(thresholds=[1], scope=scope)(prediction, target)["AP1"])


# The definitions in plain Python


def plain_iou(a: list[float], b: list[float], one: int) -> float:
    if a[0] > b[2] or b[0] > a[2] or a[1] > b[3] or b[1] > a[3]:
        return 0.0
    width = min(a[2], b[2]) - max(a[0], b[0]) + one
    height = min(a[3], b[3]) - max(a[1], b[1]) + one
    areas = [(c[2] - c[0] + one) * (c[3] - c[1] + one) for c in (a, b)]
    return width * height / (sum(areas) - width * height)


def plain_closeness(a: list[float], b: list[float], plus_one: bool | None) -> float | None:
    """IoU, or negative distance where `plus_one` is None; None where b may not be taken."""
    if plus_one is not None:
        return plain_iou(a, b, int(plus_one)) or None
    for low, high in ((3, 5), (5, 13), (13, 16), (16, 18)):
        groups = a[low:high], b[low:high]
        if len({group.index(max(group)) for group in groups}) > 1:
            return None
    return -3 * math.sqrt(sum((p - t) ** 2 for p, t in zip(a[:3], b[:3], strict=True)))


def plain_hits(image: dict[str, Any], threshold: float, rules: dict[str, Any]) -> list[tuple]:
    """(confidence, hit) of one image's detections in order of confidence."""
    used: set[int] = set()
    out = []
    ranked = sorted(range(len(image["x"])), key=lambda n: -image["confidence"][n])
    for n in ranked:
        best, taken = None, None
        for m, row in enumerate(image["y"]):
            near = plain_closeness(image["x"][n], row, rules["plus_one"])
            free = rules["matching"] is Matching.voc or m not in used
            if near is not None and free and (best is None or near > best):
                best, taken = near, m
        close = best is not None and (best > threshold if rules["strict"] else best >= threshold)
        out.append((image["confidence"][n], close and taken not in used))
        if taken is not None and (close or rules["matching"] is Matching.greedy_unused):
            used.add(taken)
    return out


def plain_area(detections: list[tuple], count: int) -> float:
    if not count:
        return math.nan
    found = list(itertools.accumulate(int(hit) for _, hit in detections))
    points = [(hits / count, hits / place) for place, hits in enumerate(found, start=1)]
    levels = sorted({recall for recall, _ in points if recall > 0})
    return sum(
        (level - before) * max(precision for recall, precision in points if recall >= level)
        for before, level in itertools.pairwise([0.0, *levels])
    )


def plain(images: list[dict[str, Any]], threshold: float, rules: dict[str, Any]) -> float:
    curves = [plain_hits(image, threshold, rules) for image in images]
    if rules["scope"] is Scope.dataset:
        by_name = rules["tie_order"] is TieOrder.string
        order = sorted(range(len(images)), key=str if by_name else int)
        pooled = sorted((d for i in order for d in curves[i]), key=lambda d: -d[0])
        return plain_area(pooled, sum(len(image["y"]) for image in images))
    areas = [plain_area(c, len(i["y"])) for c, i in zip(curves, images, strict=True)]
    weights = [1] * len(images)
    if rules["scope"] is Scope.first_in_batch:
        size = rules["batch_size"]
        areas = areas[::size]
        weights = [len(images[start : start + size]) for start in range(0, len(images), size)]
    defined = [(a, w) for a, w in zip(areas, weights, strict=True) if not math.isnan(a)]
    total = sum(w for _, w in defined)
    return sum(a * w for a, w in defined) / total if total else math.nan


def draw(seed: int, kind: str, images: int) -> tuple[SetBatch, SetBatch, list[dict[str, Any]]]:
    """Random sets on a coarse grid, full of ties, with empty images and targets in between."""
    choose = random.Random(seed)

    def row() -> list[float]:
        if kind == "boxes":
            corner = [choose.randrange(4) / 4 for _ in range(2)]
            return corner + [c + choose.randrange(1, 4) / 4 for c in corner]
        scores = [float(choose.random() < 0.2) for _ in range(15)]
        return [choose.randrange(3) / 8 for _ in range(3)] + scores

    slots, rows = choose.randrange(1, 5), choose.randrange(1, 5)
    x = torch.tensor([[row() for _ in range(slots)] for _ in range(images)], dtype=torch.float64)
    y = torch.tensor([[row() for _ in range(rows)] for _ in range(images)], dtype=torch.float64)
    confidence = torch.tensor([[choose.randrange(-1, 4) / 2 for _ in range(slots)] for _ in x])
    mask = torch.tensor([[float(choose.random() < 0.6) for _ in range(rows)] for _ in y])
    lists = [
        {
            "x": x[i].tolist(),
            "confidence": confidence[i].tolist(),
            "y": [r for r, there in zip(y[i].tolist(), mask[i].tolist(), strict=True) if there],
        }
        for i in range(images)
    ]
    return SetBatch(x, confidence), SetBatch(y * mask.unsqueeze(-1).double(), mask), lists


@pytest.mark.parametrize(("scope", "matching", "tie_order"), SWITCHES)
@given(seed=st.integers(0, 2**32), images=st.sampled_from([1, 3, 12]), flag=st.booleans())
def test_equals_the_definitions(
    scope: Scope, matching: Matching, tie_order: TieOrder, seed: int, images: int, flag: bool
) -> None:
    arguments = {"scope": scope, "matching": matching, "tie_order": tie_order, "batch_size": 2}
    prediction, target, lists = draw(seed, "boxes", images)
    boxes = box_precision(thresholds=IOUS, plus_one=flag, **arguments)
    rules = {**arguments, "plus_one": flag, "strict": False}
    expected = torch.tensor([plain(lists, t, rules) for t in IOUS], dtype=torch.float64)
    same(boxes(prediction, target), expected)

    prediction, target, lists = draw(seed, "states", images)
    states = state_precision(thresholds=DISTANCES, strict=flag, **arguments)
    rules = {**arguments, "plus_one": None, "strict": flag}
    expected = torch.tensor([plain(lists, -t, rules) for t in DISTANCES], dtype=torch.float64)
    same(states(prediction, target), expected)


# Laws


@pytest.mark.parametrize(("scope", "matching"), list(itertools.product(Scope, Matching)))
@given(seed=st.integers(0, 2**32))
def test_slots_of_distinct_confidence_have_no_order(
    scope: Scope, matching: Matching, seed: int
) -> None:
    prediction, target, _ = draw(seed, "states", 4)
    generator = torch.Generator().manual_seed(seed)
    distinct = torch.randperm(prediction.mask.numel(), generator=generator)
    prediction = SetBatch(prediction.x, distinct.reshape(prediction.mask.shape).double())
    slots = torch.randperm(prediction.x.shape[1], generator=generator)
    shuffled = SetBatch(prediction.x[:, slots], prediction.mask[:, slots])
    metric = state_precision(thresholds=DISTANCES, scope=scope, matching=matching)
    same(metric(shuffled, target), values(metric(prediction, target)))


@pytest.mark.parametrize(("scope", "matching"), list(itertools.product(Scope, Matching)))
@given(seed=st.integers(0, 2**32), kind=st.sampled_from(["boxes", "states"]))
def test_a_laxer_threshold_never_lowers_precision(
    scope: Scope, matching: Matching, seed: int, kind: str
) -> None:
    # Under both matchings every prefix of the detections holds at least as many hits.
    prediction, target, _ = draw(seed, kind, 3)
    arguments: dict[str, Any] = {"scope": scope, "matching": matching}
    measured = (
        box_precision(thresholds=IOUS, plus_one=False, **arguments)
        if kind == "boxes"
        else state_precision(thresholds=DISTANCES[::-1], **arguments)
    )(prediction, target)
    lax_first = values(measured) if kind == "boxes" else values(measured).flip(0)
    known = ~lax_first.isnan()
    assert known.all() or not known.any()  # no threshold decides whether there is a precision
    assert (lax_first[known].diff() <= 1e-12).all()


@pytest.mark.parametrize(("scope", "matching"), list(itertools.product(Scope, Matching)))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_perfect_predictions_reach_one(scope: Scope, matching: Matching, dtype: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    mask = (torch.arange(6) < torch.tensor([[6], [1], [4]])).to(dtype)
    arguments: dict[str, Any] = {"scope": scope, "matching": matching}
    x = torch.rand(3, 6, 18, generator=generator, dtype=dtype) * mask.unsqueeze(-1)
    states = state_precision(thresholds=[math.inf, 0.125], **arguments)
    assert states(SetBatch(x, mask), SetBatch(x, mask)) == {"APinf": 1.0, "AP0.125": 1.0}
    x[..., 2:4] = (x[..., :2] + 0.1) * mask.unsqueeze(-1)
    boxes = box_precision(thresholds=[0.5, 1.0], plus_one=False, **arguments)
    perfect = SetBatch(x[..., :4], mask)
    assert boxes(perfect, perfect) == {"AP50": 1.0, "AP100": 1.0}


def test_predictions_that_are_not_numbers_miss() -> None:
    target = batch([state(0, 1), state(1, 1)])
    prediction = SetBatch(target.x * torch.tensor([[[math.nan], [1.0]]]), target.mask)
    measured = state_precision(thresholds=[math.inf])(prediction, target)
    assert measured == {"APinf": 0.25}
    boxes = SetBatch(torch.full((1, 1, 4), math.nan), torch.ones(1, 1))
    truth = SetBatch(torch.tensor([[[0.0, 0.0, 1.0, 1.0]]]), torch.ones(1, 1))
    assert box_precision(thresholds=[0.5], plus_one=True)(boxes, truth) == {"AP50": 0.0}


# Settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size=0: at least 1"),
        ({"thresholds": []}, "give one or more"),
        ({"thresholds": [1, 1.0]}, "each once"),
        ({"thresholds": [0.0]}, r"0\.0 is not in \(0, inf\]"),
        ({"thresholds": [math.nan]}, r"nan is not in"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        state_precision(**{"thresholds": [1.0], **changes})
    assert "\n" not in str(error.value)


def test_iou_thresholds_are_fractions() -> None:
    with pytest.raises(ValueError, match=r"50 is not in \(0, 1\]"):
        box_precision(thresholds=[50], plus_one=False)


@pytest.mark.parametrize("features", [4, 19])
def test_wrong_shapes_are_refused(features: int) -> None:
    wrong = SetBatch(torch.zeros(2, 3, features), torch.zeros(2, 3))
    with pytest.raises(ConfigError, match=r"must be \(images, slots, 18\)"):
        state_precision(thresholds=[1])(wrong, wrong)


def test_shapes_are_not_broadcast() -> None:
    one, two = (SetBatch(torch.zeros(b, 3, 4), torch.zeros(b, 3)) for b in (1, 2))
    metric = box_precision(thresholds=[0.5], plus_one=False)
    for prediction, target in ((one, two), (two, SetBatch(two.x, one.mask))):
        with pytest.raises(ConfigError, match="average precision"):
            metric(prediction, target)


def test_switches_come_from_plain_config_nodes() -> None:
    node = {
        "_target_": "setexp.metrics.average_precision.StateAveragePrecision",
        "thresholds": [math.inf, 1, 0.0625],
        "scope": "first_in_batch",
        "matching": "greedy_unused",
        "tie_order": "string",
        "strict": True,
        "suffix": "_first",
    }
    assert check(node, "metric") == []
    target = batch([state(0, 1)])
    assert list(build(node)(target, target)) == ["APinf_first", "AP1_first", "AP0.0625_first"]
    assert check({**node, "scope": "image"}, "metric")
