"""jobs/serve.py: the official client against a running server."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pyarrow.parquet as pq
import pytest

from drafting.config import SpeculationConfig
from engine.config import GenerationConfig, ModelConfig
from rows.prompts import Prompt, make_request
from tests.jobs.served import ROOT, Server
from tests.serving.fakes import EOS, ByteCodec

MAX_TOKENS = 40
PROMPTS = ["def add(a, b):", "x", "a b a b a b", "é你😀", "class Tree:\n    pass\n"]


def save_tiny_model(folder: Path) -> Path:
    """A random Llama over bytes with a chat template; float64, so that texts do not depend on
    what else runs.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(3)
    shape = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    config = LlamaConfig(
        vocab_size=257,
        max_position_embeddings=32768,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=EOS,
        pad_token_id=EOS,
        **shape,
    )
    LlamaForCausalLM(config).double().save_pretrained(folder)
    ByteCodec().tokenizer.save_pretrained(folder)
    return folder


ENDLESS = {
    "model": "tiny",
    "prompt": "x",
    "max_tokens": 30000,
    "temperature": 2,
    "extra_body": {"ignore_eos": True},
}
LIMITS = ("--serve.max_ongoing_requests", "32", "--serve.max_queued_requests", "32")
MODEL_FLAGS = (
    "--model.dtype",
    "float64",
    "--model.max_running",
    "2",
    "--speculation.mode",
    "mixed",
    "--generation.max_tokens",
    str(MAX_TOKENS),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    """A server of the tiny model; at its end it must leave no process."""
    running = Server("--model", str(folder), *MODEL_FLAGS, *LIMITS, "--serve.model_name", "tiny")
    try:
        running.wait_until_ready()
        yield running
    finally:
        status = running.stop()
    assert status == 0


def engine_texts(folder: Path, prompts: list[str], **sampling: Any) -> list[str]:
    """What Engine.generate, without speculation or Ray, makes of the prompts."""
    from engine.build import build_engine

    codec = ByteCodec()
    engine = build_engine(ModelConfig(path=str(folder), dtype="float64"), SpeculationConfig(mode="off"))
    prompts_ids = [Prompt(ids, sampling) for ids in codec.encode(prompts)]
    generation = GenerationConfig(max_tokens=MAX_TOKENS)
    requests = [make_request(str(index), prompt, generation, 0) for index, prompt in enumerate(prompts_ids)]
    return [codec.decode(completion.token_ids) for completion in engine.generate(requests)]


@pytest.fixture
async def client(server: Server) -> AsyncIterator[openai.AsyncOpenAI]:
    """The official client for asyncio, closed at the end of a test."""
    async with server.async_client() as client:
        yield client


@pytest.mark.ray
class TestServer:
    """The official client against one server of the tiny model."""

    @pytest.mark.parametrize(
        "sampling",
        [{"temperature": 0}, {"temperature": 1, "top_p": 0.9, "seed": 11}],
        ids=["greedy", "sampled"],
    )
    def test_streamed_unstreamed_and_the_bare_engine_give_the_same_text(
        self, server: Server, folder: Path, sampling: dict[str, Any]
    ) -> None:
        expected = engine_texts(folder, PROMPTS, **sampling)
        client = server.client()
        whole = client.completions.create(model="tiny", prompt=PROMPTS, **sampling)
        assert [choice.text for choice in whole.choices] == expected
        streamed = [""] * len(PROMPTS)
        for chunk in client.completions.create(model="tiny", prompt=PROMPTS, stream=True, **sampling):
            streamed[chunk.choices[0].index] += chunk.choices[0].text
        assert streamed == expected
        assert len(set(expected)) > 1

    def test_the_batch_job_gives_the_served_texts(self, server: Server, folder: Path, tmp_path: Path) -> None:
        settings: list[Any] = [{"temperature": 0.0, "seed": 0}, {"temperature": 1.0, "seed": 11}]
        rows = [{"prompt": prompt, "sampling": sampling} for prompt in PROMPTS for sampling in settings]
        (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        places = (
            "--input",
            str(tmp_path / "in.jsonl"),
            "--output",
            str(tmp_path / "out"),
            "--model",
            str(folder),
        )
        server.run_job(*places, *MODEL_FLAGS)
        texts = pq.read_table(tmp_path / "out").column("generated_text").to_pylist()
        client = server.client()
        replies = [
            client.completions.create(model="tiny", prompt=row["prompt"], **row["sampling"]) for row in rows
        ]
        assert [reply.choices[0].text for reply in replies] == texts

    def test_a_chat_streamed_is_the_chat_whole_and_usage_counts_its_tokens(
        self, server: Server, folder: Path
    ) -> None:
        client = server.client()
        messages: Any = [{"role": "system", "content": "x"}, {"role": "user", "content": "hi"}]
        whole = client.chat.completions.create(model="tiny", messages=messages, max_tokens=12)
        assert whole.usage and whole.usage.prompt_tokens == len("<system>x<user>hi<assistant>")
        stream = client.chat.completions.create(
            model="tiny",
            messages=messages,
            max_tokens=12,
            stream=True,
            stream_options={"include_usage": True},
        )
        *chunks, last = stream
        assert (
            "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            == whole.choices[0].message.content
        )
        assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
        assert last.usage == whole.usage
        assert (
            whole.choices[0].message.content
            == engine_texts(folder, ["<system>x<user>hi<assistant>"], max_tokens=12)[0]
        )

    async def test_many_clients_at_once_get_what_each_gets_alone(
        self, client: openai.AsyncOpenAI, folder: Path
    ) -> None:
        expected = engine_texts(folder, PROMPTS)
        calls = [client.completions.create(model="tiny", prompt=prompt) for prompt in PROMPTS * 4]
        assert [reply.choices[0].text for reply in await asyncio.gather(*calls)] == expected * 4

    def test_the_clients_errors_are_the_ones_that_openai_gives(self, server: Server) -> None:
        client = server.client()
        assert [model.id for model in client.models.list()] == ["tiny"]
        with pytest.raises(openai.NotFoundError) as missing:
            client.completions.create(model="gpt-4", prompt="a")
        assert missing.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError) as long:
            client.completions.create(model="tiny", prompt="a" * 32768, stream=True)
        assert long.value.code == "context_length_exceeded"
        with pytest.raises(openai.BadRequestError) as outside:
            client.completions.create(model="tiny", prompt=[5, 257], stream=True)
        assert outside.value.message.endswith(
            "the prompt holds token id 257; ids of this model go from 0 to 256"
        )
        with pytest.raises(openai.BadRequestError) as unsupported:
            client.chat.completions.create(
                model="tiny", messages=[{"role": "user", "content": "a"}], stop=["b"]
            )
        assert unsupported.value.param == "stop"
        assert httpx.get(f"{server.url}/v1/nothing").json()["error"]["type"] == "invalid_request_error"

    @pytest.mark.parametrize("stream", [True, False], ids=["streamed", "unstreamed"])
    async def test_clients_that_leave_free_their_places_in_the_engine(
        self, client: openai.AsyncOpenAI, stream: bool
    ) -> None:
        """Two endless requests hold both places: a third one gets its turn only once they are gone."""
        holders = [asyncio.create_task(read_all(client, ENDLESS | {"stream": stream})) for _ in range(2)]
        await asyncio.sleep(1)
        with pytest.raises(openai.APITimeoutError):
            await client.with_options(timeout=2).completions.create(model="tiny", prompt="y", max_tokens=1)
        assert not any(holder.done() for holder in holders)
        for holder in holders:
            holder.cancel()
        await asyncio.gather(*holders, return_exceptions=True)
        started = time.monotonic()
        await client.with_options(timeout=10).completions.create(model="tiny", prompt="y", max_tokens=1)
        assert time.monotonic() - started < 5

    async def test_an_overload_is_a_503_that_says_when_to_come_back(self, client: openai.AsyncOpenAI) -> None:
        """32 requests at the replica, 32 waiting for it: of 100 some must be told to come back."""
        calls = [asyncio.create_task(read_all(client, ENDLESS | {"stream": True})) for _ in range(100)]
        turned_away, _ = await asyncio.wait(calls, timeout=25, return_when=asyncio.FIRST_COMPLETED)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        errors = [call.exception() for call in turned_away]
        assert errors
        for error in errors:
            assert isinstance(error, openai.InternalServerError)
            assert (error.status_code, error.response.headers["retry-after"]) == (503, "5")
        patient = client.with_options(max_retries=5)  # waits as long as it was told to
        assert (await patient.completions.create(model="tiny", prompt="y", max_tokens=1)).choices

    def test_health(self, server: Server) -> None:
        assert httpx.get(f"{server.url}/health").json() == {"status": "ok"}


async def read_all(client: openai.AsyncOpenAI, request: dict[str, Any]) -> None:
    """Follows a request to its end, streamed or not."""
    reply = await client.completions.create(**request)
    if request["stream"]:
        async for _ in reply:
            pass


@pytest.mark.ray
def test_the_demo_is_served_and_stopped_by_its_configuration() -> None:
    config = ROOT / "jobs" / "configs" / "serve-demo.yaml"
    server = Server("--config", str(config), "--model", str(ROOT / "demo" / "model"))
    try:
        server.wait_until_ready()
        client = server.client()
        prompt = "def leapdays(y1, y2):\n"
        whole = client.completions.create(model="demo", prompt=prompt, max_tokens=24)
        chunks = client.completions.create(model="demo", prompt=prompt, max_tokens=24, stream=True)
        assert whole.choices[0].text and whole.choices[0].text == "".join(
            chunk.choices[0].text for chunk in chunks
        )
    finally:
        status = server.stop()
    assert status == 0


@pytest.mark.ray
def test_a_model_that_does_not_start_ends_the_server_with_its_reason(folder: Path) -> None:
    server = Server("--model", str(folder), "--model.cache_tokens", "64")
    try:
        assert server.process.wait(120) == 1
        assert (
            "failed: the model did not start: ValueError: the K/V cache holds 64 tokens"
            in server.log.read_text()
        )
    finally:
        server.stop()
