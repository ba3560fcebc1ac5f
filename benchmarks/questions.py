"""Questions a second of the generator of CLEVR questions, on one core.

    python benchmarks/questions.py [--scenes 300] [--seed 0]

Processor time is measured, so that others on the machine do not count. Exit code 1 below the bar.
"""

from __future__ import annotations

import argparse
import sys
import time

import torch

from setexp.datasets.clevr.questions.generator import generate
from setexp.datasets.clevr.questions.program import execute
from setexp.datasets.clevr.scenes import sample_scenes, to_official

BAR = 2000


def main() -> int:
    """Time the generator and the executor; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(options.seed)
    scenes = to_official(sample_scenes(options.scenes, generator=generator), "train")
    started = time.process_time()
    questions = list(generate(scenes, options.seed))
    made = len(questions) / (time.process_time() - started)
    started = time.process_time()
    right = sum(execute(q["program"], scenes[q["image_index"]]) == q["answer"] for q in questions)
    answered = len(questions) / (time.process_time() - started)
    print(f"{len(questions)} questions about {len(scenes)} scenes")
    print(f"generated {made:8.0f} a second, bar {BAR}: {'met' if made >= BAR else 'missed'}")
    print(f"executed  {answered:8.0f} a second, {right} right")
    return int(made < BAR or right < len(questions))


if __name__ == "__main__":
    sys.exit(main())
