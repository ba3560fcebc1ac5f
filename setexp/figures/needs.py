"""What figures are made for; other data and models are refused before training (`setexp.rules`).

A figure that stands in neither table is drawn of anything.
"""

from __future__ import annotations

# By a figure's class: the class of its data, what that predicts, its name on a command line.
DATA = {
    "BoxesProgression": ("ClevrSets", "boxes", "clevr_boxes"),
    "CircleShift": ("CircleImages", None, "circles"),
    "CountingExamples": ("VQA", None, "vqa"),
    "LatentInterpolation": ("CircleImages", None, "circles"),
    "LatentMap": ("CircleImages", None, "circles"),
    "MnistProgression": ("SetMnist", None, "set_mnist"),
    "MnistReconstructions": ("SetMnist", None, "set_mnist"),
    "MosaicProgression": ("Mosaics", None, "mosaics_..."),
    "MultisetExamples": ("Multisets", None, "multisets"),
    "NumberCosts": ("Numbers", None, "numbers"),
    "NumberingFailures": ("Numbering", None, "numbering"),
    "RotatingPolygon": ("Polygons", None, "polygons"),
    "StateProgression": ("ClevrSets", "state", "clevr_state"),
    "TileCosts": ("Mosaics", None, "mosaics_..."),
    "TileGradients": ("Mosaics", None, "mosaics_..."),
    "TileSensitivity": ("Mosaics", None, "mosaics_..."),
}
# By a figure's class: a part of the task, or the figure's key that names it, and the part's class.
PARTS = {
    "CountingExamples": ("{counting}", "CountingModule"),
    "Decomposition": ("", "Decompose"),
    "MosaicProgression": ("encoder", "PermutationOptimisation"),
    "PoolWeights": ("{pooling}", "FSPool"),
    "TileCosts": ("encoder", "PermutationOptimisation"),
    "TileGradients": ("encoder", "PermutationOptimisation"),
    "TileSensitivity": ("encoder", "PermutationOptimisation"),
}
