"""What may reach a terminal, under the name that the commands know it by."""

from __future__ import annotations

from lapilli.faces.terminal import printable, show

__all__ = ["printable", "show"]
