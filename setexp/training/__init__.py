"""The training loop, stacked seeds, checkpoints and tracking."""
