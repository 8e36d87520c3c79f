# Targets: service (the default), service-gpu, export. What each is for: deploy/README.md.
# For a build that can be repeated byte for byte, give the base with its digest:
#   docker build --build-arg PYTHON_IMAGE=python:3.11.11-slim-bookworm@sha256:<digest> .
ARG PYTHON_IMAGE=python:3.11.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY service service
# Without pip of its own: what runs in production installs nothing.
RUN python -m venv --without-pip /opt/ovsam \
    && python -m pip --python /opt/ovsam/bin/python install --constraint requirements.lock '/src[tracing]'

FROM build AS build-gpu
ARG ONNXRUNTIME_GPU_VERSION=1.23.2
# Both wheels fill the folder `onnxruntime`, so the one for processors leaves first; CUDA's libraries come as wheels too.
RUN python -m pip --python /opt/ovsam/bin/python uninstall --yes onnxruntime \
    && python -m pip --python /opt/ovsam/bin/python install "onnxruntime-gpu[cuda,cudnn]==${ONNXRUNTIME_GPU_VERSION}"

FROM ${PYTHON_IMAGE} AS runtime
ENV PATH=/opt/ovsam/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/var/cache/ovsam \
    OVSAM_CACHE_DIR=/var/cache/ovsam \
    OVSAM_MODEL_REPOSITORY=/models
# Any user may write here when nothing is mounted; all else is read only.
RUN install -d -m 1777 /var/cache/ovsam
COPY model_repository /models
COPY LICENSE /opt/LICENSE
WORKDIR /var/cache/ovsam
USER 10001:10001
# HTTP, gRPC and, where OVSAM_METRICS_PORT says so, metrics.
EXPOSE 8000 9000 9464
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-m", "service.health"]
ENTRYPOINT ["ovsam"]
CMD ["serve", "--host", "0.0.0.0"]

FROM runtime AS service-gpu
ENV LD_LIBRARY_PATH=/opt/ovsam/lib/python3.11/site-packages/nvidia/cublas/lib:/opt/ovsam/lib/python3.11/site-packages/nvidia/cuda_runtime/lib:/opt/ovsam/lib/python3.11/site-packages/nvidia/cudnn/lib:/opt/ovsam/lib/python3.11/site-packages/nvidia/cufft/lib:/opt/ovsam/lib/python3.11/site-packages/nvidia/curand/lib:/opt/ovsam/lib/python3.11/site-packages/nvidia/cuda_nvrtc/lib:/opt/ovsam/lib/python3.11/site-packages/nvidia/nvjitlink/lib
COPY --from=build-gpu /opt/ovsam /opt/ovsam
LABEL org.opencontainers.image.title="ovsam-gpu" \
      org.opencontainers.image.description="Open-Vocabulary SAM inference service, embedded engine on a GPU" \
      org.opencontainers.image.licenses="Apache-2.0"

FROM ${PYTHON_IMAGE} AS export
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/export/bin:/usr/local/bin:/usr/bin:/bin
WORKDIR /src
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY service service
COPY export export
RUN python -m venv /opt/export \
    && /opt/export/bin/pip install --constraint requirements.lock --editable '/src[export]'
USER 10001:10001
LABEL org.opencontainers.image.title="ovsam-export" \
      org.opencontainers.image.description="Exports and trains models for the Open-Vocabulary SAM inference service" \
      org.opencontainers.image.licenses="Apache-2.0"
ENTRYPOINT ["python", "-m", "export"]
CMD ["--help"]

# Last, so that a build without --target makes this one.
FROM runtime AS service
ARG VERSION=0.1.0
ARG REVISION=unknown
COPY --from=build /opt/ovsam /opt/ovsam
LABEL org.opencontainers.image.title="ovsam" \
      org.opencontainers.image.description="Open-Vocabulary SAM inference service: click or box an object, get its mask and its name" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
