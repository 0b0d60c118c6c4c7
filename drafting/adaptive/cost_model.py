"""What a step costs: seconds as a function of its rows, the keys they attend to, its sequences, and whether it verifies a tree.

Fitted to a profile when a worker starts, then corrected by measured steps. Knows no model: measurements come in, a curve
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
# A scale follows the measured steps of about the last 32, the first ones counting for more; a time by no more than a factor of 2
# in one step: a shared machine stalls.
MEMORY_STEPS, LARGEST_SURPRISE = 32.0, 2.0
PRIOR_STEPS = 4.0  # how many measured steps the profile counts for
NUM_TERMS = 6  # of the formula above


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

    @property
    def plain(self) -> "StepShape":
        """The same step without its nodes, had they attended to a mean context."""
        context = self.keys / max(1.0, self.sequences)
        return StepShape(
            self.rows - self.nodes, self.keys, self.attended - self.nodes * context, self.sequences
        )

    @property
    def decoding(self) -> bool:
        """Whether each sequence runs its last token only: a step without prompts."""
        return self.rows - self.nodes == self.sequences

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


@dataclass
class Scale:
    """How many times what was predicted was measured, over the last steps; `value` to begin with counts as the first few of them."""

    value: float = 1.0
    predicted: float = 0.0

    def observe(self, predicted: float, measured: float, limited: bool = True) -> None:
        """Takes in a step; predicted: without this scale. limited: what was measured may be a stall."""
        if limited:
            expected = predicted * self.value
            measured = min(max(measured, expected / LARGEST_SURPRISE), expected * LARGEST_SURPRISE)
        before = (1.0 - 1.0 / MEMORY_STEPS) * (self.predicted or PRIOR_STEPS * predicted)
        self.value = (before * self.value + measured) / (before + predicted)
        self.predicted = before + predicted


class CostModel:
    """Predicts the seconds of a step and learns from those that were measured.

    What is learned are two scales for each class of loads (1, 2-3, 4-7 ... sequences): how far plain steps are from the profile (other
    work on the machine, sampling, longer contexts), and how far what guesses add to a step is (trees of uneven widths). More could not be
    told apart in so few steps. A class without measured steps has the scales of the nearest one.
    """

    def __init__(
        self, profile: Profile, coefficients: Floats | None = None, about: dict[str, Any] | None = None
    ) -> None:
        """coefficients: of the formula, where they are known already. about: what was profiled, for people."""
        self.profile, self.about = profile, about or {}
        self._table = _row_table(profile)
        features, seconds = (
            np.array([self._features(shape) for shape in profile.shapes]),
            np.array(profile.seconds),
        )
        self.coefficients = _fit(features, seconds) if coefficients is None else coefficients
        self.scales: dict[int, tuple[Scale, Scale]] = {}

    def seconds(self, shape: StepShape) -> float:
        """The predicted seconds of a step."""
        plain, (plain_scale, tree_scale) = self._predicted(shape.plain), self._scales(shape)
        return plain_scale.value * (
            plain + tree_scale.value * (self._predicted(shape) - plain if shape.nodes else 0.0)
        )

    def extra(self, plain: StepShape, max_nodes: int) -> Floats:
        """float64 [max_nodes + 1]: what 0, 1, 2 ... nodes add to the seconds of a plain step; nodes attend to a mean context."""
        context = plain.keys / max(1.0, plain.sequences)
        plain_scale, tree_scale = self._scales(plain)
        return _extra(
            self._table,
            self.coefficients,
            float(plain.rows),
            context,
            max_nodes,
            plain_scale.value * tree_scale.value,
        )

    def observe(self, shape: StepShape, seconds: float) -> None:
        """Takes in a measured step."""
        load = int(shape.sequences).bit_length()
        if load not in self.scales:
            near_plain, near_tree = self._scales(shape)
            self.scales[load] = Scale(value=near_plain.value), Scale(value=near_tree.value)
        plain, (plain_scale, tree_scale) = self._predicted(shape.plain), self.scales[load]
        if not shape.nodes:
            plain_scale.observe(plain, seconds)
        elif (extra := self._predicted(shape) - plain) > 0:
            tree_scale.observe(extra, seconds / plain_scale.value - plain)

    def _scales(self, shape: StepShape) -> tuple[Scale, Scale]:
        load = int(shape.sequences).bit_length()
        if load in self.scales or not self.scales:
            return self.scales.get(load, (Scale(), Scale()))
        return self.scales[min(self.scales, key=lambda known: abs(known - load))]

    def _predicted(self, shape: StepShape) -> float:
        return float(_predict(self._table, self.coefficients, *map(float, shape)))

    def save(self, path: Path) -> None:
        """Writes what it is about, the profile and the coefficients as they are now, as JSON."""
        fields = {
            "about": self.about,
            "stairs": self.profile.stairs,
            "coefficients": self.coefficients.tolist(),
        }
        fields["scales"] = {load: [scale.value for scale in scales] for load, scales in self.scales.items()}
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
            model = CostModel(
                Profile(shapes, found["seconds"], tuple(stairs) if stairs else None),
                coefficients,
                dict(found["about"]),
            )
            model.scales = {
                int(load): (Scale(float(plain)), Scale(float(tree)))
                for load, (plain, tree) in found["scales"].items()
            }
            return model
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(
                f"{path} is no cost model ({error}); benchmarks/save_cost_model.py writes one"
            ) from error

    def _features(self, shape: StepShape) -> Floats:
        return _terms(self._table, *map(float, shape))


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
    return RowTable(
        unique, np.maximum.accumulate(np.minimum.reduceat(seconds, place)), float(first), float(step)
    )


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
def _terms(
    table: RowTable, rows: float, keys: float, attended: float, sequences: float, nodes: float
) -> Floats:
    """The terms of the formula, float64 [NUM_TERMS]."""
    return np.array([_look_up(table, rows), keys, attended, sequences, 1.0 if nodes > 0 else 0.0, nodes])


@compiled
def _predict(
    table: RowTable,
    coefficients: Floats,
    rows: float,
    keys: float,
    attended: float,
    sequences: float,
    nodes: float,
) -> float:
    return float((_terms(table, rows, keys, attended, sequences, nodes) * coefficients).sum())


@compiled
def _extra(
    table: RowTable, coefficients: Floats, rows: float, context: float, max_nodes: int, scale: float
) -> Floats:
    extra, plain = np.zeros(max_nodes + 1), _look_up(table, rows)
    for n in range(1, max_nodes + 1):
        added = coefficients[0] * (_look_up(table, rows + n) - plain)
        added += coefficients[4] + n * (coefficients[2] * context + coefficients[5])
        extra[n] = max(extra[n - 1], scale * added)  # a noisy profile may dip; more nodes are never cheaper
    return extra


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
