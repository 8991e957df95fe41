# A server of one model, on the CPU.
#   docker build -t flowlm .
#   docker run -p 127.0.0.1:7860:7860 flowlm                  the shipped model
#   docker run -p 127.0.0.1:7860:7860 flowlm hf:owner/name    another one, with options of flowlm serve
FROM python:3.12-slim

WORKDIR /flowlm
# Torch for the CPU, in a layer that changes with its version alone.
COPY constraints.txt ./
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu \
    -c constraints.txt torch
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu \
    -c constraints.txt '.[serve,hub]'

RUN useradd --create-home --uid 1000 flowlm
USER flowlm
WORKDIR /home/flowlm

EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/healthz')"]
ENTRYPOINT ["flowlm", "serve", "--host", "0.0.0.0"]
CMD ["demo"]
