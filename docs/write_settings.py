"""Write docs/settings.md: every setting, out of the code that reads them.

python docs/write_settings.py
"""

from __future__ import annotations

from pathlib import Path

from lapilli.ground.settings import table

PAGE = Path(__file__).with_name("settings.md")

BEFORE = """# Settings

Each setting comes from the first of these that names it: its variable `LAPILLI_…`, Ollama's variable in the second
column, the file `config.toml`, the default. A value that cannot be read ends the command with one line that names the
variable, the value and what is allowed. The file is `~/.config/lapilli/config.toml` (`$XDG_CONFIG_HOME` counts;
`%APPDATA%\\lapilli` on Windows), or the one that `LAPILLI_CONFIG` names:

```toml
host = "0.0.0.0:11434"
api_keys = ["a-long-secret"]
keep_alive = "1h"
max_memory = "12GiB"
```

Durations are written as in Go (`90s`, `1h30m`) or as seconds, amounts of memory as `8GiB`, `500MB` or bytes, lists with
commas between.

"""

AFTER = """
## Not in config.toml

| Variable | What it does |
|---|---|
| `LAPILLI_CONFIG` | The file to read instead of the user's `config.toml`. |
| `LAPILLI_EDITOR` | The editor that Ctrl-G opens, before `OLLAMA_EDITOR`, `VISUAL` and `EDITOR`. |
| `LAPILLI_KERNELS` | Forces an implementation of the quantized products: `avx512`, `avx2` or `torch`. |
| `LAPILLI_SHARED` | Where the tests find real data. |

## Read, and what becomes of the others

Ollama's variables for its own runtime (`OLLAMA_FLASH_ATTENTION`, `OLLAMA_KV_CACHE_TYPE`, `OLLAMA_GPU_OVERHEAD`,
`OLLAMA_SCHED_SPREAD`, `OLLAMA_LLM_LIBRARY`, `OLLAMA_VULKAN`, `LLAMA_ARG_*`) and its accounts (`OLLAMA_AUTH`,
`OLLAMA_REMOTES`, `OLLAMA_NO_CLOUD`) have nothing to set here and are not read. `OLLAMA_MODELS` names a folder that is
read and never written: models of our own lie in `LAPILLI_MODELS`.
"""


def page() -> str:
    """The whole page."""
    return BEFORE + table() + AFTER


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
