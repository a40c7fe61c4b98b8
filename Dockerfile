# The one image of the service; its roles are commands of `rates`.
# Another base serves where no public registry can be reached: any Debian whose python3 is 3.11, with its venv module.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE} AS build
WORKDIR /build
COPY requirements/build.txt requirements/app.txt requirements/
RUN python3 -m venv /build/tools \
 && /build/tools/bin/pip install --no-cache-dir --require-hashes --only-binary=:all: -r requirements/build.txt
RUN python3 -m venv /opt/rates \
 && /opt/rates/bin/pip install --no-cache-dir --require-hashes --only-binary=:all: -r requirements/app.txt
COPY pyproject.toml README.md ./
COPY rates_app rates_app
COPY runbooks runbooks
RUN /build/tools/bin/python -m hatchling build --target wheel \
 && /opt/rates/bin/pip install --no-cache-dir --no-index --no-deps dist/*.whl \
 && /opt/rates/bin/pip uninstall --yes pip

FROM ${BASE}
LABEL org.opencontainers.image.title="freight-rates" \
      org.opencontainers.image.description="Freight rates: ingest, serve and watch container prices"
COPY --from=build /opt/rates /opt/rates
COPY sample_data /opt/rates/share/sample_data
# Nothing is written but below /tmp, so that the root can be read-only.
ENV PATH=/opt/rates/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    RATES_DATA_DIR=/tmp/rates
USER 10001:10001
EXPOSE 8080
ENTRYPOINT ["rates"]
CMD ["serve"]
