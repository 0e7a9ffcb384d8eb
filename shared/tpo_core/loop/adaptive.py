"""The adaptive plan: each round what is expected to raise the best most for what is left of the budget.

What a query costs and promises is read from its ledger, what updates are worth from the runs' shared experience; the
law that weighs them is ``planner``'s. It learns even where feedback looks worthless, for a share of the tokens.
"""

from __future__ import annotations

import math

from tpo_core.config.experience import Cost, Evidence, Experience
from tpo_core.loop.estimates import Value, heavy_share, log_spread_error, query_spread, spread_of, value_of_updates
from tpo_core.loop.learning import fresh_mean
from tpo_core.loop.ledger import Ledger
from tpo_core.loop.planner import Again, Costs, Outlook, Split, best_split, gain
from tpo_core.loop.plans import Plan, Repeat, contrasts
from tpo_core.trajectory import StopReason
from tpo_core.values import Usage

__all__ = ["adaptive_plan", "first_samples"]

FIRST = 3
"""Samples before the first plan, where their cost is not known yet."""
FIRST_SHARE = 0.25
"""The share of the budget that goes to samples before the first plan."""
EXPLORED_SHARE = 0.03
"""The share of all tokens that may be spent only to learn what updates are worth."""
EXPLORED_FIRST = 0.45
"""And on top of it, once, this share of one query's budget: an unknown policy is tried at its first queries."""
EXPLORED_LOSS = 0.04
"""No trial is expected to cost its query more than this many spreads: it waits until sampling has little to gain."""
UNKNOWN, UNKNOWN_LOSS = 2, 0.1
"""But this much, while there are fewer critiques than that: one alone says too little, by luck either way."""
OPTIMISM = 1.0
"""Updates are tried while they would pay were they worth this many standard deviations more than known."""
LEAST_GAIN = 0.005
"""Stop where all that is left of the budget is expected to gain less than this many spreads of fresh samples."""
PROMPT_TOKENS = 200
"""What the engine's prompts add to the texts they show, about."""
FAR = 50.0


def first_samples(ledger: Ledger) -> int:
    """Return how many samples come before the first plan."""
    config = ledger.config
    if config.max_tokens is None:
        share = FIRST_SHARE * _budget(ledger, tokens=False)
    elif (known := _experience(ledger).evidence.sample).usable and known.completion_tokens:
        share = FIRST_SHARE * config.max_tokens / _price(ledger, known)
    else:
        share = FIRST
    return min(config.width, max(2, round(share)))


def adaptive_plan(ledger: Ledger, number: int) -> Plan | StopReason:
    """Return the round that is expected to raise the best most, or why there is none."""
    evidence, best = _experience(ledger).evidence, ledger.best
    tokens = ledger.config.max_tokens is not None and ledger.usage.completion_tokens > 0
    budget, costs = _budget(ledger, tokens=tokens), _costs(ledger, evidence, tokens=tokens)
    if best is None or best.reward is None:
        return "no_candidates"
    if _fruitless(ledger, number - 1) and not _edited(ledger, number - 1):
        return "no_candidates"
    outlook, s = _outlook(ledger, best.reward, evidence)
    value = value_of_updates(evidence, s)
    in_vain = any(_fruitless(ledger, n) and _edited(ledger, n) for n in range(1, number))
    critiques = not in_vain and ledger.config.mode != "bon"
    place, again = _again(ledger, value, s)
    split = best_split(outlook, value, costs, budget, critiques=critiques, again=again)
    if split.critiques + split.fresh == 0:
        return "max_tokens" if tokens else "max_calls" if ledger.config.max_calls is not None else "depth"
    if critiques and not split.critiques:
        whole = ledger.config.max_tokens if tokens and ledger.config.max_tokens else _calls(ledger)
        allowed = EXPLORED_SHARE * evidence.spent + EXPLORED_FIRST * whole - evidence.explored
        most = UNKNOWN_LOSS if evidence.critiques < UNKNOWN else EXPLORED_LOSS
        if trial := _trial(outlook, value, costs, min(budget, allowed), budget, split.gain, most):
            ledger.explored += trial.price(costs)
            return Plan(contrasts(ledger, trial.critiques, trial.updates))
    if split.gain < LEAST_GAIN:
        return "no_expected_gain"
    if split.again:
        return Plan(repeat=Repeat(place, split.updates))
    if split.critiques:
        return Plan(contrasts(ledger, split.critiques, split.updates))
    return Plan(fresh=min(split.fresh, ledger.config.width))


