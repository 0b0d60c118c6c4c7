"""The engine inside an actor's process: its start, and the end of the process when the engine fails.

An engine fault must not be raised: Ray would try the call again on the same broken actor. When the process
ends, the actor starts afresh. Faults are put on record in the run folder, so that a job whose every start
ends in one stops.
"""

import os
import sys
import traceback
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pyarrow import fs

from drafting.config import SpeculationConfig
from engine.config import ModelConfig
from rows.storage import RUN_FOLDER, locate, read_file, write_file

if TYPE_CHECKING:
    from engine.loop import EngineLoop


def start_loop(
    model: ModelConfig, speculation: SpeculationConfig, tables_folder: str | None = None
) -> "EngineLoop":
    """Loads the model and starts the thread that decodes."""
    from engine.build import build_engine
    from engine.loop import EngineLoop

    return EngineLoop(build_engine(model, speculation, Path(tables_folder) if tables_folder else None))


def end_process(fault: BaseException, output: str | None = None) -> NoReturn:
    """Puts the fault on record in the output's run folder, when there is an output, and ends this process."""
    report = "".join(traceback.format_exception(fault))
    print(report, file=sys.stderr, flush=True)
    if output is not None:
        write_file(output, f"{RUN_FOLDER}/fault-{uuid.uuid4().hex}.txt", report.encode())
    os._exit(1)


def list_faults(output: str) -> list[str]:
    """Names, below the output, of the faults on record, oldest first."""
    filesystem, root = locate(output)
    infos = filesystem.get_file_info(fs.FileSelector(f"{root}/{RUN_FOLDER}", allow_not_found=True))
    faults = sorted(
        (info for info in infos if info.base_name.startswith("fault-")), key=lambda info: info.mtime_ns
    )
    return [f"{RUN_FOLDER}/{info.base_name}" for info in faults]


def check_faults(output: str, max_faults: int) -> None:
    """Raises ValueError when the engine has failed so often that one more start would only meet the next
    fault.
    """
    faults = list_faults(output)
    if len(faults) >= max_faults:
        lines = (read_file(output, faults[-1]) or b"").decode().strip().splitlines()
        last = lines[-1] if lines else faults[-1]
        raise ValueError(
            f"the engine failed {len(faults)} times (pool.max_engine_faults); the last time: {last}"
        )
