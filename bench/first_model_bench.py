"""The first real model, at its true size: Ollama's package of LLaVA 1.6 (random weights), pulled and asked.

python bench/first_model_bench.py                     # 10 GB of disk, 6 GB of memory
python bench/first_model_bench.py --hub               # instead, llava-1.5-7b-hf as a folder, opened in 4 bits: 15 GB
python bench/first_model_bench.py --folder /big/disk --picture photo.jpg
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

import hub_folder
import llava_package
from faulty_registry import FaultyRegistry
from numbers_page import Section, publish
from PIL import Image

GB = 1e9


@dataclasses.dataclass
class Ran:
    """A command that ended: what it printed, how long it took, its largest resident memory (mapped files included)."""

    text: str
    seconds: float
    peak_bytes: int


def run(folder: Path, registry: FaultyRegistry, *arguments: str) -> Ran:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LAPILLI_", "OLLAMA_"))}
    # Nobody serves at this port: the model is opened in the command itself.
    environment |= {"LAPILLI_MODELS": str(folder), "LAPILLI_HOST": "127.0.0.1:9"}
    environment["LAPILLI_ALLOWED_REGISTRIES"] = registry.host
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out:
        command = [sys.executable, "-m", "lapilli", *arguments]
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=out)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"lapilli {' '.join(arguments)} ended with {process.returncode}")
        out.seek(0)
        return Ran(out.read(), time.perf_counter() - began, used.ru_maxrss * 1024)


def photo(path: Path, side: int) -> Path:
    Image.effect_mandelbrot((side, side), (-3, -2.5, 2, 2.5), 100).convert("RGB").save(path)
    return path


def ask(folder: Path, registry: FaultyRegistry, model: str, args: argparse.Namespace, *more: str) -> list[list[object]]:
    """Open a model for nothing, then ask it about a picture: the rows of the table."""
    loaded = run(folder, registry, "run", model, *more)
    picture = args.picture or photo(folder / "photo.png", 336)
    question = ("run", model, "What is in this picture?", str(picture), "--max-tokens", str(args.tokens), "--json")
    asked = run(folder, registry, *question, *more)
    told = json.loads(asked.text.splitlines()[-1])
    read, said = told["prompt_tokens"], told["completion_tokens"]
    reading, saying = read / told["prefill_seconds"], (said - 1) / told["decode_seconds"]
    return [
        row("run without a prompt: start, open, end", loaded.seconds, loaded),
        row(f"run on a picture: {read} tokens read, {said} said", asked.seconds, asked),
        row("of that: opening", told["load_seconds"]),
        row(f"of that: the picture, {told['image_tokens']} tokens", told["image_seconds"]),
        row(f"of that: reading, {reading:.1f} tokens a second", told["prefill_seconds"]),
        row(f"of that: saying, {saying:.2f} tokens a second", told["decode_seconds"]),
    ]


def row(what: str, seconds: float, ran: Ran | None = None) -> list[object]:
    return [what, f"{seconds:.1f}", f"{ran.peak_bytes / GB:.2f}" if ran else ""]


def package(folder: Path, registry: FaultyRegistry, args: argparse.Namespace) -> Section:
    sizes = dataclasses.replace(llava_package.FULL, layers=args.layers)
    llava_package.write_model(folder / "model", sizes)
    llava_package.write_projector(folder / "projector", sizes)
    parts = [(folder / part).stat().st_size / GB for part in ("model", "projector")]
    size = llava_package.serve(registry, "library/llava:latest", folder / "model", folder / "projector")
    model, store = f"{registry.host}/library/llava", folder / "store"
    pulled = run(store, registry, "pull", "--insecure", model)
    fetched = registry.sent / size
    run(store, registry, "cp", model, "llava")
    section = Section("The first real model")
    section.add(
        f"Ollama's package `llava` in its own layers, with random weights: {sizes.layers} layers, model "
        f"{parts[0]:.2f} GB, projector {parts[1]:.2f} GB without `clip.projector_type`. `lapilli pull` from a registry "
        "on loopback, then `lapilli run`, each a process of its own. Memory is the largest resident set: the file "
        "itself is part of it, mapped and shared."
    )
    rows = [row(f"pull, {fetched:.2f} bytes received for a byte", pulled.seconds, pulled)]
    section.table(["step", "seconds", "memory in GB"], rows + ask(store, registry, "llava", args))
    return section


def from_hub(folder: Path, registry: FaultyRegistry, args: argparse.Namespace) -> Section:
    sizes = dataclasses.replace(hub_folder.FULL, layers=args.layers)
    hub_folder.write_folder(folder / "llava-1.5-7b-hf", sizes)
    size = sum(file.stat().st_size for file in (folder / "llava-1.5-7b-hf").iterdir()) / GB
    section = Section("The first real model, from the hub")
    section.add(
        f"`llava-hf/llava-1.5-7b-hf` as a folder, with random weights: {sizes.layers} layers, {size:.2f} GB in half "
        "precision, brought to 4 bits as it is opened (`--quantize int4`). Each step is a process of its own, memory "
        "its largest resident set; pages of files that were read are part of it until the system wants them back."
    )
    rows = ask(folder, registry, str(folder / "llava-1.5-7b-hf"), args, "--quantize", "int4")
    section.table(["step", "seconds", "memory in GB"], rows)
    return section


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hub", action="store_true", help="the layout of the Hugging Face hub instead of Ollama's")
    parser.add_argument("--folder", type=Path, help="where there is room; a temporary one by default")
    parser.add_argument("--picture", type=Path, help="what to ask about; a drawn one of 336 x 336 by default")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--layers", type=int, default=llava_package.FULL.layers, help="fewer, to try the script")
    parser.add_argument("--write", action="store_true", help="put the section into docs/numbers.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="first-model-") as name, FaultyRegistry() as registry:
        publish((from_hub if args.hub else package)(Path(name), registry, args))


if __name__ == "__main__":
    main()
