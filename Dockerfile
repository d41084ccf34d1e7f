# stompbridge and what it loads, and nothing else: no shell, no package manager, no root.
#
#     docker build --tag stompbridge .
#     docker run --rm --read-only --cap-drop all --publish 127.0.0.1:8080:8080 \
#         --env STOMPBRIDGE_LISTEN__HOST=0.0.0.0 --env STOMPBRIDGE_INSECURE=true stompbridge

FROM docker.io/library/debian:bookworm-slim AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3-venv \
    && rm -rf /var/lib/apt/lists/*
# For those who have an index of their own: --build-arg PIP_INDEX_URL=...
ARG PIP_INDEX_URL
RUN python3.11 -m venv /opt/build && python3.11 -m venv --without-pip /opt/stompbridge
WORKDIR /src
COPY . .
RUN /opt/build/bin/pip wheel --no-cache-dir --disable-pip-version-check --no-deps --wheel-dir /wheels . \
    && /opt/build/bin/pip --python /opt/stompbridge/bin/python install --no-cache-dir --disable-pip-version-check \
        --only-binary :all: --no-compile /wheels/*.whl

# The interpreter and the libraries that it and the wheels need, unpacked from Debian's packages.
FROM build AS root
WORKDIR /packages
RUN apt-get update \
    && apt-get download gcc-12-base libbz2-1.0 libc6 libcrypt1 libexpat1 libffi8 libgcc-s1 liblzma5 \
        libpython3.11-minimal libpython3.11-stdlib libssl3 libstdc++6 libuuid1 python3.11-minimal zlib1g \
    && mkdir -p /image/var/lib/dpkg/status.d \
    && for package in *.deb; do \
        dpkg-deb --extract "$package" /image \
            && dpkg-deb --field "$package" > "/image/var/lib/dpkg/status.d/${package%%_*}" || exit; \
    done
COPY --from=build /opt/stompbridge /image/opt/stompbridge
# Nobody can write compiled modules later. Their hashes are not checked: the files do not change, their times may.
RUN python3.11 -m compileall -q -j 0 -s /image --invalidation-mode unchecked-hash \
        /image/usr/lib/python3.11 /image/opt/stompbridge \
    && find /image/usr/share -type f ! -name copyright -delete \
    && find /image/usr/share -depth -type d -empty -delete \
    && rm -rf /image/opt/stompbridge/bin/[Aa]ctivate* /image/usr/lib/*/gconv /image/etc/* \
    && mkdir -p /image/etc/ssl/certs /image/etc/stompbridge /image/tmp \
    && chmod 1777 /image/tmp \
    && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
    && echo 'hosts: files dns' > /image/etc/nsswitch.conf \
    && echo 'stompbridge:x:10001:10001::/:/usr/sbin/nologin' > /image/etc/passwd \
    && echo 'stompbridge:x:10001:' > /image/etc/group

FROM scratch
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="stompbridge" \
      org.opencontainers.image.description="A bridge from STOMP over WebSocket to RabbitMQ" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.licenses="MIT"
COPY --from=root /image /
ENV PATH=/opt/stompbridge/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
USER 10001:10001
# Clients; health, metrics and control, which stay inside the container unless the configuration says otherwise.
EXPOSE 8080 8081
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s CMD ["stompbridge", "ready"]
ENTRYPOINT ["stompbridge"]
CMD ["serve"]
