"""Questions as vectors (Thesis, Figure 3.10 and A.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class QuestionGRU(nn.Module):
    """Word embedding, dropout, tanh, GRU; its state after the last word.

    The thesis draws dropout after tanh; the released code, and this, before it. The GRU is
    PyTorch's: fast, but seeds cannot be stacked.

    Args:
        words: rows of the embedding; word 0 is padding and unknown words, and is not learned.
        embedding, hidden: widths of a word and of the state.

    Shapes: words (B, L) and their number (B,), at least 1, to (B, hidden).
    """

    def __init__(self, *, words: int, embedding: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, embedding, padding_idx=0)
        self.dropout = nn.Dropout(dropout)
        self.gru = nn.GRU(embedding, hidden, batch_first=True)
        nn.init.xavier_uniform_(self.embedding.weight)
        for name, parameter in self.gru.named_parameters():
            if name.startswith("bias"):
                nn.init.zeros_(parameter)
            else:
                for gate in parameter.chunk(3):
                    nn.init.xavier_uniform_(gate)

    def forward(self, words: Tensor, length: Tensor) -> Tensor:
        states, _ = self.gru(torch.tanh(self.dropout(self.embedding(words))))
        last = (length - 1).view(-1, 1, 1).expand(-1, 1, states.shape[-1])
        return states.gather(1, last).squeeze(1)  # what comes after is never looked at
