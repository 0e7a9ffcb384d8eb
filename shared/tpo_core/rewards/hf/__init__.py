"""Reward models on this machine: loading, heads, and forward passes that compute nothing twice."""
