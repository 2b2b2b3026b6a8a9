# API, dispatcher, completion consumer, scheduler and the commands: no torch, no embedded servers.
# docker build -f deploy/images/control-plane.Dockerfile -t registry.example/easel/control-plane:0.2.0 .
FROM python:3.11-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
WORKDIR /src
# Every file is one whose hash is locked. Sources are built with the locked setuptools.
COPY requirements ./requirements
RUN /opt/venv/bin/pip install --require-hashes -r requirements/build.lock && \
    /opt/venv/bin/pip install --require-hashes --no-deps --no-build-isolation \
        -r requirements/base.lock -r requirements/parquet.lock
COPY . .
RUN /opt/venv/bin/pip install --no-deps --no-build-isolation . && /opt/venv/bin/pip check

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin easel
COPY --from=build /opt/venv /opt/venv
# The root file system is read-only, so Python can't write bytecode; pip has compiled it already.
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp EASEL_HOME=/var/lib/easel
USER 10001:10001
EXPOSE 8000
ENTRYPOINT ["easel"]
CMD ["api", "--host", "0.0.0.0"]
