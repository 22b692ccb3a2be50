"""Strings to token ids and back; knows no tensors."""
