# The ledger as an image: what requirements.lock pins and the wheel, nothing else; no root, and no
# need to write outside its volumes (docker-compose.federated.yml mounts the rest read-only).
# The base is pinned by digest, and none is guessed here: --build-arg PYTHON_DIGEST=sha256:...
# of a python:3.11-slim or newer.
# tests/acceptance/test_wheel.py runs the RUN lines of the first stage, with places of its own.
ARG PYTHON_DIGEST

FROM docker.io/library/python@${PYTHON_DIGEST} AS build
WORKDIR /source
COPY requirements.lock ./
RUN python3 -m venv --without-pip /opt/fedledger
RUN python3 -m pip --python /opt/fedledger/bin/python install --require-hashes --requirement /source/requirements.lock
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY ledger ledger
COPY projections projections
COPY ca ca
COPY api api
COPY migrations migrations
RUN python3 -m pip --python /opt/fedledger/bin/python wheel --no-deps --no-build-isolation --wheel-dir /wheel /source
RUN python3 -m pip --python /opt/fedledger/bin/python install --no-deps --no-index --find-links /wheel fedledger

FROM docker.io/library/python@${PYTHON_DIGEST}
COPY --from=build /opt/fedledger /opt/fedledger
COPY --chmod=0755 containers/entrypoint.sh /usr/local/bin/entrypoint.sh
# A new volume takes owner and mode of the place it is mounted on.
RUN install -d -o 1000 -g 1000 -m 0700 /var/lib/fedledger /home/step /home/step/db /home/step/for-ledger
ENV PATH=/opt/fedledger/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/var/lib/fedledger \
    FEDLEDGER_HOME=/var/lib/fedledger
USER 1000:1000
WORKDIR /var/lib/fedledger
ENTRYPOINT ["/usr/local/bin/entrypoint.sh"]
CMD ["fedledger", "serve"]
