"""Tensors only: cells, recurrences, stacks, dropout and output layers. Knows no words."""
