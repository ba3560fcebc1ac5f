"""Networks that turn a set or an image into a vector."""
