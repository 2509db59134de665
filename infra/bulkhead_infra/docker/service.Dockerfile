# One image per service: its code, its dependencies, and nothing of another's. Needs BuildKit (DOCKER_BUILDKIT=1 before
# Docker 23). From the top of the repository:
#
#   docker build -f infra/bulkhead_infra/docker/service.Dockerfile --build-arg SERVICE=planner -t bulkhead/planner:dev .
#
# SERVICE     a row of infra/bulkhead_infra/docker/image_contents.py: a service, or nats, redis, offline_model, provisioner
# MODULE      what runs, when it is no service: bulkhead_infra.docker.nats_container, ... (infra/bulkhead_infra/docker/images.py knows)
# BASE_IMAGE  any image with Python >= 3.11 and venv; where no registry is to be had: infra/bulkhead_infra/docker/base.sh makes one
# BUILD_IMAGE the same Python with a shell, for the build, when the base has none
# secrets     pip.conf: how to reach a package index; ca.pem: whom to trust behind a proxy that inspects TLS. Both are
#             optional, and there for the build alone: no layer holds them.
ARG BASE_IMAGE=python:3.12-slim
ARG BUILD_IMAGE=${BASE_IMAGE}

FROM ${BUILD_IMAGE} AS pip
RUN python3 -m venv /opt/pip

# Everything for all images at once: the same step for each of them, done once.
FROM pip AS prepared
RUN --mount=type=bind,target=/src python3 -B /src/infra/bulkhead_infra/docker/image_contents.py /prepared

FROM scratch AS lists
ARG SERVICE
COPY --from=prepared /prepared/${SERVICE}/lists /lists

# Packages of every service: one layer for all images, because its input is the same text for all.
FROM pip AS core
COPY infra/bulkhead_infra/docker/install.py /opt/install.py
COPY --from=lists /lists/core.txt /lists/core.txt
RUN --mount=type=secret,id=pip.conf --mount=type=secret,id=ca.pem \
    /opt/pip/bin/python /opt/install.py /lists/core.txt /opt/bulkhead/core

FROM pip AS own
COPY infra/bulkhead_infra/docker/install.py /opt/install.py
COPY --from=lists /lists/own.txt /lists/own.txt
RUN --mount=type=secret,id=pip.conf --mount=type=secret,id=ca.pem \
    /opt/pip/bin/python /opt/install.py /lists/own.txt /opt/bulkhead/own

# Nothing is run here: the base may well be one without a shell.
FROM ${BASE_IMAGE}
COPY --from=core /opt/bulkhead/core /opt/bulkhead/core
COPY --from=own /opt/bulkhead/own /opt/bulkhead/own
ARG SERVICE
COPY --from=prepared /prepared/${SERVICE}/code /opt/bulkhead/code
COPY --from=prepared --chown=10001:10001 /prepared/${SERVICE}/state /bulkhead
ARG MODULE=bulkhead_services.${SERVICE}
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="bulkhead ${SERVICE}" \
      org.opencontainers.image.description="Bulkhead, a production mesh for squads of AI agents: ${SERVICE}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      bulkhead.service="${SERVICE}"
ENV PYTHONPATH=/opt/bulkhead/code:/opt/bulkhead/own:/opt/bulkhead/core:/bulkhead/packs \
    PATH=/opt/bulkhead/own/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    BULKHEAD_MODULE=${MODULE} \
    BULKHEAD_IDENTITY_DIR=/bulkhead/identity \
    BULKHEAD_DATA_DIR=/bulkhead/data \
    BULKHEAD_HEALTH_PORT=8081 \
    BULKHEAD_TRACE=false
# By number: there is no account of that name, and none is needed.
USER 10001:10001
WORKDIR /bulkhead/data
# A probe that finds all well stays for a minute (bulkhead/runtime/process/container_probe.py): the interval counts while it is not.
HEALTHCHECK --interval=10s --timeout=90s --start-period=60s --retries=3 \
    CMD ["python3", "-S", "-P", "-m", "bulkhead.runtime.process.container_probe", "--stay"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["python3", "-P", "-m", "bulkhead.runtime.process.container_start"]
