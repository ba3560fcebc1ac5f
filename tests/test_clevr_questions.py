"""CLEVR questions: the executor, the families, and what 1,000 scenes' questions look like."""

from __future__ import annotations

import copy
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from setexp.datasets.clevr.questions.families import CHOICES, FAMILIES
from setexp.datasets.clevr.questions.generator import Balance, generate
from setexp.datasets.clevr.questions.program import (
    ANSWERS,
    ATTRIBUTES,
    RELATIONS,
    Node,
    evaluate,
    execute,
)
from setexp.datasets.clevr.questions.view import ONLY, PHRASES, SIZE, View
from setexp.datasets.clevr.questions.wording import vocabulary, words_of
from setexp.datasets.clevr.scenes import sample_scenes, to_official
from setexp.errors import ConfigError

SAMPLE = Path(__file__).parents[1] / "../shared/datasets/CLEVR_v1.0"
Question = dict[str, Any]


@pytest.fixture(scope="module")
def scenes() -> list[dict[str, Any]]:
    """Scenes without the test of visibility, which takes long and questions do not depend on."""
    generator = torch.Generator().manual_seed(0)
    return to_official(sample_scenes(1000, generator=generator, min_visible_pixels=0), "train")


@pytest.fixture(scope="module")
def questions(scenes: list[dict[str, Any]]) -> list[Question]:
    return list(generate(scenes, seed=0))


def sample() -> list[tuple[Question, dict[str, Any]]]:
    """Official-style questions with their scenes, where they are at hand."""
    pairs = []
    for split in ("train", "val"):
        path = SAMPLE / "questions" / f"CLEVR_{split}_questions.json"
        if path.exists():
            described = json.loads((SAMPLE / "scenes" / f"CLEVR_{split}_scenes.json").read_text())
            scenes = {scene["image_index"]: scene for scene in described["scenes"]}
            asked = json.loads(path.read_text())["questions"]
            pairs += [(q, scenes[q["image_index"]]) for q in asked]
    return pairs


def skeleton(program: list[Node]) -> str:
    """A program without its filters: what its family determines."""

    def text(i: int) -> str:
        node = program[i]
        if node["function"].startswith("filter"):
            return text(node["inputs"][0])
        return f"{node['function']}({','.join(map(text, node['inputs']))})"

    return text(len(program) - 1)


def question_kind(program: list[Node]) -> str:
    last = program[-1]["function"]
    if last in ("equal_integer", "less_than", "greater_than"):
        return "compare integer"
    return str(last.split("_")[0])


# The executor.


def test_the_executor_answers_questions_of_the_release() -> None:
    for question, scene in sample() or pytest.skip("no questions of a release are here"):
        assert execute(question["program"], scene) == question["answer"]


@pytest.mark.parametrize(
    ("function", "inputs", "words", "answer"),
    [
        ("count", ["filter_color:red"], [], "2"),
        ("exist", ["filter_color:blue"], [], "no"),
        ("query_shape", ["filter_shape:cube!"], [], "cube"),
        ("count", ["filter_shape:cube!", "relate:left"], [], "1"),
        ("count", ["filter_shape:cube!", "same_color"], [], "1"),
    ],
)
def test_the_executor_on_a_scene_by_hand(
    function: str, inputs: list[str], words: list[str], answer: str
) -> None:
    looks = [("cube", "red"), ("sphere", "red"), ("sphere", "green")]
    scene = {
        "objects": [
            {"shape": s, "color": c, "size": "large", "material": "metal"} for s, c in looks
        ],
        "relationships": {"left": [[1], [], [0, 1]], "right": [[2], [0, 2], []]},
    }
    program: list[Node] = [{"function": "scene", "inputs": [], "value_inputs": []}]
    for step in inputs:
        name, _, value = step.partition(":")
        at = [len(program) - 1]
        given = [value.strip("!")] if value else []
        program.append({"function": name, "inputs": at, "value_inputs": given})
        if step.endswith("!"):
            at = [len(program) - 1]
            program.append({"function": "unique", "inputs": at, "value_inputs": []})
    program.append({"function": function, "inputs": [len(program) - 1], "value_inputs": words})
    assert execute(program, scene) == answer


def test_the_executor_refuses_what_has_no_answer() -> None:
    scene: dict[str, Any] = {"objects": [], "relationships": {}}
    start = {"function": "scene", "inputs": [], "value_inputs": []}
    with pytest.raises(ConfigError, match="unique of 0 objects; a phrase must name one"):
        execute([start, {"function": "unique", "inputs": [0], "value_inputs": []}], scene)
    with pytest.raises(ConfigError, match="program function 'paint': CLEVR has none"):
        execute([start, {"function": "paint", "inputs": [0], "value_inputs": []}], scene)


# The families.


