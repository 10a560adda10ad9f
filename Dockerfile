# FlowKit's command as an image: coordinator, worker and every other verb. Node files are mounted or copied to /app/workers.
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY flowkit flowkit
COPY flowkit_nodes flowkit_nodes
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir '.[all]'

FROM python:3.13-slim
RUN useradd --create-home --uid 10001 flowkit
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /app
USER flowkit
# The exec form: signals reach the process itself, which drains on SIGTERM.
ENTRYPOINT ["flowkit"]
CMD ["--help"]
