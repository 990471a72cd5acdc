# The gateway, and `darkroom keys`: HTTP and Redis, no torch.
#
#   docker build --file docker/gateway.Dockerfile --tag darkroom-gateway:0.1.0 .

ARG PYTHON=python:3.12.14-slim-bookworm

# A stage of its own, so that pyproject.toml may change without all being installed again.
FROM ${PYTHON} AS wanted
ARG EXTRAS=tracing
WORKDIR /build
COPY pyproject.toml docker/requirements.py ./
RUN python requirements.py "${EXTRAS}" > requirements.txt

FROM ${PYTHON} AS dependencies
WORKDIR /build
# Debian keeps one version of a package at a time, so to name it would break the next build.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends binutils \
    && rm -rf /var/lib/apt/lists/* \
    && python -m venv --without-pip /opt/darkroom
COPY constraints.txt ./
COPY --from=wanted /build/requirements.txt ./
# A gateway downloads nothing from the hub, and nobody debugs these libraries here: 40 MB less. So are
# 15 MB by bytecode for what is used alone, below.
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/darkroom/bin/python install --disable-pip-version-check --no-compile \
        --constraint constraints.txt --requirement requirements.txt \
    && pip --python /opt/darkroom/bin/python uninstall --yes hf-xet \
    && find /opt/darkroom -name '*.so' -not -path '*/PIL/*' -exec strip --strip-unneeded {} +

FROM dependencies AS package
COPY pyproject.toml README.md LICENSE ./
COPY server ./server
# What builds the package is pinned too, and pip tells it of constraints by the environment alone.
# The demo checkpoint's weights are for workers.
RUN --mount=type=cache,target=/root/.cache/pip \
    PIP_CONSTRAINT=/build/constraints.txt pip --python /opt/darkroom/bin/python install \
        --disable-pip-version-check --no-compile --no-deps --root /out . \
    && find /out -name '*.safetensors' -delete

FROM ${PYTHON}
RUN groupadd --gid 10001 darkroom \
    && useradd --uid 10001 --gid darkroom --home-dir /var/lib/darkroom --no-create-home \
        --shell /usr/sbin/nologin darkroom \
    && install --directory --owner darkroom --group darkroom --mode 0750 /var/lib/darkroom \
        /var/cache/huggingface \
    && python -m pip uninstall --yes --quiet --root-user-action ignore pip \
    && rm -rf /usr/local/lib/python3.12/ensurepip
COPY --from=dependencies /opt/darkroom /opt/darkroom
COPY --from=package /out/opt/darkroom /opt/darkroom
COPY docker/health.py /opt/darkroom/health.py
# Bytecode cannot be written where the file system is read-only, and the base image's standard library
# has none either: here, for all of Darkroom and for what it imports.
RUN /opt/darkroom/bin/python -m compileall -q /opt/darkroom/lib/python3.12/site-packages/server \
    && /opt/darkroom/bin/python -c "import server.cli, server.gateway, server.tracing.otlp"
ENV PATH=/opt/darkroom/bin:${PATH} \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/var/lib/darkroom \
    HF_HOME=/var/cache/huggingface \
    HF_HUB_OFFLINE=1 \
    DARKROOM_DATA_DIR=/var/lib/darkroom \
    DARKROOM_HOST=0.0.0.0 \
    DARKROOM_PORT=8000 \
    DARKROOM_METRICS_HOST=0.0.0.0 \
    DARKROOM_METRICS_PORT=9100 \
    DARKROOM_LOG_FORMAT=json
WORKDIR /etc/darkroom
USER 10001:10001
VOLUME /var/lib/darkroom
EXPOSE 8000 9100
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["/opt/darkroom/bin/python", "-IS", "/opt/darkroom/health.py", "http://127.0.0.1:8000/healthz"]
ENTRYPOINT ["darkroom"]
CMD ["gateway"]
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Darkroom gateway" \
      org.opencontainers.image.description="The HTTP part of Darkroom, an inference server for Stable Diffusion" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
