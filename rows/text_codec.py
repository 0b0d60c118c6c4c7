"""Text to token ids and back through the model's own tokenizer.

Loads transformers on first use only, never in the driver.
"""

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from engine.config import ModelConfig
from engine.model.hub import local_folder
from rows.chat_template import render_chat
from rows.detokenizer import added_text, context_of


class TextCodec:
    """A model's tokenizer: prompts and messages in, generated ids out.

    Every path from text to the engine uses this one.
    """

    def __init__(self, path: str, revision: str | None = None, trust_remote_code: bool = False) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        from transformers import AutoTokenizer

        folder = local_folder(path, revision)
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        except (OSError, ValueError, KeyError) as error:
            asks = not trust_remote_code and "trust_remote_code" in str(error)
            why = (
                "it needs code that comes with it; read it, then set model.trust_remote_code: true"
                if asks
                else str(error).splitlines()[0]
            )
            raise ValueError(f"the tokenizer of model {path!r} cannot be loaded: {why}") from error

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of plain prompts, with the special tokens that the model puts around a text."""
        return self.tokenizer(list(texts), truncation=False)["input_ids"] if texts else []

    def encode_rendered(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of prompts that a chat template has rendered, which holds the special tokens already."""
        if not texts:
            return []
        return self.tokenizer(list(texts), truncation=False, add_special_tokens=False)["input_ids"]

    def encode_output(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts such as an output has them, without special tokens."""
        if not texts:
            return []
        how = {"truncation": False, "add_special_tokens": False}
        # verbose would warn of a text that is longer than the context, which a corpus may hold
        return self.tokenizer(list(texts), **how, verbose=False)["input_ids"]

    def render(self, messages: Sequence[dict[str, Any]], tools: Any = None) -> str:
        """Messages and tools through the model's chat template; raises ChatTemplateError."""
        return render_chat(self.tokenizer, messages, tools)

    def context(self, prompt_ids: Sequence[int]) -> list[int]:
        """The tokens at the end of a prompt after which its output is decoded."""
        return context_of(self.tokenizer, prompt_ids)

    def decode(self, token_ids: Sequence[int], context: Sequence[int] = ()) -> str:
        """The text of generated ids, special tokens left out.

        context: of their prompt. At the start of a text some tokenizers drop a space, which belongs to the
        first word of an output.
        """
        before, whole = (
            self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
            for ids in (context, (*context, *token_ids))
        )
        return added_text(before, whole)

    def show(self, token_ids: Sequence[int]) -> str:
        """The text of a prompt's ids, special tokens shown."""
        return self.tokenizer.decode(
            list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )

    @property
    def can_stream(self) -> bool:
        """Whether text can be told token by token, which needs a tokenizer that comes as a tokenizer.json."""
        return hasattr(self.tokenizer, "backend_tokenizer")


@lru_cache(maxsize=2)
def _load(path: str, revision: str | None, trust_remote_code: bool) -> TextCodec:
    return TextCodec(path, revision, trust_remote_code)


def load_codec(model: ModelConfig) -> TextCodec:
    """The codec of a model, loaded once per process: Ray runs many prepare tasks in one."""
    return _load(model.path, model.revision, model.trust_remote_code)
