# The image of every role: `docker run headrace worker ROLE`. Non-root; needs a writable /tmp and nothing else.
FROM python:3.11-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
COPY requirements/core.txt requirements/build.txt requirements/
# Wheels only and every one by its hash: nothing is compiled here, and nothing is fetched that the lock does not name.
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv /opt/headrace && \
    /opt/headrace/bin/pip install --only-binary :all: --require-hashes --requirement requirements/core.txt && \
    python -m venv /opt/build && \
    /opt/build/bin/pip install --only-binary :all: --require-hashes --requirement requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY pipeline pipeline
COPY workers workers
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --no-index --wheel-dir /wheel . && \
    /opt/headrace/bin/pip install --no-deps --no-index /wheel/*.whl

FROM python:3.11-slim
# Small matrix products are several times faster without BLAS' own threads. Compiled kernels are kept in a volume that
# the roles share: without it every start would compile them again.
ENV PATH=/opt/headrace/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    OPENBLAS_NUM_THREADS=1 \
    NUMBA_CACHE_DIR=/var/cache/headrace
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin headrace && \
    install --directory --owner 10001 --group 10001 /var/cache/headrace
COPY --from=build /opt/headrace /opt/headrace
USER 10001:10001
VOLUME /var/cache/headrace
ENTRYPOINT ["headrace"]
CMD ["--help"]
