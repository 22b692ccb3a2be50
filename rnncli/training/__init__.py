"""Training: a loop that yields events. It prints nothing."""
