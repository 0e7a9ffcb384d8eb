"""Chat models that judge by a script, for tests of what is made of their verdicts."""

from tpo_core.values import Completion, Usage


class Judge:
    """A chat model that answers from a function of (what it was shown, whether log-probabilities were asked for)."""

    takes_n = False

    def __init__(self, answer, name="judge"):
        self.answer = answer
        self.name = name
        self.shown = []

    def chat(self, messages, *, n=1, temperature=None, top_p=None, max_tokens=None, seed=None, logprobs=0):
        self.shown.append("\n".join(m["content"] for m in messages))
        answer = self.answer(self.shown[-1], logprobs)
        return [answer] if isinstance(answer, Completion) else answer

    async def achat(self, messages, **settings):
        return self.chat(messages, **settings)


def weighed(**logprobs):
    return Completion("x", logprobs=(logprobs,), usage=Usage(1, 1, 10, 1))


def prefers_good(shown, logprobs):
    good = "good" in shown.split("<response>")[1]
    return weighed(Yes=-0.1, No=-2.1) if good else weighed(Yes=-2.1, No=-0.1)


def writes_grades(shown, logprobs):
    return Completion("Grade: 7" if "good" in shown.split("<response>")[1] else "Grade: 2", usage=Usage(1, 1, 10, 3))
