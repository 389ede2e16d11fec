"""A published folder, as Hugging Face transformers reads it; steps 4 to 6 ask nothing of the training code."""

from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

END_OF_TEXT = 0  # the tokenizer's only special token


def load(folder):
    """The model in f32, and its tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(folder).float().eval()
    model.generation_config.pad_token_id = END_OF_TEXT
    return model, Tokenizer.from_file(str(folder / "tokenizer.json"))


def prompt_ids(tokenizer, text):
    """The ids of a prompt, with what the family puts before one."""
    return tokenizer.encode(text).ids