def _trial(
    outlook: Outlook, value: Value, costs: Costs, allowed: float, budget: float, gained: float, most: float
) -> Split | None:
    """Return one critique with two updates, or with one, that would gain more than ``gained`` were updates worth more.

    None where that costs more than is allowed, is expected to lose more than ``most``, or would not pay even so.
    """
    for updates in (2, 1):
        trial = Split(1, updates)
        rest = int((budget - trial.price(costs)) / costs.sample)
        if trial.price(costs) <= allowed:
            hoped = gain(outlook, value, 1, updates, rest, optimism=OPTIMISM)
            lost = gained - gain(outlook, value, 1, updates, rest)
            if lost <= most:
                return trial if hoped > max(gained, LEAST_GAIN) else None
    return None


def _experience(ledger: Ledger) -> Experience:
    return ledger.config.experience or Experience()


def _outlook(ledger: Ledger, best: float, evidence: Evidence) -> tuple[Outlook, float]:
    """Return where the query stands, and s in the reward's units.

    Where all rewards were equal so far, s is the distance to ``stop_at``, or 1: then the best is the mean, and only the
    ratio of what samples and updates promise counts.
    """
    mean, stop_at = fresh_mean(ledger), ledger.config.stop_at
    far = math.inf if stop_at is None else stop_at - best
    s = spread_of(evidence) or (far if 0 < far < math.inf else 1.0)
    own = ledger.told
    spread = query_spread(own.fresh_squares, own.fresh_degrees)
    place = max(-FAR, min(FAR, (best - mean) / s))
    return Outlook(place, place + far / s, spread, log_spread_error(evidence), heavy_share(evidence)), s


def _again(ledger: Ledger, value: Value, s: float) -> tuple[int, Again | None]:
    """Return the place of the critique whose instructions promise most, and what they do; None without any.

    What its updates were, all of them, is weighed against what an update of its parent is worth by any critique.
    """
    mean, found = fresh_mean(ledger), []
    for place, step in enumerate(ledger.steps):
        made = [(c.reward - mean) / s for c in ledger.candidates if c.critique == place and c.reward is not None]
        if made and step.chosen is not None and step.chosen.reward is not None:
            law = value.mean((step.chosen.reward - mean) / s)
            own, error = value.critique_sd**2, value.child_sd**2 / len(made)
            shown = own / (own + error)
            mine = sum(made) / len(made)
            found.append((place, Again(law + shown * (mine - law), math.sqrt(shown * error))))
    return max(found, key=lambda pair: pair[1].mean, default=(0, None))


def _costs(ledger: Ledger, evidence: Evidence, *, tokens: bool) -> Costs:
    """Return what one usable sample, critique and update take of the budget; before any was seen, by the samples'."""
    known = (evidence.sample, evidence.critique, evidence.update)
    if not tokens:
        return Costs(*(_calls_each(cost, prior) for cost, prior in zip(known, (1, 2, 1), strict=True)))
    sample = evidence.sample
    usable = max(1, sample.usable)
    asked, said = sample.prompt_tokens / max(1, sample.asked), sample.completion_tokens / usable
    rho = ledger.config.prompt_price
    priors = (
        said + rho * asked,
        said + rho * (2 * asked + 3 * said + 2 * PROMPT_TOKENS),
        said + rho * (asked + 1.5 * said + PROMPT_TOKENS),
    )
    paid = [(prior + _paid(ledger, cost)) / (1 + cost.usable) for cost, prior in zip(known, priors, strict=True)]
    scoring = ledger.priced(ledger.reward_usage) / max(1, ledger.reward_usage.calls)
    return Costs(max(1.0, paid[0] + scoring), paid[1], paid[2] + scoring)


def _calls_each(cost: Cost, prior: int) -> float:
    return prior * (1 + cost.asked) / (1 + cost.usable)


def _paid(ledger: Ledger, cost: Cost) -> float:
    return ledger.priced(Usage(0, 0, cost.prompt_tokens, cost.completion_tokens))


def _price(ledger: Ledger, cost: Cost) -> float:
    return max(1.0, _paid(ledger, cost) / max(1, cost.usable))


def _budget(ledger: Ledger, *, tokens: bool) -> float:
    """Return what is left: of the tokens, or of the calls."""
    if tokens and ledger.config.max_tokens is not None:
        return ledger.config.max_tokens - ledger.priced(ledger.usage + ledger.reward_usage)
    return _calls(ledger) - ledger.usage.calls


def _calls(ledger: Ledger) -> int:
    """Return the budget in calls: the user's, else what the paper's plan makes."""
    config = ledger.config
    return config.samples if config.max_calls is None else config.max_calls


def _edited(ledger: Ledger, number: int) -> bool:
    critiqued = any(step.step == number and step.chosen is not None for step in ledger.steps)
    return critiqued or any(not c.fresh for c in ledger.of_step(number))


def _fruitless(ledger: Ledger, number: int) -> bool:
    """Return whether a round after the first samples brought no scored candidate."""
    return number > 0 and not any(c.reward is not None for c in ledger.of_step(number))
