"""Rewards that verify: code by its tests, JSON by its schema, a translation by what it says."""
