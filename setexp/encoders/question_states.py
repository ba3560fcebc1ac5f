"""Questions as a state for each word (Thesis, 4.4.4: of BAN)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn


class QuestionStates(nn.Module):
    """Word embedding and GRU; its states after all words, padding included, as BAN has it.

    BAN learns two tables, of a word's vector and of a mixture of the vectors of words it is asked
    with; side by side, they are one. The GRU is PyTorch's: seeds cannot be stacked.

    Args:
        words: rows of the embedding; word 0 is padding and unknown words, and is not learned.
        embedding, hidden: widths of a word and of the state.
        vectors: a file of first rows (W, embedding), as scripts/prepare_vqa.py makes it of GloVe's;
            null for random ones.

    Shapes: words (B, L) to (B, L, hidden).

    Raises:
        ValueError: the file is missing, no such array, or does not fit.
    """

    def __init__(self, *, words: int, embedding: int, hidden: int, vectors: str | None) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, embedding, padding_idx=0)
        self.gru = nn.GRU(embedding, hidden, batch_first=True)
        if vectors is not None:
            rows = _rows(Path(vectors), words, embedding)
            with torch.no_grad():
                self.embedding.weight[: len(rows)].copy_(rows)

    def forward(self, words: Tensor) -> Tensor:
        return self.gru(self.embedding(words))[0]


def _rows(path: Path, words: int, embedding: int) -> Tensor:
    try:
        rows = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"vectors={path}: missing or no array ({str(error).splitlines()[0]}); make it with "
            "scripts/prepare_vqa.py --vectors"
        ) from None
    if rows.ndim != 2 or len(rows) > words or rows.shape[1] != embedding:
        raise ValueError(
            f"vectors={path}: its shape is {rows.shape}; give at most words={words} rows of "
            f"embedding={embedding}"
        )
    return torch.from_numpy(rows)
