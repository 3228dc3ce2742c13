# One image for every process; torch's CUDA build comes with the same pins (build with GPU=0 for the CPU build).
FROM python:3.12-slim AS build
ARG GPU=1
WORKDIR /podium
RUN python -m venv /opt/podium
COPY constraints.txt pyproject.toml README.md LICENSE ./
RUN /opt/podium/bin/pip install --no-cache-dir --constraint constraints.txt \
        $([ "$GPU" = 1 ] || echo --extra-index-url https://download.pytorch.org/whl/cpu) torch
COPY app app
COPY trainer trainer
COPY migrations migrations
COPY frontend frontend
RUN /opt/podium/bin/pip install --no-cache-dir --constraint constraints.txt .

FROM python:3.12-slim
# A volume takes over who owns its folder here: without the second one nobody could keep a model.
RUN useradd --create-home --uid 10001 podium \
    && install -d -o podium -g podium /var/lib/podium /home/podium/.cache /home/podium/.cache/huggingface
COPY --from=build /opt/podium /opt/podium
ENV PATH=/opt/podium/bin:$PATH PODIUM_HOME=/var/lib/podium PODIUM_HOST=0.0.0.0 PYTHONUNBUFFERED=1
USER podium
WORKDIR /var/lib/podium
VOLUME /var/lib/podium
EXPOSE 8000 9100
ENTRYPOINT ["podium"]
CMD ["serve"]
