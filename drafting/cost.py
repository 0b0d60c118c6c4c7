"""What a step costs: seconds as a function of its rows, the keys they attend to, its sequences, and whether it verifies a tree.

Fitted to a profile when a worker starts, then corrected by every measured step. Knows no model: measurements come in, a curve
goes out, and a model is one JSON file, so that jobs/replay.py can predict with a machine's costs away from it.

    seconds = a x table(rows) + b x keys + c x attended + d x sequences + e x (any tree) + f x nodes

table is piecewise linear through the profiled row counts, over row counts rounded up to the stairs that the machine has
(graph sizes on CUDA, packed linear layers on a CPU): rows alone do not predict, and cost is a staircase.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# Measured steps correct the profile within about 100 steps, and no single one by more than this factor: a shared machine stalls.
MEMORY_STEPS, LARGEST_SURPRISE = 100.0, 2.0
PRIOR_STEPS = 20.0  # how many measured steps the profile counts for


class StepShape(NamedTuple):
    """What decides a step's cost.

    rows: of the packed pass, nodes included. keys: cached tokens of all sequences, read once however many rows see them.
    attended: keys that each row sees, over all rows. nodes: guessed rows.
    """

    rows: float
    keys: float
    attended: float
    sequences: float
    nodes: float = 0.0

    def with_nodes(self, nodes: float) -> "StepShape":
        """The same step with so many guesses, which attend to a mean context."""
        context = self.keys / max(1.0, self.sequences)
        return StepShape(self.rows + nodes, self.keys, self.attended + nodes * context, self.sequences, nodes)


@dataclass(frozen=True)
class Profile:
    """Measured steps: shapes and seconds; stairs: (first, step): beyond `first` rows a pass costs as the next multiple of `step`."""

    shapes: list[StepShape]
    seconds: list[float]
    stairs: tuple[int, int] | None = None


class CostModel:
    """Predicts the seconds of a step and learns from those that were measured."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self._rows, self._seconds = self._row_table()
        features = np.array([self._features(StepShape(*shape)) for shape in profile.shapes])
        self._prior = _fit(features, np.array(profile.seconds))
        self.coefficients = self._prior.copy()
        # Normal equations in relative errors: what the profile says, and what was measured since.
        relative = features / np.array(profile.seconds)[:, None]
        self._prior_matrix = relative.T @ relative * (PRIOR_STEPS / len(features)) + 1e-9 * np.diag((features**2).max(0) + 1e-30)
        self._matrix, self._vector = self._prior_matrix.copy(), self._prior_matrix @ self._prior

    def seconds(self, shape: StepShape) -> float:
        """The predicted seconds of a step."""
        return float(self._features(shape) @ self.coefficients)

    def extra(self, plain: StepShape, max_nodes: int) -> Floats:
        """float64 [max_nodes + 1]: what 0, 1, 2 ... nodes add to the seconds of a plain step; nodes attend to a mean context."""
        nodes = np.arange(max_nodes + 1, dtype=np.float64)
        context = plain.keys / max(1.0, plain.sequences)
        features = np.stack(
            [
                self._table(plain.rows + nodes),
                np.full_like(nodes, plain.keys),
                plain.attended + nodes * context,
                np.full_like(nodes, plain.sequences),
                nodes > 0,
                nodes,
            ],
            axis=1,
        )
        seconds = features @ self.coefficients
        # A noisy profile may dip; more nodes are never cheaper.
        result: Floats = np.maximum.accumulate(seconds - seconds[0])
        return result

    def observe(self, shape: StepShape, seconds: float) -> None:
        """Takes in a measured step."""
        expected = self.seconds(shape)
        seen = min(max(seconds, expected / LARGEST_SURPRISE), expected * LARGEST_SURPRISE)
        features = self._features(shape) / seen
        keep = 1.0 - 1.0 / MEMORY_STEPS
        # What is forgotten gives way to the profile: a shape not seen for long costs what it cost then.
        self._matrix = keep * self._matrix + (1 - keep) * self._prior_matrix + np.outer(features, features)
        self._vector = keep * self._vector + (1 - keep) * (self._prior_matrix @ self._prior) + features
        self.coefficients = np.maximum(np.linalg.solve(self._matrix, self._vector), 0.1 * self._prior)

    def save(self, path: Path) -> None:
        """Writes the profile and the coefficients as they are now, as JSON."""
        path.write_text(json.dumps({**asdict(self.profile), "coefficients": self.coefficients.tolist()}) + "\n", encoding="utf-8")

    @staticmethod
    def load(path: Path) -> "CostModel":
        """The reverse of save; raises ValueError for a file that is no cost model."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            shapes = [StepShape(*shape) for shape in found["shapes"]]
            model = CostModel(Profile(shapes, found["seconds"], tuple(found["stairs"]) if found["stairs"] else None))
            model.coefficients = np.array(found["coefficients"], np.float64)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no cost model ({error}); benchmarks/bench_adaptive.py --save_cost_model writes one") from error
        return model

    def _features(self, shape: StepShape) -> Floats:
        table = self._table(np.array([shape.rows], np.float64))[0]
        return np.array([table, shape.keys, shape.attended, shape.sequences, float(shape.nodes > 0), shape.nodes])

    def _row_table(self) -> tuple[Floats, Floats]:
        """Row counts and seconds of the profile's steps of one sequence, never falling; the charge for a tree is taken out."""
        measured = [(s, t) for s, t in zip(self.profile.shapes, self.profile.seconds, strict=True) if s.sequences == 1]
        plain = [(s.rows, t) for s, t in measured if not s.nodes]
        trees = sorted((s.rows, t) for s, t in measured if s.nodes)
        wider = [point for point in trees if point[0] > trees[0][0]]
        charge = 0.0
        if wider and plain:
            (first, early), (second, late) = trees[0], wider[0]
            charge = max(0.0, early - (late - early) / (second - first) * (first - 1) - min(t for _, t in plain))
        rows, seconds = np.array(sorted(plain + [(r, t - charge) for r, t in trees]), np.float64).T
        unique, place = np.unique(self._round_up(rows), return_index=True)
        return unique, np.maximum.accumulate(np.minimum.reduceat(seconds, place))

    def _table(self, rows: Floats) -> Floats:
        """Seconds by row count; beyond the profiled ones the last slope goes on."""
        rounded = self._round_up(rows)
        slope = 0.0
        if len(self._rows) > 1:
            slope = (self._seconds[-1] - self._seconds[-2]) / (self._rows[-1] - self._rows[-2])
        seconds: Floats = np.interp(rounded, self._rows, self._seconds) + slope * np.maximum(rounded - self._rows[-1], 0.0)
        return seconds

    def _round_up(self, rows: Floats) -> Floats:
        if self.profile.stairs is None:
            return rows
        first, step = self.profile.stairs
        rounded: Floats = np.where(rows > first, np.ceil(rows / step) * step, rows)
        return rounded


def _fit(features: Floats, seconds: Floats) -> Floats:
    """Coefficients with the least relative error; one that comes out below 0 is left out and the others are fitted again."""
    weighted = features / seconds[:, None]
    active = np.ones(features.shape[1], bool)
    while True:
        found = np.zeros(features.shape[1])
        found[active] = np.linalg.lstsq(weighted[:, active], np.ones(len(seconds)), rcond=None)[0]
        if (found >= 0).all():
            return found
        active &= found > 0
