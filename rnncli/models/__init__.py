"""Models: one a file, each made from a configuration and a vocabulary's size."""
