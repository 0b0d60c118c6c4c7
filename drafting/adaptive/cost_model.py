"""What a step costs: seconds as a function of its packed tokens, the cached tokens they attend to, and its
sequences.

The model is fitted to a profile when a worker starts and then corrected by measured steps. It knows no
language model: measurements come in, predictions go out, and the whole is one JSON file, so that
jobs/replay.py can predict with the costs of another machine.

    seconds = a x curve(packed tokens) + b x cached tokens + c x attended tokens + d x sequences
              + e x (1 if the step verifies any node) + f x nodes

The token curve is piecewise linear through the profiled numbers of packed tokens. Machines round these
numbers up (CUDA graph sizes, packed linear layers on a CPU), so cost is a staircase.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from drafting.compiled import compiled

Floats = NDArray[np.float64]
MEMORY_STEPS = 32.0  # a scale follows about this many of the latest measured steps
PRIOR_STEPS = 4.0  # the first value of a scale counts for this many measured steps
MAX_SURPRISE = 2.0  # one step moves a scale by at most this factor: a shared machine stalls now and then
NUM_TERMS = 6  # terms of the formula above


# A chunk begins with a sequence, which has num_cached tokens in the cache, and the number of its tokens that
# run. What follows in it does not matter here.
Chunk = Sequence[Any]


class StepShape(NamedTuple):
    """What decides the cost of a step.

    packed_tokens: entries of the packed forward pass, nodes included. cached_tokens: cached tokens of all
    sequences, which are read once however many packed tokens attend to them. attended_tokens: cached tokens
    that each packed token attends to, summed over the packed tokens. sequences: sequences in the step. nodes:
    draft nodes to verify.
    """

    packed_tokens: float
    cached_tokens: float
    attended_tokens: float
    sequences: float
    nodes: float = 0.0

    @staticmethod
    def of(chunks: Iterable[Chunk]) -> "StepShape":
        """The shape of a step that runs these chunks and no node."""
        packed = 0
        cached = 0
        attended = 0
        num_sequences = 0
        for chunk in chunks:
            num_cached = chunk[0].num_cached
            packed += chunk[1]
            cached += num_cached
            attended += chunk[1] * num_cached
            num_sequences += 1
        return StepShape(packed, cached, attended, num_sequences)

    @staticmethod
    def decoding(num_sequences: float, context: float) -> "StepShape":
        """The shape of a plain step in which each sequence runs its last token over `context`
        cached tokens.
        """
        cached = num_sequences * context
        return StepShape(num_sequences, cached, cached, num_sequences)

    @property
    def context(self) -> float:
        """The mean number of cached tokens of a sequence."""
        return self.cached_tokens / max(1.0, self.sequences)

    @property
    def has_prompts(self) -> bool:
        """Whether the step runs prompt tokens besides the last token of each sequence."""
        return self.packed_tokens - self.nodes != self.sequences

    @property
    def plain(self) -> "StepShape":
        """The shape without its nodes, which are taken to attend to a mean context."""
        return self.with_nodes(0.0)

    def with_nodes(self, nodes: float) -> "StepShape":
        """The shape with another number of nodes, which are taken to attend to a mean context."""
        more = nodes - self.nodes
        return self._replace(
            packed_tokens=self.packed_tokens + more,
            attended_tokens=self.attended_tokens + more * self.context,
            nodes=nodes,
        )


@dataclass(frozen=True)
class Profile:
    """Measured steps: their shapes and seconds.

    stairs: (first, step) says that more than `first` packed tokens cost as much as the next multiple of
    `step` tokens.
    """

    shapes: list[StepShape]
    seconds: list[float]
    stairs: tuple[int, int] | None = None


@dataclass
class Scale:
    """The ratio of what was measured to what was predicted, over the latest steps."""

    value: float = 1.0
    predicted: float = 0.0

    def observe(self, predicted: float, measured: float) -> None:
        """Takes in one step, whose prediction must not contain this scale."""
        before = (1.0 - 1.0 / MEMORY_STEPS) * (self.predicted or PRIOR_STEPS * predicted)
        self.value = (before * self.value + measured) / (before + predicted)
        self.predicted = before + predicted

    def observe_time(self, predicted: float, measured: float) -> None:
        """Takes in one step whose measured time may contain a stall of the machine."""
        expected = predicted * self.value
        self.observe(predicted, min(max(measured, expected / MAX_SURPRISE), expected * MAX_SURPRISE))


class Scales(NamedTuple):
    """What one load class has taught: the scale of plain steps, and the scale of what nodes add to a step."""

    plain: Scale
    nodes: Scale


class CostModel:
    """Predicts the seconds of a step, and learns from measured steps.

    Two scales are learned for each load class (1, 2-3, 4-7 ... sequences). One tells how far plain steps are
    from the profile, because of other work on the machine, sampling, or longer contexts. The other tells how
    far the cost of nodes is from the profile, because trees have uneven widths. A load class without measured
    steps borrows the scales of the nearest class.
    """

    def __init__(
        self,
        profile: Profile,
        coefficients: Floats | None = None,
        about: dict[str, Any] | None = None,
    ) -> None:
        """coefficients: the formula's coefficients, where they are known already. about: what was profiled,
        for people.
        """
        self.profile = profile
        self.about = about or {}
        self.scales: dict[int, Scales] = {}
        self._curve = _token_curve(profile)
        if coefficients is None:
            terms = np.array([_terms(self._curve, *map(float, shape)) for shape in profile.shapes])
            coefficients = _fit(terms, np.array(profile.seconds))
        self.coefficients = coefficients

    def seconds(self, shape: StepShape) -> float:
        """The predicted seconds of a step."""
        scales = self._scales(shape)
        plain = self._profiled(shape.plain)
        added = self._profiled(shape) - plain if shape.nodes else 0.0
        return scales.plain.value * (plain + scales.nodes.value * added)

    def node_seconds(self, plain: StepShape, max_nodes: int) -> Floats:
        """float64 [max_nodes + 1]: the seconds that 0, 1, 2 ... nodes add to a plain step."""
        scales = self._scales(plain)
        scale = scales.plain.value * scales.nodes.value
        return _node_seconds(
            self._curve, self.coefficients, float(plain.packed_tokens), plain.context, max_nodes, scale
        )

    def observe(self, shape: StepShape, seconds: float) -> None:
        """Takes in a measured step without prompts."""
        if load_class(shape.sequences) not in self.scales:
            near = self._scales(shape)
            self.scales[load_class(shape.sequences)] = Scales(
                Scale(near.plain.value), Scale(near.nodes.value)
            )
        scales = self._scales(shape)
        plain = self._profiled(shape.plain)
        if not shape.nodes:
            scales.plain.observe_time(plain, seconds)
        elif (added := self._profiled(shape) - plain) > 0:
            scales.nodes.observe_time(added, seconds / scales.plain.value - plain)

    def _scales(self, shape: StepShape) -> Scales:
        if not self.scales:
            return Scales(Scale(), Scale())
        own = load_class(shape.sequences)
        return self.scales[min(self.scales, key=lambda known: abs(known - own))]

    def _profiled(self, shape: StepShape) -> float:
        return float(_predict(self._curve, self.coefficients, *map(float, shape)))

    def save(self, path: Path) -> None:
        """Writes the profile, the coefficients and the scales as JSON."""
        scales = {load: [scale.value for scale in both] for load, both in self.scales.items()}
        content = {
            "about": self.about,
            "stairs": self.profile.stairs,
            "coefficients": self.coefficients.tolist(),
            "scales": scales,
            "shapes": self.profile.shapes,
            "seconds": self.profile.seconds,
        }
        path.write_text(json.dumps(content) + "\n", encoding="utf-8")

    @staticmethod
    def load(path: Path) -> "CostModel":
        """Reads what `save` has written; raises ValueError for a file that is no cost model."""
        try:
            return _from_json(json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            remedy = "benchmarks/save_cost_model.py writes one"
            raise ValueError(f"{path} is no cost model ({error}); {remedy}") from error


def load_class(num_sequences: float) -> int:
    """The class of loads that are judged together: 1, 2-3, 4-7 ... sequences are the classes 1, 2, 3 ..."""
    return int(num_sequences).bit_length()


def _from_json(content: dict[str, Any]) -> CostModel:
    shapes = [StepShape(*shape) for shape in content["shapes"]]
    stairs = tuple(content["stairs"]) if content["stairs"] else None
    coefficients = np.array(content["coefficients"], np.float64)
    if coefficients.shape != (NUM_TERMS,):
        raise ValueError(f"{coefficients.size} coefficients; there must be {NUM_TERMS}")
    if min(content["seconds"]) <= 0 or not coefficients.max() > 0:
        raise ValueError("a step takes no time")
    model = CostModel(Profile(shapes, content["seconds"], stairs), coefficients, dict(content["about"]))
    for load, (plain, nodes) in content["scales"].items():
        model.scales[int(load)] = Scales(Scale(float(plain)), Scale(float(nodes)))
    return model


class TokenCurve(NamedTuple):
    """Seconds by number of packed tokens, float64 [P] each.

    More than `first` packed tokens cost as much as the next multiple of `step` tokens.
    """

    tokens: Floats
    seconds: Floats
    first: float
    step: float


def _token_curve(profile: Profile) -> TokenCurve:
    """Makes the curve from the profiled steps of one sequence.

    The curve never falls. The seconds that a tree of any size adds are subtracted first.
    """
    first, step = profile.stairs or (np.inf, 1.0)
    measured = [(s, t) for s, t in zip(profile.shapes, profile.seconds, strict=True) if s.sequences == 1]
    plain = [(s.packed_tokens, t) for s, t in measured if not s.nodes]
    with_nodes = sorted((s.packed_tokens, t) for s, t in measured if s.nodes)
    charge = _tree_charge(plain, with_nodes)
    points = np.array(sorted(plain + [(tokens, t - charge) for tokens, t in with_nodes]), np.float64)
    tokens, seconds = points.T
    rounded = np.where(tokens > first, np.ceil(tokens / step) * step, tokens)
    unique, place = np.unique(rounded, return_index=True)
    fastest = np.maximum.accumulate(np.minimum.reduceat(seconds, place))
    return TokenCurve(tokens=unique, seconds=fastest, first=float(first), step=float(step))


def _tree_charge(plain: list[tuple[float, float]], with_nodes: list[tuple[float, float]]) -> float:
    """The seconds that a tree of any size adds, from a straight line through the two narrowest steps with
    nodes.
    """
    wider = [point for point in with_nodes if point[0] > with_nodes[0][0]]
    if not wider or not plain:
        return 0.0
    narrow, early = with_nodes[0]
    wide, late = wider[0]
    slope = (late - early) / (wide - narrow)
    return max(0.0, early - slope * (narrow - 1) - min(t for _, t in plain))


@compiled
def _look_up(curve: TokenCurve, tokens: float) -> float:
    """Interpolates between two points of the curve; after the last point its last slope goes on."""
    if tokens > curve.first:
        tokens = np.ceil(tokens / curve.step) * curve.step
    last = len(curve.tokens) - 1
    if last == 0 or tokens <= curve.tokens[0]:
        return float(curve.seconds[0])
    i = 1
    while i < last and curve.tokens[i] < tokens:
        i += 1
    slope = (curve.seconds[i] - curve.seconds[i - 1]) / (curve.tokens[i] - curve.tokens[i - 1])
    return float(curve.seconds[i] + slope * (tokens - curve.tokens[i]))


@compiled
def _terms(
    curve: TokenCurve, tokens: float, cached: float, attended: float, sequences: float, nodes: float
) -> Floats:
    """The terms of the formula, float64 [NUM_TERMS]."""
    any_node = 1.0 if nodes > 0 else 0.0
    return np.array([_look_up(curve, tokens), cached, attended, sequences, any_node, nodes])


@compiled
def _predict(
    curve: TokenCurve, coefficients: Floats, tokens: float, cached: float, attended: float,
    sequences: float, nodes: float,
) -> float:  # fmt: skip
    return float((_terms(curve, tokens, cached, attended, sequences, nodes) * coefficients).sum())


@compiled
def _node_seconds(
    curve: TokenCurve, coefficients: Floats, tokens: float, context: float, max_nodes: int, scale: float
) -> Floats:
    seconds = np.zeros(max_nodes + 1)
    plain = _look_up(curve, tokens)
    for n in range(1, max_nodes + 1):
        added = coefficients[0] * (_look_up(curve, tokens + n) - plain)
        added += coefficients[4] + n * (coefficients[2] * context + coefficients[5])
        seconds[n] = max(seconds[n - 1], scale * added)  # a noisy profile may dip; more nodes never cost less
    return seconds


def _fit(terms: Floats, seconds: Floats) -> Floats:
    """The coefficients with the least relative error.

    A coefficient that comes out below 0 is left out, and the others are fitted again.
    """
    weighted = terms / seconds[:, None]
    active = np.ones(terms.shape[1], bool)
    while True:
        found = np.zeros(terms.shape[1])
        found[active] = np.linalg.lstsq(weighted[:, active], np.ones(len(seconds)), rcond=None)[0]
        if (found >= 0).all():
            return found
        active &= found > 0
