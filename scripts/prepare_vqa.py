"""Turn the official files of VQA v2 into the stores that `dataset=vqa` reads.

    python scripts/prepare_vqa.py --source FOLDER --root data

The folder holds the unpacked questions, annotations and complementary pairs of VQA v2, and the
bottom-up features with 10 to 100 boxes an image as TSV files. An interrupted run goes on where it
stopped when it is started again. Without the release, nothing needs preparing: the dataset falls
back to procedural scenes, which come in the same files.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# The project need not be installed: this file lies one folder below it.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from setexp.errors import ConfigError, one_line


@one_line
def main() -> int:
    """Prepare what is there; 0 = done, 2 = the files or an argument is at fault."""
    from setexp.datasets.array_store import Store
    from setexp.datasets.vqa.prepare import (
        LEARNED,
        prepare,
        real_folder,
        vectors_of,
        vocabulary_path,
    )
    from setexp.datasets.vqa.proposals import PART_IMAGES
    from setexp.files import read_json

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--source", type=Path, required=True, help="folder of the official files")
    parser.add_argument(
        "--root",
        type=Path,
        default=Path("data"),
        help="paths.data of the runs that read it; default: data",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16"),
        help="of stored features; default: that of the store that is there, or float32",
    )
    parser.add_argument("--part-images", type=int, default=PART_IMAGES, help="the unit of resuming")
    parser.add_argument("--verify", action="store_true", help="re-read stores that exist already")
    parser.add_argument("--vectors", type=Path, help="word vectors, in GloVe's text format")
    options = parser.parse_args()
    source, folder = options.source.expanduser(), real_folder(options.root.expanduser())
    if options.vectors is not None and not options.vectors.is_file():  # before hours of work
        raise ConfigError(f"{options.vectors} cannot be read (no such file)")
    paths = prepare(source, folder, dtype=options.dtype, part_images=options.part_images)
    for path in paths:
        store = Store(path).verify() if options.verify else Store(path)
        print(f"{path}: content {store.digest}")
    for learned in LEARNED:
        path = vocabulary_path(folder, learned)
        content = read_json(path)
        print(f"{path}: {len(content['words'])} words, {len(content['answers'])} answers")
    if options.vectors is not None:
        print(f"{vectors_of(folder, 'train', options.vectors)}: word vectors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
