"""Measuring models on text: what every token costs, in nats."""
