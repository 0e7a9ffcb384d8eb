"""The embedded model: a small real one in this process."""
