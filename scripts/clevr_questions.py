"""Write generated CLEVR scenes with questions as a release has them, or check those of a release.

    python scripts/clevr_questions.py write FOLDER [--train 70000] [--val 15000] [--seed 0]
    python scripts/clevr_questions.py check FOLDER

`write` makes FOLDER/scenes and FOLDER/questions, without pictures. `check` answers every question
of a folder from its program and says how many answers agree; exit code 1 if one does not.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

# The project need not be installed: this file lies one folder below it.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from setexp.datasets.array_store import part_spans
from setexp.datasets.clevr.questions.program import execute
from setexp.datasets.clevr.questions.source import (
    PART,
    Recipe,
    draw,
    parse_official,
    paths_in,
)
from setexp.datasets.clevr.vocabulary import MAX_OBJECTS, SPLITS
from setexp.errors import ConfigError, one_line
from setexp.files import write_text


@one_line
def main(arguments: list[str] | None = None) -> int:
    """Do as the command line says; 0 = done and right, 1 = wrong answers, 2 = a mistake in it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True)
    write = commands.add_parser("write", help="generate scenes and questions")
    write.add_argument("folder", type=Path, help="where scenes/ and questions/ are to be")
    write.add_argument("--train", type=int, default=70_000, help="scenes of the training split")
    write.add_argument("--val", type=int, default=15_000, help="scenes of the validation split")
    write.add_argument("--seed", type=int, default=0, help="dataset.data_seed of the same scenes")
    check = commands.add_parser("check", help="answer the questions of a release")
    check.add_argument("folder", type=Path, help="that holds scenes/ and questions/")
    options = parser.parse_args(arguments)
    if options.command == "write" and min(options.train, options.val) < 1:
        parser.error("--train and --val: at least 1")
    if options.command == "check":
        return check_release(options.folder)
    write_release(options.folder, {"train": options.train, "val": options.val}, options.seed)
    return 0


def write_release(folder: Path, counts: dict[str, int], seed: int) -> None:
    """Write both splits; the same scenes and questions that `dataset.source=procedural` has."""
    there = next((p for pair in paths_in(folder).values() for p in pair if p.exists()), None)
    if there is not None:
        raise ConfigError(f"{there} is there already; name another folder")
    recipe = Recipe(min_objects=3, max_objects=MAX_OBJECTS, data_seed=seed)
    for split, pair in paths_in(folder).items():
        scenes: list[dict[str, Any]] = []
        questions: list[dict[str, Any]] = []
        for start, stop in part_spans(counts[split], PART):
            described, asked = draw(split, start, stop, recipe)
            scenes += described
            questions += [{**q, "question_index": len(questions) + i} for i, q in enumerate(asked)]
        info = {"split": split, "version": "1.0", "license": "MIT", "date": ""}
        for path, name, entries in zip(
            pair, ("scenes", "questions"), (scenes, questions), strict=True
        ):
            write_text(path, json.dumps({"info": info, name: entries}))
            print(f"{path}: {len(entries)} {name}")


def check_release(folder: Path) -> int:
    """Compare the executor's answers with a folder's; the exit code."""
    code = 0
    for split in SPLITS:
        scenes, questions = (parse_official(path) for path in paths_in(folder)[split])
        known = {scene["image_index"]: scene for scene in scenes}
        asked = [q for q in questions if q["image_index"] in known]
        agree = sum(_agrees(question, known[question["image_index"]]) for question in asked)
        print(f"{split}: {agree} of {len(questions)} answers agree")
        code |= agree < len(questions)
    return code


def _agrees(question: dict[str, Any], scene: dict[str, Any]) -> bool:
    """Whether a question's program yields its answer; one that cannot be executed does not."""
    try:
        return bool(execute(question["program"], scene) == question["answer"])
    except (ConfigError, KeyError, TypeError, IndexError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        print(f"question {question.get('question_index')}: {reason}", file=sys.stderr)
        return False


if __name__ == "__main__":
    sys.exit(main())
