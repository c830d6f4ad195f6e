# The server and every command of the project. Each step is a script of docker/, which `make container` runs without Docker.
#   docker build -t colorization .                                                   (CUDA)
#   docker build -t colorization --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu .    (smaller, CPU only)
FROM node:22-slim AS web
COPY frontend /source/frontend
COPY docker/build-web.sh /source/docker/
RUN /source/docker/build-web.sh /source

FROM python:3.11-slim

ARG TORCH_INDEX=""
ENV PATH=/opt/colorization/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    UV_NO_CACHE=1

COPY . /source
COPY --from=web /source/src/colorization/web /source/src/colorization/web
RUN /source/docker/install.sh /source /opt/colorization "$TORCH_INDEX" \
    && cp /source/docker/entrypoint.sh /source/docker/healthcheck.sh /opt/colorization/bin/ \
    && rm -rf /source \
    && useradd --create-home --uid 1000 colorization \
    && mkdir -p /workspace/outputs /workspace/data \
    && chown -R colorization /workspace

USER 1000
WORKDIR /workspace
VOLUME ["/workspace/outputs", "/workspace/data"]
# 6006: tensorboard, see compose.yaml
EXPOSE 5000 6006
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["healthcheck.sh"]
ENTRYPOINT ["entrypoint.sh"]
