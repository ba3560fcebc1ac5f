"""Losses of sets, labels, answers and pictures, one value per sample."""
