"""Functions of tensors, and the layers that everything is built from."""
