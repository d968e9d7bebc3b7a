# Build: docker build -t oddity .      (podman and buildah: add --format docker, else there is no health check)
# First: docker run --rm -v oddity:/data oddity keys create NAME --scope admin      Run: docker run -p 8000:8000 -v oddity:/data oddity
# The CPU builds of torch and torchvision come from their own index; the registry's Linux torch is the CUDA build.
ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /source
RUN python -m venv /opt/oddity
ENV PATH=/opt/oddity/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN pip install --index-url "${TORCH_INDEX}" "torch>=2.13,<2.14" "torchvision>=0.28,<0.29"
COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY models models
COPY index index
COPY migrations migrations
COPY benchmarks benchmarks
# What is installed is this folder, whose dependencies are bounded in pyproject.toml.
# hadolint ignore=DL3013
RUN pip install ".[otel,postgresql,s3]"

FROM python:${PYTHON}
RUN groupadd --system --gid 10001 oddity \
    && useradd --system --uid 10001 --gid oddity --home-dir /data --shell /usr/sbin/nologin oddity \
    && install --directory --owner=oddity --group=oddity /data
COPY --from=build /opt/oddity /opt/oddity
COPY docker/start.sh docker/healthcheck.py /opt/oddity/bin/
ENV PATH=/opt/oddity/bin:$PATH ODDITY_DATA=/data PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# By number, so that a cluster can see that it is not root.
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "/opt/oddity/bin/healthcheck.py"]
ENTRYPOINT ["/opt/oddity/bin/start.sh"]
