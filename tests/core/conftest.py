"""What the tests of rewards share."""

import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import reward_servers as servers


@pytest.fixture
def fakes():
    """Small servers that answer as reward servers do, and ``serving`` to run one."""
    return SimpleNamespace(**{name: value for name, value in vars(servers).items() if not name.startswith("_")})


@pytest.fixture(scope="session")
def tokenizer():
    """A byte-level tokenizer that adds a BOS, with a template that writes one, too."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(["<s>", "</s>", *alphabet])}, merges=[]))
    core.add_special_tokens(["<s>", "</s>"])
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")
    fast.chat_template = "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}</s>{% endfor %}"
    return fast


@pytest.fixture
def hanging() -> Iterator[threading.Event]:
    """Give what hung calls wait for, and release them when the test is over."""
    release = threading.Event()
    yield release
    release.set()
