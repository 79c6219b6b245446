"""Attention of single queries over pages of keys and values: the step that writes one token for each of many sequences.

A row's sums run over its own places in order, so they do not depend on the rows beside it.
Names of shapes: T queries, H heads, D numbers a head; P pages of S places, K heads of keys and values (H a multiple).
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from lapilli.errors import InputError
from lapilli.kernels.library import AttentionJob, kernels

DTYPES = {torch.float32: 0, torch.bfloat16: 1}
LANES = 16  # the compiled kernel takes heads of whole vectors


def paged_attention(
    q_THD: Tensor,
    k_PSKD: Tensor,
    v_PSKD: Tensor,
    tables: Tensor,
    contexts: Tensor,
    scale: float,
    window: int | None = None,
) -> Tensor:
    """Each query's answer (T, H, D) from the places 0 to contexts[t] - 1 of its own sequence.

    tables (T, pages) has each sequence's pages in order, contexts (T,) how many places it has, both int32; with a
    window only the last so many places count. Pages are float32 or bfloat16, sums are float32, the answer has q's type.
    Raises InputError for shapes and types that do not fit, and for places outside the pages.
    """
    _check(q_THD, k_PSKD, v_PSKD, tables, contexts, window)
    chosen = kernels()
    T, H, D = q_THD.shape
    if T == 0 or chosen.attend is None or D % LANES or k_PSKD.stride(3) != 1 or v_PSKD.stride(3) != 1:
        return paged_attention_reference(q_THD, k_PSKD, v_PSKD, tables, contexts, scale, window)
    q, tables, contexts = q_THD.float().contiguous(), tables.contiguous(), contexts.contiguous()
    out = torch.empty((T, H, D))
    job = AttentionJob(
        q.data_ptr(),
        k_PSKD.data_ptr(),
        v_PSKD.data_ptr(),
        tables.data_ptr(),
        contexts.data_ptr(),
        out.data_ptr(),
        *(T, H, k_PSKD.shape[2], D, k_PSKD.shape[1], tables.shape[1], window or 0, int(contexts.max())),
        k_PSKD.stride()[:3],
        v_PSKD.stride()[:3],
        scale,
        DTYPES[k_PSKD.dtype],
    )
    chosen.attend(ctypes.addressof(job), torch.get_num_threads(), chosen.level)
    return out.to(q_THD.dtype)


def paged_attention_reference(
    q_THD: Tensor,
    k_PSKD: Tensor,
    v_PSKD: Tensor,
    tables: Tensor,
    contexts: Tensor,
    scale: float,
    window: int | None = None,
) -> Tensor:
    """`paged_attention` in plain torch, a row at a time."""
    heads, D = k_PSKD.shape[2:]
    rows = []
    for q_HD, table, context in zip(q_THD.float(), tables.long(), contexts.tolist(), strict=True):
        first = max(0, context - window) if window else 0
        k_CKD = k_PSKD[table].flatten(0, 1)[first:context].float()
        v_CKD = v_PSKD[table].flatten(0, 1)[first:context].float()
        score_KRC = torch.einsum("krd,ckd->krc", q_HD.view(heads, -1, D), k_CKD) * scale
        rows.append(torch.einsum("krc,ckd->krd", score_KRC.softmax(dim=-1), v_CKD).flatten(0, 1))
    return torch.stack(rows).to(q_THD.dtype) if rows else torch.empty_like(q_THD)


def _check(q: Tensor, k: Tensor, v: Tensor, tables: Tensor, contexts: Tensor, window: int | None) -> None:
    if q.ndim != 3 or k.ndim != 4 or k.shape != v.shape or k.shape[3] != q.shape[2] or q.shape[1] % k.shape[2]:
        raise InputError(f"queries {tuple(q.shape)} do not fit keys {tuple(k.shape)} and values {tuple(v.shape)}")
    if k.dtype not in DTYPES or v.dtype != k.dtype or tables.dtype != torch.int32 or contexts.dtype != torch.int32:
        raise InputError(
            f"pages are {k.dtype} and {v.dtype}, tables {tables.dtype}, contexts {contexts.dtype}; "
            "pages may be float32 or bfloat16, the others are int32"
        )
    if tables.ndim != 2 or len(tables) != len(q) or contexts.shape != (len(q),):
        raise InputError(f"{len(q)} queries, but tables {tuple(tables.shape)} and contexts {tuple(contexts.shape)}")
    if window is not None and window < 1:
        raise InputError(f"a window of {window} places; it needs 1 at least, or None")
    if len(q) == 0:
        return
    shortest, longest = int(contexts.min()), int(contexts.max())
    if shortest < 1 or longest > tables.shape[1] * k.shape[1]:
        raise InputError(
            f"contexts of {shortest} to {longest} places, where a row's pages have 1 to {tables.shape[1] * k.shape[1]}"
        )
    if int(tables.min()) < 0 or int(tables.max()) >= len(k):
        raise InputError(f"tables name pages {int(tables.min())} to {int(tables.max())} of {len(k)}")
