"""From result records to printed tables; imports neither torch nor Hydra."""
