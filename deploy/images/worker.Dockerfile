# A GPU worker. Torch's wheels bring CUDA themselves, so that the node's driver is all that is missing here.
# The weights are not in the image: a volume holds them, which a Job fills ahead (deploy/kubernetes/base/weights.yaml).
# docker build -f deploy/images/worker.Dockerfile -t registry.example/easel/worker:0.1.0 .
FROM python:3.11-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
WORKDIR /src
# First what is large and changes seldom: a change of our code then costs the last layer alone.
COPY requirements.lock ./
RUN /opt/venv/bin/pip install --constraint requirements.lock torch diffusers transformers accelerate torchao huggingface_hub nvidia-ml-py
COPY . .
RUN /opt/venv/bin/pip install --constraint requirements.lock '.[worker]'

FROM python:3.11-slim-bookworm
# The compiler of the model's kernels calls a C compiler for what starts them. Debian keeps its newest version alone.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin easel
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp EASEL_HOME=/var/lib/easel \
    HF_HUB_OFFLINE=1 NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
EXPOSE 8001
ENTRYPOINT ["easel-worker"]
