"""What a step costs: seconds as a function of its rows, the keys they attend to, its sequences, and whether it verifies a tree.

Fitted to a profile when a worker starts, then corrected by every measured step. Knows no model: measurements come in, a curve
goes out, and a model is one JSON file, so that jobs/replay.py can predict with a machine's costs away from it.

    seconds = a x table(rows) + b x keys + c x attended + d x sequences + e x (any tree) + f x nodes

table is piecewise linear through the profiled row counts, over row counts rounded up to the stairs that the machine has
(graph sizes on CUDA, packed linear layers on a CPU): rows alone do not predict, and cost is a staircase.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from drafting.compiled import compiled

Floats = NDArray[np.float64]
# Measured steps correct the profile within about 100 steps, and no single one by more than this factor: a shared machine stalls.
MEMORY_STEPS, LARGEST_SURPRISE = 100.0, 2.0
NUM_TERMS = 6  # of the formula above
PRIOR_STEPS = 8.0  # how many measured steps the profile counts for


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

    def __init__(self, profile: Profile, coefficients: Floats | None = None, about: dict[str, Any] | None = None) -> None:
        """coefficients: where the profile was corrected by steps measured earlier. about: what was profiled, for people."""
        self.profile, self.about = profile, about or {}
        self._table = _row_table(profile)
        features, seconds = np.array([self._features(shape) for shape in profile.shapes]), np.array(profile.seconds)
        self._prior = _fit(features, seconds) if coefficients is None else coefficients
        self.coefficients = self._prior.copy()
        # Normal equations in relative errors: what the profile says, and what was measured since.
        relative, largest = features / seconds[:, None], features.max(0)
        # What no profiled step has may turn up in a measured one.
        weak = 1e-9 * np.diag(np.where(largest > 0, largest, 1.0) ** 2)
        self._prior_matrix = relative.T @ relative * (PRIOR_STEPS / len(features)) + weak
        self._matrix, self._vector = self._prior_matrix.copy(), self._prior_matrix @ self._prior

    def seconds(self, shape: StepShape) -> float:
        """The predicted seconds of a step."""
        return float(self._features(shape) @ self.coefficients)

    def extra(self, plain: StepShape, max_nodes: int) -> Floats:
        """float64 [max_nodes + 1]: what 0, 1, 2 ... nodes add to the seconds of a plain step; nodes attend to a mean context."""
        return _extra(self._table, self.coefficients, float(plain.rows), plain.keys / max(1.0, plain.sequences), max_nodes)

    def observe(self, shape: StepShape, seconds: float) -> None:
        """Takes in a measured step."""
        features = self._features(shape)
        _observe(self._matrix, self._vector, self._prior_matrix, self._prior, features, float(seconds), self.coefficients)

    def save(self, path: Path) -> None:
        """Writes what it is about, the profile and the coefficients as they are now, as JSON."""
        fields = {"about": self.about, "stairs": self.profile.stairs, "coefficients": self.coefficients.tolist()}
        profile = {"shapes": self.profile.shapes, "seconds": self.profile.seconds}
        path.write_text(json.dumps({**fields, **profile}) + "\n", encoding="utf-8")

    @staticmethod
    def load(path: Path) -> "CostModel":
        """The reverse of save; raises ValueError for a file that is no cost model."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            shapes = [StepShape(*shape) for shape in found["shapes"]]
            stairs, coefficients = found["stairs"], np.array(found["coefficients"], np.float64)
            if coefficients.shape != (NUM_TERMS,):
                raise ValueError(f"{coefficients.size} coefficients; there must be {NUM_TERMS}")
            if min(found["seconds"]) <= 0 or not coefficients.max() > 0:
                raise ValueError("a step takes no time")
            return CostModel(Profile(shapes, found["seconds"], tuple(stairs) if stairs else None), coefficients, dict(found["about"]))
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise ValueError(f"{path} is no cost model ({error}); benchmarks/save_cost_model.py writes one") from error

    def _features(self, shape: StepShape) -> Floats:
        rows, keys, attended, sequences, nodes = shape
        return np.array([_look_up(self._table, float(rows)), keys, attended, sequences, nodes > 0, nodes])


