"""Computes a model's draft tables before a job and says where they lie.

    python jobs/build_tables.py --model DIR [--tables DIR] [--tables.num_successors 25]

Jobs do this by themselves; this job serves to look at the tables, to replay with them, or to fill a shared
folder.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from drafting.config import SOURCES
from engine.config import ModelConfig
from engine.settings import at_least, check, setting
from jobs.config import parse


@dataclass(frozen=True)
class TablesConfig:
    """Where the tables go, and how large they are."""

    folder: str | None = None
    """A folder for the tables of all models, one folder each; null is this user's cache."""
    num_successors: int = setting(25, "at least 1", at_least(1))
    """Successors kept of each token."""
    prefix_ids: list[int] = field(default_factory=list)
    """Tokens to put before each one, such as BOS, to compare."""

    def __post_init__(self) -> None:
        check(TablesConfig, vars(self), "tables.")


@dataclass(frozen=True)
class BuildTablesConfig:
    """Computes a model's draft tables."""

    model: ModelConfig
    tables: TablesConfig = field(default_factory=TablesConfig)


def main(argv: list[str]) -> int:
    """Runs the job; bad input ends it with one line and exit code 2."""
    try:
        config = parse(BuildTablesConfig, argv)
        if not config.model.path:
            raise ValueError("model.path is empty; name a folder or a hub name (--model)")
        for line in build(config):
            print(line)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def build(config: BuildTablesConfig) -> list[str]:
    """Builds the tables that are missing; one line for each table, with its place and shape."""
    # Here and not at the top: importing a job must stay cheap, and these bring torch.
    from engine.draft_tables import default_cache, load_or_build_tables
    from engine.model.fingerprint import model_fingerprint
    from engine.model.loading import load_model

    cache = Path(config.tables.folder) if config.tables.folder else default_cache()
    model = load_model(config.model).model
    fingerprint = model_fingerprint(config.model)
    prefix_ids = tuple(config.tables.prefix_ids)
    tables = load_or_build_tables(
        model, fingerprint, cache, SOURCES, config.tables.num_successors, prefix_ids
    )
    lines = []
    for name in ("bigram", "unigram"):
        table = getattr(tables, name)
        path = cache / fingerprint / f"{name}.npz"
        built = table is not None
        lines.append(f"{path}: {' x '.join(map(str, table.shape))}" if built else f"{name}: not built")
    return lines


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
