"""Which better models than the embedded one can be seen from here, and how to use them. Nothing is asked of a model."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

__all__ = ["better_models"]

_SERVERS = (
    ("Ollama", "http://127.0.0.1:11434"),
    ("llama.cpp", "http://127.0.0.1:8080"),
    ("vLLM", "http://127.0.0.1:8000"),
)
_PROVIDERS = {
    "OPENAI_API_KEY": "openai/gpt-4o-mini",
    "ANTHROPIC_API_KEY": "anthropic/claude-sonnet-4-5",
    "GEMINI_API_KEY": "gemini/gemini-2.5-flash",
    "MISTRAL_API_KEY": "mistral/mistral-small-latest",
    "GROQ_API_KEY": "groq/llama-3.3-70b-versatile",
    "OPENROUTER_API_KEY": "openrouter/qwen/qwen3-8b",
}
_WAIT = 0.5
"""Seconds a server on this machine may take to list its models."""


def better_models(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return a line for each server on this machine and each provider with a key: what it is, and what to add.

    Args:
        environ: The environment's variables.
    """
    found = list(_on_this_machine(environ))
    for variable, model in _PROVIDERS.items():
        if environ.get(variable):
            found.append(f"{variable} is set: --model {model} (each answer is paid for)")
    return found


def _on_this_machine(environ: Mapping[str, str]) -> Iterator[str]:
    import httpx

    own = environ.get("OLLAMA_HOST", "")
    ollama = own if own.startswith("http") else f"http://{own}" if own else ""
    places = [("Ollama", ollama.rstrip("/")), *_SERVERS[1:]] if ollama else _SERVERS
    with httpx.Client(timeout=_WAIT, trust_env=False) as client:
        for name, place in places:
            try:
                models = client.get(f"{place}/v1/models").json()["data"]
                first = str(models[0]["id"])
            except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError, IndexError):
                continue
            yield f"a server at {place} (as {name}'s) has {first}: --api-base {place}/v1 --model {first}"
