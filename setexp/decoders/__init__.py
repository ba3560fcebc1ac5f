"""Networks that turn a vector into a set."""
