"""T37: a model's folder is data."""

from __future__ import annotations

import contextlib
import importlib.resources
import json
import shutil
from pathlib import Path

from lapilli.errors import LapilliError


def test_t37_code_beside_a_model_is_never_imported(tmp_path: Path) -> None:
    from lapilli.engine.local import open_checkpoint

    folder, marker = tmp_path / "model", tmp_path / "marker"
    shutil.copytree(str(importlib.resources.files("lapilli") / "models" / "mini"), folder)
    code = f"open({str(marker)!r}, 'w').close()\nclass Evil: pass\n"
    for name in ("modeling_evil", "configuration_evil", "processing_evil", "tokenization_evil", "__init__", "conftest"):
        (folder / f"{name}.py").write_text(code)
    wanted = {
        "auto_map": {
            "AutoConfig": "configuration_evil.Evil",
            "AutoModelForCausalLM": "modeling_evil.Evil",
            "AutoProcessor": "processing_evil.Evil",
            "AutoTokenizer": ["tokenization_evil.Evil", None],
        },
        "trust_remote_code": True,
    }
    for path in folder.glob("*.json"):
        found = json.loads(path.read_text())
        if isinstance(found, dict) and path.name.endswith("config.json"):
            nested = {
                key: {**value, **wanted} for key, value in found.items() if key in ("text_config", "vision_config")
            }
            path.write_text(json.dumps({**found, **nested, **wanted}))
    with contextlib.suppress(LapilliError):  # refused is as good
        open_checkpoint(folder, device="cpu")
    assert not marker.exists()
