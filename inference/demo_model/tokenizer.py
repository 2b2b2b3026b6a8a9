"""A tokenizer of a few hundred words: one token per English word or Chinese character."""

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from inference.demo_model.captions import words

PAD, UNKNOWN, USER, ASSISTANT = "<pad>", "<unk>", "<|user|>", "<|assistant|>"

_CHAT_TEMPLATE = (
    "{% for message in messages %}" + USER + "{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}" + ASSISTANT + "{% endif %}"
)


def new_tokenizer() -> PreTrainedTokenizerFast:
    """Make a tokenizer that lower-cases, folds full-width forms, and splits at spaces, punctuation and Chinese."""
    special = [PAD, UNKNOWN, USER, ASSISTANT]
    vocabulary = {word: index for index, word in enumerate([*special, *words()])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.BertNormalizer(lowercase=True)])
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        additional_special_tokens=[USER, ASSISTANT],
        padding_side="right",
        model_max_length=512,
        chat_template=_CHAT_TEMPLATE,
    )


def chat(prompt: str) -> str:
    """Render the prompt as the pipeline's chat template does."""
    return f"{USER}{prompt}{ASSISTANT}"
