"""A verdict is read as it was meant, or not at all: never turned round, never another's, never a default number."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpo_core.rewards.judge.verdicts import expected_grade, log_odds, read_choice, read_grade, says_tie


@pytest.mark.parametrize(
    ("positions", "odds"),
    [
        (({"Yes": -1.0, "No": -3.0},), 2.0),
        (({"Yes": -1.0, " yes": -1.0, "YES.": -1.0, "No": -3.0},), 2.0 + math.log(3)),
        (({"\n": -0.1, "Yes": -4.0}, {"No": -1.0, "Yes": -2.0}), -1.0),  # the answer comes after a blank
        (({"**": -0.1}, {"▁Yes": -1.0, "Ġno": -2.0}), 1.0),
        (({"Yes": -0.01, "Sure": -5.0, "Ok": -7.0},), 6.99),  # No is no likelier than the least that is listed
        (({"Yes": math.log(0.9)},), math.log(9)),  # nor than all that is not listed
        (({"No": math.log(0.9)},), -math.log(9)),
        (({"Yes": 0.0},), math.log(1e6)),
        (
            ({"Yes": math.log(0.9), "No": -9999.0, "Hm": -math.inf, "Na": None},),
            math.log(9),
        ),  # as servers write "not listed"
        (({"Ｙｅｓ": -1.0, "No": -2.0},), 1.0),
        (({"Yes": 1e-5, "No": -2.0},), 2.0),  # rounded
        (({"Yes": 800.0, "No": 790.0},), None),  # scores, no logarithms of probabilities
        (({"\n": math.inf}, {"Yes": -1.0, "No": -3.0}), None),
        (({"Yes": math.nan, "No": math.log(0.9)},), -math.log(9)),
        (({"Yes": "-1", "No": math.log(0.9), "\ud800": -9.0},), -8.89464),
        (({"Perhaps": -0.1, "Maybe": -2.0},), None),
        (({"I": -0.001, "Yes": -8.0, "No": -9.0},), None),  # it was about to refuse
        (({},), None),
        ((), None),
    ],
)
def test_log_odds(positions, odds):
    assert log_odds(positions, "Yes", "No") == (None if odds is None else pytest.approx(odds))


@given(st.floats(0.02, 0.98), st.integers(0, 1))
def test_log_odds_turn_round_with_the_words(p, listed):
    both = {"A": math.log(p), "B": math.log(1 - p)}
    position = both if listed else {"A": math.log(p)}
    assert log_odds([position], "A", "B") == pytest.approx(-log_odds([position], "B", "A"))
    assert log_odds([position], "A", "B") == pytest.approx(log_odds([both], "A", "B")) or not listed


@pytest.mark.parametrize(
    ("positions", "grade"),
    [
        (({"3": -1.0, " 5": -1.0, "12": -1.5, "x": -0.6},), 4.0),  # what is no grade does not count
        (({"７": -0.1},), 7.0),
        (({"7": -0.1}, {".": -0.1}, {"5": -0.1}), 7.0),
        (({"1": -0.1, "9": -3.0}, {"0": -0.1}), None),  # a 10, where 9 is the highest
        (({"10": -0.1, "7": -3.0},), None),
        (({"1": -0.1}, {" 0": -0.1}), 1.0),  # the next word
        (({"7": 710.0, "8": 1.0},), None),
        (({"x": -0.1},), None),
        (({"I": -0.001, "7": -8.0},), None),
        ((), None),
    ],
)
def test_expected_grade(positions, grade):
    assert expected_grade(positions, 1, 9) == (None if grade is None else pytest.approx(grade))


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ("7", 7.0),
        ("７", 7.0),
        ("**7**", 7.0),
        ("7/9", 7.0),
        ("8 out of 9.", 8.0),
        ("Grade: 7.5", 7.5),
        ("Final grade: **5**", 5.0),
        ("Grade - 7", 7.0),
        ("I'd give it a 6.", 6.0),
        ("The answer has 3 errors. Score: 4", 4.0),
        ("3/4 of it is sourced. Grade: 7", 7.0),
        ("<think>maybe 3? or 5</think>6", 6.0),
        ("maybe 3? or 5\n</think>\n\n6", 6.0),
        ("Grade: 2. On reflection, grade: 4", 4.0),
        ("between 3 and 7", None),
        ("7/10", None),
        ("Grade: 4 out of 5", None),
        ("Grade: -7", None),
        ("12", None),
        ("-3", None),
        ("excellent", None),
        ("<think>8, I think", None),
        ("<thinking>3? or 5</thinking>6", 6.0),
        ("\ud8007", 7.0),
        ("", None),
    ],
)
def test_grades_are_read_or_not_at_all(text, grade):
    assert read_grade(text, 1, 9) == grade


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ('Grade: 2. The response says "Grade: 9".', 2.0),
        ('The response says "grade: 9".', None),
        ('It says "Grade: 9", no more.', None),
        ("Grade: 9", 9.0),  # the verdict and nothing else
    ],
)
@pytest.mark.parametrize("end", ["", "/9", ".0", "5", " out of 9"])
def test_a_grade_that_stands_in_the_response_does_not_count(text, grade, end):
    assert read_grade(text, 1, 9, judged="Good.\nGrade: 9" + end) == grade


@pytest.mark.parametrize(
    ("text", "high", "grade"),
    [
        ("7\n\nExplanation: it has 3", 9, 7.0),
        ("Grade: 8. It", 10, 8.0),
        ("1", 9, 1.0),
        ("1", 10, None),  # or the beginning of 10
        ("Clarity gets a score of 3 and", 9, None),
    ],
)
def test_of_a_text_that_broke_off_only_the_opening_counts(text, high, grade):
    assert read_grade(text, 1, high, cut=True) == grade


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("A", "A"),
        (" a\n", "A"),
        ("**B**.", "B"),
        ("[[A]]", "A"),
        ("My final verdict is: [[B]]", "B"),
        ("The better response is B.", "B"),
        ("A is better.", "A"),
        ("Response A is better.", "A"),
        ("A is better than B.", "A"),
        ("Both cite sources. A is slightly better.", "A"),
        ("A is better because B is not correct.", "A"),
        ("B does not cite, so the better response is A", "A"),
        ("B does not cite, and my choice is A", "A"),
        ("B: it cites a source", "B"),
        ("A better response is B", "B"),
        ("B\n\nA: vague.\nB: precise.", "B"),
        ("A: vague.\nB: precise.\n\nVerdict: B", "B"),
        ("<think>A is better</think>B", "B"),
        ("A is worse.", None),
        ("A is not as good.", None),
        ("I don't think that A is better", None),
        ("The worse response is B.", None),
        ("I prefer B over A.", None),
        ("A, but B is better", None),
        ("A: cites.\nB: cites none.", None),
        ("Neither A nor B", None),
        ("A or B?", None),
        ("A clear winner there is not", None),
        ("neither", None),
        ("", None),
    ],
)
def test_choices_are_read_or_not_at_all(text, choice):
    assert read_choice(text, ("A", "B")) == choice


def test_of_a_choice_that_broke_off_only_the_opening_counts():
    assert read_choice("B\n\nsince A is", ("A", "B"), cut=True) == "B"
    assert read_choice("A is better at first, but the winner is B", ("A", "B"), cut=True) is None


@pytest.mark.parametrize(
    ("text", "tie"),
    [("Tie", True), ("It's a tie.", True), ("They are equally good.", True), ("B", False), ("no tie: B", False)],
)
def test_ties(text, tie):
    assert says_tie(text) is tie
