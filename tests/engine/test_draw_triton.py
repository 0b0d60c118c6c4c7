"""The Triton kernel: its cases (draw_triton_cases.py), and what happens where it does not run.

The cases have a process of their own: Triton must know before it is imported whether Python runs its kernels.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from engine import draw
from tests.time_limits import PROCESS_S

CASES = Path(__file__).with_name("draw_triton_cases.py")
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is for Linux on x86_64")


@needs_triton
@pytest.mark.parametrize(
    ("device", "interpret"),
    [pytest.param("cpu", "1", marks=pytest.mark.slow), pytest.param("cuda", "0", marks=pytest.mark.gpu)],
)
def test_the_kernel_draws_by_the_same_rule(device, interpret):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(CASES)]
    environment = {**os.environ, "DRAW_DEVICE": device, "TRITON_INTERPRET": interpret}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=2 * PROCESS_S)
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize("logits", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("capability", [75, 80, 90, 100])
def test_the_kernel_can_be_compiled_for_gpus_that_are_not_here(capability, logits, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from engine.draw_triton import BLOCK, _draw_part

    types = {"logits": f"*{logits}", "asked": "*i64", "scores": "*fp64", "tokens": "*i64"}
    types |= {"num_tokens": "i32", "num_drawn": "i32", "blocks_each": "i32", "BLOCK": "constexpr"}
    source = ASTSource(_draw_part, types, constexprs={"BLOCK": BLOCK})
    assert triton.compile(source, target=GPUTarget("cuda", capability, 32)).asm["cubin"]


def test_where_triton_fails_the_draw_goes_on_with_torch_and_says_so(monkeypatch, caplog):
    monkeypatch.setattr(draw, "find_spec", lambda name: True)
    monkeypatch.setitem(sys.modules, "engine.draw_triton", None)  # its import raises
    draw._kernel.cache_clear()
    assert draw._kernel(torch.device("cuda")) is None
    assert "drawn without Triton, which fails on this machine: import of engine.draw_triton" in caplog.text
    draw._kernel.cache_clear()


def test_where_triton_is_not_installed_the_draw_is_with_torch_and_nothing_is_said(monkeypatch, caplog):
    monkeypatch.setattr(draw, "find_spec", lambda name: None)
    draw._kernel.cache_clear()
    assert draw._kernel(torch.device("cuda")) is None
    assert caplog.text == ""
    draw._kernel.cache_clear()
