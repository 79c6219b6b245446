# The server for a machine without an accelerator, kernels compiled.
#
#   docker build -t lapilli .
#   docker run -p 11434:11434 -v lapilli:/models -e LAPILLI_API_KEYS=a-long-secret lapilli
#
# docs/install.md says more; with CUDA, build with --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130

FROM python:3.12-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY src src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# torch runs on OpenMP, and our kernels on the same one.
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" "torch>=2.11"
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels pip install --no-cache-dir /wheels/*.whl
RUN useradd --uid 10001 --create-home lapilli && install -d -o lapilli -g lapilli /models
USER lapilli
VOLUME /models
# Other machines reach this address, so the server does not start without LAPILLI_API_KEYS.
ENV LAPILLI_HOST=0.0.0.0:11434 LAPILLI_MODELS=/models PYTHONDONTWRITEBYTECODE=1
EXPOSE 11434
STOPSIGNAL SIGTERM
HEALTHCHECK --start-period=30s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:11434/healthz', timeout=5)"]
ENTRYPOINT ["lapilli"]
CMD ["serve"]
