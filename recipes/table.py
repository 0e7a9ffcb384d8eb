"""The reward of ``make demo``: what a reader can check by eye."""

from tpo_core.rewards import ChecksReward
from tpo_core.rewards.checks import avoids, sentences, uses, words

checks = ChecksReward(
    [uses("oil"), uses("soft cloth"), uses("coasters"), avoids("polish"), sentences(most=3), words(most=45)]
)
