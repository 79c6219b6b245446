"""Attention over pages: torch's own answer, and the same bits whatever is beside a row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lapilli.errors import InputError
from lapilli.kernels import library
from lapilli.kernels.attention import paged_attention, paged_attention_reference


@dataclass
class Case:
    q: Tensor
    k: Tensor
    v: Tensor
    tables: Tensor
    contexts: Tensor
    scale: float

    def rows(self, rows: slice, **options: int) -> Tensor:
        return paged_attention(
            self.q[rows], self.k, self.v, self.tables[rows], self.contexts[rows], self.scale, **options
        )


def random_case(T: int, heads: int, R: int, D: int, S: int, dtype: torch.dtype, seed: int, longest: int = 90) -> Case:
    draw = torch.Generator().manual_seed(seed)
    pages = -(-longest // S)
    P = T * pages + 3
    return Case(
        torch.randn(T, heads * R, D, generator=draw),
        torch.randn(P, S, heads, D, generator=draw).to(dtype),
        torch.randn(P, S, heads, D, generator=draw).to(dtype),
        torch.randperm(P, generator=draw)[: T * pages].view(T, pages).int(),
        torch.randint(1, longest + 1, (T,), generator=draw, dtype=torch.int32),
        D**-0.5,
    )


@pytest.fixture(params=[None, "avx512", "avx2", "torch"])
def forced(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if request.param:
        monkeypatch.setenv(library.VARIABLE, request.param)
    library.kernels.cache_clear()
    try:
        library.kernels()
    except InputError:
        pytest.skip("not to be had here")
    yield
    monkeypatch.undo()
    library.kernels.cache_clear()


@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("T", "heads", "R", "D", "S"), [(5, 2, 4, 64, 16), (3, 1, 1, 128, 8), (4, 4, 3, 80, 32), (2, 1, 2, 24, 16)]
)
@pytest.mark.parametrize("window", [None, 1, 20])
def test_answers_are_those_of_torch(
    T: int, heads: int, R: int, D: int, S: int, dtype: torch.dtype, window: int | None
) -> None:
    case = random_case(T, heads, R, D, S, dtype, seed=T)
    got = case.rows(slice(None), window=window)
    for row in range(T):
        context = int(case.contexts[row])
        first = max(0, context - window) if window else 0
        k = case.k[case.tables[row].long()].flatten(0, 1)[first:context].float().transpose(0, 1)
        v = case.v[case.tables[row].long()].flatten(0, 1)[first:context].float().transpose(0, 1)
        expected = torch.nn.functional.scaled_dot_product_attention(
            case.q[row][None, :, None], k[None], v[None], scale=case.scale, enable_gqa=True
        )
        torch.testing.assert_close(got[row], expected[0, :, 0], rtol=1e-5, atol=1e-5)


@given(
    st.integers(1, 6),
    st.integers(1, 4),
    st.integers(1, 9),
    st.sampled_from([16, 32, 48, 64]),
    st.integers(1, 40),
    st.integers(1, 200),
    st.booleans(),
    st.one_of(st.none(), st.integers(1, 64)),
    st.integers(0, 2**32),
)
@settings(max_examples=40, deadline=None)
def test_answers_are_those_of_the_reference(
    T: int, heads: int, R: int, D: int, S: int, longest: int, half: bool, window: int | None, seed: int
) -> None:
    case = random_case(T, heads, R, D, S, torch.bfloat16 if half else torch.float32, seed, longest)
    case.q *= 5
    expected = paged_attention_reference(case.q, case.k, case.v, case.tables, case.contexts, case.scale, window)
    torch.testing.assert_close(case.rows(slice(None), window=window), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_has_the_same_bits_alone_and_in_company(dtype: torch.dtype) -> None:
    case = random_case(24, 4, 8, 64, 16, dtype, seed=0, longest=300)
    together = case.rows(slice(None))
    for row in range(24):
        assert torch.equal(case.rows(slice(row, row + 1))[0], together[row])
    assert torch.equal(case.rows(slice(5, 12)), together[5:12])


@pytest.mark.usefixtures("forced")
def test_what_lies_past_a_context_or_in_other_rows_does_not_matter() -> None:
    case = random_case(3, 2, 2, 32, 16, torch.float32, seed=0)
    before = case.rows(slice(None))
    context = int(case.contexts[1])
    page, place = int(case.tables[1, (context - 1) // 16]), (context - 1) % 16
    case.k[page, place + 1 :] = float("nan")
    case.v[page, place + 1 :] = float("nan")
    case.q[0] = float("nan")
    after = case.rows(slice(None))
    assert torch.equal(before[1:], after[1:])
    assert after[0].isnan().all()


def test_pages_of_one_layer_among_many() -> None:
    case = random_case(3, 2, 2, 32, 16, torch.bfloat16, seed=0)
    layers = torch.stack([case.k, case.v, case.k], dim=1)
    layered = Case(case.q, layers[:, 0], layers[:, 1], case.tables, case.contexts, case.scale)
    assert torch.equal(layered.rows(slice(None)), case.rows(slice(None)))


def test_types_and_no_rows() -> None:
    case = random_case(3, 2, 2, 32, 16, torch.bfloat16, seed=0)
    assert case.rows(slice(0, 0)).shape == (0, 4, 32)
    case.q = case.q.bfloat16()
    assert case.rows(slice(None)).dtype == torch.bfloat16


def test_what_does_not_fit_is_refused() -> None:
    case = random_case(3, 2, 2, 32, 16, torch.float32, seed=0)
    for change, message in [
        ({"q": case.q[:, :3]}, "do not fit keys"),
        ({"tables": case.tables.long()}, "int64"),
        ({"contexts": case.contexts[:2]}, "3 queries"),
        ({"contexts": case.contexts * 0}, "contexts of 0 to 0"),
        ({"contexts": case.contexts + 1000}, "1 to 96"),
        ({"tables": case.tables + 1000}, "of 21"),
        ({"k": case.k.half(), "v": case.v.half()}, "float16"),
    ]:
        with pytest.raises(InputError, match=message):
            Case(**{**vars(case), **change}).rows(slice(None))
    with pytest.raises(InputError, match="window of 0"):
        case.rows(slice(None), window=0)
