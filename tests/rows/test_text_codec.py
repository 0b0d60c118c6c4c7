"""The text of generated ids: the same in a row's columns, in each of its samples and as the endpoint gives
it, with the space of its first word.
"""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from transformers import PreTrainedTokenizer

from engine.config import GenerationConfig
from engine.request import Completion, Request, SequenceStats
from rows.output_columns import OutputColumns
from rows.prompts import Prompt
from rows.samples import RowGenerator
from tests.rows.test_detokenizer import BYTES, FALLBACK
from tests.serving.fakes import ByteCodec, ScriptedBackend, client_for


class ScriptedLoop:
    """Gives the same tokens to every request, up to the one at which its stop check ends it."""

    def __init__(self, token_ids: Sequence[int]) -> None:
        self._token_ids = tuple(token_ids)

    async def complete(self, request: Request) -> Completion:
        check = request.make_stop_check() if request.make_stop_check else lambda _: False
        ends = [count for count, token_id in enumerate(self._token_ids, 1) if check(token_id)]
        end = ends[0] if ends else len(self._token_ids)
        stats = SequenceStats(num_prompt_tokens=len(request.prompt_ids), num_generated_tokens=end)
        return Completion(request.id, self._token_ids[:end], "stop" if ends else "length", stats)


async def row(codec: ByteCodec, prompt: list[int], output: list[int], **settings: Any) -> dict[str, Any]:
    """The columns of a row whose engine gives this output."""
    generation = GenerationConfig(max_tokens=len(output), **settings)
    columns = OutputColumns.of(generation, "", False, False, False)
    found = await RowGenerator(ScriptedLoop(output), generation, columns, codec).generate(
        "7", Prompt(prompt), 0
    )
    return columns.table([found], codec.decode).to_pylist()[0]


async def served(codec: ByteCodec, prompt: list[int], output: list[int], stream: bool) -> str:
    """The text of a completion whose engine gives this output, a token at a time."""
    backend = ScriptedBackend([[token_id] for token_id in output], codec=codec)
    body = {"model": "tiny", "prompt": prompt, "stream": stream}
    reply = await client_for(backend).post("/v1/completions", json=body)
    if not stream:
        return reply.json()["choices"][0]["text"]
    chunks = [line.removeprefix("data: ") for line in reply.text.splitlines() if line.startswith("data: {")]
    return "".join(json.loads(chunk)["choices"][0]["text"] for chunk in chunks)


@pytest.mark.parametrize(
    ("codec", "prompt", "output", "text"),
    [
        (FALLBACK, [257], [256, 257], " ab"),
        (FALLBACK, [257, 260, 260], [256, 257], " ab"),
        (FALLBACK, [260], [256, 257], "ab"),
        (FALLBACK, [257, *"你".encode()], [256, *"你".encode()], " a你"),
        (FALLBACK, [257, 0xE4], [0xBD, 0xA0, 256], "你 a"),
        (BYTES, [0x62, 0xE4], [0xBD, 0xA0, 0x20, 0x61], "你 a"),
    ],
    ids=["word", "unknown ids", "no text before", "bytes", "half a character", "half of one, byte-level"],
)
async def test_rows_samples_streams_and_whole_replies_have_one_text(
    codec: ByteCodec, prompt: list[int], output: list[int], text: str
) -> None:
    """Token 256 is ' a', 257 is 'b', 260 has no text; the decoder drops a space at the start of a text."""
    found = await row(codec, prompt, output, n=2, temperature=1.0)
    assert found["generated_text"] == text
    assert [sample["text"] for sample in found["samples"]] == [text, text]
    assert await served(codec, prompt, output, stream=False) == text
    assert await served(codec, prompt, output, stream=True) == text


async def test_a_row_ends_at_a_stop_string_that_begins_with_the_space_of_its_first_word() -> None:
    for include_stop, text in ((True, " a"), (False, "")):
        found = await row(FALLBACK, [257], [256, 257], stop=[" a"], include_stop=include_stop)
        assert (found["generated_text"], found["finish_reason"]) == (text, "stop")
        assert found["num_generated_tokens"] == 1


async def test_a_stop_string_that_begins_in_the_prompt_does_not_end_a_row() -> None:
    found = await row(FALLBACK, [257], [256, 257], stop=["b a"])
    assert (found["generated_text"], found["finish_reason"]) == (" ab", "length")


class SlowTokenizer(PreTrainedTokenizer):
    """A tokenizer without tokenizer.json that drops the space at the start of a text."""

    def __init__(self, **settings: Any) -> None:
        self._tokens = ["<s>", "▁Once", "▁Lily", ".", "▁."]
        super().__init__(bos_token="<s>", **settings)

    @property
    def vocab_size(self) -> int:
        return len(self._tokens)

    def get_vocab(self) -> dict[str, int]:
        return {token: token_id for token_id, token in enumerate(self._tokens)}

    def _convert_id_to_token(self, index: int) -> str:
        return self._tokens[index]

    def _convert_token_to_id(self, token: str) -> int:
        return self._tokens.index(token)

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return "".join(tokens).replace("▁", " ").removeprefix(" ")


def test_a_tokenizer_without_tokenizer_json_keeps_the_first_space_too() -> None:
    codec = ByteCodec()
    codec.tokenizer = SlowTokenizer(clean_up_tokenization_spaces=True)
    assert not codec.can_stream
    assert codec.decode([2, 3], codec.context([0, 1])) == " Lily."
    assert codec.decode([2, 4], codec.context([0, 1])) == " Lily .", "spaces are text: none are cleaned up"
    assert codec.decode([2, 3], codec.context([0])) == "Lily.", "the text begins here"
