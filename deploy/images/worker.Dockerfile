# A GPU worker. Torch's wheels include CUDA, so only the node's driver is needed besides.
# The weights are not in the image: a volume holds them, which a Job fills ahead (deploy/kubernetes/base/weights.yaml).
# docker build -f deploy/images/worker.Dockerfile -t registry.example/easel/worker:0.2.0 .
FROM python:3.11-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
WORKDIR /src
# Large layers that seldom change come first, so a change of our code rebuilds only the last layer.
# Every file is one whose hash is locked. Sources are built with the locked setuptools.
COPY requirements ./requirements
RUN /opt/venv/bin/pip install --require-hashes -r requirements/build.lock && \
    /opt/venv/bin/pip install --require-hashes --no-deps --no-build-isolation \
        -r requirements/base.lock -r requirements/worker.lock -r requirements/torch.lock
COPY . .
RUN /opt/venv/bin/pip install --no-deps --no-build-isolation . && /opt/venv/bin/pip check

FROM python:3.11-slim-bookworm
# The compiler of the model's kernels needs a C compiler for their launchers. Debian offers only its newest version.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin easel
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp EASEL_HOME=/var/lib/easel \
    HF_HUB_OFFLINE=1 NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
EXPOSE 8001
ENTRYPOINT ["easel-worker"]
