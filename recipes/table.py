"""The reward of ``make demo``: what a reader can check by eye, and the question does not say.

The first answers cannot know which words are wanted; the reward's remarks tell the critic and the editor. The embedded
model has 135 million parameters and goes part of the way: with seeds 1 to 4, rewritten answers scored above every first
answer in three (0.6, where the best first one had 0.4), each time beside a fresh answer that did, too; with seed 2 a
first answer already had 0.6. Five other tasks gained nothing in eight runs.
"""

from tpo_core.rewards import ChecksReward
from tpo_core.rewards.checks import avoids, sentences, uses

checks = ChecksReward([uses("oil"), uses("soft cloth"), uses("coasters"), avoids("polish"), sentences(most=3)])
