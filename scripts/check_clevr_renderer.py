"""Measure procedural CLEVR against the public generator's scenes and renders, as one table.

    python scripts/check_clevr_renderer.py [--sample FOLDER] [--sheet sheet.png]

Reference values were measured on the generator's own renders (320x240, 48 samples a pixel). A
sample is a folder of such renders, arranged as the official release is, whose pictures are larger.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch

# The project need not be installed: this file lies one folder below it.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from clevr_checks.drawn import Row, draw
from clevr_checks.geometry import check_pixel_coords, check_rules, check_silhouettes
from clevr_checks.looks import check_ground, check_looks, check_pictures, check_spheres
from clevr_checks.sample import check_sample

from setexp.datasets.clevr.scenes import sample_scenes
from setexp.errors import one_line


@one_line
def main() -> int:
    """Print the table; 0 = all checks pass, 1 = some fail, 2 = the sample is at fault."""
    parser = argparse.ArgumentParser(description="Measure procedural CLEVR against the generator.")
    parser.add_argument("--sample", type=Path, help="folder of the generator's scenes and renders")
    parser.add_argument("--sheet", type=Path, help="PNG to write: sample and own pictures")
    parser.add_argument("--pictures", type=int, default=200, help="scenes that are drawn")
    parser.add_argument("--scenes", type=int, default=8000, help="scenes whose rules are checked")
    parser.add_argument("--seed", type=int, default=0, help="of the scenes (default: 0)")
    chosen = parser.parse_args()
    if not 50 <= chosen.pictures <= chosen.scenes:
        parser.error("--pictures: from 50, since few show not every colour, to --scenes")
    rows = []
    if chosen.sample:  # first, since it may be refused
        rows = check_sample(chosen.sample.expanduser(), chosen.pictures, chosen.sheet)
    scenes = sample_scenes(chosen.scenes, generator=torch.Generator().manual_seed(chosen.seed))
    drawn = draw(scenes.rows(slice(0, chosen.pictures)))
    checks: list[Callable[[], list[Row]]] = [
        lambda: check_pixel_coords(scenes),
        lambda: check_silhouettes(scenes.rows(slice(0, 60))),
        check_ground,
        check_spheres,
        lambda: check_pictures(drawn),
        lambda: check_looks(drawn),
        lambda: check_rules(scenes),
    ]
    rows = [*(row for check in checks for row in check()), *rows]
    for row in rows:
        mark = "pass" if row.passed else "FAIL"
        print(f"{mark}  {row.check:<42} {row.value:<24} {row.threshold}")
    print(f"{sum(row.passed for row in rows)} of {len(rows)} checks pass")
    return int(not all(row.passed for row in rows))


if __name__ == "__main__":
    sys.exit(main())
