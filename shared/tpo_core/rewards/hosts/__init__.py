"""A reward, called by the hosts: metrics, evaluators, reward functions."""
