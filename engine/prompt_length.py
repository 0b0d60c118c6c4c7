"""The one rule for how long a prompt may be: the engine, the batch job and the endpoint all ask here.

Standard library only: a prepare task checks prompts without torch.
"""


class PromptLengthError(ValueError):
    """A prompt is empty, or leaves no room for an answer."""


def check_prompt_length(num_tokens: int, max_context: int | None) -> None:
    """Raises PromptLengthError for a prompt that cannot run. max_context: None = unknown."""
    if num_tokens < 1:
        raise PromptLengthError("the prompt is empty; give it at least one token")
    if max_context is not None and num_tokens >= max_context:
        limit = f"the context is {max_context} and needs room for one more"
        remedy = "shorten it, or raise model.max_context if the model allows"
        raise PromptLengthError(f"the prompt has {num_tokens} tokens; {limit}: {remedy}")
