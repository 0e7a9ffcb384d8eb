"""What a reward's own models write is nobody's answer: it stays out of the stream of the program that is refined."""

import dspy
from dspy.lm15 import (
    Message,
    Response,
    StreamDeltaEvent,
    StreamEndEvent,
    StreamStartEvent,
    TextDelta,
    TokenLogprob,
    TopLogprob,
    Usage,
)

from tpo_core.rewards import FunctionReward, JudgeReward

YES = TokenLogprob("Yes", -0.5, top=(TopLogprob("Yes", -0.5), TopLogprob("No", -2.5)))
USED = Usage(input_tokens=1, output_tokens=1)


class Engine:
    """A DSPy engine with one answer, which notes whether it was streamed."""

    def __init__(self, text):
        self.text, self.streamed = text, 0

    def complete(self, request):
        said = Message.assistant(self.text)
        return Response(id=None, model=request.model, message=said, finish_reason="stop", usage=USED, logprobs=(YES,))

    def stream(self, request):
        self.streamed += 1
        yield StreamStartEvent(model=request.model)
        yield StreamDeltaEvent(TextDelta(self.text))
        yield StreamEndEvent(finish_reason="stop", usage=USED)


def lm(engine, name):
    return dspy.LM(f"scripted/{name}", engine=engine, cache=False)


async def test_rewards_that_use_dspy_models_work_inside_a_streamed_program():
    policy, critic, grader = (
        Engine("[[ ## answer ## ]]\nhi\n\n[[ ## completed ## ]]"),
        Engine("Yes"),
        Engine("[[ ## grade ## ]]\n3\n\n[[ ## completed ## ]]"),
    )
    judge = JudgeReward(lm(critic, "judge"))
    grade = dspy.Predict("prompt, response -> grade: float")
    graded = FunctionReward(
        lambda prompt, response: grade(prompt=prompt, response=response, lm=lm(grader, "grader")).grade
    )

    class Program(dspy.Module):
        def __init__(self):
            super().__init__()
            self.answer = dspy.Predict("question -> answer")

        def forward(self, question):
            prediction = self.answer(question=question)
            prediction.scores = judge.score(question, ["a", "b"]) + graded.score(question, ["a", "b"])
            return prediction

    with dspy.context(lm=lm(policy, "policy")):
        *_, last = [part async for part in dspy.streamify(Program())(question="q")]
    assert last.scores == [2.0, 2.0, 3.0, 3.0]
    assert (policy.streamed, critic.streamed, grader.streamed) == (1, 0, 0)
