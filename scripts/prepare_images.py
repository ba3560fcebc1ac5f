"""Turn labelled images into the stores that `dataset=mosaics_cifar10` and `_imagenet64` read.

    python scripts/prepare_images.py cifar10 --source PATH/TO/cifar-10-batches-py
    python scripts/prepare_images.py imagenet64 --source FOLDER/OF/ARCHIVES
    python scripts/prepare_images.py imagenet64 --source PATH --format folder

A folder of pictures holds train/CLASS/ and test/CLASS/ or, where test/ has no such classes,
val/CLASS/, classes in alphabetical order. Nothing needs preparing to begin with: the datasets fall
back to procedural pictures.
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
    """Prepare one data set; 0 = done, 2 = the files or an argument is at fault."""
    from setexp.datasets.image_files import READERS, SIDES, read_images, store_path, write_images
    from setexp.files import sole_writer

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("name", choices=SIDES, help="which data set")
    parser.add_argument("--source", type=Path, required=True, help="folder of the unpacked files")
    parser.add_argument("--format", choices=READERS, help="default: that of the official files")
    parser.add_argument("--origin", help="what records say the images are; default: the format")
    parser.add_argument(
        "--root",
        type=Path,
        default=Path("data"),
        help="paths.data of the runs that read it; default: data",
    )
    options = parser.parse_args()
    side, kind = SIDES[options.name], options.format or options.name
    path = store_path(options.root, options.name)
    sources = READERS[kind](options.source.expanduser(), side)
    with sole_writer(path):
        write_images(path, options.origin or kind, sources)
    for split, (images, _) in read_images(path).splits.items():
        print(f"{path}: {len(images)} {split} images")
    return 0


if __name__ == "__main__":
    sys.exit(main())
