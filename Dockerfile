# One image for every role. Nothing in it is writable by whoever runs it, and it runs as nobody in particular.
FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python -m venv /opt/keyturn
COPY requirements.build.lock requirements.runtime.lock ./
RUN pip install --no-deps --require-hashes -r requirements.build.lock \
 && /opt/keyturn/bin/pip install --no-deps --require-hashes -r requirements.runtime.lock
COPY . .
RUN hatchling build -t wheel -d /dist && /opt/keyturn/bin/pip install --no-deps /dist/*.whl

FROM python:3.13-slim
LABEL org.opencontainers.image.title="Keyturn" \
      org.opencontainers.image.description="Nothing privileged runs until a person turns the key" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/keyturn /opt/keyturn
ENV PATH=/opt/keyturn/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    KEYTURN_STATE=/tmp/keyturn KEYTURN_HEALTH=8080 KEYTURN_HEALTH_HOST=0.0.0.0
USER 10001:10001
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=6 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/livez', timeout=2)"]
ENTRYPOINT ["keyturn"]
CMD ["--help"]
