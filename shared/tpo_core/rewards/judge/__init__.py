"""Language models as judges: what they are asked, and how their verdicts are read."""
