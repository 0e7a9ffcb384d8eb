"""Run the official tools of AlpacaEval and Arena-Hard over files of ``tpo bench``, and bring their figures back.

    python -m venv /tmp/tools && /tmp/tools/bin/pip install alpaca-eval boto3 shortuuid torch
    git clone https://github.com/lmarena/arena-hard-auto /tmp/arena
    python tests/core/studies/benchmarks/official_tools.py alpaca-eval --python /tmp/tools/bin/python
    python tests/core/studies/benchmarks/official_tools.py arena-hard --python /tmp/tools/bin/python --code /tmp/arena

The policy and the tools' judge are scripted servers on this machine; the tools' own code reads, asks, parses, counts
and prints. AlpacaEval's length control also needs a file from the hub, in whose place made-up difficulties stand. It
ends with 1 when something is not as it should be.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[4]
sys.path[:0] = [str(ROOT / "tests" / "helpers"), str(ROOT / "shared"), str(ROOT)]

from loopback import LoopbackServer  # noqa: E402
from tpo_core.cli.main import main as tpo  # noqa: E402

QUERIES = 24


def answer(request: dict[str, Any], number: int) -> str:
    """Answer as a policy, some answers longer than others."""
    text = "It depends. " * (1 + number % 7)
    return f"<IMPROVED_VARIABLE>{text}</IMPROVED_VARIABLE>" if "IMPROVED_VARIABLE" in str(request) else text


def bench(name: str, rows: list[dict[str, Any]], plans: str) -> None:
    """Answer a benchmark."""
    Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with LoopbackServer(answer) as policy:
        search = ["--plans", plans, "--width", "2", "--depth", "1", "--reward", "mine.py:length", "--quiet"]
        code = tpo(["bench", name, "-o", "out", "--file", f"{name}.jsonl", "--api-base", policy.url, *search])
    assert code == 0, code


ALPACA = """
import sys
import numpy as np, pandas as pd
import alpaca_eval
from alpaca_eval.metrics import glm_winrate

draw, n = np.random.default_rng(0), int(sys.argv[4])
gamed = pd.DataFrame({
    "model": np.repeat(["a", "b"], n), "index": np.tile(range(n), 2), "preference": draw.random(2 * n),
    "std_delta_len": draw.normal(size=2 * n), "instruction_difficulty": np.tile(draw.normal(size=n), 2),
    "not_gamed_baseline": False,
})
gamed.to_csv("df_gamed.csv", index=False)
glm_winrate.hf_hub_download = lambda **asked: "df_gamed.csv"
alpaca_eval.evaluate(
    model_outputs=sys.argv[1], reference_outputs=sys.argv[2], annotators_config=sys.argv[3], output_path="results",
    precomputed_leaderboard=None, leaderboard_mode_to_print=None, caching_path=None,
)
"""
"""What the command alpaca_eval does, with the hub's file made up."""


def verdict(request: dict[str, Any], number: int) -> dict[str, Any]:
    """Prefer the longer answer, as AlpacaEval's weighted judge says it: by the logprobs of m and M."""
    text = str(request["messages"][-1]["content"])
    first, second = (part.split('"output": ')[1].split("\n    }")[0] for part in text.split("model_identifier")[1:3])
    likely = 0.9 if len(first) > len(second) else 0.1 if len(first) < len(second) else 0.5
    tokens = {"m": likely, "M": 1 - likely}
    best = max(tokens, key=lambda token: tokens[token])
    return {"content": best, "logprobs": [{token: float(_log(p)) for token, p in tokens.items()}]}


def _log(p: float) -> float:
    from math import log

    return log(p)


def alpaca_eval(python: str) -> None:
    """Have alpaca_eval judge answers against a reference and import its leaderboard."""
    rows = [
        {
            "dataset": "made",
            "instruction": f"What is {n} + {n}?\n",
            "output": "It depends. " * (n % 5),
            "generator": "g",
        }
        for n in range(1, QUERIES + 1)
    ]
    bench("alpaca-eval-2", rows, "single,paper")
    Path("reference.json").write_text(json.dumps(rows))
    with LoopbackServer(verdict) as judge:
        env = {**os.environ, "OPENAI_API_BASE": judge.url, "OPENAI_API_KEY": "none", "HF_HUB_OFFLINE": "1"}
        env.pop("PYTHONPATH", None)
        for plan in ("single", "paper"):
            outputs = f"out/official/alpaca_eval/smol--{plan}.json"
            arguments = [outputs, "reference.json", "weighted_alpaca_eval_gpt4_turbo", str(QUERIES)]
            subprocess.run([python, "-c", ALPACA, *arguments], check=True, env=env)
            board = "results/weighted_alpaca_eval_gpt4_turbo/leaderboard.csv"
            print(Path(board).read_text())
            assert tpo(["bench", "-o", "out", "--import", board]) == 0
        assert len(judge.requests) >= QUERIES, len(judge.requests)  # equal answers are ties without being asked


