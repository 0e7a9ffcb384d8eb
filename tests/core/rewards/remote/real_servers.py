"""Compare RemoteRewardModel with a reward server as it really runs; the tests use imitations that answer as these do.

    python tests/core/rewards/real_servers.py make /tmp/rm        # tiny models with random weights
    vllm serve /tmp/rm/llama --runner pooling --dtype float32 --max-model-len 2048 --port 8000
    python tests/core/rewards/real_servers.py check http://127.0.0.1:8000 /tmp/rm/llama

Other servers, each in an environment of its own:

    python -m sglang.launch_server --model-path /tmp/rm/llama --is-embedding --dtype float32 --context-length 2048
    python -m openrlhf.cli.serve_rm --reward.model_name_or_path /tmp/rm/llama      # in bfloat16: --tolerance 0.2
    text-embeddings-router --model-id /tmp/rm/bert --dtype float32
    infinity_emb v2 --model-id /tmp/rm/bert --dtype float32                        # check ... --infinity

``check`` ends with 1 when something is not as it should be.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers

from tpo_core.errors import TPOError, UnsupportedError
from tpo_core.rewards import HFRewardModel, RemoteRewardModel
from tpo_core.rewards.remote.servers import Server, server_named

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "capital?"},
]
PROMPTS: list[Any] = [
    "What is the capital of France?",
    "capital?",
    CHAT,
    "naïve 日本語 \U0001f600 \u202e",
    "long " * 60,
]
RESPONSES = ["Paris", " ", "It is ünïcode 漢字 🎉", "x", "why " * 60]
LONG = "why " * 5000
_KNOBS = ("use_activation", "activation", "softmax", "raw_scores")


def make(folder: Path) -> None:
    """Save a model of a chat template and one that takes two texts, with weights that make scores differ."""
    spec = importlib.util.spec_from_file_location("tiny", Path(__file__).parents[3] / "helpers" / "tiny_rewards.py")
    assert spec is not None and spec.loader is not None
    tiny = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny)
    shape = {**tiny.SMALL, "hidden_size": 128, "intermediate_size": 128, "head_dim": 32, "num_labels": 1}
    for name, kind, template, bos, eos, pad in (
        ("llama", "LlamaForSequenceClassification", "llama3", "<|begin_of_text|>", "<|eot_id|>", None),
        ("qwen3", "Qwen3ForSequenceClassification", "qwen3", None, "<|im_end|>", "[PAD]"),
        ("bert", "BertForSequenceClassification", None, "[CLS]", "[SEP]", "[PAD]"),
    ):
        torch.manual_seed(0)
        tokenizer = tiny.build_tokenizer(template, bos=bos, eos=eos, pad=pad)
        tokenizer.sep_token, tokenizer.model_max_length = (eos, 512) if template is None else (None, 4096)
        cls = getattr(transformers, kind)
        config = cls.config_class(**{**shape, "pad_token_id": tokenizer.pad_token_id})
        model = cls(config).eval()
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.1)
        torch.nn.init.normal_((model.classifier if name == "bert" else model.score).weight, std=0.3)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


def through_infinity(url: str) -> dict[str, Any]:
    """Return settings for infinity's ``/rerank``, which is raw and takes one prompt, as an endpoint of one's own."""
    return {
        "url": url + "/rerank",
        "batch_size": 1,
        "request": lambda pairs: {
            "model": "default",
            "query": pairs[0].prompt,
            "documents": [pairs[0].response],
            "raw_scores": True,
        },
        "parse": lambda answer: [result["relevance_score"] for result in answer["results"]],
    }


def squashing(server: Server) -> Server:
    """Return the server, asked without the names that turn its squashing off."""

    def body(model: str, form: Any, items: Any) -> Any:
        return {k: v for k, v in server.body(model, form, items).items() if k not in _KNOBS}

    return dataclasses.replace(server, body=body)


def checks(args: argparse.Namespace) -> Iterator[tuple[str, Callable[[], object]]]:
    """Name each check with the function that makes it; it returns what to show, and raises when all is not well."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(args.folder)
    pairs = not tokenizer.chat_template  # two texts, no conversations
    prompts = [p for p in PROMPTS if not (pairs and p is CHAT)]
    responses = [r for p, r in zip(PROMPTS, RESPONSES, strict=True) if p in prompts]
    if args.infinity:  # which strips both texts
        prompts, responses = [p.strip() for p in prompts], [r.strip() or "x" for r in responses]
    given: dict[str, Any] = {"url": args.url, "server": args.server, "retries": 0}
    if args.infinity:
        given = {**through_infinity(args.url), "retries": 0}
    remote = RemoteRewardModel(**given, tokenizer=None if pairs else tokenizer)
    near = HFRewardModel(args.folder, dtype=args.dtype)

    def agrees(model: RemoteRewardModel, prompts: Any, responses: list[str]) -> str:
        rows = zip(model.score(prompts, responses), near.score(prompts, responses), strict=True)
        apart = max(abs(a - b) for a, b in rows)
        assert apart <= args.tolerance, f"scores differ by {apart:.3g}"
        return f"max difference {apart:.2g}"

    def long_costs_itself() -> str:
        good, bad = remote.score("capital?", ["Paris", LONG])
        assert good == good and bad != bad, f"scored {good:.4g} and {bad:.4g}"
        return str(getattr(bad, "failure", ""))[:100]

    yield "recognised, and raw", remote.selftest
    yield "agrees with the model here", lambda: agrees(remote, prompts, responses)
    yield "48 at once", lambda: agrees(remote, "capital?", [f"It is {i}." for i in range(48)])
    kind = None if args.infinity else server_named(remote.selftest()[0].server)
    if kind is not None and "messages" in kind.forms:
        yield "agrees without a tokenizer", lambda: agrees(RemoteRewardModel(**given), prompts, responses)
    if not args.infinity:  # which cuts without a word, and is asked here as an endpoint of one's own
        yield "a long answer costs only itself", long_costs_itself
    if kind is not None and kind.name in ("vllm", "vllm-pooling", "tei"):
        yield "squashed scores are an error", lambda: refused(given, tokenizer, kind)


def refused(given: dict[str, Any], tokenizer: Any, kind: Server) -> str:
    """Return the error of a server that was not told to leave its scores raw."""
    remote = RemoteRewardModel(**given, tokenizer=tokenizer)
    remote._fleet._server = squashing(kind)
    try:
        shown = remote.selftest()
    except UnsupportedError as error:
        return str(error)[:120]
    raise AssertionError(f"the self-test let squashed scores pass: {shown}")


def main() -> int:
    """Make the models, or check one server."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("make").add_argument("folder", type=Path)
    check = commands.add_parser("check")
    check.add_argument("url")
    check.add_argument("folder", help="where the model is that the server serves")
    check.add_argument("--server", default="auto")
    check.add_argument("--infinity", action="store_true")
    check.add_argument("--dtype", default="float32")
    check.add_argument("--tolerance", type=float, default=1e-4)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.command == "make":
        make(args.folder)
        return 0
    failed = 0
    for name, run in checks(args):
        try:
            print(f"ok    {name}: {run()}")
        except (AssertionError, TPOError) as error:
            failed += 1
            print(f"WRONG {name}: {error}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
