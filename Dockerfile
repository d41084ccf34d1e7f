# syntax=docker/dockerfile:1

FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv /opt/stompbridge
COPY . .
RUN /opt/stompbridge/bin/pip install --no-cache-dir --disable-pip-version-check .

FROM python:3.11-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin stompbridge
COPY --from=build /opt/stompbridge /opt/stompbridge
ENV PATH=/opt/stompbridge/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1
USER 10001
EXPOSE 8080 8081
ENTRYPOINT ["stompbridge"]
CMD ["serve"]
