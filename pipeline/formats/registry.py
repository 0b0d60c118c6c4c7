"""The formats by name, as the settings want them."""

from collections.abc import Callable

import pyarrow as pa

from pipeline.config import InputConfig
from pipeline.formats.base import InputFormat
from pipeline.formats.csv import CsvRows
from pipeline.formats.json_array import JsonArray, JsonFile
from pipeline.formats.jsonl import JsonLines
from pipeline.formats.openai_batch import OpenAIBatch
from pipeline.formats.parquet import ParquetFormat
from pipeline.formats.plain_text import PlainText
from pipeline.schema import SAMPLING_TYPE
from rows.prompts import PromptColumns


def make_format(name: str, config: InputConfig) -> InputFormat:
    """The format of this name; each reader of files has its own."""
    sampling = {config.sampling_column: SAMPLING_TYPE} if config.sampling_column else {}
    if name == "parquet":
        return ParquetFormat()
    if name == "csv":
        json_columns = [column for column in (*_chat_columns(config), config.sampling_column) if column]
        return CsvRows(config.schema_rows, sampling, json_columns, config.csv_columns)
    if name == "text":
        return PlainText(config.schema_rows, config.prompt_column)
    if name == "openai_batch":
        return OpenAIBatch(config.schema_rows)
    names = [None if config.messages_column else config.prompt_column, config.prediction_column]
    texts = {name: pa.string() for name in names if name}
    how = (config.schema_rows, {**texts, **sampling}, _chat_columns(config))
    json_formats: dict[str, Callable[[], InputFormat]] = {
        "jsonl": lambda: JsonLines(*how),
        "json_array": lambda: JsonArray(*how),
        "json": lambda: JsonFile(JsonLines(*how), JsonArray(*how)),
    }
    return json_formats[name]()


def _chat_columns(config: InputConfig) -> list[str]:
    """The columns of chats and of their tools. A content may be a text in one message and a list in the next,
    and every tool has parameters of its own.
    """
    columns = [config.messages_column, config.tools_column] if config.messages_column else []
    return [column for column in columns if column]


def prompt_columns(config: InputConfig) -> PromptColumns:
    """The columns that mean something."""
    if config.format == "openai_batch":
        return PromptColumns(
            "prompt",
            "messages",
            "sampling",
            either=True,
            group=config.group_column,
            prediction="prediction",
        )
    return PromptColumns(
        config.prompt_column,
        config.messages_column,
        config.sampling_column,
        group=config.group_column,
        tools=config.tools_column if config.messages_column else None,
        prediction=config.prediction_column,
    )
