"""Encoder, decoder and loss wired into one module per kind of experiment."""
