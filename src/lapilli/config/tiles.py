"""How LLaVA-NeXT lays a picture of any size on tiles: plain arithmetic, shared by inputs and model."""

from __future__ import annotations

from collections.abc import Sequence


def select_canvas(height: int, width: int, canvases: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The canvas (height, width) that keeps most of a picture, then wastes least (LLaVA-NeXT)."""
    best, best_kept, best_waste = canvases[0], -1, 0
    for canvas_height, canvas_width in canvases:
        scale = min(canvas_width / width, canvas_height / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        waste = canvas_width * canvas_height - kept
        if kept > best_kept or (kept == best_kept and waste < best_waste):
            best, best_kept, best_waste = (canvas_height, canvas_width), kept, waste
    return best


def unpadded_grid(height: int, width: int, tiles: tuple[int, int], grid: int) -> tuple[int, int]:
    """Rows and columns of features left when the padding of a tiled picture is cut off (LLaVA-NeXT)."""
    rows, columns = tiles[0] * grid, tiles[1] * grid
    if width / height > columns / rows:
        kept = int(round(height * (columns / width), 7))
        return rows - 2 * ((rows - kept) // 2), columns
    kept = int(round(width * (rows / height), 7))
    return rows, columns - 2 * ((columns - kept) // 2)
