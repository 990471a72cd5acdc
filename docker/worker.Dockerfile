# A worker: one checkpoint on one device.
#
#   docker build --file docker/worker.Dockerfile --tag darkroom-worker:0.1.0 .
#
# Without a GPU, and without gigabytes of CUDA:
#
#   docker build --file docker/worker.Dockerfile --tag darkroom-worker-cpu:0.1.0 \
#     --build-arg BASE=ubuntu:noble-20260610 --build-arg EXTRAS=worker,quantized,tracing \
#     --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu .

# NVIDIA's `base` is enough: torch's wheels bring the CUDA that they were built with (13.0, with
# cuBLAS, cuDNN and NCCL), and triton its assembler. Only the driver comes from the host, and what
# asks for it is in `base`; `runtime` and `devel` would hold the same libraries a second time.
ARG BASE=nvidia/cuda:13.0.3-base-ubuntu24.04

FROM ${BASE} AS system
# The compiler and Python's headers are for triton and DARKROOM_COMPILE=blocks, in each container.
# Ubuntu keeps one version of a package at a time, so to name it would break the next build.
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        ca-certificates g++ gcc libc6-dev python3.12 python3.12-dev \
    && rm -rf /var/lib/apt/lists/*

# A stage of its own, so that pyproject.toml may change without all being installed again.
FROM system AS wanted
ARG EXTRAS=worker,xformers,quantized,tracing
WORKDIR /build
COPY pyproject.toml docker/requirements.py ./
RUN python3.12 requirements.py "${EXTRAS}" > requirements.txt

FROM system AS dependencies
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        python3.12-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3.12 -m venv /opt/pip \
    && python3.12 -m venv --without-pip /opt/darkroom
WORKDIR /build
COPY constraints.txt ./
COPY --from=wanted /build/requirements.txt ./
ARG TORCH_INDEX=""
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/pip/bin/pip --python /opt/darkroom/bin/python install --disable-pip-version-check \
        ${TORCH_INDEX:+--extra-index-url="${TORCH_INDEX}"} \
        --constraint constraints.txt --requirement requirements.txt

FROM dependencies AS package
COPY pyproject.toml README.md LICENSE ./
COPY server ./server
# What builds the package is pinned too, and pip tells it of constraints by the environment alone.
RUN --mount=type=cache,target=/root/.cache/pip \
    PIP_CONSTRAINT=/build/constraints.txt /opt/pip/bin/pip --python /opt/darkroom/bin/python \
        install --disable-pip-version-check --no-deps --root /out .

FROM system
RUN groupadd --gid 10001 darkroom \
    && useradd --uid 10001 --gid darkroom --home-dir /var/lib/darkroom --no-create-home \
        --shell /usr/sbin/nologin darkroom \
    && install --directory --owner darkroom --group darkroom --mode 0750 /var/lib/darkroom \
        /var/cache/huggingface
# Gigabytes that stay as they are, and then the few megabytes that change with the source.
COPY --from=dependencies /opt/darkroom /opt/darkroom
COPY --from=package /out/opt/darkroom /opt/darkroom
COPY docker/health.py /opt/darkroom/health.py
# The images, and what was compiled, are kept in the data directory; downloads in HF_HOME.
ENV PATH=/opt/darkroom/bin:${PATH} \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/var/lib/darkroom \
    HF_HOME=/var/cache/huggingface \
    HF_HUB_DISABLE_TELEMETRY=1 \
    DARKROOM_DATA_DIR=/var/lib/darkroom \
    DARKROOM_METRICS_HOST=0.0.0.0 \
    DARKROOM_METRICS_PORT=9100 \
    DARKROOM_LOG_FORMAT=json
WORKDIR /etc/darkroom
USER 10001:10001
VOLUME ["/var/lib/darkroom", "/var/cache/huggingface"]
EXPOSE 9100
# It drains: finishes what it draws within DARKROOM_DRAIN_SECONDS, and hands back the rest.
STOPSIGNAL SIGTERM
# Until it has loaded its checkpoint it is not ready, and the first time it downloads it.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30m --retries=3 \
    CMD ["/opt/darkroom/bin/python", "-IS", "/opt/darkroom/health.py", "http://127.0.0.1:9100/readyz"]
ENTRYPOINT ["darkroom"]
CMD ["worker", "--checkpoint", "demo"]
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Darkroom worker" \
      org.opencontainers.image.description="Draws for Darkroom, an inference server for Stable Diffusion" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
