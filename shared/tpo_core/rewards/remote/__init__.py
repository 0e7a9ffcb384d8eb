"""Reward models behind servers: what each server speaks, and which replica is asked."""
