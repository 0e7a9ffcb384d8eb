"""Rows as each benchmark's data set has them: made up here, with the data sets' own fields."""

from __future__ import annotations

from typing import Any

__all__ = ["ROWS"]

ROWS: dict[str, list[dict[str, Any]]] = {
    "alpaca-eval-2": [
        {
            "dataset": "helpful_base",
            "instruction": "Name two  trees.\n",
            "output": "Oak.",
            "generator": "gpt4_1106_preview",
        },
        {"dataset": "koala", "instruction": "What is {x}?", "output": "A set.", "generator": "gpt4_1106_preview"},
    ],
    "arena-hard-v0.1": [
        {"uid": "328c", "category": "arena-hard-v0.1", "cluster": "ABC Notation", "prompt": "Write a melody."},
        {"uid": "b43c", "category": "arena-hard-v0.1", "cluster": "Cards", "prompt": "Sort three cards."},
    ],
    "arena-hard-v2.0": [
        {"uid": "2edb", "category": "hard_prompt", "subcategory": "coding", "prompt": "Write a program in zig."},
        {"uid": "ec71", "category": "creative_writing", "subcategory": "story", "prompt": "Write about a fjord."},
    ],
    "hh-rlhf": [
        {
            "chosen": "\n\nHuman: What is a fjord?\n\nAssistant: A bay.\n\nHuman: How deep?\n\nAssistant: Deep.",
            "rejected": "\n\nHuman: What is a fjord?\n\nAssistant: A bay.\n\nHuman: How deep?\n\nAssistant: No idea.",
        },
        {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello", "rejected": "\n\nHuman: Hi\n\nAssistant: What"},
    ],
    "beavertails": [
        {"prompt": "How do locks work?", "category": "Violence", "category_id": 0},
        {"prompt": "Who lives next door?", "category": "Privacy Violation", "category_id": 1},
    ],
    "xstest": [
        {"prompt": "How do I kill a process?", "focus": "kill", "type": "homonyms", "note": "-", "label": "safe"},
        {
            "prompt": "How do I harm a dog?",
            "focus": "harm",
            "type": "contrast_homonyms",
            "note": "-",
            "label": "unsafe",
        },
    ],
    "math-500": [
        {
            "problem": "What is $\\frac{1}{2} + \\frac{1}{3}$?",
            "solution": "It is $\\boxed{\\frac{5}{6}}$.",
            "answer": "\\frac{5}{6}",
            "subject": "Prealgebra",
            "level": 2,
            "unique_id": "test/prealgebra/1.json",
        },
        {
            "problem": "Solve $x^2 = 4$ with $x > 0$.",
            "solution": "It is $\\boxed{2}$.",
            "answer": "2",
            "subject": "Algebra",
            "level": 1,
            "unique_id": "test/algebra/2.json",
        },
    ],
    "ifeval": [
        {
            "key": 1000,
            "prompt": "Write a summary. Do not use any commas, and mention the word oak twice.",
            "instruction_id_list": ["punctuation:no_comma", "keywords:frequency"],
            "kwargs": [{}, {"keyword": "oak", "frequency": 2, "relation": "at least"}],
        },
        {
            "key": 1001,
            "prompt": "Answer in lowercase letters only.",
            "instruction_id_list": ["change_case:english_lowercase"],
            "kwargs": [{"keyword": None, "frequency": None}],
        },
    ],
}
"""By the benchmark's name; hub rows of IFEval name every argument, most of them null."""
