"""A reward as TRL's reward function: called as it calls them, and by its own trainer."""

import inspect
import math

import pytest
from brevity import Brevity


def test_as_a_trl_reward_function():
    reward = Brevity()
    assert reward.__name__ == "brevity" and not inspect.iscoroutinefunction(reward)
    chats = [[{"role": "user", "content": "Why?"}]] * 2
    turns = [[{"role": "assistant", "content": text}] for text in ("ab", "abc")]
    assert reward(prompts=chats, completions=turns, completion_ids=[[1], [2]], trainer_state=None) == [-2.0, -3.0]
    assert reward(prompts=["q", "q"], completions=["ab", "abc"]) == [-2.0, -3.0]
    assert math.isnan(reward(prompts=["q"], completions=[[{"role": "assistant", "content": None}]])[0])
    assert reward(prompts=[], completions=[]) == []


@pytest.mark.parametrize("conversational", [False, True])
def test_in_trls_grpo_trainer(conversational, tmp_path):
    import torch
    import trl
    from datasets import Dataset
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.set_num_threads(1)
    letters = Tokenizer(models.WordLevel({c: i for i, c in enumerate(["~", "$", *"abcdWhyuser?: \n"])}, unk_token="~"))
    letters.pre_tokenizer, letters.decoder = pre_tokenizers.Split("", "isolated"), decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=letters, pad_token="~", eos_token="$", padding_side="left")
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    prompt = [{"role": "user", "content": "Why?"}] if conversational else "Why?"
    reward = Brevity()
    trainer = trl.GRPOTrainer(
        model=LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, **shape)),
        reward_funcs=[reward, reward.as_metric(mean=-4.0, name="mapped")],
        processing_class=tokenizer,
        train_dataset=Dataset.from_list([{"prompt": prompt, "gold": "a column of the user's"}] * 4),
        args=trl.GRPOConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=8,
            max_steps=1,
            logging_steps=1,
            report_to=[],
            use_cpu=True,
            save_strategy="no",
            disable_tqdm=True,
        ),
    )
    trainer.train()
    assert {"rewards/brevity/mean", "rewards/mapped/mean"} <= set(trainer.state.log_history[0])
    assert len(reward.seen) >= 4 and all(pair.prompt == prompt for pair in reward.seen)
