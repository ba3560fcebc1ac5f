"""Turn an unpacked CLEVR v1.0 release into the stores that `dataset=clevr_boxes` and its like read.

    python scripts/prepare_clevr.py --source PATH/TO/CLEVR_v1.0 --root data --image-size 128

An interrupted run goes on where it stopped when it is started again. Without the release, nothing
needs preparing: the datasets fall back to procedural scenes. Questions need none of this.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# The project need not be installed: this file lies one folder below it.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from setexp.errors import one_line


@one_line
def main() -> int:
    """Prepare the splits; 0 = done, 2 = the release or an argument is at fault."""
    from setexp.datasets.clevr.official import SPLITS, prepare_official
    from setexp.datasets.clevr.store import Store

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--source", type=Path, required=True, help="unpacked folder CLEVR_v1.0")
    parser.add_argument(
        "--root",
        type=Path,
        default=Path("data"),
        help="paths.data of the runs that read it; default: data",
    )
    parser.add_argument("--image-size", type=int, default=128, help="height and width in pixels")
    parser.add_argument(
        "--splits", nargs="+", choices=SPLITS, default=SPLITS, help="what to prepare; default: both"
    )
    parser.add_argument("--workers", type=int, default=None, help="processes (default: cores)")
    parser.add_argument("--verify", action="store_true", help="re-read stores that exist already")
    options = parser.parse_args()
    paths = prepare_official(
        options.source,
        options.root,
        image_size=options.image_size,
        splits=tuple(options.splits),
        workers=options.workers,
    )
    for path in paths:
        store = Store(path)
        if options.verify:
            store.verify()
        print(f"{path}: {len(store)} images, content {store.digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
