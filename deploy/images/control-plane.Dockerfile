# API, dispatcher, completion consumer, scheduler and the commands: no torch, no embedded servers.
# docker build -f deploy/images/control-plane.Dockerfile -t registry.example/easel/control-plane:0.2.0 .
FROM python:3.11-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
WORKDIR /src
COPY . .
# The lock lists all extras; as a constraint it pins the packages that are installed and adds none.
RUN /opt/venv/bin/pip install --constraint requirements.lock '.[parquet]'

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin easel
COPY --from=build /opt/venv /opt/venv
# The root file system is read-only, so Python can't write bytecode; pip has compiled it already.
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp EASEL_HOME=/var/lib/easel
USER 10001:10001
EXPOSE 8000
ENTRYPOINT ["easel"]
CMD ["api", "--host", "0.0.0.0"]
