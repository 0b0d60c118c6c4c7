"""How large the K/V cache becomes: as the settings say, or what fits beside all else that a step needs.

Besides committed pages a step needs staging pages for its nodes, the logits of all its rows, and room to draw
tokens from them. With many sequences and wide trees these are larger than the weights.
"""

from dataclasses import dataclass

import torch

from engine.config import ModelConfig
from engine.kv_cache import KVCache
from engine.model.loading import LoadedModel
from engine.model.memory_available import available_memory
from engine.targets import BYTES_PER_DRAWN_LOGIT, LOGITS_AT_ONCE

# The cache gets this share of the memory that is free once the weights are loaded. The rest is for
# activations and other processes.
CACHE_SHARE = {"cuda": 0.85, "cpu": 0.4}
MOST = 0.9  # for one full sequence
GB = 1e9


@dataclass(frozen=True)
class StepLimits:
    """How much one step may verify: max_nodes for each of max_running sequences, and max_step_nodes in all
    (None = as many as that makes).
    """

    max_running: int
    max_nodes: int
    max_step_nodes: int | None = None

    @property
    def num_rows(self) -> int:
        """Rows of logits at most: the last token of each sequence, and all nodes."""
        nodes = self.max_running * self.max_nodes
        return self.max_running + (nodes if self.max_step_nodes is None else min(nodes, self.max_step_nodes))

    def staging_pages(self, page_size: int) -> int:
        """Pages for the nodes of a step: those of each sequence begin in a page of their own."""
        pages = self.max_running * -(-self.max_nodes // page_size)
        if self.max_step_nodes is not None:
            pages = min(pages, self.max_running + self.max_step_nodes // page_size)
        return pages


def step_bytes(loaded: LoadedModel, limits: StepLimits, page_size: int) -> int:
    """Bytes that the largest step needs besides committed pages and activations."""
    slot_bytes = KVCache.bytes_per_token(loaded.layer_shapes, loaded.dtype)
    num_logits = limits.num_rows * loaded.vocab_size
    copy_bytes = 0 if loaded.dtype is torch.float32 else 4
    drawing = min(num_logits, max(LOGITS_AT_ONCE, loaded.vocab_size)) * BYTES_PER_DRAWN_LOGIT
    staging = limits.staging_pages(page_size) * page_size * slot_bytes
    return staging + num_logits * (loaded.dtype.itemsize + copy_bytes) + drawing


def num_cache_pages(loaded: LoadedModel, config: ModelConfig, limits: StepLimits) -> int:
    """Committed pages: as many as the settings say, else those of max_running full sequences, or what a share
    of the free memory holds.

    To hold one full sequence, the cache may take most of the free memory. Raises ValueError when it cannot.
    """
    least = -(-loaded.max_context // config.page_size)
    if config.cache_tokens:
        num_pages = -(-config.cache_tokens // config.page_size)
        reserved = 0
    else:
        page_bytes = KVCache.bytes_per_token(loaded.layer_shapes, loaded.dtype) * config.page_size
        reserved = step_bytes(loaded, limits, config.page_size)
        free = max(0, _free_bytes(loaded.device) - reserved)
        parts = (CACHE_SHARE.get(loaded.device.type, 0.4), MOST)
        share, most = (int(free * part) // page_bytes for part in parts)
        num_pages = min(limits.max_running * least, max(share, min(least, most)))
    if num_pages < least:
        rows = f"the {reserved / GB:.1f} GB that a step of {limits.num_rows} rows needs"
        beside = f" beside {rows}" if reserved else ""
        raise ValueError(
            f"the K/V cache holds {num_pages * config.page_size} tokens{beside}, less than one sequence of "
            f"{loaded.max_context}; lower model.max_context, model.max_running or the drafts of speculation, "
            "raise model.cache_tokens, or use a machine with more memory"
        )
    return num_pages


def _free_bytes(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()
