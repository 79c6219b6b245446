"""The build hook: compile the CPU kernels where a compiler is there; without them the package runs on plain torch."""

from __future__ import annotations

import runpy
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

KERNELS = Path("src", "lapilli", "kernels")


class KernelsHook(BuildHookInterface):
    """A wheel with kernels is for one platform and any Python 3; one without is for every platform."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        folder = Path(self.root) / KERNELS
        recipe = runpy.run_path(str(folder / "build.py"))
        problem = recipe["build"](folder / recipe["LIBRARY"])
        if problem is not None:
            self.app.display_warning(f"lapilli: no CPU kernels, plain torch is used instead: {problem}")
            return
        build_data["artifacts"].append((KERNELS / recipe["LIBRARY"]).as_posix())
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
