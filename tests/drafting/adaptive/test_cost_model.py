"""What a step is expected to cost: fitted to a profile, corrected by measured steps, a staircase where the
machine has one.
"""

import numpy as np
import pytest

from drafting.adaptive.cost_model import CostModel, Profile, StepShape


def seconds(shape: StepShape) -> float:
    """A machine whose steps cost 1 ms, and 10 us per row, 1 us per key, 0.1 us per attended key, 200 us for
    any tree.
    """
    return (
        1e-3
        + 1e-5 * shape.packed_tokens
        + 1e-6 * shape.cached_tokens
        + 1e-7 * shape.attended_tokens
        + 2e-4 * (shape.nodes > 0)
    )


def shape(sequences: int, nodes: int, context: int) -> StepShape:
    rows = sequences * (1 + nodes)
    return StepShape(rows, sequences * context, rows * context, sequences, sequences * nodes)


SHAPES = [shape(s, n, c) for s in (1, 4, 16) for n in (0, 1, 7) for c in (64, 512)]


def model(stairs: tuple[int, int] | None = None) -> CostModel:
    return CostModel(Profile(SHAPES, [seconds(s) for s in SHAPES], stairs))


def test_steps_of_shapes_that_were_not_profiled_are_predicted():
    for unseen in (shape(8, 3, 200), shape(2, 0, 300), shape(16, 5, 100)):
        assert model().seconds(unseen) == pytest.approx(seconds(unseen), rel=0.15)


def test_extra_nodes_cost_rows_and_their_context_and_the_first_one_the_charge_for_a_tree():
    extra = model().node_seconds(shape(4, 0, 100), max_nodes=10)
    assert extra[0] == 0
    assert len(extra) == 11
    assert extra[1] == pytest.approx(2e-4 + 1e-5 + 1e-5, rel=0.4)  # the charge, a row, its 100 attended keys
    assert np.diff(extra)[1:] == pytest.approx(np.full(9, 2e-5), rel=0.4)


def test_extra_cost_never_falls_even_where_the_profile_dips():
    noisy = Profile([shape(1, n, 64) for n in (0, 1, 3, 7)], [2e-3, 1.5e-3, 3e-3, 2.5e-3])
    assert (np.diff(CostModel(noisy).node_seconds(shape(1, 0, 64), 7)) >= 0).all()


def test_between_two_stairs_further_nodes_are_free():
    extra = model(stairs=(4, 16)).node_seconds(StepShape(16, 0, 0, 16), max_nodes=33)
    jumps = [nodes for nodes in range(1, 34) if extra[nodes] - extra[nodes - 1] > 1e-5]
    assert jumps == [1, 17, 33]


def test_measured_steps_correct_the_profile_and_one_stall_does_not():
    slower = model()
    slower.observe(shape(4, 0, 64), 10.0)
    assert slower.seconds(shape(4, 0, 64)) < 1.2 * seconds(shape(4, 0, 64))
    for _ in range(300):
        slower.observe(shape(4, 0, 64), 1.5 * seconds(shape(4, 0, 64)))
        slower.observe(shape(4, 2, 64), 1.5 * seconds(shape(4, 2, 64)))
    assert slower.seconds(shape(4, 0, 64)) == pytest.approx(1.5 * seconds(shape(4, 0, 64)), rel=0.1)
    assert slower.node_seconds(shape(4, 0, 64), 8)[8] > 1.2 * model().node_seconds(shape(4, 0, 64), 8)[8]


def test_a_cost_model_comes_back_from_its_file(tmp_path):
    before = model(stairs=(32, 16))
    before.observe(shape(4, 0, 64), 2e-3)
    before.save(tmp_path / "cost.json")
    after = CostModel.load(tmp_path / "cost.json")
    assert (
        after.node_seconds(shape(4, 0, 64), 40).tolist() == before.node_seconds(shape(4, 0, 64), 40).tolist()
    )


def test_a_file_that_is_no_cost_model_is_refused(tmp_path):
    (tmp_path / "cost.json").write_text('{"seconds": []}')
    with pytest.raises(ValueError, match="is no cost model"):
        CostModel.load(tmp_path / "cost.json")
