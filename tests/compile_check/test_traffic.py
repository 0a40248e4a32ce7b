"""Bytes that a program moves, counted from its text."""

import jax
import jax.numpy as jnp
import pytest

from larvseg_jax.compile_check.traffic import memory_traffic

PROGRAM = """
%fused (p: f32[8,4]) -> f32[8,4] {
  %inside = f32[8,4]{1,0} add(%p, %p)
}

%body (t: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %t = (s32[], f32[8,4]{1,0}) parameter(0)
  %x = f32[8,4]{1,0} get-tuple-element(%t), index=1
  %twice = f32[8,4]{1,0} fusion(%x), kind=kLoop, calls=%fused
  %i = s32[] get-tuple-element(%t), index=0
  ROOT %out = (s32[], f32[8,4]{1,0}) tuple(%i, %twice)
}

ENTRY %main (a: f32[8,4], b: bf16[100,4], c: s32[2,1], d: bf16[2,4]) -> f32[8,4] {
  %a = f32[8,4]{1,0} parameter(0)
  %b = bf16[100,4]{1,0} parameter(1)
  %c = s32[2,1]{1,0} parameter(2)
  %d = bf16[2,4]{1,0} parameter(3)
  %input_scatter_fusion = bf16[100,4]{1,0} fusion(%b, %c, %d), kind=kInput, calls=%fused
  %view = f32[32]{0} bitcast(%a)
  %product = (f32[8,8]{1,0}, s8[16]{0}) custom-call(%a, %a), custom_call_target="__cublas$gemm"
  %loop = (s32[], f32[8,4]{1,0}) while(%start), condition=%cond, body=%body
  ROOT %end = f32[8,4]{1,0} get-tuple-element(%loop), index=1
}
"""


def test_operands_and_results_are_counted_loops_once_and_what_is_in_place_not():
    scatter, product, body = 2 * 4 + 2 * 4 * 2, 64 * 4 + 16 + 2 * 32 * 4, 2 * 32 * 4
    assert memory_traffic(PROGRAM) == scatter + product + body


def test_a_program_compiled_here_moves_what_xla_says():
    compiled = jax.jit(lambda a, b: jnp.tanh(a @ b).sum(0)).lower(jnp.ones((256, 64)), jnp.ones((64, 128))).compile()
    assert memory_traffic(compiled.as_text()) == pytest.approx(compiled.cost_analysis()["bytes accessed"], rel=0.2)