def games(request: dict[str, Any], number: int) -> str:
    """Prefer the longer answer in Arena-Hard's words."""
    text = str(request["messages"][-1]["content"])
    lengths = [len(text.split(f"Assistant {name}'s Answer|>")[1]) for name in ("A", "B")]
    return f"My final verdict is: [[{'A>B' if lengths[0] > lengths[1] else 'B>A'}]]"


BASELINES = {
    "arena-hard-v0.1": ["gpt-4-0314"],
    "arena-hard-v2.0": ["o3-mini-2025-01-31", "gemini-2.0-flash-001"],
}


def arena_hard(python: str, checkout: Path, versions: list[str]) -> None:
    """Have Arena-Hard's own scripts judge answers and print win rates, and import what they print."""
    Path("arena").mkdir()
    for code in ("gen_judgment.py", "show_result.py", "utils", "config"):
        source = checkout / code
        (shutil.copytree if source.is_dir() else shutil.copy)(source, Path("arena") / code)
    for name in versions:
        with (checkout / "data" / name / "question.jsonl").open(encoding="utf-8") as file:
            asked = [json.loads(line) for line in file]
        rows = asked[: QUERIES // 2] + asked[-QUERIES // 2 :]
        bench(name, rows, "paper")
        home = Path("arena/data") / name
        shutil.copytree(Path("out/official/data") / name, home)
        (home / "question.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for baseline in BASELINES[name]:
            lines = [_baseline(row, baseline) for row in rows]
            (home / "model_answer" / f"{baseline}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
        with LoopbackServer(games) as judge:
            _judged(python, name, judge.url)
        for category in dict.fromkeys(row["category"] for row in rows):
            show = [python, "show_result.py", "-b", name, "-j", "scripted", "-c", category]
            printed = subprocess.run(show, check=True, cwd="arena", capture_output=True, text=True).stdout
            print(printed)
            Path("printed.txt").write_text(printed)
            assert tpo(["bench", "-o", "out", "--import", "printed.txt"]) == 0


def _baseline(row: dict[str, Any], model: str) -> dict[str, Any]:
    answer = {"role": "assistant", "content": {"answer": "It depends. " * (len(row["prompt"]) % 7)}}
    return {"uid": row["uid"], "model": model, "messages": [{"role": "user", "content": row["prompt"]}, answer]}


def _judged(python: str, name: str, url: str) -> None:
    """Run the judging script with a scripted judge in its settings."""
    settings = (Path("arena/config") / f"{name}.yaml").read_text()
    head = settings[: settings.index("model_list:")]
    lines = ["judge_model: scripted" if line.startswith("judge_model:") else line for line in head.splitlines()]
    Path("arena/ours.yaml").write_text("\n".join(lines) + "\nmodel_list:\n  - smol--paper\n")
    endpoint = {
        "model": "smol",
        "endpoints": [{"api_base": url, "api_key": "none"}],
        "api_type": "openai",
        "parallel": 4,
    }
    Path("arena/endpoints.yaml").write_text(json.dumps({"scripted": endpoint | {"max_tokens": 64, "temperature": 0.0}}))
    judge = [python, "gen_judgment.py", "--setting-file", "ours.yaml", "--endpoint-file", "endpoints.yaml"]
    subprocess.run(judge, check=True, cwd="arena")


def main() -> int:
    """Run one tool."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tool", choices=("alpaca-eval", "arena-hard"))
    parser.add_argument("--code", type=Path, metavar="FOLDER", help="a checkout of arena-hard-auto")
    parser.add_argument("--version", choices=tuple(BASELINES), help="of Arena-Hard; both by default")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has the tool's packages")
    args = parser.parse_args()
    checkout = None if args.code is None else args.code.resolve()
    python = os.path.abspath(args.python)
    with TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("mine.py").write_text("def length(prompt, response):\n    return float(len(response))\n")
        if args.tool == "alpaca-eval":
            alpaca_eval(python)
        elif checkout is None:
            parser.error("arena-hard needs --code, a checkout of arena-hard-auto")
        else:
            arena_hard(python, checkout, [args.version] if args.version else list(BASELINES))
    return 0


if __name__ == "__main__":
    sys.exit(main())
