"""The algorithm: a generator that yields effects and calls no model."""