class RowTable(NamedTuple):
    """Seconds by row count, float64 [P] each; beyond `first` rows a pass costs as the next multiple of `step` rows."""

    rows: Floats
    seconds: Floats
    first: float
    step: float


def _row_table(profile: Profile) -> RowTable:
    """From the profile's steps of one sequence, never falling; the charge for a tree is taken out."""
    first, step = profile.stairs or (np.inf, 1.0)
    measured = [(s, t) for s, t in zip(profile.shapes, profile.seconds, strict=True) if s.sequences == 1]
    plain = [(s.rows, t) for s, t in measured if not s.nodes]
    trees = sorted((s.rows, t) for s, t in measured if s.nodes)
    wider = [point for point in trees if point[0] > trees[0][0]]
    charge = 0.0
    if wider and plain:
        (narrow, early), (wide, late) = trees[0], wider[0]
        charge = max(0.0, early - (late - early) / (wide - narrow) * (narrow - 1) - min(t for _, t in plain))
    rows, seconds = np.array(sorted(plain + [(r, t - charge) for r, t in trees]), np.float64).T
    unique, place = np.unique(np.where(rows > first, np.ceil(rows / step) * step, rows), return_index=True)
    return RowTable(unique, np.maximum.accumulate(np.minimum.reduceat(seconds, place)), float(first), float(step))


@compiled
def _look_up(table: RowTable, rows: float) -> float:
    """Between two row counts in proportion; beyond the last the last slope goes on."""
    if rows > table.first:
        rows = np.ceil(rows / table.step) * table.step
    last = len(table.rows) - 1
    if last == 0 or rows <= table.rows[0]:
        return float(table.seconds[0])
    i = 1
    while i < last and table.rows[i] < rows:
        i += 1
    slope = (table.seconds[i] - table.seconds[i - 1]) / (table.rows[i] - table.rows[i - 1])
    return float(table.seconds[i] + slope * (rows - table.rows[i]))


@compiled
def _extra(table: RowTable, coefficients: Floats, rows: float, context: float, max_nodes: int) -> Floats:
    extra, plain = np.zeros(max_nodes + 1), _look_up(table, rows)
    for n in range(1, max_nodes + 1):
        added = coefficients[0] * (_look_up(table, rows + n) - plain)
        added += coefficients[4] + n * (coefficients[2] * context + coefficients[5])
        extra[n] = max(extra[n - 1], added)  # a noisy profile may dip; more nodes are never cheaper
    return extra


@compiled
def _observe(
    matrix: Floats, vector: Floats, prior_matrix: Floats, prior: Floats, features: Floats, seconds: float, coefficients: Floats
) -> None:
    size, expected = len(features), 0.0
    for i in range(size):
        expected += features[i] * coefficients[i]
    seen = min(max(seconds, expected / LARGEST_SURPRISE), expected * LARGEST_SURPRISE)
    keep = 1.0 - 1.0 / MEMORY_STEPS
    solving = np.empty((size, size + 1))
    for i in range(size):
        # What is forgotten gives way to the profile: a shape not seen for long costs what it cost then.
        vector[i] = keep * vector[i] + features[i] / seen
        for j in range(size):
            vector[i] += (1 - keep) * prior_matrix[i, j] * prior[j]
            matrix[i, j] = keep * matrix[i, j] + (1 - keep) * prior_matrix[i, j] + features[i] * features[j] / (seen * seen)
            solving[i, j] = matrix[i, j]
        solving[i, size] = vector[i]
    # Gauss; the matrix is positive definite, so no pivoting.
    for i in range(size):
        for k in range(i + 1, size):
            factor = solving[k, i] / solving[i, i]
            for j in range(i, size + 1):
                solving[k, j] -= factor * solving[i, j]
    for i in range(size - 1, -1, -1):
        found = solving[i, size]
        for j in range(i + 1, size):
            found -= solving[i, j] * solving[j, size]
        solving[i, size] = found / solving[i, i]
        coefficients[i] = max(solving[i, size], 0.1 * prior[i])


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
