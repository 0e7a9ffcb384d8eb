"""What is said to the policy, how it is shown, and how its answers are read."""