def test_there_are_90_families_in_nine_groups() -> None:
    assert Counter(family.group for family in FAMILIES) == {
        "compare integer": 9, "comparison": 16, "three hop": 6, "single and": 5,
        "same relate": 28, "single or": 8, "one hop": 6, "two hop": 6, "zero hop": 6,
    }  # fmt: skip
    assert len(set(FAMILIES)) == len(FAMILIES)
    assert {answer for family in FAMILIES for answer in family.answers} == set(ANSWERS)
    for family in FAMILIES:
        phrases = [step for step in family.steps if step.split()[0] in CHOICES]
        assert len(family.empty) == len(phrases)


def test_families_have_the_programs_and_numbers_of_the_release(questions: list[Question]) -> None:
    ours = {q["question_family_index"]: skeleton(q["program"]) for q in questions}
    for question, _ in sample() or pytest.skip("no questions of a release are here"):
        assert ours[question["question_family_index"]] == skeleton(question["program"])


# What is generated.


def test_answers_are_right_and_every_phrase_is_unique(
    scenes: list[dict[str, Any]], questions: list[Question]
) -> None:
    for question in questions:  # `execute` refuses a phrase that does not fit exactly one object
        scene = scenes[question["image_index"]]
        assert execute(question["program"], scene) == question["answer"]


def test_each_scene_has_ten_questions_of_ten_families(questions: list[Question]) -> None:
    families = defaultdict(list)
    for question in questions:
        families[question["image_index"]].append(question["question_family_index"])
    assert len(families) == 1000
    assert all(len(set(f)) == len(f) <= 10 for f in families.values())
    assert len(questions) >= 9990  # of very small scenes, a question may be missing
    assert [q["question_index"] for q in questions] == list(range(len(questions)))


def test_answer_types_are_as_frequent_as_in_the_release(questions: list[Question]) -> None:
    share = 100 / len(questions)
    kinds = Counter(question_kind(q["program"]) for q in questions)
    expected = {"count": 23.6, "exist": 13.5, "query": 36.0, "equal": 18.0, "compare integer": 9.0}
    for kind, percent in expected.items():
        assert kinds[kind] * share == pytest.approx(percent, abs=1)
    answers = Counter(q["answer"] for q in questions)
    for words, percent in [(("no",), 20.5), (("yes",), 19.9), (("large", "small"), 9.0),
                           (("rubber", "metal"), 9.0), (("cube", "sphere", "cylinder"), 9.0),
                           (("0",), 7.0), (("1",), 8.2), (("2",), 4.2), (("3",), 2.3)]:  # fmt: skip
        assert sum(answers[word] for word in words) * share == pytest.approx(percent, abs=1)
    exist = Counter(q["answer"] for q in questions if question_kind(q["program"]) == "exist")
    assert 0.48 <= exist["yes"] / exist.total() <= 0.52
    uses = Counter(q["question_family_index"] for q in questions)
    assert max(uses.values()) <= 1.05 * min(n for family, n in uses.items() if family)
    assert uses[0] <= 4  # its two counts differ, so it can only say no: once per block
    lengths = [len(q["question"].split()) for q in questions]
    assert np.mean(lengths) == pytest.approx(18.4, abs=0.5)


def test_phrases_do_not_say_what_is_asked(questions: list[Question]) -> None:
    for question in questions:
        program = question["program"]
        kind, _, attribute = program[-1]["function"].partition("_")
        if kind != "query":
            continue
        at = program[-1]["inputs"][0] - 1
        while program[at]["function"].startswith("filter"):
            assert program[at]["function"] != f"filter_{attribute}"
            at -= 1


def test_phrases_do_not_give_a_comparison_away(questions: list[Question]) -> None:
    """Nor does one name what two objects, or an object and others, are said to share."""
    for question in questions:
        family, program = FAMILIES[question["question_family_index"]], question["program"]
        shared = [n["function"].partition("_")[2] for n in program if "same_" in n["function"]]
        if family.group == "comparison":
            shared = [program[-1]["function"].removeprefix("equal_")]
            ends = [program[i]["inputs"][0] - 1 for i in program[-1]["inputs"]]
            if question["question_family_index"] == 13:  # whose last phrase does, in the release
                ends.pop()
        elif family.group == "same relate":
            ends = [len(program) - 2]
        else:
            continue
        for at in ends:
            while program[at]["function"].startswith(("filter", "unique")):
                assert program[at]["function"] != f"filter_{shared[0]}"
                at -= 1


