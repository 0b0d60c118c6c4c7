"""The engine inside an actor's process: its start, and the end of the process when the engine fails.

An engine fault must not be raised: Ray would try the call again on the same broken actor. When the process
ends, the actor starts afresh. Faults are put on record in the run folder, so that a job whose every start
ends in one stops.
"""

import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from drafting.config import SpeculationConfig
from engine.config import ModelConfig
from rows.corpus import read_corpus
from rows.output_folder import OutputFolder
from rows.text_codec import load_codec

if TYPE_CHECKING:
    from engine.loop import EngineLoop


def start_loop(
    model: ModelConfig, speculation: SpeculationConfig, tables_folder: str | None = None
) -> "EngineLoop":
    """Loads the model, and the reference corpus where there is one, and starts the thread that decodes."""
    from engine.build import build_engine
    from engine.loop import EngineLoop

    corpus = read_corpus(speculation, lambda texts: load_codec(model).encode_output(texts))
    tables = Path(tables_folder) if tables_folder else None
    return EngineLoop(build_engine(model, speculation, tables, corpus))


def end_process(fault: BaseException, output: OutputFolder | None = None) -> NoReturn:
    """Puts the fault on record in the output's run folder, when there is an output, and ends this process."""
    report = "".join(traceback.format_exception(fault))
    print(report, file=sys.stderr, flush=True)
    if output is not None:
        output.add_fault(report)
    os._exit(1)
