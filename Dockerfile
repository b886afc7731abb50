# The one-off migration container. Build it with `make image`, run it with compose.yaml.
# BASE_IMAGE may be any image with Python 3.11 or newer as python3.
ARG BASE_IMAGE=python:3.13-slim

FROM ${BASE_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
RUN python3 -m venv /opt/venv
WORKDIR /src
COPY requirements.lock ./
RUN /opt/venv/bin/pip install --no-compile --require-hashes --requirement requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY orchestrator orchestrator
COPY rclone_templates rclone_templates
RUN /opt/venv/bin/pip install --no-compile --no-deps --no-build-isolation . \
 && /opt/venv/bin/rclone version \
 && /opt/venv/bin/pip uninstall --yes setuptools pip

FROM ${BASE_IMAGE}
ARG VERSION=dev
LABEL org.opencontainers.image.title="media-orchestrator" \
      org.opencontainers.image.description="Move a Django site's media to the storage that its .env names, and prove it" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}"
COPY --from=build /opt/venv /opt/venv
# Content types come from Python's own table, whatever the base image has in /etc/mime.types.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    MEDIA_ORCHESTRATOR_ENV_FILE=/app/.env \
    MEDIA_ORCHESTRATOR_SOURCE=/app/media \
    MEDIA_ORCHESTRATOR_RUN_DIR=/app/migration-runs \
    MEDIA_ORCHESTRATOR_MIME_TYPES=python
RUN mkdir -p /app/media /app/migration-runs && chown 1000:1000 /app/migration-runs
USER 1000:1000
WORKDIR /app
# As process 1 it ends on SIGTERM by itself: `docker stop` takes seconds, and the run can go on later.
ENTRYPOINT ["media-orchestrator"]
CMD ["--help"]
