"""The proposer that the settings ask for: the engine and a replay make the same one."""

from pathlib import Path

from drafting.adaptive.adaptive_proposer import AdaptiveProposer
from drafting.config import SpeculationConfig
from drafting.mixed_proposer import MixedProposer
from drafting.tables import Tables


def make_proposer(
    config: SpeculationConfig, tables: Tables, calibration: Path | None = None
) -> AdaptiveProposer | MixedProposer:
    """A proposer for mode adaptive or mixed. calibration: the file that keeps what mode adaptive learns."""
    if config.mode == "adaptive":
        return AdaptiveProposer(
            max_nodes=config.max_nodes, corpus_tokens=config.corpus_tokens, tables=tables, home=calibration
        )
    return MixedProposer(config.mixed, config.max_nodes, tables)
