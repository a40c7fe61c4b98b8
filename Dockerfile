# The one image of the service; its roles are commands of `rates`. The target `spark` is the same package with Spark.
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

# A separate stage, so that a change of the service does not rebuild Spark.
FROM ${BASE} AS spark-wheels
WORKDIR /build
COPY requirements/build.txt requirements/spark.txt requirements/
# Spark for Python comes as source alone; everything else as wheels.
RUN python3 -m venv tools \
 && tools/bin/pip install --no-cache-dir --require-hashes --only-binary=:all: -r requirements/build.txt \
 && tools/bin/pip wheel --no-cache-dir --require-hashes --no-deps --no-build-isolation \
      --only-binary=:all: --no-binary=pyspark --wheel-dir wheels -r requirements/spark.txt

FROM build AS spark-build
COPY --from=spark-wheels /build/wheels wheels
RUN /build/tools/bin/pip --python /opt/rates/bin/python install --no-cache-dir --no-index --no-deps wheels/*.whl

FROM ${BASE} AS spark
LABEL org.opencontainers.image.title="freight-rates-spark" \
      org.opencontainers.image.description="Freight rates: drivers and executors of big batches"
# Debian keeps no old versions to be pinned. Hadoop asks for the name of the user that it runs as.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends openjdk-17-jre-headless \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --user-group --no-create-home --home-dir /tmp rates
COPY --from=spark-build /opt/rates /opt/rates
COPY spark/ingest.py spark/entrypoint /app/spark/
# Spark's default path.
COPY spark/decom.sh /opt/
ENV PATH=/opt/rates/bin:$PATH \
    SPARK_HOME=/opt/rates/lib/python3.11/site-packages/pyspark \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    RATES_DATA_DIR=/tmp/rates
WORKDIR /tmp
USER 10001:10001
ENTRYPOINT ["/app/spark/entrypoint"]

FROM ${BASE} AS service
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
