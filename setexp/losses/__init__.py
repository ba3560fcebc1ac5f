"""Losses between a predicted and a true set, one value per set."""
