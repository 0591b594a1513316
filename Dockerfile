# The ccs-stream and ccs-replay commands, with the LangGraph adapter and the examples.
# BASE is any image with Python 3.11 or newer: docker build --build-arg BASE=python:3.12-slim .
ARG BASE=python:3.11-slim
FROM ${BASE}

WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE CHANGELOG.md ./
COPY schemas schemas
COPY adapters adapters
COPY consumers consumers
COPY replay replay
COPY ccs_stream ccs_stream
RUN python -m pip install --no-cache-dir --disable-pip-version-check --constraint constraints.txt '.[langgraph]' \
  && useradd --create-home --uid 10001 ccs
COPY examples examples

USER ccs
CMD ["ccs-stream", "--help"]
