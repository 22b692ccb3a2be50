"""Sampling and beam search over one step contract; knows no architecture."""