def test_an_empty_result_seldom_means_that_the_scene_has_no_such_thing(
    scenes: list[dict[str, Any]], questions: list[Question]
) -> None:
    """Else "no" could be guessed from the phrase alone; in the release it is three in four."""
    elsewhere = []
    for question in questions:
        if FAMILIES[question["question_family_index"]].group != "same relate":
            continue
        program, scene = question["program"], scenes[question["image_index"]]
        at, phrase = len(program) - 2, {}
        while program[at]["function"].startswith("filter"):
            phrase[program[at]["function"].removeprefix("filter_")] = program[at]["value_inputs"][0]
            at -= 1
        if phrase and evaluate(program, scene)[-2] == set():
            elsewhere.append(any(phrase.items() <= item.items() for item in scene["objects"]))
    assert len(elsewhere) > 200
    assert 0.65 <= np.mean(elsewhere) <= 0.9


def test_few_relations_are_idle(scenes: list[dict[str, Any]], questions: list[Question]) -> None:
    """A phrase after a relation seldom fits the same objects without it."""
    idle = []
    for question in questions:
        program, scene = question["program"], scenes[question["image_index"]]
        if FAMILIES[question["question_family_index"]].group == "single and":
            continue
        values = evaluate(program, scene)
        for at, node in enumerate(program):
            if node["function"] == "relate":
                fits, end = set(range(len(scene["objects"]))), at
                while program[end + 1]["function"].startswith("filter"):
                    end += 1
                    attribute = program[end]["function"].removeprefix("filter_")
                    (word,) = program[end]["value_inputs"]
                    fits = {i for i in fits if scene["objects"][i][attribute] == word}
                idle.append(values[end] == fits)
    assert 0.08 <= np.mean(idle) <= 0.12


def test_a_part_of_a_union_may_be_all_that_stands_in_a_relation_but_not_everything(
    questions: list[Question],
) -> None:
    bare = Counter[str]()
    for question in questions:
        program = question["program"]
        for union in (node for node in program if node["function"] == "union"):
            for part in (program[i] for i in union["inputs"]):
                assert part["function"] != "scene"
                bare.update(part["value_inputs"] if part["function"] == "relate" else ())
    assert set(bare) == set(RELATIONS) and min(bare.values()) >= 5


def test_both_relations_of_an_intersection_matter(
    scenes: list[dict[str, Any]], questions: list[Question]
) -> None:
    checked = 0
    for question in questions:
        if FAMILIES[question["question_family_index"]].group != "single and":
            continue
        for at, node in enumerate(question["program"]):
            if node["function"] == "relate":
                changed = copy.deepcopy(question["program"])
                changed[at] = {"function": "scene", "inputs": [], "value_inputs": []}
                try:
                    answer = execute(changed, scenes[question["image_index"]])
                except ConfigError:
                    answer = "none"
                assert answer != question["answer"]
                checked += 1
    assert checked > 500


def test_the_words_are_known_and_no_more_than_the_release_has(questions: list[Question]) -> None:
    said = {word for q in questions for word in words_of(q["question"])}
    assert said == set(vocabulary())
    assert len(vocabulary()) <= 82  # 80 words, ";" and "?"
    assert all(q["question"].endswith("?") and "  " not in q["question"] for q in questions)


def test_questions_are_a_function_of_seed_and_block(scenes: list[dict[str, Any]]) -> None:
    whole = list(generate(scenes[:260], seed=3))
    again = list(generate(scenes[250:260], seed=3))
    later = [q for q in whole if q["image_index"] >= 250]
    assert [{**q, "question_index": 0} for q in again] == [
        {**q, "question_index": 0} for q in later
    ]
    assert list(generate(scenes[:5], seed=4)) != whole[:50]


def test_an_answer_given_too_often_is_refused() -> None:
    balance = Balance()
    count = next(i for i, family in enumerate(FAMILIES) if family.steps[-1] == "count")
    assert balance.accepted(count).all()
    for answer, times in ((1, 26), (2, 25), (3, 20)):
        for _ in range(times):
            balance.add(count, answer)
    refused = ~balance.accepted(count)
    assert refused.nonzero()[0].tolist() == [1]  # more than five times the least median, 5
    for _ in range(4):
        balance.add(count, 2)
    assert (~balance.accepted(count)).nonzero()[0].tolist() == [1, 2]


# Bit masks.


def test_masks_say_what_objects_say(scenes: list[dict[str, Any]]) -> None:
    scene = scenes[0]
    view = View(scene)
    for phrase, mask in zip(PHRASES[::7], view.fits[::7], strict=True):
        fits = [
            all(
                v == 0 or view.values[a][i] == v - 1
                for a, v in zip(ATTRIBUTES, phrase, strict=True)
            )
            for i in range(len(scene["objects"]))
        ]
        assert mask == sum(1 << i for i, fit in enumerate(fits) if fit)
    assert ONLY[:9].tolist() == [-1, 0, 1, -1, 2, -1, -1, -1, 3]
    assert SIZE[0b1011] == 3
