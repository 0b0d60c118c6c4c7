"""How the tokens of a request are made from logits: for the engine, which makes them, and for drafters, which
foresee them.

Standard library only: the driver imports this without numba.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sampling:
    """How a target token is made from logits.

    temperature 0 = greedy; top_k 0, top_p 1 and min_p 0 = off; seed: 64 bits used.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int = 0

    @property
    def filters(self) -> bool:
        """Whether some tokens are left out of the draw."""
        return bool(self.top_k or self.top_p < 1 or self.min_p)
